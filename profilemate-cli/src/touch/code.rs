//! The code of the marker page: position independent machine code, assembled with the tracer and copied as bytes.
//!
//! A call enters at its slot's stub, which loads the slot's number and jumps to the common path. There the call's
//! facts are put into callee-saved registers, the original function is called with exactly the arguments that came,
//! and the slot's counters are kept. Where the slot's mode asks for it, the path writes an entry of the log. Where it
//! asks for an event, the path calls `mark`, a leaf of two nops that a uprobe may sit on. At the mark:
//!
//! | register | value |
//! | --- | --- |
//! | `rbx` | callable |
//! | `r12` | argument array |
//! | `r13` | cycle counter when the call began |
//! | `r14` | keyword names |
//! | `r15` | slot in bits 32..64, number of positional arguments in bits 0..32 |
//! | `r8d` | 0 before the call, 1 after it |
//! | `rax` | result, 0 before the call |
//! | `r9` | cycle counter when the call ended, 0 before the call |
//!
//! The mark is a function of its own so that nothing is live below `rsp` there: a kernel that turns the five-byte
//! nop into a call overwrites what lies below. Frames keep `rbp`, so frame-pointer unwinders walk through.

use profilemate_common::page::{CODE_SIZE, SLOTS};

use super::Error;

/// Bytes from one slot's stub to the next.
const STUB_STRIDE: usize = 16;
/// Where the stubs begin that are entered as a vectorcall.
const VECTORCALL_STUBS: usize = 0;
/// Where the stubs begin that are entered as a C method (`METH_FASTCALL | METH_KEYWORDS`).
const METHOD_STUBS: usize = VECTORCALL_STUBS + SLOTS * STUB_STRIDE;
/// Where the common path begins.
const COMMON: usize = METHOD_STUBS + SLOTS * STUB_STRIDE;
/// Offset of the stub that does the swap list and ends in `rt_sigreturn`.
pub(super) const SWAP_OFFSET_IN_CODE: usize = 0xe00;
/// Offset of the mark's one-byte nop: the kernel emulates it after a breakpoint.
pub const MARK_NOP1_OFFSET: usize = 0xf80;
/// Offset of the mark's five-byte nop, within one cache line: newer kernels turn it into a call.
pub const MARK_NOP5_OFFSET: usize = MARK_NOP1_OFFSET + 1;
/// First offset behind the mark's nops. A uprobe changes only bytes between the first nop and here.
pub(super) const MARK_END: usize = MARK_NOP5_OFFSET + 5;

/// Offset, in the code, of the stub that a redirected `vectorcall` pointer of `slot` points to.
pub const fn vectorcall_stub(slot: u8) -> usize {
    VECTORCALL_STUBS + slot as usize * STUB_STRIDE
}

/// Offset, in the code, of the stub that a C method (`METH_FASTCALL | METH_KEYWORDS`) standing in for the slot's
/// function points to.
pub const fn method_stub(slot: u8) -> usize {
    METHOD_STUBS + slot as usize * STUB_STRIDE
}

