//! A call of a redirected function passed the marker page.
//!
//! An event without fields goes straight into the ring buffer. One with fields is made in a [`Workplace`] by
//! `fields_looped`, and is then copied into the ring buffer, no longer than it is. Kernels before 5.17 do not load that
//! program; there `fields_read` does the same, and calls itself again as long as there is more to do: the verifier
//! walks each of its steps, and admits only so many in one program.

use super::machine::{KernelMachine, RECORD_AT, Workplace};
use super::registers::{self, Mark};
use super::{Count, EVENTS, LAYOUTS, PARTS, PROGRAMS, SLOTS, count, walk, workplace};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{
    bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_loop,
};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use profilemate_common::page::SLOTS as PAGE_SLOTS;
use profilemate_common::path::Program;
use profilemate_common::path::eval::{self, Machine, PARTS as PART_LIMIT, Register, STEPS};
use profilemate_common::python::KernelLayout;
use profilemate_common::record::{
    BLOB_SIZE, CLASS_BARE, CLASS_BLOB, Fields, KIND_METHOD_CALLED, MethodCalled, PHASE_ENTRY,
    PHASE_RETURN,
};
use profilemate_ebpf::{PAGE_COUNT, PART_FIELDS};

/// Ends every event without waking the reader, which looks by itself: a wake-up would cost the target 15 us.
pub(super) const FLAGS: u64 = BPF_RB_NO_WAKEUP as u64;

/// The one probe on the marker page.
#[uprobe]
#[inline(always)]
fn method_called(ctx: ProbeContext) -> u32 {
    count(Count::Fired);
    // SAFETY: the helper takes the context of a uprobe.
    let page = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let mark = registers::read(&ctx);
    let slot = mark.slot_nargs >> 32;
    if page >= u64::from(PAGE_COUNT) || slot >= PAGE_SLOTS as u64 {
        // Not a mark of ours.
        count(Count::Filtered);
        return 0;
    }
    let head = head(page, slot, &mark);
    let number = SLOTS
        .get((page * PAGE_SLOTS as u64 + slot) as u32)
        .copied()
        .unwrap_or(0);
    let Some(program) = PROGRAMS.get(number.wrapping_sub(1)) else {
        bare(head);
        return 0;
    };
    let head = MethodCalled {
        program: program.id,
        ..head
    };
    if program.class as u8 == CLASS_BARE {
        bare(head);
        return 0;
    }
    let Some(place) = workplace::take() else {
        bare(head);
        return 0;
    };
    // SAFETY: the place is this event's until it is given back.
    let mut machine = unsafe { KernelMachine::new(place, core::ptr::null_mut()) };
    machine.clear();
    eval::start(&mut machine);
    // SAFETY: as above.
    unsafe {
        (&raw mut (*place).head).write(head);
        (&raw mut (*place).mark).write(mark);
        (&raw mut (*place).program).write(number.wrapping_sub(1));
        (&raw mut (*place).walk.is_on).write(0);
    }
    go_on(&ctx);
    // There is no other program to go on with: the call is told without its fields.
    workplace::give_back(place);
    bare(head);
    0
}

/// Runs a part of the program for the event that `method_called` has prepared.
#[uprobe]
#[inline(always)]
fn fields_read(ctx: ProbeContext) -> u32 {
    read(&ctx, |run| {
        let mut machine = run.machine();
        // SAFETY: they are valid for this event.
        if !unsafe { eval::run(&mut machine, &run.call(), &*run.program, &*run.layout) } {
            go_on(&ctx);
            // So many parts are too many: what has been read so far counts.
        }
    })
}

/// Runs the program for the event that `method_called` has prepared, by the kernel's `bpf_loop`, whose body the
/// verifier walks once.
#[uprobe]
#[inline(always)]
fn fields_looped(ctx: ProbeContext) -> u32 {
    read(&ctx, |run| {
        let step = one_step as unsafe extern "C" fn(u32, *const Run) -> i64;
        // SAFETY: the function is what the helper calls, with a pointer to `run`, which outlives the call.
        unsafe {
            bpf_loop(
                STEPS * PART_LIMIT,
                step as *mut c_void,
                core::ptr::from_ref(run).cast_mut().cast(),
                0,
            );
        }
    })
}

/// One step of [`fields_looped`]: 0 to go on, 1 after the last one.
#[inline(never)]
unsafe extern "C" fn one_step(_: u32, run: *const Run) -> i64 {
    // SAFETY: `bpf_loop` hands over what `fields_looped` gave it, and what is in it is valid for this event.
    unsafe {
        let run = &*run;
        let mut machine = run.machine();
        i64::from(!eval::step(
            &mut machine,
            &run.call(),
            &*run.program,
            &*run.layout,
        ))
    }
}

