//! Why a path is not compiled.

use super::parse::ParseError;
use crate::target::python::resolve::ResolveError;
use crate::target::python::tensor::TensorError;

/// Why a path was not compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is no path.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The method has no such argument.
    #[error("{method} has no argument {name}; it has {known}")]
    NoArgument {
        /// The method.
        method: String,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Tensors are not read in this process.
    #[error("tensors are not read: {0}")]
    Tensor(#[from] TensorError),
    /// It has no instance.
    #[error("{method} is no method of an instance, so there is no self")]
    NoSelf {
        /// The method.
        method: String,
    },
    /// No interned string with this text was found.
    #[error("no object in the process has an attribute, argument or key {name} (yet)")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// It would run code.
    #[error("{class}.{name} is a {what}: reading it would run code in the process")]
    RunsCode {
        /// Name of the class.
        class: String,
        /// The attribute.
        name: String,
        /// `property`, `function` and so on.
        what: String,
    },
    /// It is a slot that holds no object.
    #[error("{class}.{name} is not stored as an object")]
    NotAnObject {
        /// Name of the class.
        class: String,
        /// The attribute.
        name: String,
    },
    /// A module's global is not there.
    #[error("the module {module} has no global {name}")]
    NoGlobal {
        /// Module.
        module: String,
        /// Global.
        name: String,
    },
    /// The function encloses no such variable.
    #[error("{method} encloses no variable {name}")]
    NoClosure {
        /// The method.
        method: String,
        /// Variable.
        name: String,
    },
    /// The function has no such local variable.
    #[error("frames of {method} have no variable {name}")]
    NoLocal {
        /// The method.
        method: String,
        /// Variable.
        name: String,
    },
    /// The path begins where calls and frames differ.
    #[error("{what}")]
    NotThere {
        /// What is not there, in plain words.
        what: &'static str,
    },
    /// A class given for a prefix was not resolved.
    #[error("the class at {prefix}: {source}")]
    Class {
        /// The prefix.
        prefix: String,
        /// Why.
        source: ResolveError,
    },
    /// An attribute cannot be read from instances of its class.
    #[error("instances of {class} have neither a slot nor a dictionary for {name}")]
    NoAttribute {
        /// Name of the class.
        class: String,
        /// The attribute.
        name: String,
    },
}