const _: () = assert!(COMMON < SWAP_OFFSET_IN_CODE && MARK_END < CODE_SIZE);
const _: () = assert!(MARK_NOP1_OFFSET / 64 == (MARK_END - 1) / 64);

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::mem::offset_of;

    use profilemate_common::page::{
        CODE_SIZE, Head, LOG_ENTRIES, LOG_ENTRIES_OFFSET, LOG_MADE, LOG_OFFSET, LogEntry,
        MODE_COUNT, MODE_ENTRY, MODE_LOG, MODE_RETURN, MODE_SKIP, SLOT_OFFSET, SLOT_STRIDE, SLOTS,
        SWAP_OFFSET, SWAPS, Slot, Swap,
    };

    core::arch::global_asm!(
        ".pushsection .rodata.profilemate_page, \"a\", @progbits",
        ".p2align 6",
        ".hidden profilemate_page_code",
        ".globl profilemate_page_code",
        "profilemate_page_code:",
        ".Lpm_code:",
        // Slot stubs, entered as vectorcallfunc(callable, args, nargsf, kwnames).
        ".set .Lpm_slot, 0",
        ".rept {slots}",
        ".p2align 4, 0xcc",
        "mov r10d, offset .Lpm_slot",
        "jmp .Lpm_common",
        ".set .Lpm_slot, .Lpm_slot + 1",
        ".endr",
        // Slot stubs, entered as a C method (self, args, nargs, kwnames).
        ".set .Lpm_slot, 0",
        ".rept {slots}",
        ".p2align 4, 0xcc",
        "mov r10d, offset .Lpm_slot",
        "jmp .Lpm_method",
        ".set .Lpm_slot, .Lpm_slot + 1",
        ".endr",
        ".p2align 4, 0xcc",
        ".Lpm_method:",
        "mov eax, r10d",
        "imul rax, rax, {slot_stride}",
        "lea r11, [rip + .Lpm_code + {slots_at}]",
        "mov r11, [r11 + rax + {callee}]",
        // No self: a function of a module, whose arguments are as the callee wants them.
        "test rdi, rdi",
        "jz 2f",
        // Mostly self lies right before the arguments, because the caller had them in one array.
        "test rsi, rsi",
        "jz .Lpm_copy",
        "cmp [rsi - 8], rdi",
        "jne .Lpm_copy",
        "lea rsi, [rsi - 8]",
        "inc rdx",
        "2:",
        "mov rdi, r11",
        // Falls through.
        ".Lpm_common:",
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        // The count as it came, for the original. With it the stack is aligned to 16 bytes.
        "push rdx",
        "mov rbx, rdi",
        "mov r12, rsi",
        "mov r14, rcx",
        // Bits 32 and up hold no count: the flag PY_VECTORCALL_ARGUMENTS_OFFSET is bit 63.
        "mov eax, edx",
        "mov r15d, r10d",
        "shl r15, 32",
        "or r15, rax",
        "imul r10, r10, {slot_stride}",
        "lea r11, [rip + .Lpm_code + {slots_at}]",
        "add r11, r10",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov r13, rax",
        "test dword ptr [r11 + {mode}], {mode_entry}",
        "jz 2f",
        "inc qword ptr [r11 + {marks}]",
        "xor eax, eax",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "call .Lpm_mark",
        "2:",
        "mov rdi, rbx",
        "mov rsi, r12",
        "mov rdx, [rsp]",
        "mov rcx, r14",
        "call qword ptr [rip + .Lpm_code + {original}]",
        "mov rcx, rax",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov r9, rax",
        "mov rax, rcx",
        "mov r11, r15",
        "shr r11, 32",
        "imul r11, r11, {slot_stride}",
        "lea r10, [rip + .Lpm_code + {slots_at}]",
        "add r11, r10",
        "inc qword ptr [r11 + {calls}]",
        "mov r10d, [r11 + {mode}]",
        "test r10d, {mode_count}",
        "jz 4f",
        // Counters of two CPUs may differ a little: a negative duration counts as one cycle, in bucket 0.
        "mov rdx, r9",
        "sub rdx, r13",
        "jg 3f",
        "mov edx, 1",
        "3:",
        "add [r11 + {cycles}], rdx",
        "bsr rcx, rdx",
        "inc dword ptr [r11 + rcx * 4 + {histogram}]",
        "4:",
        "test r10d, {mode_log}",
        "jz 9f",
        "mov ecx, [rip + .Lpm_code + {thread_id_offset}]",
        "mov ecx, fs:[rcx]",
        "mov rsi, [rip + .Lpm_code + {who}]",
        "cmp esi, ecx",
        "jne .Lpm_who",
        ".Lpm_known:",
        "mov edx, 1",
        "lock xadd [rip + .Lpm_code + {log_made}], rdx",
        "lea ecx, [rdx + 1]",
        "and edx, {log_entries} - 1",
        "imul edx, edx, {log_stride}",
        "lea rdi, [rip + .Lpm_code + {log_entries_at}]",
        "add rdi, rdx",
        "mov [rdi + {log_who}], rsi",
        "mov [rdi + {log_entry}], r13",
        "mov [rdi + {log_return}], r9",
        "mov [rdi + {log_result}], rax",
        // The stamp with the slot above it, and last: stores become visible in their order.
        "mov rdx, r15",
        "shr rdx, 32",
        "shl rdx, 32",
        "or rdx, rcx",
        "mov [rdi], rdx",
        "9:",
        "test r10d, {mode_return}",
        "jz 6f",
        "test r10d, {mode_skip}",
        "jz 5f",
        "cmp rax, [r11 + {skip}]",
        "je 6f",
        "5:",
        "inc qword ptr [r11 + {marks}]",
        "mov r8d, 1",
        "call .Lpm_mark",
        "6:",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        // Another thread than the last: its process may be a forked child's. The kernel keeps all registers but three.
        ".Lpm_who:",
        "mov esi, ecx",
        "mov rdi, rax",
        "mov rdx, r11",
        "mov eax, {getpid}",
        "syscall",
        "shl rax, 32",
        "or rsi, rax",
        "mov rax, rdi",
        "mov r11, rdx",
        "mov [rip + .Lpm_code + {who}], rsi",
        "jmp .Lpm_known",
        // A bound method that was kept, or one that C code calls: self is not in the array, so make one that holds it.
        ".Lpm_copy:",
        "push rbp",
        "mov rbp, rsp",
        "mov rax, rdx",
        "test rcx, rcx",
        "jz 1f",
        // The values of keywords follow the positional arguments, one for each name in the tuple.
        "add rax, [rcx + {tuple_size}]",
        "1:",
        "lea r8, [rax * 8 + 23]",
        "and r8, -16",
        "sub rsp, r8",
        // From the end, so that a stack that is too small is met where it grows.
        "2:",
        "test rax, rax",
        "jz 3f",
        "mov r9, [rsi + rax * 8 - 8]",
        "mov [rsp + rax * 8], r9",
        "dec rax",
        "jmp 2b",
        "3:",
        "mov [rsp], rdi",
        "mov rsi, rsp",
        "inc rdx",
        "mov rdi, r11",
        "call .Lpm_common",
        "leave",
        "ret",
        // The swap list. Runs in one stopped thread of the target, without a stack, until it goes back.
        ".skip {swap_code} - (. - .Lpm_code), 0xcc",
        ".Lpm_swap:",
        "mov ecx, [rip + .Lpm_code + {swap_count}]",
        "cmp ecx, {swaps}",
        "ja 5f",
        "lea rdi, [rip + .Lpm_code + {swaps_at}]",
        "1:",
        "test ecx, ecx",
        "jz 5f",
        "mov rsi, [rdi + {address}]",
        "mov rax, [rdi + {expected}]",
        "mov rdx, [rdi + {value}]",
        "cmp dword ptr [rdi + {width}], 4",
        "je 2f",
        "lock cmpxchg [rsi], rdx",
        "jmp 3f",
        "2:",
        "lock cmpxchg [rsi], edx",
        "3:",
        "mov edx, 1",
        "je 4f",
        "mov [rdi + {value}], rax",
        "mov edx, 2",
        "4:",
        "mov [rdi + {outcome}], edx",
        "add rdi, {swap_stride}",
        "dec ecx",
        "jmp 1b",
        // `rt_sigreturn`, again where it is passed by.
        "5:",
        "mov eax, {sigreturn}",
        "syscall",
        "jmp 5b",
        ".skip {mark} - (. - .Lpm_code), 0xcc",
        ".Lpm_mark:",
        "nop",
        ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
        "ret",
        ".skip {code_size} - (. - .Lpm_code), 0xcc",
        ".popsection",
        slots = const SLOTS,
        slot_stride = const SLOT_STRIDE,
        slots_at = const CODE_SIZE + SLOT_OFFSET,
        original = const CODE_SIZE + offset_of!(Head, original),
        mode = const offset_of!(Slot, mode),
        skip = const offset_of!(Slot, skip),
        calls = const offset_of!(Slot, calls),
        marks = const offset_of!(Slot, marks),
        cycles = const offset_of!(Slot, cycles),
        callee = const offset_of!(Slot, callee),
        // `PyVarObject.ob_size`, in every version with vectorcalls.
        tuple_size = const 16,
        histogram = const offset_of!(Slot, histogram),
        mode_entry = const MODE_ENTRY,
        mode_return = const MODE_RETURN,
        mode_skip = const MODE_SKIP,
        mode_count = const MODE_COUNT,
        mode_log = const MODE_LOG,
        thread_id_offset = const CODE_SIZE + offset_of!(Head, thread_id_offset),
        who = const CODE_SIZE + offset_of!(Head, who),
        log_made = const LOG_OFFSET + LOG_MADE,
        log_entries = const LOG_ENTRIES,
        log_entries_at = const LOG_OFFSET + LOG_ENTRIES_OFFSET,
        log_stride = const size_of::<LogEntry>(),
        log_who = const offset_of!(LogEntry, who),
        log_entry = const offset_of!(LogEntry, entry_cycles),
        log_return = const offset_of!(LogEntry, return_cycles),
        log_result = const offset_of!(LogEntry, result),
        getpid = const libc::SYS_getpid,
        sigreturn = const libc::SYS_rt_sigreturn,
        swap_code = const super::SWAP_OFFSET_IN_CODE,
        swap_count = const CODE_SIZE + offset_of!(Head, swap_count),
        swaps = const SWAPS,
        swaps_at = const CODE_SIZE + SWAP_OFFSET,
        swap_stride = const size_of::<Swap>(),
        address = const offset_of!(Swap, address),
        width = const offset_of!(Swap, width),
        outcome = const offset_of!(Swap, outcome),
        expected = const offset_of!(Swap, expected),
        value = const offset_of!(Swap, value),
        mark = const super::MARK_NOP1_OFFSET,
        code_size = const CODE_SIZE,
    );

    unsafe extern "C" {
        #[link_name = "profilemate_page_code"]
        safe static CODE: [u8; CODE_SIZE];
    }

    pub(super) fn bytes() -> &'static [u8; CODE_SIZE] {
        &CODE
    }
}

