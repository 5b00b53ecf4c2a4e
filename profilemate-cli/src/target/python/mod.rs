//! A live CPython process, read from outside.
//!
//! In reading order: [`memory`] (bytes of another process), [`identify`] (which interpreter, and where), [`layout`]
//! (its field offsets, checked on live objects), [`object`] (strings, integers, dictionaries, classes), [`resolve`]
//! (`module:qualname` to a function object), [`interned`] (attribute names by address), [`path`] (field paths to
//! the operations that the kernel runs) and [`stack`] (threads and their frames).
//!
//! The target may be hostile, may change while it is read, and may end at any moment. So every pointer is checked
//! before it is believed, every loop and size is bounded, and a whole pass is bounded by [`memory::Snapshot`].

pub mod entry;
pub mod function;
pub mod identify;
pub mod interned;
pub mod layout;
pub mod memory;
pub mod object;
pub mod path;
pub mod resolve;
pub mod stack;
pub mod symbols;
pub mod tensor;
pub mod traceback;

mod elf;
mod hash;
#[cfg(test)]
mod image;
mod lines;

pub use entry::{Entry, EntryError, EvalEntry, RemoteEntry, find_entry};
pub use function::{Argument, Binding, Function};
pub use identify::{IdentifyError, Interpreter, Version, identify};
pub use interned::Interned;
pub use layout::{Layout, LayoutError, validate};
pub use memory::{ProcessMemory, ReadBytes, Snapshot};
pub use path::{CompileError, Compiled, Compiler, ProgramError, assemble};
pub use resolve::{ResolveError, Resolver};
pub use stack::{StackError, ThreadState, find_stack, thread_states};
pub use symbols::Symbols;
pub use tensor::{TensorError, Tensors, tensors};
