//! ProfileMate's eBPF object, and the names in it.
//!
//! The object is prebuilt and committed: building this crate needs nothing but Rust. `cargo xtask bpf build` makes it
//! from `src/main.rs`, and `tests/object.rs` says when that has been forgotten.
#![no_std]

#[cfg(not(target_arch = "bpf"))]
mod object;

#[cfg(not(target_arch = "bpf"))]
pub use object::{OBJECT, OBJECT_SHA256, TOOLCHAIN};

/// The uprobe program for the marker page's probed instruction.
pub const METHOD_CALLED: &str = "method_called";

/// The program that reads an event's fields, for kernels that do not load [`FIELDS_LOOPED`]; never attached itself.
pub const FIELDS_READ: &str = "fields_read";
/// The program that reads an event's fields by `bpf_loop` (Linux 5.17); never attached itself.
pub const FIELDS_LOOPED: &str = "fields_looped";
/// The uprobe program that walks the Python stack at any C function.
pub const STACK_PROBED: &str = "stack_probed";
/// The program that looks for the next catalogued frame; never attached itself.
pub const STACK_WALKED: &str = "stack_walked";
/// The program that ends the reading of a frame; never attached itself.
pub const FRAME_READ: &str = "frame_read";
/// The uprobe program for CUDA driver functions: counts their calls, or tells when they begin.
pub const DRIVER_CALLED: &str = "driver_called";
/// The uretprobe program for driver functions whose end is told.
pub const DRIVER_RETURNED: &str = "driver_returned";
/// The program for both, where one link hears of a call's begin and end (Linux 6.13).
pub const DRIVER_SESSION: &str = "driver_session";
/// The program that tries such a link out.
pub const SESSION_TRIED: &str = "session_tried";
/// The programs that are needed only where stacks are walked.
pub const WALK_PROGRAMS: [&str; 3] = [STACK_PROBED, STACK_WALKED, FRAME_READ];
/// All programs of the object.
pub const PROGRAM_NAMES: [&str; 10] = [
    METHOD_CALLED,
    FIELDS_READ,
    FIELDS_LOOPED,
    STACK_PROBED,
    STACK_WALKED,
    FRAME_READ,
    DRIVER_CALLED,
    DRIVER_RETURNED,
    DRIVER_SESSION,
    SESSION_TRIED,
];
/// The programs that others go on in, by their entry of [`PARTS`]; [`FIELDS_LOOPED`] in the place of [`FIELDS_READ`]
/// where the kernel loads it.
pub const PART_NAMES: [&str; PART_COUNT as usize] = [FIELDS_READ, STACK_WALKED, FRAME_READ];

/// The ring buffer of records; the loader sets its size.
pub const EVENTS: &str = "EVENTS";
/// Array of `u32`: for slot `s` of page `p`, at `p * page::SLOTS + s`, an index into [`PROGRAMS`] plus one, or 0.
pub const SLOTS: &str = "SLOTS";
/// Array of `path::Program`.
pub const PROGRAMS: &str = "PROGRAMS";
/// Array of `python::KernelLayout`.
pub const LAYOUTS: &str = "LAYOUTS";
/// Per-CPU array of `u64`, indexed by `COUNT_*`.
pub const COUNTS_MAP: &str = "COUNTS";
/// Array in which records are made; user space leaves it alone.
pub const WORKPLACES: &str = "WORKPLACES";
/// Program array: the loader puts [`PART_NAMES`] into it.
pub const PARTS: &str = "PARTS";
/// Hash of `walk::StackLayout` by process (tgid): the processes whose stacks are walked.
pub const STACKS: &str = "STACKS";
/// Hash of `u32` by `walk::Target`: an index into [`PROGRAMS`], with `walk::TARGET_LAST`.
pub const TARGETS: &str = "TARGETS";
/// Array of one `u32`: whether there is, or was, a process in [`STACKS`].
pub const WALKING: &str = "WALKING";

