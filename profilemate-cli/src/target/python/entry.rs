//! Where a live interpreter can be made to run code of ours: found and checked here, used by `touch` only.
//!
//! CPython 3.14 has an interface for that (PEP 768). Older ones are entered at the beginning of the eval loop, where a
//! thread holds the interpreter's lock and stands between two calls.

use std::os::unix::fs::FileExt as _;

use super::elf;
use super::identify::Interpreter;
use super::layout::{Breaker, Layout, STATE_INTERPRETER};
use super::memory::ReadBytes;
use crate::sys::status::innermost_id;
use crate::target::maps;

/// The function at whose entry older interpreters are stopped.
pub const EVAL: &str = "_PyEval_EvalFrameDefault";
/// The function that is called there.
pub const RUN: &str = "PyRun_SimpleString";
/// Bytes of code that are searched for a breakpoint instruction.
const SEARCHED: usize = 1 << 20;
/// `int3`.
const TRAP: u8 = 0xcc;

/// A way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The beginning of the eval loop (3.10 to 3.13).
    Eval(EvalEntry),
    /// The interface for remote debugging (3.14).
    Remote(RemoteEntry),
}

/// What has to be known to stop a thread at the beginning of the eval loop, and to call a function there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalEntry {
    /// Address of [`EVAL`].
    pub eval: u64,
    /// Address of [`RUN`].
    pub run: u64,
    /// A byte in the interpreter's code that is a breakpoint instruction: where the called function returns to.
    pub back: u64,
    /// The main `PyInterpreterState`.
    interpreter: u64,
    /// `PyThreadState.thread_id`.
    thread_id: u64,
    breaker: Breaker,
    exception: u64,
}

/// Addresses in the main thread's `PyThreadState` that a request is written to (PEP 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteEntry {
    /// `debugger_pending_call`, an `int`: 1 while a request waits.
    pub pending: u64,
    /// `debugger_script_path`.
    pub path: u64,
    /// Its size in bytes.
    pub path_size: u64,
    /// `eval_breaker`.
    pub breaker: u64,
}

/// Why there is no way in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The interpreter's file cannot be read.
    #[error("{path} cannot be read: {reason}")]
    File {
        /// The file, as the target sees it.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// A function cannot be told from the file's symbols.
    #[error("its interpreter's file names {found} functions `{symbol}`, where it should name one")]
    Symbol {
        /// The name.
        symbol: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A function lies outside of the interpreter's code.
    #[error("`{symbol}` does not lie in the interpreter's code")]
    Elsewhere {
        /// The name.
        symbol: &'static str,
    },
    /// The code has no byte to return to.
    #[error("its interpreter's code has no byte that a called function could return to")]
    NoTrap,
    /// The interpreter was told not to take requests, or built so.
    #[error(
        "remote debugging is switched off in it (`PYTHON_DISABLE_REMOTE_DEBUG`, `-X disable-remote-debug`, or its build)"
    )]
    Disabled,
    /// What the interpreter says of its own interface cannot be.
    #[error("what its interpreter says of its interface for remote debugging cannot be: {what}")]
    Odd {
        /// The difference.
        what: &'static str,
    },
    /// No way is known for this version.
    #[error("no way into a running CPython {version} is known")]
    Version {
        /// The version.
        version: String,
    },
}

/// Finds the way into an interpreter. Reads only.
pub fn find_entry<M: ReadBytes>(
    interpreter: &Interpreter,
    layout: &Layout,
    memory: &M,
) -> Result<Entry, EntryError> {
    match (layout.version.minor, layout.offsets.eval) {
        (14, _) => remote(interpreter.pid, layout, memory).map(Entry::Remote),
        (_, Some(offsets)) => {
            let code = Code::find(interpreter)?;
            Ok(Entry::Eval(EvalEntry {
                eval: code.function(interpreter, EVAL)?,
                run: code.function(interpreter, RUN)?,
                back: code.trap(memory).ok_or(EntryError::NoTrap)?,
                interpreter: layout.interpreter,
                thread_id: u64::from(layout.offsets.stack.thread_id),
                breaker: offsets.breaker,
                exception: offsets.exception,
            }))
        }
        _ => Err(EntryError::Version {
            version: layout.version.to_string(),
        }),
    }
}

/// The interpreter's code, in its file and in the process.
struct Code {
    image: elf::Functions,
    bias: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn find(interpreter: &Interpreter) -> Result<Self, EntryError> {
        let failed = |reason: String| EntryError::File {
            path: interpreter.path.clone(),
            reason,
        };
        let pid = interpreter.pid;
        let text = std::fs::read_to_string(format!("/proc/{pid}/maps"))
            .map_err(|error| failed(error.to_string()))?;
        let mapping = maps::parse(&text)
            .into_iter()
            .find(|mapping| {
                mapping.executable
                    && mapping.path == interpreter.path
                    && interpreter.is_text(mapping.addresses.start)
            })
            .ok_or_else(|| failed("it is not mapped any more".to_owned()))?;
        let file = maps::open(pid, &mapping).map_err(|error| failed(error.to_string()))?;
        let length = mapping.addresses.end - mapping.addresses.start;
        let mut bytes = vec![0; SEARCHED.min(usize::try_from(length).unwrap_or(SEARCHED))];
        let read = file
            .read_at(&mut bytes, mapping.offset)
            .map_err(|error| failed(error.to_string()))?;
        bytes.truncate(read);
        let image =
            elf::functions(file, &[EVAL, RUN]).map_err(|error| failed(error.to_string()))?;
        if image.build_id != interpreter.build_id {
            return Err(failed("it is another build than the one that runs".into()));
        }
        let bias = image
            .bias(mapping.addresses.start, mapping.offset)
            .ok_or_else(|| failed("its code is not mapped where the file says".to_owned()))?;
        Ok(Self {
            image,
            bias,
            start: mapping.addresses.start,
            bytes,
        })
    }

