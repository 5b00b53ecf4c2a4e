//! The programs, and the maps they share.

mod driver_called;
mod machine;
mod method_called;
mod registers;
mod seat;
mod session;
mod walk;
mod workplace;

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ProgramArray, RingBuf};
use machine::Workplace;
use profilemate_common::driver::{FUNCTIONS, Thread};
use profilemate_common::path::Program;
use profilemate_common::python::KernelLayout;
use profilemate_common::walk::{StackLayout, Target};
use profilemate_ebpf::{
    LAYOUT_COUNT, PAGE_COUNT, PART_COUNT, PROGRAM_COUNT, SEAT_COUNT, STACK_COUNT, TARGET_COUNT,
    THREAD_COUNT, WORKPLACE_COUNT,
};

/// Records. The loader sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);
/// For each slot of each page: index into [`PROGRAMS`], plus one; 0 for none.
#[map]
static SLOTS: Array<u32> =
    Array::with_max_entries(PAGE_COUNT * profilemate_common::page::SLOTS as u32, 0);
/// What the slots' events read.
#[map]
static PROGRAMS: Array<Program> = Array::with_max_entries(PROGRAM_COUNT, 0);
/// Memory layouts of the interpreters.
#[map]
static LAYOUTS: Array<KernelLayout> = Array::with_max_entries(LAYOUT_COUNT, 0);
/// Where records with fields are made.
#[map]
static WORKPLACES: Array<Workplace> = Array::with_max_entries(WORKPLACE_COUNT, 0);
/// Programs to go on in.
#[map]
static PARTS: ProgramArray = ProgramArray::with_max_entries(PART_COUNT, 0);
/// The processes whose stacks are walked.
#[map]
static STACKS: HashMap<u32, StackLayout> = HashMap::with_max_entries(STACK_COUNT, 0);
/// Their catalogued code objects.
#[map]
static TARGETS: HashMap<Target, u32> = HashMap::with_max_entries(TARGET_COUNT, 0);
/// Whether any process is walked.
#[map]
static WALKING: Array<u32> = Array::with_max_entries(1, 0);
/// Threads that called driver functions.
#[map]
static SEATS: Array<Thread> = Array::with_max_entries(SEAT_COUNT, 0);
/// Who has which place among them.
#[map]
static OWNERS: HashMap<u32, u32> = HashMap::with_max_entries(SEAT_COUNT, 0);
/// Threads whose places were taken.
#[map]
static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(THREAD_COUNT, 0);
/// What an entry of [`THREADS`] is at first: too big to be made on a program's stack beside the rest.
#[map]
static NEW_THREAD: Array<Thread> = Array::with_max_entries(1, 0);
/// Calls of driver functions, by function.
#[map]
static DRIVER_CALLS: PerCpuArray<u64> = PerCpuArray::with_max_entries(FUNCTIONS as u32, 0);
/// What was heard of a link that is tried out.
#[map]
static TRIED: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);
/// The ledger, see [`Count`].
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(profilemate_ebpf::COUNTS, 0);

/// Indices of [`COUNTS`].
#[derive(Clone, Copy)]
#[repr(u32)]
enum Count {
    Fired = profilemate_ebpf::COUNT_FIRED,
    Submitted = profilemate_ebpf::COUNT_SUBMITTED,
    Lost = profilemate_ebpf::COUNT_LOST,
    Filtered = profilemate_ebpf::COUNT_FILTERED,
    DriverSubmitted = profilemate_ebpf::COUNT_DRIVER_SUBMITTED,
    DriverLost = profilemate_ebpf::COUNT_DRIVER_LOST,
    DriverFiltered = profilemate_ebpf::COUNT_DRIVER_FILTERED,
    DriverCounted = profilemate_ebpf::COUNT_DRIVER_COUNTED,
    DriverOpened = profilemate_ebpf::COUNT_DRIVER_OPENED,
    DriverEnded = profilemate_ebpf::COUNT_DRIVER_ENDED,
    DriverEndLost = profilemate_ebpf::COUNT_DRIVER_END_LOST,
}

/// Adds one to a count. Atomically, because another program of ours may interrupt this one on the same CPU.
#[inline(always)]
fn count(which: Count) {
    if let Some(counter) = COUNTS.get_ptr_mut(which as u32) {
        // SAFETY: the pointer is to an aligned value of a map, which lives as long as the program.
        unsafe { add_one(counter) }
    }
}

/// # Safety
///
/// `counter` is valid and aligned.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn add_one(counter: *mut u64) {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    // SAFETY: as the caller says.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}

/// # Safety
///
/// `counter` is valid and aligned.
#[cfg(not(target_arch = "bpf"))]
unsafe fn add_one(counter: *mut u64) {
    // SAFETY: as the caller says.
    unsafe { *counter += 1 };
}
