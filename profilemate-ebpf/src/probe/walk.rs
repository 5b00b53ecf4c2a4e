//! Walks of the Python stack.
//!
//! A program on a C function takes a [`Workplace`] and goes on in `stack_walked`, which looks for the next catalogued
//! frame; `fields_read` reads its fields as it does a call's, twice, and `frame_read` compares, tells, and goes on to
//! the frames further out.

use super::machine::{KernelMachine, RECORD_AT, Workplace};
use super::method_called::{FLAGS, go_on};
use super::registers::Mark;
use super::{Count, EVENTS, PARTS, PROGRAMS, STACKS, TARGETS, WALKING, count, workplace};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel,
};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use profilemate_common::driver::{Function, Thread};
use profilemate_common::path::eval;
use profilemate_common::record::{
    CLASS_BARE, CLASS_FIELDS, FIELDS, Fields, PHASE_ENTRY, STATUS_CHANGED,
};
use profilemate_common::walk::{
    self, FRAMES, FUNCTION_OTHER, FrameWalked, KIND_FRAME_WALKED, OUTCOME_CHANGED, OUTCOME_DEEP,
    OUTCOME_FAULT, OUTCOME_FOUND, OUTCOME_NONE, StackLayout, TARGET_LAST, TOLD, Target,
};
use profilemate_ebpf::{PART_FRAME, PART_STACK};

/// A thread's launches of kernels are walked at most this often, unless it has waited for the GPU in between.
const PAUSE_NS: u64 = 1_000_000;

/// A walk under way.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Walk {
    /// Whether there is one.
    pub(super) is_on: u64,
    /// The thread's thread pointer.
    thread_pointer: u64,
    /// Its innermost frame.
    innermost: u64,
    /// The frame to look at next.
    next: u64,
    /// Frames looked at.
    depth: u32,
    /// Frames told.
    order: u32,
    /// Whether nothing further out is wanted.
    last: u32,
    /// Times that the fields of the frame have been read.
    round: u32,
    /// What was read the first time.
    first: Fields,
}

/// Walks the stack of any C function's caller.
#[uprobe]
#[inline(always)]
fn stack_probed(ctx: ProbeContext) -> u32 {
    // SAFETY: the helper takes nothing.
    begin(&ctx, FUNCTION_OTHER, unsafe { bpf_ktime_get_ns() });
    0
}

/// Whether any process is walked.
#[inline(always)]
pub(super) fn is_on() -> bool {
    WALKING.get(0).is_some_and(|walking| *walking != 0)
}

/// Walks the stack of the thread that calls the driver's `function`, if its process is walked and the call is one of
/// few: everything but launches of kernels, and of those the first after the thread has waited for the GPU, and one
/// in each [`PAUSE_NS`]. Does not return if it walks.
#[inline(always)]
pub(super) fn at_driver(ctx: &ProbeContext, thread: &mut Thread, function: u8, entry_ns: u64) {
    let is = |other: Function| function == other as u8;
    let waits = is(Function::StreamSynchronize)
        || is(Function::EventSynchronize)
        || is(Function::ContextSynchronize);
    let is_kernel = is(Function::KernelLaunch);
    if !(waits
        || is_kernel
        || is(Function::StreamBeginCapture)
        || is(Function::StreamEndCapture)
        || is(Function::GraphLaunch))
    {
        return;
    }
    if is_kernel
        && thread.waited == 0
        && thread.walked_ns != 0
        && entry_ns.wrapping_sub(thread.walked_ns) < PAUSE_NS
    {
        return;
    }
    // SAFETY: only looked at.
    if unsafe { STACKS.get(&thread.pid) }.is_none() {
        return;
    }
    thread.waited = u32::from(waits || (thread.waited != 0 && !is_kernel));
    thread.walked_ns = entry_ns;
    begin(ctx, function, entry_ns);
}

