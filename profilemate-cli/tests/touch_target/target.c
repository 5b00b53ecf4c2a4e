// A target for the tests of the touch room: functions called through a pointer at +128, like CPython's, by code that
// checks everything the calling convention promises. Commands come by standard input, one a line:
//   call I N      call function I N times and check each          -> called
//   method A I N  call the C method at address A, standing in for I -> called
//   fork I N      the same in a forked child, which then waits      -> child PID
//   reap          kill and reap that child                          -> reaped STATUS
//   exit I        a thread calls I, whose original ends the thread  -> exited
//   busy [stopped]  start threads that call, wait and take signals; the process will get stop signals  -> busy
//   be K MS       the main thread does the same as a busy thread for a while: K is calls, leaf, sleep, read, futex,
//                 epoll                                            -> was
//   deny W        install a seccomp filter: W is what it does to memfd_create (allow, errno, kill)  -> denied
// End of input ends it: exit status 0 if no check ever failed. `errors` are told on standard error.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FUNCTIONS = 64, PER_THREAD = 8, CALLERS = 3 };
enum { PLAIN, RAISES, RECURSES, ENDS_THREAD };
typedef uint64_t (*vectorcall)(void *callable, uint64_t *args, uint64_t nargsf, uint64_t kwnames);
typedef uint64_t (*method)(uint64_t self, uint64_t *args, uint64_t nargs, uint64_t kwnames);
struct function {
  uint64_t kind, version, fill[14];
  volatile vectorcall call;
};
_Static_assert(offsetof(struct function, call) == 128, "where CPython 3.12 has it");
static struct function functions[FUNCTIONS];
static atomic_ulong errors;
static atomic_int stop;
static __thread uint64_t until_ms;
static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}
static int go_on(void) { return !stop && (until_ms == 0 || now_ms() < until_ms); }

static void fail(const char *what, long detail) {
  if (atomic_fetch_add(&errors, 1) < 20) fprintf(stderr, "target: %s (%ld)\n", what, detail);
}
#define CHECK(condition, detail) do { if (!(condition)) fail(#condition, (long)(detail)); } while (0)

// What a call returns: made of all four arguments, so that a wrong one shows.
#define EXPECTED(callable, args, nargsf, kwnames) \
  ((uint64_t)(callable) * 3 + (uint64_t)(args) * 5 + (uint64_t)(nargsf) * 7 + (uint64_t)(kwnames) * 11)

static __thread uint64_t depth;
__attribute__((noinline, target("general-regs-only"))) static uint64_t original(void *callable, uint64_t *args,
                                                                                uint64_t nargsf, uint64_t kwnames) {
  struct function *f = callable;
  CHECK(((uintptr_t)__builtin_frame_address(0) & 15) == 0, (uintptr_t)__builtin_frame_address(0));
  if (f->kind == RAISES) return 0;
  if (f->kind == ENDS_THREAD) pthread_exit((void *)7);
  if (f->kind == RECURSES && depth < 5) {
    depth++;
    uint64_t inner = f->call(callable, args, nargsf, kwnames);
    CHECK(inner == EXPECTED(callable, args, nargsf, kwnames), depth);
    depth--;
  }
  // Everything that the convention lets a callee change is changed.
  __asm__ volatile("xor %%r8d, %%r8d; xor %%r9d, %%r9d; xor %%r10d, %%r10d; xor %%r11d, %%r11d" ::: "r8", "r9", "r10", "r11");
  return EXPECTED(callable, args, nargsf, kwnames);
}

// checked_call(function, argument registers[4], out): sets every register that must survive, calls, and reports.
struct seen {
  uint64_t result, rbx, rbp, r12, r13, r14, r15, rsp_before, rsp_after, flags;
  unsigned char vectors[256];
};
static const unsigned char vectors[256] = {
#define V(n) n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7
    V(1), V(9), V(17), V(25), V(33), V(41), V(49), V(57), V(65), V(73), V(81), V(89), V(97), V(105), V(113), V(121),
    V(129), V(137), V(145), V(153), V(161), V(169), V(177), V(185), V(193), V(201), V(209), V(217), V(225), V(233), V(241), V(3)};