/// The code of the page.
#[cfg(target_arch = "x86_64")]
#[allow(
    clippy::unnecessary_wraps,
    reason = "other architectures have no code yet"
)]
pub fn bytes() -> Result<&'static [u8; CODE_SIZE], Error> {
    Ok(x86_64::bytes())
}

/// The code of the page.
#[cfg(not(target_arch = "x86_64"))]
pub fn bytes() -> Result<&'static [u8; CODE_SIZE], Error> {
    Err(Error::Architecture {
        missing: "the code of the marker page",
    })
}

/// Whether `found` is our code. The bytes of the mark's nops are left out: a uprobe puts its breakpoint there.
pub(super) fn is_ours(found: &[u8]) -> bool {
    let Ok(ours) = bytes() else { return false };
    found.len() == CODE_SIZE
        && found[..MARK_NOP1_OFFSET] == ours[..MARK_NOP1_OFFSET]
        && found[MARK_END..] == ours[MARK_END..]
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn both_nops_lie_at_the_offsets_that_the_links_use() {
        let code = bytes().unwrap();
        assert_eq!(code[MARK_NOP1_OFFSET], 0x90);
        assert_eq!(
            code[MARK_NOP5_OFFSET..MARK_END],
            [0x0f, 0x1f, 0x44, 0x00, 0x00]
        );
        assert_eq!(code[MARK_END], 0xc3, "the mark returns at once");
    }

    #[test]
    fn the_mark_is_only_ever_called_so_nothing_lives_below_the_stack_pointer() {
        let code = bytes().unwrap();
        let (mut calls, mut jumps) = (0, 0);
        for at in 0..SWAP_OFFSET_IN_CODE {
            let opcode = code[at];
            let relative = i32::from_ne_bytes(code[at + 1..at + 5].try_into().unwrap());
            let lands = at as i64 + 5 + i64::from(relative);
            if (MARK_NOP1_OFFSET as i64..=MARK_END as i64).contains(&lands) {
                calls += i32::from(opcode == 0xe8);
                jumps += i32::from(opcode == 0xe9);
            }
        }
        assert_eq!(
            (calls, jumps),
            (2, 0),
            "one call before and one after the original"
        );
        assert_eq!(
            code[MARK_NOP1_OFFSET - 1],
            0xcc,
            "nothing falls into the mark"
        );
    }

    #[test]
    fn every_stub_loads_its_own_slot() {
        let code = bytes().unwrap();
        for slot in 0..SLOTS as u8 {
            for at in [vectorcall_stub(slot), method_stub(slot)] {
                assert_eq!(code[at..at + 2], [0x41, 0xba], "mov r10d, imm32");
                assert_eq!(code[at + 2..at + 6], u32::from(slot).to_ne_bytes());
                assert!(matches!(code[at + 6], 0xe9 | 0xeb), "jmp");
            }
        }
    }

    #[test]
    fn a_breakpoint_on_the_mark_does_not_make_the_code_foreign() {
        let mut found = bytes().unwrap().to_vec();
        found[MARK_NOP1_OFFSET] = 0xcc;
        assert!(is_ours(&found));
        found[MARK_END] = 0xcc;
        assert!(!is_ours(&found));
    }
}