/// Begins a walk; returns only if the process is not walked, or that is not possible.
#[inline(always)]
fn begin(ctx: &ProbeContext, function: u8, entry_ns: u64) {
    let ids = bpf_get_current_pid_tgid();
    // SAFETY: only the loader writes there, and a layout that it has replaced is read to its end or fails the checks.
    let Some(layout) = (unsafe { STACKS.get(&((ids >> 32) as u32)) }) else {
        return;
    };
    let Some(place) = workplace::take() else {
        count(Count::Fired);
        count(Count::Lost);
        return;
    };
    let head = FrameWalked {
        kind: KIND_FRAME_WALKED,
        number: layout.number as u16,
        function,
        outcome: OUTCOME_FOUND,
        class: CLASS_BARE,
        field_count: 0,
        pid: (ids >> 32) as u32,
        tid: ids as u32,
        entry_ns,
        frame: 0,
        instruction: 0,
        depth: 0,
        order: 0,
        program: 0,
        blob_len: 0,
        code: 0,
    };
    // SAFETY: the place is this event's until it is given back.
    unsafe {
        head_of(place).write(head);
        let walk = &raw mut (*place).walk;
        (&raw mut (*walk).is_on).write(1);
        (&raw mut (*walk).depth).write(0);
        (&raw mut (*walk).order).write(0);
    }
    // SAFETY: as above.
    let machine = unsafe { KernelMachine::new(place, core::ptr::null_mut()) };
    let thread_pointer = thread_pointer(layout);
    let innermost = match walk::state(&machine, layout, thread_pointer) {
        Ok(state) => walk::innermost(&machine, layout, state),
        Err(outcome) => Err(outcome),
    };
    match innermost {
        Ok(innermost) => {
            // SAFETY: as above.
            unsafe {
                let walk = &raw mut (*place).walk;
                (&raw mut (*walk).thread_pointer).write(thread_pointer);
                (&raw mut (*walk).innermost).write(innermost);
                (&raw mut (*walk).next).write(innermost);
                PARTS.tail_call(ctx, PART_STACK);
            }
            count(Count::Fired);
            count(Count::Lost);
        }
        Err(outcome) => tell_nothing(place, outcome),
    }
    workplace::give_back(place);
}

/// The current thread's thread pointer; 0 if the kernel's own structure has another shape than it says.
#[inline(always)]
fn thread_pointer(layout: &StackLayout) -> u64 {
    // SAFETY: the helper takes nothing, and the other checks the address.
    unsafe {
        let task = bpf_get_current_task();
        bpf_probe_read_kernel(task.wrapping_add(u64::from(layout.task_pointer)) as *const u64)
    }
    .unwrap_or(0)
}

/// The record's head, as a walk has it.
#[inline(always)]
fn head_of(place: *mut Workplace) -> *mut FrameWalked {
    // SAFETY: a field of a valid place; both kinds of head have the same size.
    unsafe { (&raw mut (*place).head).cast() }
}

/// Looks for the next catalogued frame.
#[uprobe]
#[inline(always)]
fn stack_walked(ctx: ProbeContext) -> u32 {
    let Some(place) = workplace::find() else {
        count(Count::Fired);
        count(Count::Lost);
        return 0;
    };
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: as in `begin`.
    let Some(layout) = (unsafe { STACKS.get(&pid) }) else {
        return end(place, OUTCOME_NONE);
    };
    // SAFETY: the place is this event's until it is given back.
    let (mut at, mut depth) = unsafe { ((*place).walk.next, (*place).walk.depth) };
    // SAFETY: as above.
    let machine = unsafe { KernelMachine::new(place, core::ptr::null_mut()) };
    for _ in 0..FRAMES {
        if at == 0 {
            return end(place, OUTCOME_NONE);
        }
        if depth >= FRAMES {
            return end(place, OUTCOME_DEEP);
        }
        let Some(frame) = walk::frame(&machine, layout, at) else {
            return end(place, OUTCOME_FAULT);
        };
        let target = Target {
            code: frame.code,
            pid,
            reserved: 0,
        };
        // SAFETY: a word, copied at once.
        if let Some(number) = unsafe { TARGETS.get(&target) }.copied() {
            let instruction = walk::instruction(&machine, layout, at);
            // SAFETY: the place is this event's.
            unsafe {
                let head = head_of(place);
                (*head).outcome = OUTCOME_FOUND;
                (*head).frame = at;
                (*head).code = frame.code;
                (*head).instruction = instruction;
                (*head).depth = depth;
                let walk = &mut (*place).walk;
                walk.next = frame.previous;
                walk.depth = depth + 1;
                walk.last = number & TARGET_LAST;
            }
            read_fields(&ctx, place, layout, number & !TARGET_LAST);
            return end(place, OUTCOME_CHANGED);
        }
        at = frame.previous;
        depth += 1;
    }
    end(place, OUTCOME_DEEP)
}

/// Has the fields of the frame that was found read by the program at `index`; returns only if that is not possible.
#[inline(always)]
fn read_fields(ctx: &ProbeContext, place: *mut Workplace, layout: &StackLayout, index: u32) {
    let Some(program) = PROGRAMS.get(index) else {
        return;
    };
    // SAFETY: the place is this event's.
    unsafe {
        let head = head_of(place);
        (*head).program = program.id;
        let mark = Mark {
            callable: 0,
            args: (*head).frame.wrapping_add(u64::from(layout.frame_locals)),
            entry_cycles: 0,
            kwnames: 0,
            slot_nargs: 0,
            result: 0,
            return_cycles: 0,
            phase: PHASE_ENTRY.into(),
        };
        (&raw mut (*place).mark).write(mark);
        (&raw mut (*place).program).write(index);
        (&raw mut (*place).walk.round).write(0);
    }
    start(ctx, place);
}