void checked_call(void *function, const uint64_t *registers, struct seen *out, const unsigned char *vectors);
__asm__(".text\n.type checked_call,@function\nchecked_call:\n"
        "push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
        "sub $24, %rsp\n"
        "mov %rdx, (%rsp)\n"
        "mov %rdi, %rax\n"
        "mov %rsi, %r8\n"
        ".set i, 0\n"
        ".irp x,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu i(%rcx), %xmm\\x\n .set i, i+16\n.endr\n"
        "mov (%r8), %rdi; mov 8(%r8), %rsi; mov 24(%r8), %rcx\n"
        "mov %rsp, 56(%rdx)\n"
        "mov 16(%r8), %rdx\n"
        "movabs $0x1111222233334444, %rbx; lea 1(%rbx), %rbp; lea 2(%rbx), %r12\n"
        "lea 3(%rbx), %r13; lea 4(%rbx), %r14; lea 5(%rbx), %r15\n"
        "call *%rax\n"
        "mov %rsp, %r9\n"
        "mov (%rsp), %rdx\n"
        "mov %rax, (%rdx); mov %rbx, 8(%rdx); mov %rbp, 16(%rdx); mov %r12, 24(%rdx)\n"
        "mov %r13, 32(%rdx); mov %r14, 40(%rdx); mov %r15, 48(%rdx); mov %r9, 64(%rdx)\n"
        "pushfq; pop 72(%rdx)\n"
        ".set i, 80\n"
        ".irp x,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu %xmm\\x, i(%rdx)\n .set i, i+16\n.endr\n"
        "add $24, %rsp\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
        "ret\n");

static void check_seen(const struct seen *seen, uint64_t expected) {
  const uint64_t mark = 0x1111222233334444;
  CHECK(seen->result == expected, seen->result);
  CHECK(seen->rbx == mark && seen->rbp == mark + 1 && seen->r12 == mark + 2, seen->rbx);
  CHECK(seen->r13 == mark + 3 && seen->r14 == mark + 4 && seen->r15 == mark + 5, seen->r13);
  CHECK(seen->rsp_before == seen->rsp_after, seen->rsp_after - seen->rsp_before);
  CHECK((seen->flags & 0x400) == 0, seen->flags);
  CHECK(memcmp(seen->vectors, vectors, sizeof vectors) == 0, 0);
}

static void call_function(struct function *f, uint64_t round) {
  uint64_t args[4] = {round, round + 1, round + 2, round + 3};
  uint64_t flag = round & 1 ? 1ull << 63 : 0, nargsf = (round & 3) | flag;
  uint64_t registers[4] = {(uint64_t)f, (uint64_t)(args + 1), nargsf, round * 17};
  struct seen seen;
  checked_call((void *)f->call, registers, &seen, vectors);
  check_seen(&seen, f->kind == RAISES ? 0 : EXPECTED(f, args + 1, nargsf, round * 17));
}

// With a self, which lies before the arguments as it mostly does, and without, as a function of a module is called.
static void call_method(method entry, struct function *f, uint64_t round) {
  uint64_t args[4] = {round + 1, round + 2, round + 3, round + 4}, self = round & 4 ? 0 : args[0];
  uint64_t registers[4] = {self, (uint64_t)(args + 1), round & 3, round * 17};
  struct seen seen;
  checked_call((void *)entry, registers, &seen, vectors);
  uint64_t *whole = self ? args : args + 1;
  check_seen(&seen, EXPECTED(f, whole, (round & 3) + (self ? 1 : 0), round * 17));
}

static void *caller(void *number) {
  struct function *own = functions + PER_THREAD * (1 + (uintptr_t)number);
  for (uint64_t round = 0; !stop; round++) call_function(own + round % PER_THREAD, round);
  return 0;
}

// A leaf that keeps values below the stack pointer, where the convention lets it, and looks whether they stay.
static void *red_zone(void *unused) {
  while (go_on()) {
    uint64_t bad = 0;
    __asm__ volatile("mov $16, %%rcx\n1: mov %%rcx, %%rdx\n neg %%rdx\n mov %%rcx, (%%rsp,%%rdx,8)\n dec %%rcx\n jnz 1b\n"
                     "mov $2000, %%rcx\n2: dec %%rcx\n jnz 2b\n"
                     "mov $16, %%rcx\n3: mov %%rcx, %%rdx\n neg %%rdx\n cmp %%rcx, (%%rsp,%%rdx,8)\n je 4f\n inc %0\n4: dec %%rcx\n jnz 3b\n"
                     : "+r"(bad)::"rcx", "rdx", "memory", "cc");
    CHECK(bad == 0, bad);
  }
  return unused;
}

// Keeps a number in every lane of a vector register, and looks whether it stays there.
__attribute__((target("avx"))) static void *wide(void *unused) {
  static const uint64_t number = 0x1234567890abcdef;
  while (__builtin_cpu_supports("avx") && go_on()) {
    uint64_t lanes[4] = {0, 0, 0, 0};
    __asm__ volatile("vbroadcastsd %1, %%ymm15\n mov $2000, %%rcx\n1: dec %%rcx\n jnz 1b\n vmovupd %%ymm15, %0\n"
                     : "=m"(lanes)
                     : "m"(number)
                     : "rcx", "xmm15", "memory", "cc");
    for (int i = 0; i < 4; i++) CHECK(lanes[i] == number, i);
  }
  return unused;
}

