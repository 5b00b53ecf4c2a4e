//! Where a process's Python threads keep their states and frames, for walks of their stacks by the kernel.
//!
//! At a call of a C function the global interpreter lock is often released, so that the interpreter's own variable for
//! the current thread says nothing. What stays is the thread-specific data (`pthread_getspecific`) under a key that the
//! interpreter made at its start. glibc keeps the values of the first 32 keys in the thread's own structure, at the
//! same distance from the thread pointer in every thread. That distance is found by looking for it: the states and the
//! thread pointers of all threads are known from outside, so the word that holds the one beside the other is too.

use std::collections::BTreeSet;

use profilemate_common::walk::{NO_OFFSET, StackLayout, TAG, frame, innermost};

use super::layout::{Layout, STATE_INTERPRETER, STATE_NEXT};
use super::memory::{ReadBytes, Snapshot};
use super::object::Objects;

/// Threads of one process that are looked at, at most.
const THREADS: usize = 4096;
/// Bytes of a thread's own structure that are searched (glibc's has 0x900 on x86-64).
const SEARCHED: usize = 0x900;
/// Bytes from one key of the thread-specific data to the next: a sequence number, which is odd while the key is in
/// use, and the value.
const ENTRY: u64 = 16;
/// Times that the threads are looked at: they run on meanwhile.
const ATTEMPTS: usize = 5;
/// Frames of one thread that are checked, at most.
const FRAMES: usize = 64;

/// Why the stacks of a process cannot be walked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// Not on this processor.
    #[error("Python stacks are walked on x86-64 only")]
    Architecture,
    /// No thread state was found.
    #[error("no thread of the interpreter was found")]
    NoThreads,
    /// The thread states are not where glibc keeps them.
    #[error(
        "its thread states are not found in the first 32 keys of glibc's thread-specific data{why}"
    )]
    NoSlot {
        /// What is known of it, with a separator before it; or empty.
        why: &'static str,
    },
    /// Frames are not where the layout says.
    #[error("its frames differ from the known layout: {what}")]
    Differs {
        /// What differs, in plain words.
        what: &'static str,
    },
}

impl StackError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Architecture => "method probes (`--touch probes`) work on this processor",
            Self::NoThreads => "try again when the server has started",
            Self::NoSlot { .. } => {
                "musl and other C libraries are not supported by `--touch none`; method probes do not need this"
            }
            Self::Differs { .. } => {
                "report the Python build (`python -VV`) with this message; method probes do not need this"
            }
        }
    }
}

/// One thread of the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Its `PyThreadState`.
    pub address: u64,
    /// What `pthread_self` gives in it: its thread pointer, on x86-64 with glibc or musl.
    pub thread_id: u64,
}

/// The threads of the main interpreter, youngest first.
pub fn thread_states<M: ReadBytes>(memory: &M, layout: &Layout) -> Vec<ThreadState> {
    let objects = Objects::new(memory, layout);
    let offsets = &layout.offsets.stack;
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = objects.pointer(layout.interpreter.wrapping_add(offsets.threads));
    while let Some(address) = next {
        let interpreter = objects.pointer(address.wrapping_add(STATE_INTERPRETER));
        // A list that leads back into itself is one of a process that lies, or that changes just now.
        if seen.len() >= THREADS || !seen.insert(address) || interpreter != Some(layout.interpreter)
        {
            break;
        }
        let thread_id = memory.read::<u64>(address.wrapping_add(u64::from(offsets.thread_id)));
        if let Some(thread_id) = thread_id {
            found.push(ThreadState { address, thread_id });
        }
        next = objects.pointer(address.wrapping_add(STATE_NEXT));
    }
    found
}

/// How frames are walked from a known thread state on: everything but the slot of the thread-specific data.
pub(super) fn frames_only(layout: &Layout) -> StackLayout {
    let offsets = &layout.offsets.stack;
    StackLayout {
        slot: 0,
        thread_id: offsets.thread_id,
        state_frame: offsets.state_frame,
        cframe_frame: offsets.cframe_frame.unwrap_or(NO_OFFSET),
        frame_head: offsets.frame_head,
        code_word: offsets.code_word,
        previous_word: offsets.previous_word,
        frame_locals: offsets.locals,
        frame_instruction: offsets.instruction,
        number: 0,
        task_pointer: 0,
    }
}

