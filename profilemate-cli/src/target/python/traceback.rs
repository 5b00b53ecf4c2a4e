//! The Python stack of every thread of a process, read without stopping it.
//!
//! A thread that runs changes its stack while it is read. So it is read twice, and only what both readings agree in is
//! called steady; a thread that is stuck is steady at once.

use profilemate_common::walk::{self, StackLayout};

use super::layout::Layout;
use super::lines;
use super::memory::{ReadBytes, Snapshot};
use super::object::Objects;
use super::stack::{frames_only, thread_states};

/// Frames of a thread, at most.
const FRAMES: usize = 256;
/// Bytes of a line table, at most.
const TABLE: usize = 1 << 20;
/// Times that a stack is read until two readings agree.
const ATTEMPTS: usize = 5;
/// `tid` of glibc's `struct pthread` on x86-64 (`nptl/descr.h`, 2.11 to 2.41), to which `thread_id` points.
const GLIBC_TID: u64 = 0x2d0;
/// `PyThreadState.native_thread_id` lies behind `thread_id` (3.11+).
const NATIVE_ID: u64 = 8;
/// `co_linetable` lies behind `co_name` (3.10), or behind `co_qualname`, which lies behind `co_name` (3.11+).
const WORD: u64 = 8;
/// `co_code_adaptive`, by minor version from 3.11 on.
const CODE_UNITS: [(u8, u64); 4] = [(11, 184), (12, 192), (13, 200), (14, 208)];
/// Names of code objects that stand for C.
const SHIMS: [&str; 2] = ["<interpreter trampoline>", "<trampoline>"];

/// A thread and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its thread id as the kernel has it, in the process's own pid namespace. 3.10 does not tell: there it is what
    /// glibc notes, to be believed only if such a thread exists.
    pub tid: Option<u32>,
    /// Its frames, the innermost first.
    pub frames: Vec<Frame>,
    /// Two readings agree: this is what the thread does, and no mixture of two moments.
    pub steady: bool,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Qualified name of its code; the plain name on 3.10.
    pub name: String,
    /// File as the interpreter names it.
    pub file: String,
    /// The line that it is in.
    pub line: Option<u32>,
    /// Its address, the same as long as the call lasts, and used again later.
    pub address: u64,
    /// Its code object.
    pub code: u64,
    /// Where its code stands.
    pub instruction: u64,
}

/// Threads of the main interpreter, youngest first.
pub fn threads<M: ReadBytes>(memory: &M, layout: &Layout) -> Vec<Thread> {
    let stack_layout = frames_only(layout);
    thread_states(memory, layout)
        .into_iter()
        .map(|state| {
            let mut before = stack(memory, layout, &stack_layout, state.address);
            let mut steady = false;
            for _ in 1..ATTEMPTS {
                let after = stack(memory, layout, &stack_layout, state.address);
                steady = after == before;
                before = after;
                if steady {
                    break;
                }
            }
            Thread {
                tid: native_id(memory, layout, state.address, state.thread_id),
                frames: before,
                steady,
            }
        })
        .collect()
}

fn native_id<M: ReadBytes>(memory: &M, layout: &Layout, state: u64, thread_id: u64) -> Option<u32> {
    let offsets = &layout.offsets.stack;
    if layout.offsets.minor < 11 {
        let noted = memory.read::<u32>(thread_id.checked_add(GLIBC_TID)?)?;
        return Some(noted).filter(|tid| *tid > 0);
    }
    let at = state.checked_add(u64::from(offsets.thread_id) + NATIVE_ID)?;
    u32::try_from(memory.read::<u64>(at)?)
        .ok()
        .filter(|tid| *tid > 0)
}

/// The stack as one reading of fresh memory shows it.
fn stack<M: ReadBytes>(memory: &M, layout: &Layout, stack: &StackLayout, state: u64) -> Vec<Frame> {
    let snapshot = Snapshot::new(memory);
    let mut frames = Vec::new();
    let mut at = walk::innermost(&snapshot, stack, state).unwrap_or(0);
    for _ in 0..FRAMES {
        let Some(frame) = (at != 0)
            .then(|| walk::frame(&snapshot, stack, at))
            .flatten()
        else {
            break;
        };
        let told = told(&snapshot, layout, frame.code, at).map(|told| Frame {
            instruction: walk::instruction(&snapshot, stack, at),
            ..told
        });
        frames.extend(told.filter(|frame| !SHIMS.contains(&frame.name.as_str())));
        at = frame.previous;
    }
    frames
}

/// What a frame's code tells; `None` if it is no code.
fn told<M: ReadBytes>(memory: &M, layout: &Layout, code: u64, frame: u64) -> Option<Frame> {
    let objects = Objects::new(memory, layout);
    let read = objects.code(code)?;
    let modern = layout.offsets.minor >= 11;
    let name = layout.offsets.code.name + if modern { WORD } else { 0 };
    Some(Frame {
        name: objects.text(objects.pointer(code.checked_add(name)?)?)?,
        file: read.filename,
        line: line(memory, layout, (code, name), frame, read.firstlineno),
        address: frame,
        code,
        instruction: 0,
    })
}

fn line<M: ReadBytes>(
    memory: &M,
    layout: &Layout,
    (code, name): (u64, u64),
    frame: u64,
    first: u32,
) -> Option<u32> {
    let objects = Objects::new(memory, layout);
    let table = objects.pointer(code.checked_add(name + WORD)?)?;
    let table = objects.bytes(table, TABLE)?;
    let at = frame.checked_add(layout.offsets.stack.instruction.into())?;
    let minor = layout.offsets.minor;
    let Some((_, units)) = CODE_UNITS.iter().find(|(own, _)| *own == minor) else {
        // 3.10 counts in units; before the first instruction it is -1.
        let last: i32 = memory.read(at)?;
        let offset = u64::try_from(last).ok().map(|unit| unit * 2);
        return offset.map_or(Some(first), |offset| {
            lines::locate_3_10(&table, first, offset)
        });
    };
    let instruction: u64 = memory.read(at)?;
    let begin = code.checked_add(*units)?;
    match instruction.checked_sub(begin) {
        Some(offset) => lines::locate(&table, first, offset / 2),
        // Before the first instruction (to 3.12).
        None => Some(first),
    }
}