static int stopped_now_and_then, pipe_fds[2], epoll_fds[2], epoll_fd;
static void *sleeper(void *unused) {
  while (go_on()) {
    struct timespec time = {0, 5000000}, before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(syscall(SYS_nanosleep, &time, 0) == 0, errno);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >= 5000000, 0);
  }
  return unused;
}
static void *pipe_reader(void *unused) {
  char byte;
  for (;;) {
    ssize_t got = read(pipe_fds[0], &byte, 1);
    CHECK(got >= 0, errno);
    if (got == 0 || (until_ms && !go_on())) return unused;
  }
}
static void *feeder(void *unused) {
  for (; !stop; usleep(3000)) {
    CHECK(write(pipe_fds[1], "x", 1) == 1, errno);
    CHECK(write(epoll_fds[1], "x", 1) == 1, errno);
  }
  close(pipe_fds[1]);
  close(epoll_fds[1]);
  return unused;
}
static void *futex_waiter(void *unused) {
  uint32_t word = 5;
  while (go_on()) {
    struct timespec time = {0, 5000000};
    CHECK(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &time, 0, 0) == -1 && errno == ETIMEDOUT, errno);
  }
  return unused;
}
static void *epoll_waiter(void *unused) {
  for (;;) {
    struct epoll_event event;
    char byte;
    int got = epoll_wait(epoll_fd, &event, 1, -1);
    // A stop signal interrupts this one whoever looks on (signal(7)).
    if (got == -1 && errno == EINTR && stopped_now_and_then) continue;
    CHECK(got == 1, errno);
    // Another waiter may have taken the byte: it is fed for ever, so one more comes.
    if (read(epoll_fds[0], &byte, 1) == 0 || (until_ms && !go_on())) return unused;
  }
}

static atomic_ulong alarms, users, faults, queued;
static void on_signal(int signal, siginfo_t *info, void *context) {
  (void)context;
  if (signal == SIGALRM) alarms++;
  if (signal == SIGUSR1) users++;
  if (signal == SIGFPE) {
    CHECK(info->si_code == SI_QUEUE && info->si_value.sival_int == 77, info->si_code);
    faults++;
  }
  if (signal == SIGRTMIN) {
    // Queued signals come in order, each once, with what was sent along.
    static unsigned long next;
    CHECK((unsigned long)info->si_value.sival_int == next, info->si_value.sival_int);
    next++;
    queued++;
  }
}
static volatile pthread_t worker;
static atomic_ulong users_sent, queued_sent;
static atomic_int sending = 1;
// Whether the sender sends what is mostly a thread's own doing, too.
static int with_faults = 1;
static void *sender(void *unused) {
  while (!stop) {
    unsigned long before = users, faults_before = faults;
    // A signal that is mostly a thread's own doing, and is not blocked while the thread is borrowed.
    if (with_faults) pthread_sigqueue(worker, SIGFPE, (union sigval){.sival_int = 77});
    pthread_kill(worker, SIGUSR1);
    users_sent++;
    union sigval value = {.sival_int = (int)queued_sent};
    if (pthread_sigqueue(worker, SIGRTMIN, value) == 0) queued_sent++;
    for (int wait = 0; (users == before || (with_faults && faults == faults_before) || queued < queued_sent) && wait < 20000; wait++) usleep(500);
    CHECK(users > before && (!with_faults || faults > faults_before), faults);
    usleep(200);
  }
  sending = 0;
  return unused;
}
static void *signalled(void *own) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGRTMIN);
  pthread_sigmask(SIG_UNBLOCK, &set, 0);
  for (uint64_t round = 0; go_on(); round++) call_function((struct function *)own + round % PER_THREAD, round);
  // What was sent arrives, and the sender ends, before this thread does.
  while (until_ms == 0 && (sending || queued < queued_sent)) usleep(100);
  return 0;
}

static pthread_t threads[16];
static int thread_count;
static void start(void *(*run)(void *), void *argument) { pthread_create(&threads[thread_count++], 0, run, argument); }
static void busy(void) {
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
  sigaction(SIGALRM, &action, 0), sigaction(SIGUSR1, &action, 0), sigaction(SIGFPE, &action, 0), sigaction(SIGRTMIN, &action, 0);
  CHECK(pipe(pipe_fds) == 0 && pipe(epoll_fds) == 0, errno);
  epoll_fd = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, epoll_fds[0], &event);
  start(signalled, functions + PER_THREAD * (CALLERS + 1));
  worker = threads[0];
  for (uintptr_t n = 0; n < CALLERS; n++) start(caller, (void *)n);
  start(red_zone, 0), start(wide, 0), start(sleeper, 0), start(pipe_reader, 0), start(feeder, 0), start(futex_waiter, 0);
  start(epoll_waiter, 0), start(sender, 0);
  struct itimerval timer = {{0, 2000}, {0, 2000}};
  setitimer(ITIMER_REAL, &timer, 0);
}