    /// Address of the one function of that name.
    fn function(&self, interpreter: &Interpreter, symbol: &'static str) -> Result<u64, EntryError> {
        let found = self.image.addresses(symbol);
        let [address] = found[..] else {
            return Err(EntryError::Symbol {
                symbol,
                found: found.len(),
            });
        };
        let address = address.wrapping_add(self.bias);
        if interpreter.is_text(address) {
            Ok(address)
        } else {
            Err(EntryError::Elsewhere { symbol })
        }
    }

    /// A byte that is a breakpoint instruction in the file and in the process: one that a debugger or a probe has put
    /// there is none in the file.
    fn trap<M: ReadBytes>(&self, memory: &M) -> Option<u64> {
        let places = self.bytes.iter().enumerate();
        places
            .filter(|(_, byte)| **byte == TRAP)
            .map(|(at, _)| self.start + at as u64)
            .take(1000)
            .find(|address| memory.read::<u8>(*address) == Some(TRAP))
    }
}

impl EvalEntry {
    /// Whether a thread whose thread pointer is `thread`, and that is at the entry with these arguments, can be made
    /// to run something else first: it is a thread of the main interpreter, it was not entered to raise an exception,
    /// and nothing waits to be done that could raise one.
    pub fn is_calm<M: ReadBytes>(
        &self,
        memory: &M,
        thread: u64,
        state: u64,
        throwing: bool,
    ) -> bool {
        let word = |address: u64| memory.read::<u64>(address);
        let breaker = match self.breaker {
            Breaker::Interpreter(offset) => memory
                .read::<u32>(self.interpreter.wrapping_add(offset))
                .map(u64::from),
            Breaker::Thread(offset) => word(state.wrapping_add(offset)).map(|bits| bits & 0xff),
        };
        !throwing
            && word(state.wrapping_add(STATE_INTERPRETER)) == Some(self.interpreter)
            && word(state.wrapping_add(self.thread_id)) == Some(thread)
            && word(state.wrapping_add(self.exception)) == Some(0)
            && breaker == Some(0)
    }
}

/// Words of 3.14's `_Py_DebugOffsets`.
mod word {
    pub(super) const THREADS_MAIN: u64 = 10;
    pub(super) const BREAKER: u64 = 89;
    pub(super) const SUPPORT: u64 = 90;
    pub(super) const ENABLED: u64 = 91;
    pub(super) const PENDING: u64 = 92;
    pub(super) const PATH: u64 = 93;
    pub(super) const PATH_SIZE: u64 = 94;
}
/// `PyThreadState.native_thread_id`, by `PyThreadState.thread_id`.
const NATIVE_AFTER_ID: u64 = 8;
/// No offset is larger, no path longer.
const LARGEST: u64 = 1 << 20;
const LONGEST: u64 = 1 << 16;

fn remote<M: ReadBytes>(pid: u32, layout: &Layout, memory: &M) -> Result<RemoteEntry, EntryError> {
    let odd = |what| EntryError::Odd { what };
    let offset = |word: u64| {
        memory
            .read::<u64>(layout.symbols.runtime.wrapping_add(word * 8))
            .filter(|offset| *offset < LARGEST)
            .ok_or(odd("an offset is too large"))
    };
    let at = |base: u64, word: u64| Ok(base.wrapping_add(offset(word)?));
    let enabled = memory.read::<i32>(at(layout.interpreter, word::ENABLED)?);
    match enabled {
        Some(1) => {}
        Some(0) => return Err(EntryError::Disabled),
        _ => return Err(odd("whether it is switched on")),
    }
    let state = memory
        .read::<u64>(at(layout.interpreter, word::THREADS_MAIN)?)
        .filter(|state| *state != 0)
        .ok_or(odd("it has no main thread"))?;
    let thread_id = u64::from(layout.offsets.stack.thread_id);
    let native = memory.read::<u64>(state.wrapping_add(thread_id + NATIVE_AFTER_ID));
    let interpreter = memory.read::<u64>(state.wrapping_add(STATE_INTERPRETER));
    // In another pid namespace a thread has another number.
    if interpreter != Some(layout.interpreter) || !is_main_thread(pid, native.unwrap_or(0)) {
        return Err(odd("its main thread is another"));
    }
    let support = at(state, word::SUPPORT)?;
    let path_size = offset(word::PATH_SIZE)?;
    if !(64..=LONGEST).contains(&path_size) {
        return Err(odd("the room for a path"));
    }
    Ok(RemoteEntry {
        pending: at(support, word::PENDING)?,
        path: at(support, word::PATH)?,
        path_size,
        breaker: at(state, word::BREAKER)?,
    })
}

/// Whether `number` is the main thread's of process `pid`, in its own pid namespace.
fn is_main_thread(pid: u32, number: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    innermost_id(&status).map(u64::from) == Some(number)
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
