//! A resolved function.

use super::layout::Layout;

/// An argument's name and the address of its interned string, which is the key of a keyword argument.
pub type Argument = (String, u64);

/// How a class dictionary holds the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A function of a module.
    Module,
    /// An ordinary method: argument 0 is the instance.
    Method,
    /// A `staticmethod`.
    Static,
    /// A `classmethod`: argument 0 is the class.
    Class,
    /// The getter of a `property`: argument 0 is the instance.
    Property,
}

/// A live Python function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The module that was asked for.
    pub module: String,
    /// The qualified name that was asked for.
    pub qualname: String,
    /// The `PyFunctionObject`.
    pub address: u64,
    /// Its `PyCodeObject`.
    pub code: u64,
    /// The code of the innermost function that it wraps: what a frame of it runs on. Its own if it wraps none.
    pub innermost: u64,
    /// Where its vectorcall pointer lies.
    pub vectorcall_address: u64,
    /// The pointer now; not [`Layout::default_vectorcall`] if someone changed it, ourselves or another.
    pub vectorcall_value: u64,
    /// Where its version lies, 32 bits; `None` on 3.10, which has none.
    pub version_address: Option<u64>,
    /// Its version now; 0 if it has none.
    pub version_value: u32,
    /// On 3.13+ the word in the interpreter's version cache that points to this function, if one does. Whoever sets
    /// the version to 0 must set this word to 0 too, or it outlives the function.
    pub version_cache_slot: Option<u64>,
    /// Its own arguments, positional ones first, then those by keyword only.
    pub arguments: Vec<Argument>,
    /// How many of them can be given by position.
    pub argcount: u32,
    /// Whether it takes `*args`.
    pub varargs: bool,
    /// `co_flags`.
    pub flags: u32,
    /// Source file as the interpreter names it.
    pub filename: String,
    /// First line in it.
    pub firstlineno: u32,
    /// Whether a call only makes a generator, coroutine or asynchronous generator.
    pub is_generator: bool,
    /// How it is held.
    pub binding: Binding,
    /// The class in the qualified name, if it is a method.
    pub class: Option<u64>,
    /// The class whose dictionary holds it: `class` or one of its bases.
    pub owner: Option<u64>,
    /// The module's dictionary.
    pub globals: u64,
    /// The tuple of cells, if it is a closure.
    pub closure: Option<u64>,
    /// Whether it has `__wrapped__`, so is a decorator's wrapper.
    pub wrapped: bool,
    /// Arguments of the innermost function that it wraps; by these names and positions a wrapper that takes
    /// `*args, **kwargs` can be asked for them. Empty if it wraps none.
    pub wrapped_arguments: Vec<Argument>,
    /// How many of those can be given by position.
    pub wrapped_argcount: u32,
}

impl Function {
    /// Whether calls of it run through the interpreter's own vectorcall function.
    pub fn is_default(&self, layout: &Layout) -> bool {
        self.vectorcall_value == layout.default_vectorcall
    }

    /// Where argument `name` is found: its position, if it can be given by position, and the address of its name.
    pub fn argument(&self, name: &str) -> Option<(Option<u32>, u64)> {
        let find = |arguments: &[Argument], argcount: u32| {
            let index = arguments.iter().position(|(own, _)| own == name)?;
            Some((
                (index < argcount as usize).then_some(index as u32),
                arguments.get(index)?.1,
            ))
        };
        find(&self.arguments, self.argcount).or_else(|| {
            self.varargs
                .then(|| find(&self.wrapped_arguments, self.wrapped_argcount))?
        })
    }
}
