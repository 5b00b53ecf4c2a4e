//! What can keep us from writing into a target.

use std::io;

/// Why nothing, or not everything, was written into a target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tracer was built for an architecture that lacks a part.
    #[error("this architecture is not supported: {missing} is missing")]
    Architecture {
        /// What would have to be written for it.
        missing: &'static str,
    },
    /// The process has ended, or ended meanwhile.
    #[error("process {pid} has ended")]
    Gone {
        /// The process.
        pid: u32,
    },
    /// A kernel thread has no memory of its own.
    #[error("process {pid} is a kernel thread")]
    KernelThread {
        /// The process.
        pid: u32,
    },
    /// Another ptrace user holds the process.
    #[error(
        "process {pid} is already being traced by process {tracer} (ptrace allows one at a time)"
    )]
    Traced {
        /// The process.
        pid: u32,
        /// `TracerPid` of its status.
        tracer: u32,
    },
    /// Yama forbids every ptrace until the next boot.
    #[error("ptrace is switched off on this host (`kernel.yama.ptrace_scope` is 3)")]
    PtraceScope,
    /// The kernel refused to let us ptrace a thread.
    #[error("not allowed to ptrace process {pid} (CAP_SYS_PTRACE is needed)")]
    Forbidden {
        /// The process.
        pid: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A seccomp filter of the process would not let the page's system calls pass, or cannot be read.
    #[error("process {pid} runs under a seccomp filter: {reason}")]
    Seccomp {
        /// The process.
        pid: u32,
        /// What the filter would do, or why it is not known.
        reason: &'static str,
    },
    /// `SIGTRAP` is ignored in the process: single-stepping would reset that.
    #[error("process {pid} ignores SIGTRAP, which stepping a thread would change")]
    TrapIgnored {
        /// The process.
        pid: u32,
    },
    /// The process is not a 64-bit one of this architecture.
    #[error("process {pid} is not a 64-bit process of this machine's architecture")]
    NotNative {
        /// The process.
        pid: u32,
    },
    /// No thread could be stopped in time. Nothing was written.
    #[error("no thread of process {pid} could be stopped within {waited_ms} ms")]
    NotStopped {
        /// The process.
        pid: u32,
        /// How long was tried, in milliseconds.
        waited_ms: u64,
    },
    /// A ptrace request failed on a stopped thread.
    #[error("ptrace request `{request}` failed on thread {tid}")]
    Ptrace {
        /// Which.
        request: &'static str,
        /// The thread.
        tid: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A system call made in the target failed. What it had done before was undone.
    #[error("`{call}` failed in process {pid}")]
    Injected {
        /// Name of the system call.
        call: &'static str,
        /// The process.
        pid: u32,
        /// The target's `errno`.
        #[source]
        source: io::Error,
    },
    /// There is no code to borrow: without it a thread could not go back by itself if the tracer died.
    #[error("no code that makes system calls and returns from signals was found in process {pid}")]
    NothingToBorrow {
        /// The process.
        pid: u32,
    },
    /// The stack of a thread ends where its way back would stand. Nothing was done with it.
    #[error("the stack of thread {tid} of process {pid} has no room to borrow the thread")]
    NoWayBack {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
    },
    /// The thread did something else than what it was told to.
    #[error("thread {tid} stopped with signal {signal} where it should not have")]
    Unexpected {
        /// The thread.
        tid: u32,
        /// The signal.
        signal: i32,
    },
    /// What was opened or mapped is not the page that was made.
    #[error("the marker page in process {pid} is not what was put there: {what}")]
    NotOurs {
        /// The process.
        pid: u32,
        /// The difference.
        what: &'static str,
    },
    /// The target's memory could not be read or written.
    #[error("memory of process {pid} at {address:#x} is not accessible")]
    Memory {
        /// The process.
        pid: u32,
        /// Where.
        address: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file of `/proc` could not be read.
    #[error("cannot read `{path}`")]
    Proc {
        /// The file.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Another tracer holds the page's lock.
    #[error("process {pid} is already being traced by another profilemate{}", by(*tracer))]
    AnotherTracer {
        /// The process.
        pid: u32,
        /// The other tracer's process id in its own pid namespace; 0 if unknown.
        tracer: u32,
    },
    /// A page of another version of the tool is mapped: its data has another shape.
    #[error("process {pid} has a marker page of version {version}, which this version cannot read")]
    OtherVersion {
        /// The process.
        pid: u32,
        /// Version of the page.
        version: u32,
    },
    /// A page whose code is not ours can be restored, but not used.
    #[error("process {pid} has a marker page made by another build; detach that one first")]
    OtherBuild {
        /// The process.
        pid: u32,
    },
    /// All slots are taken.
    #[error("all {slots} slots of the marker page in process {pid} are taken")]
    NoFreeSlot {
        /// The process.
        pid: u32,
        /// Slots of a page.
        slots: usize,
    },
    /// A number that names no slot.
    #[error("there is no slot {slot}")]
    NoSuchSlot {
        /// The number.
        slot: u8,
    },
    /// The page's lock could not be taken or asked for.
    #[error("cannot lock the marker page")]
    Lock(#[source] io::Error),
    /// The Python helper in the process did not bind what it was asked to.
    #[error("the Python helper in process {pid} did not bind the methods: {reason}")]
    Helper {
        /// The process.
        pid: u32,
        /// In its own words, or why there are none.
        reason: String,
    },
    /// `SIGTRAP` is blocked in the main thread, which would then not stop at a breakpoint.
    #[error("the main thread of process {pid} blocks SIGTRAP")]
    TrapBlocked {
        /// The process.
        pid: u32,
    },
    /// The processor keeps a second stack, which a call that we make would not be on.
    #[error("process {pid} has a shadow stack, which a call made from outside would not be on")]
    ShadowStack {
        /// The process.
        pid: u32,
    },
    /// No hardware breakpoint could be set.
    #[error("no hardware breakpoint could be set in process {pid}")]
    Breakpoint {
        /// The process.
        pid: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The main thread did not come by a place where it can run something else. Everything is as it was.
    #[error(
        "the main thread of process {pid} did not come by a place where the helper can be started within {waited_ms} ms"
    )]
    NotReached {
        /// The process.
        pid: u32,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// Somebody else's request waits in the interpreter's interface for remote debugging.
    #[error("another request for remote debugging waits in process {pid}")]
    RequestWaits {
        /// The process.
        pid: u32,
    },
    /// The script for the interpreter's interface could not be put where the process can read it.
    #[error("no file could be put where process {pid} can read it")]
    Script {
        /// The process.
        pid: u32,
        /// The last folder's answer.
        #[source]
        source: io::Error,
    },
    /// A thread of the tracer could not be made, or ended early.
    #[error("the tracing thread could not run")]
    Worker,
}

fn by(tracer: u32) -> String {
    if tracer == 0 {
        String::new()
    } else {
        format!(" (process {tracer})")
    }
}
