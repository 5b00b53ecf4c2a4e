# A marker page's code, for the tests of the helper: the same contract as the tracer's own, without modes and marks.
# Entries for C callables, METH_FASTCALL | METH_KEYWORDS: function(self, args, nargs, kwnames).

.set code_size, 4096
.set slot_stride, 512
.set original, code_size + 16
.set slots, code_size + 4096
.set calls, 24
.set callee, 48

.text
code:
.set slot, 0
.rept 64
    .p2align 4, 0xcc
    mov $slot, %r10d
    jmp method
    .set slot, slot + 1
.endr

method:
    mov %r10d, %eax
    imul $slot_stride, %rax, %rax
    lea code + slots(%rip), %r11
    add %rax, %r11
    # No self: a function of a module. The arguments are as the callee wants them.
    test %rdi, %rdi
    jz function
    # Mostly self lies before the arguments, because the caller had them in one array.
    test %rsi, %rsi
    jz copy
    cmp %rdi, -8(%rsi)
    jne copy
    lea -8(%rsi), %rsi
    inc %rdx
function:
    mov callee(%r11), %rdi
common:
    push %rbx
    mov %r11, %rbx
    call *code + original(%rip)
    incq calls(%rbx)
    pop %rbx
    ret

# A bound method that was kept, or one that C code calls: self is not in the array. Make one that holds it.
copy:
    push %rbp
    mov %rsp, %rbp
    mov %rdx, %rax
    test %rcx, %rcx
    jz 1f
    # Values of keywords follow the positional arguments, one for each name in the tuple.
    add 16(%rcx), %rax
1:
    lea 23(, %rax, 8), %r8
    and $-16, %r8
    sub %r8, %rsp
    # From the end, so that a stack that is too small is met where it grows.
2:
    test %rax, %rax
    jz 3f
    mov -8(%rsi, %rax, 8), %r9
    mov %r9, (%rsp, %rax, 8)
    dec %rax
    jmp 2b
3:
    mov %rdi, (%rsp)
    mov %rsp, %rsi
    inc %rdx
    mov callee(%r11), %rdi
    call common
    leave
    ret

.skip code_size - (. - code), 0xcc