/// Begins to read the fields; returns only if that is not possible.
#[inline(always)]
fn start(ctx: &ProbeContext, place: *mut Workplace) {
    // SAFETY: the place is this event's.
    let mut machine = unsafe { KernelMachine::new(place, core::ptr::null_mut()) };
    machine.clear();
    eval::start(&mut machine);
    go_on(ctx);
}

/// The fields in `place` have been read: goes on in `frame_read` if they are a frame's. Returns if they are a call's,
/// or if that is not possible.
#[inline(always)]
pub(super) fn resume(ctx: &ProbeContext, place: *mut Workplace) {
    // SAFETY: the place is this event's; the helper takes this program's context.
    unsafe {
        if (*place).walk.is_on != 0 {
            PARTS.tail_call(ctx, PART_FRAME);
        }
    }
}

/// Compares what was read of a frame, tells it, and goes on to the next one.
#[uprobe]
#[inline(always)]
fn frame_read(ctx: ProbeContext) -> u32 {
    let Some(place) = workplace::find() else {
        count(Count::Fired);
        count(Count::Lost);
        return 0;
    };
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: the place is this event's until it is given back; the layout as in `begin`.
    let (index, layout) = unsafe { ((*place).program, STACKS.get(&pid)) };
    let (Some(program), Some(layout)) = (PROGRAMS.get(index), layout) else {
        return end(place, OUTCOME_CHANGED);
    };
    // SAFETY: the place is this event's.
    unsafe {
        if (*place).walk.round == 0 {
            (*place).walk.round = 1;
            (*place).walk.first = (*place).fields;
            start(&ctx, place);
            return end(place, OUTCOME_CHANGED);
        }
        keep_equal(place);
        let head = head_of(place);
        // Volatile because user space may have written since the walk began.
        let id = (&raw const program.id).read_volatile();
        let machine = KernelMachine::new(place, core::ptr::null_mut());
        let walk = &(*place).walk;
        if id == (*head).program
            && walk::is_same(
                &machine,
                layout,
                walk.thread_pointer,
                walk.innermost,
                &*head,
            )
        {
            (*head).class = CLASS_FIELDS;
            (*head).field_count = program.field_count as u8;
        } else {
            (*head).class = CLASS_BARE;
            (*head).outcome = OUTCOME_CHANGED;
        }
        tell(place);
        let order = (*head).order + 1;
        (*head).order = order;
        if walk.last == 0 && order < TOLD && (*head).outcome == OUTCOME_FOUND {
            PARTS.tail_call(&ctx, PART_STACK);
        }
    }
    workplace::give_back(place);
    0
}

/// Makes every field absent that was read otherwise the first time.
#[inline(always)]
fn keep_equal(place: *mut Workplace) {
    // SAFETY: the place is this event's; all indices are constants once the loop is unrolled, or bounded by it.
    unsafe {
        let first = &(*place).walk.first;
        let second = &mut (*place).fields;
        for field in 0..FIELDS {
            if first.status[field] != second.status[field]
                || first.values[field] != second.values[field]
            {
                second.status[field] = STATUS_CHANGED;
                second.values[field] = 0;
            }
        }
    }
}

/// Ends the walk: tells why no frame was found, unless one was told before.
#[inline(always)]
fn end(place: *mut Workplace, outcome: u8) -> u32 {
    // SAFETY: the place is this event's until it is given back.
    let order = unsafe { (*head_of(place)).order };
    if order == 0 || (outcome != OUTCOME_NONE && outcome != OUTCOME_DEEP) {
        tell_nothing(place, outcome);
    }
    workplace::give_back(place);
    0
}

/// Puts a record without fields into the ring buffer.
#[inline(always)]
fn tell_nothing(place: *mut Workplace, outcome: u8) {
    // SAFETY: the place is this event's.
    unsafe {
        let head = head_of(place);
        (*head).outcome = outcome;
        (*head).class = CLASS_BARE;
    }
    tell(place);
}

/// Copies the record in `place` into the ring buffer.
#[inline(always)]
fn tell(place: *mut Workplace) {
    // SAFETY: the place is this event's.
    let class = unsafe { (*head_of(place)).class };
    let size = if class == CLASS_BARE {
        size_of::<FrameWalked>()
    } else {
        size_of::<FrameWalked>() + size_of::<Fields>()
    };
    // SAFETY: head and fields lie one behind the other in the workplace.
    let record = unsafe { core::slice::from_raw_parts(place.cast::<u8>().add(RECORD_AT), size) };
    count(Count::Fired);
    count(if EVENTS.output::<[u8]>(record, FLAGS).is_ok() {
        Count::Submitted
    } else {
        Count::Lost
    });
}
