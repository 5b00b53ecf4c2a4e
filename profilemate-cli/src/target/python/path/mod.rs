//! Field paths as text, and their compiler.
//!
//! A field path says which value of a call to read:
//!
//! ```text
//! path    = root step* [ "[*]" [ "." NAME ] ] [ ":" kind ]
//! root    = "self"                     argument 0 of a method
//!         | "ret"                      the result
//!         | "arg." NAME | "arg." N     an argument by name, or by position (0 is self)
//!         | NAME                       an argument by name
//!         | "global." NAME             a global of the method's module
//!         | MODULE "::" NAME           a global of another module, as in `vllm.envs::VLLM_USE_V1`
//!         | "closure." NAME            a variable of an enclosing function
//!         | "local." NAME              a local variable, of a frame that a walk of the stack finds
//! step    = "." NAME                   an instance attribute or slot
//!         | "[" N "]"                  an item of a tuple (a named tuple's fields are such items)
//!         | "[list:" N "]"             an item of a list
//!         | "['" KEY "']"              the value of a string key of a dict
//! kind    = "int"                      int, bool, IntEnum (what holds if no kind is given)
//!         | "float" | "bool" | "str" | "bytes"
//!         | "none"                     whether it is None
//!         | "len"                      length of a list, tuple, dict, set, deque, str or bytes
//!         | "addr"                     identity
//!         | "ints" | "strs" | "addrs"  items of a list, tuple or set, keys of a dict (with "[*]": ints if no kind is given)
//!         | "items"                    pairs of key identity and int of a dict
//! ```
//!
//! `[*].NAME` reads an attribute of every item: `ret.scheduled_new_reqs[*].req_id:strs`.
//! Keyword arguments called `ret`, `self`, `arg`, `global`, `closure` or `local` are written `arg.ret` and so on.
//!
//! Only stored data can be read: properties and methods would run code. Instance attributes are found by name, so no
//! class need be known. Slots (`__slots__`) can only be found with the class: see [`Compiler::class_of`].

mod attribute;
mod compile;
mod error;
mod frame;
mod parse;
mod program;
mod syntax;

pub use compile::{Compiled, Compiler};
pub use error::CompileError;
pub use parse::{ParseError, parse};
pub use program::{ProgramError, assemble};
pub use syntax::{Element, Kind, Path, Root, Step};