/// How to walk the stacks of the process whose memory is `memory`; checked on its threads as they are now. The number
/// of the process and what belongs to the kernel are left 0. `libc` says whether a mapped file's path is a C library
/// that is known not to be glibc.
pub fn find_stack<M: ReadBytes>(
    memory: &M,
    layout: &Layout,
    is_musl: bool,
) -> Result<StackLayout, StackError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(StackError::Architecture);
    }
    let mut result = Err(StackError::NoThreads);
    for _ in 0..ATTEMPTS {
        result = find(&Snapshot::new(memory), layout, is_musl);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn find<M: ReadBytes>(
    memory: &M,
    layout: &Layout,
    is_musl: bool,
) -> Result<StackLayout, StackError> {
    let threads = thread_states(memory, layout);
    if threads.is_empty() {
        return Err(StackError::NoThreads);
    }
    let stack = StackLayout {
        slot: slot(memory, &threads).ok_or(StackError::NoSlot {
            why: if is_musl {
                ": its C library is musl"
            } else {
                ""
            },
        })?,
        ..frames_only(layout)
    };
    let mut verdict = Err(StackError::Differs {
        what: "no thread runs Python code whose frames could be checked",
    });
    for thread in &threads {
        match check(memory, layout, &stack, thread.address) {
            Some(Ok(())) => return Ok(stack),
            Some(Err(what)) => verdict = Err(StackError::Differs { what }),
            None => {}
        }
    }
    verdict
}

/// Distance from a thread's pointer to the word that holds its state: the only one that all threads have in common. A
/// thread in which none is found is one that begins or ends just now; they must be few.
fn slot<M: ReadBytes>(memory: &M, threads: &[ThreadState]) -> Option<i64> {
    let mut common: Option<Vec<usize>> = None;
    let mut without = 0;
    for thread in threads {
        let words: Vec<u64> = (0..SEARCHED as u64 / 8)
            .map_while(|index| memory.read(thread.thread_id.wrapping_add(8 * index)))
            .collect();
        let holds = |index: &usize| {
            let sequence = index.checked_sub(1).and_then(|before| words.get(before));
            (8 * *index as u64) % ENTRY == 8
                && words.get(*index) == Some(&thread.address)
                && sequence.is_some_and(|sequence| sequence & 1 == 1)
        };
        let here: Vec<usize> = (0..words.len()).filter(holds).collect();
        if here.is_empty() {
            without += 1;
            continue;
        }
        common = Some(match common {
            None => here,
            Some(common) => common
                .into_iter()
                .filter(|index| here.contains(index))
                .collect(),
        });
    }
    let common = common?;
    match common.as_slice() {
        [one] if 4 * without <= threads.len() => Some(8 * *one as i64),
        _ => None,
    }
}

/// Checks the frames of one thread: `None` if it runs no Python code, or changed meanwhile.
fn check<M: ReadBytes>(
    memory: &M,
    layout: &Layout,
    stack: &StackLayout,
    state: u64,
) -> Option<Result<(), &'static str>> {
    let objects = Objects::new(memory, layout);
    let mut at = innermost(memory, stack, state).ok()?;
    let mut codes = 0;
    for _ in 0..FRAMES {
        if at == 0 {
            break;
        }
        let Some(frame) = frame(memory, stack, at) else {
            return Some(Err("a frame cannot be read"));
        };
        if objects.is_exact(frame.code, layout.symbols.type_code) {
            codes += 1;
            if let Some(what) = wrong_locals(&objects, stack, at, frame.code) {
                return Some(Err(what));
            }
        } else if layout.version.minor < 12 {
            // Later versions have frames of the interpreter's own between those of Python code.
            return Some(Err("a frame runs no code object"));
        }
        at = frame.previous;
    }
    (codes > 0).then_some(Ok(()))
}

/// What is wrong with the arguments of a frame, which are objects or were deleted.
fn wrong_locals<M: ReadBytes>(
    objects: &Objects<'_, M>,
    stack: &StackLayout,
    frame: u64,
    code: u64,
) -> Option<&'static str> {
    let Some(read) = objects.code(code) else {
        return Some("a frame's code object cannot be read");
    };
    for index in 0..u64::from(read.argcount).min(16) {
        let at = frame
            .wrapping_add(u64::from(stack.frame_locals))
            .wrapping_add(8 * index);
        let Some(reference) = objects.memory.read::<u64>(at) else {
            return Some("a frame's variables cannot be read");
        };
        let object = reference & !TAG;
        let is_object = objects
            .type_of(object)
            .is_some_and(|class| objects.is_class(class));
        if object != 0 && !is_object {
            return Some("an argument of a frame is no object");
        }
    }
    None
}