static void be(const char *kind, unsigned long ms) {
  until_ms = now_ms() + ms;
  if (!strcmp(kind, "calls")) {
    worker = pthread_self();
    signalled(functions + PER_THREAD * (CALLERS + 2));
  }
  if (!strcmp(kind, "leaf")) red_zone(0);
  if (!strcmp(kind, "wide")) wide(0);
  if (!strcmp(kind, "sleep")) sleeper(0);
  if (!strcmp(kind, "read")) pipe_reader(0);
  if (!strcmp(kind, "futex")) futex_waiter(0);
  if (!strcmp(kind, "epoll")) epoll_waiter(0);
}

static void deny(const char *what) {
  uint32_t action = !strcmp(what, "kill") ? SECCOMP_RET_KILL_PROCESS : !strcmp(what, "errno") ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_ALLOW;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {4, filter};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, errno);
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, errno);
}

static void *thread_that_ends(void *f) {
  call_function(f, 1);
  return 0;
}

int main(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGRTMIN);
  pthread_sigmask(SIG_BLOCK, &set, 0);
  for (int i = 0; i < FUNCTIONS; i++) {
    functions[i].kind = i % PER_THREAD == 5 ? RAISES : i % PER_THREAD == 6 ? RECURSES : i == 7 ? ENDS_THREAD : PLAIN;
    functions[i].version = 1000 + i;
    functions[i].call = original;
  }
  printf("functions %lu %lu %lu\n", (uintptr_t)functions, sizeof *functions, (uintptr_t)original);
  fflush(stdout);
  char line[128], word[16];
  pid_t child = 0;
  while (fgets(line, sizeof line, stdin)) {
    unsigned long i = 0, n = 0, address = 0;
    if (sscanf(line, "call %lu %lu", &i, &n) == 2) {
      for (unsigned long round = 0; round < n; round++) call_function(functions + i, round);
      puts("called");
    } else if (sscanf(line, "method %lu %lu %lu", &address, &i, &n) == 3) {
      for (unsigned long round = 0; round < n; round++) call_method((method)address, functions + i, round);
      puts("called");
    } else if (sscanf(line, "fork %lu %lu", &i, &n) == 2) {
      int ready[2];
      char byte;
      CHECK(pipe(ready) == 0, errno);
      child = fork();
      if (child == 0) {
        for (unsigned long round = 0; round < n; round++) call_function(functions + i, round);
        if (errors == 0 && write(ready[1], "x", 1) == 1) for (;;) pause();
        _exit(1);
      }
      close(ready[1]);
      CHECK(read(ready[0], &byte, 1) == 1, errno);
      printf("child %d\n", child);
    } else if (!strncmp(line, "reap", 4)) {
      int status = 0;
      kill(child, SIGTERM);
      waitpid(child, &status, 0);
      printf("reaped %d\n", status);
    } else if (sscanf(line, "exit %lu", &i) == 1) {
      pthread_t thread;
      void *result = 0;
      pthread_create(&thread, 0, thread_that_ends, functions + i);
      pthread_join(thread, &result);
      CHECK(result == (void *)7, result);
      puts("exited");
    } else if (!strncmp(line, "busy", 4)) {
      stopped_now_and_then = strstr(line, "stopped") != 0;
      with_faults = strstr(line, "faultless") == 0;
      busy();
      puts("busy");
    } else if (sscanf(line, "be %15s %lu", word, &n) == 2) {
      be(word, n);
      puts("was");
    } else if (sscanf(line, "deny %15s", word) == 1) {
      deny(word);
      puts("denied");
    }
    fflush(stdout);
  }
  stop = 1;
  for (int i = thread_count - 1; i >= 0; i--) pthread_join(threads[i], 0);
  for (int wait = 0; (users < users_sent || queued < queued_sent) && wait < 1000; wait++) usleep(1000);
  CHECK(users == users_sent && (!with_faults || faults == users_sent) && queued == queued_sent, queued_sent - queued);
  CHECK(thread_count == 0 || alarms > 0, alarms);
  fprintf(stderr, "target: %lu errors, %lu alarms, %lu users, %lu queued\n", errors, alarms, users, queued);
  return errors != 0;
}