/// The run of a field program for one event.
#[repr(C)]
struct Run {
    /// Where the record is made: this event's.
    place: *mut Workplace,
    /// The program: a value of a map. Only its hints are written meanwhile.
    program: *mut Program,
    /// The layout of the process: a value of a map.
    layout: *const KernelLayout,
}

impl Run {
    #[inline(always)]
    fn machine(&self) -> KernelMachine {
        // SAFETY: the place is this event's, and the program valid.
        unsafe { KernelMachine::new(self.place, self.program) }
    }

    #[inline(always)]
    fn call(&self) -> eval::Call {
        // SAFETY: the place is this event's.
        unsafe { call(&(*self.place).mark, (*self.place).head.pid) }
    }
}

/// Reads the fields of the event that `method_called` has prepared, as `how` does it, and submits its record.
#[inline(always)]
fn read(ctx: &ProbeContext, how: impl Fn(&Run)) -> u32 {
    let Some(place) = workplace::find() else {
        // `method_called` comes here only with a place.
        count(Count::Lost);
        return 0;
    };
    // SAFETY: the place is this event's until it is given back.
    let index = unsafe { (*place).program };
    let mut complete = false;
    if let Some(pointer) = PROGRAMS.get_ptr_mut(index)
        // SAFETY: a value of a map, which lives as long as the programs. Only hints are written meanwhile.
        && let program = unsafe { &*pointer }
        && let Some(layout) = LAYOUTS.get_ptr(program.layout)
    {
        let run = Run {
            place,
            program: pointer,
            layout,
        };
        how(&run);
        walk::resume(ctx, place);
        // SAFETY: a valid reference; volatile because user space may have written since the event began.
        let id = unsafe { (&raw const program.id).read_volatile() };
        // SAFETY: the place is this event's.
        let head = unsafe { &mut (*place).head };
        complete = id == head.program;
        if complete {
            let blob_len = run.machine().get(Register::Cursor) as u32;
            head.class = if blob_len == 0 {
                program.class as u8
            } else {
                CLASS_BLOB
            };
            head.field_count = program.field_count as u8;
            head.blob_len = blob_len;
        }
    }
    submit(place, complete);
    workplace::give_back(place);
    0
}

/// Goes on in the program that reads fields; returns only if that is not possible.
#[inline(always)]
pub(super) fn go_on(ctx: &ProbeContext) {
    // SAFETY: the helper takes this program's context.
    unsafe { PARTS.tail_call(ctx, PART_FIELDS) };
}

/// Copies the record of this event's `place` into the ring buffer: its head only, if it is not `complete`.
#[inline(always)]
fn submit(place: *mut Workplace, complete: bool) {
    let mut size = size_of::<MethodCalled>() as u64;
    if complete {
        // SAFETY: the place is this event's.
        let blob_len = unsafe { (*place).head.blob_len };
        let blob_len = if blob_len > BLOB_SIZE as u32 {
            BLOB_SIZE as u32
        } else {
            blob_len
        };
        size += size_of::<Fields>() as u64 + u64::from(blob_len);
    }
    // SAFETY: the record is as long as its blob allows, within the workplace.
    let record =
        unsafe { core::slice::from_raw_parts(place.cast::<u8>().add(RECORD_AT), size as usize) };
    count(if EVENTS.output::<[u8]>(record, FLAGS).is_ok() {
        Count::Submitted
    } else {
        Count::Lost
    });
}

#[inline(always)]
fn head(page: u64, slot: u64, mark: &Mark) -> MethodCalled {
    let ids = bpf_get_current_pid_tgid();
    MethodCalled {
        kind: KIND_METHOD_CALLED,
        page: page as u16,
        slot: slot as u8,
        phase: phase(mark),
        class: CLASS_BARE,
        field_count: 0,
        pid: (ids >> 32) as u32,
        tid: ids as u32,
        // SAFETY: the helper takes nothing.
        ts_ns: unsafe { bpf_ktime_get_ns() },
        entry_cycles: mark.entry_cycles,
        return_cycles: mark.return_cycles,
        result: mark.result,
        program: 0,
        blob_len: 0,
        callable: mark.callable,
    }
}

#[inline(always)]
fn phase(mark: &Mark) -> u8 {
    if mark.phase as u32 == 0 {
        PHASE_ENTRY
    } else {
        PHASE_RETURN
    }
}

/// Submits a record that is a head only.
#[inline(always)]
fn bare(head: MethodCalled) {
    let Some(mut entry) = EVENTS.reserve::<MethodCalled>(0) else {
        count(Count::Lost);
        return;
    };
    entry.write(head);
    entry.submit(FLAGS);
    count(Count::Submitted);
}

#[inline(always)]
fn call(mark: &Mark, process: u32) -> eval::Call {
    eval::Call {
        args: mark.args,
        nargs: mark.slot_nargs as u32,
        kwnames: mark.kwnames,
        result: mark.result,
        phase: phase(mark),
        process,
    }
}
