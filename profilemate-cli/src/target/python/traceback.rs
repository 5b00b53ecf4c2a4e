//! The Python stack of every thread of a process, read without stopping it.
//!
//! A thread that runs changes its stack while it is read. So it is read twice, and only what both readings agree in is
//! called steady; a thread that is stuck is steady at once.

use profilemate_common::memory::Memory as _;

use super::layout::{Layout, STATE_NEXT};
use super::lines;
use super::memory::{ReadBytes, Snapshot};
use super::object::Objects;

/// Threads of a process, at most.
const THREADS: usize = 4096;
/// Frames of a thread, at most.
const FRAMES: usize = 256;
/// Bytes of a line table, at most.
const TABLE: usize = 1 << 20;
/// Times that a stack is read until two readings agree.
const ATTEMPTS: usize = 5;
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
    /// Its thread id as the kernel has it, in the process's own pid namespace; `None` on 3.10, which does not tell.
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
}

/// Threads of the main interpreter, youngest first.
pub fn threads<M: ReadBytes>(memory: &M, layout: &Layout) -> Vec<Thread> {
    states(memory, layout)
        .into_iter()
        .map(|state| {
            let mut before = stack(memory, layout, state);
            let mut steady = false;
            for _ in 1..ATTEMPTS {
                let after = stack(memory, layout, state);
                steady = after == before;
                before = after;
                if steady {
                    break;
                }
            }
            Thread {
                tid: native_id(memory, layout, state),
                frames: before,
                steady,
            }
        })
        .collect()
}

fn states<M: ReadBytes>(memory: &M, layout: &Layout) -> Vec<u64> {
    let objects = Objects::new(memory, layout);
    let mut found = Vec::new();
    let head = layout.interpreter.checked_add(layout.offsets.stack.threads);
    let mut next = head.and_then(|head| objects.pointer(head));
    while let Some(state) = next {
        if found.len() >= THREADS || found.contains(&state) {
            break;
        }
        found.push(state);
        next = state
            .checked_add(STATE_NEXT)
            .and_then(|next| objects.pointer(next));
    }
    found
}

fn native_id<M: ReadBytes>(memory: &M, layout: &Layout, state: u64) -> Option<u32> {
    let offsets = &layout.offsets.stack;
    if layout.offsets.minor < 11 {
        return None;
    }
    let at = state.checked_add(u64::from(offsets.thread_id) + NATIVE_ID)?;
    u32::try_from(memory.read::<u64>(at)?)
        .ok()
        .filter(|tid| *tid > 0)
}

/// The stack as one reading of fresh memory shows it.
fn stack<M: ReadBytes>(memory: &M, layout: &Layout, state: u64) -> Vec<Frame> {
    let snapshot = Snapshot::new(memory);
    let objects = Objects::new(&snapshot, layout);
    let offsets = &layout.offsets.stack;
    let word = |at: u64| objects.pointer(at);
    let mut frame = state.checked_add(offsets.state_frame.into()).and_then(word);
    if let Some(inner) = offsets.cframe_frame {
        frame = frame
            .and_then(|cframe| cframe.checked_add(inner.into()))
            .and_then(word);
    }
    let mut frames = Vec::new();
    for _ in 0..FRAMES {
        let Some(at) = frame else { break };
        let of =
            |index: u32| at.checked_add(u64::from(offsets.frame_head) + u64::from(index) * WORD);
        // The low bits tell how a reference is counted (3.14).
        let code = of(offsets.code_word)
            .and_then(|at| snapshot.read::<u64>(at))
            .map(|code| code & !7);
        let told = code.and_then(|code| told(&snapshot, layout, code, at));
        frames.extend(told.filter(|frame| !SHIMS.contains(&frame.name.as_str())));
        frame = of(offsets.previous_word).and_then(word);
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