/// Entry of [`PARTS`]: [`FIELDS_LOOPED`] or [`FIELDS_READ`].
pub const PART_FIELDS: u32 = 0;
/// Entry of [`PARTS`]: [`STACK_WALKED`].
pub const PART_STACK: u32 = 1;
/// Entry of [`PARTS`]: [`FRAME_READ`].
pub const PART_FRAME: u32 = 2;
/// Entries of [`PARTS`].
pub const PART_COUNT: u32 = 3;
/// Processes whose stacks are walked, at most.
pub const STACK_COUNT: u32 = PAGE_COUNT;
/// Catalogued code objects of all processes, at most.
pub const TARGET_COUNT: u32 = 1024;
/// Array of `driver::Thread`: threads that called driver functions, each in the place that its id's last digits name,
/// if it was free. User space takes out those that ended.
pub const SEATS: &str = "SEATS";
/// Hash of thread ids by index of [`SEATS`]: who has which place. Of two threads that want one, it lets one have it.
pub const OWNERS: &str = "OWNERS";
/// Hash of `driver::Thread` by thread id: the threads whose places were taken. User space takes out those that ended.
pub const THREADS: &str = "THREADS";
/// Array with one empty `driver::Thread`, from which new entries of [`THREADS`] are made; user space leaves it alone.
pub const NEW_THREAD: &str = "NEW_THREAD";
/// Per-CPU array of `u64`, indexed by `driver::Function`: calls of driver functions.
pub const DRIVER_CALLS: &str = "DRIVER_CALLS";
/// Per-CPU array of two `u64`: begins and ends of calls that [`SESSION_TRIED`] has heard of.
pub const TRIED: &str = "TRIED";
/// All maps of the object.
pub const MAPS: [&str; 16] = [
    EVENTS,
    SLOTS,
    PROGRAMS,
    LAYOUTS,
    COUNTS_MAP,
    WORKPLACES,
    PARTS,
    SEATS,
    OWNERS,
    THREADS,
    NEW_THREAD,
    DRIVER_CALLS,
    STACKS,
    TARGETS,
    WALKING,
    TRIED,
];

/// Places for threads that call driver functions, a power of two.
pub const SEAT_COUNT: u32 = 8192;
/// Threads whose places were taken, at most, of those that have not ended.
pub const THREAD_COUNT: u32 = 8192;

/// Marker pages, at most; a page's index is the cookie of its uprobe.
pub const PAGE_COUNT: u32 = 64;
/// Programs loaded at a time, at most.
pub const PROGRAM_COUNT: u32 = 512;
/// Workplaces, a power of two.
pub const WORKPLACE_COUNT: u32 = 256;
/// Layouts loaded at a time, at most.
pub const LAYOUT_COUNT: u32 = PAGE_COUNT;

/// Entries of [`COUNTS_MAP`].
pub const COUNTS: u32 = 11;
/// Probe programs run.
pub const COUNT_FIRED: u32 = 0;
/// Records submitted.
pub const COUNT_SUBMITTED: u32 = 1;
/// Records that found the ring buffer full.
pub const COUNT_LOST: u32 = 2;
/// Runs that made no record, because page or slot are out of range.
pub const COUNT_FILTERED: u32 = 3;
/// Driver calls told when they began.
pub const COUNT_DRIVER_SUBMITTED: u32 = 4;
/// Driver calls to be told when they began that found the ring buffer full.
pub const COUNT_DRIVER_LOST: u32 = 5;
/// Driver calls that are not told on purpose: a function that a driver function of the same kind called, or a thread
/// for which there was no room.
pub const COUNT_DRIVER_FILTERED: u32 = 6;
/// Driver calls that were counted for their thread, and are not told one by one.
pub const COUNT_DRIVER_COUNTED: u32 = 7;
/// Driver calls that began and whose end is to be told.
pub const COUNT_DRIVER_OPENED: u32 = 8;
/// Of these, calls told when they ended.
pub const COUNT_DRIVER_ENDED: u32 = 9;
/// Of these, calls that ended and found the ring buffer full.
pub const COUNT_DRIVER_END_LOST: u32 = 10;
