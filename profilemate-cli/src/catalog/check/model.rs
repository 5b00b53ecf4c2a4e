//! What a Python file defines, as far as the catalogue asks for it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::expression::Expression;

/// A file's definitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    /// Names that it binds; the first class or function of a name comes first.
    pub(super) names: BTreeMap<String, Vec<Bound>>,
    /// Modules of which it imports every name.
    pub(super) stars: Vec<Import>,
    /// Whether some of it could not be understood, or names are made when they are asked for.
    pub(super) vague: Option<&'static str>,
}

/// What a name is bound to.
#[derive(Clone, Debug)]
pub(super) enum Bound {
    /// A class.
    Class(Rc<Class>),
    /// A function.
    Function(Rc<Function>),
    /// An imported module or name.
    Import(Import),
    /// Another value.
    Value(Expression),
}

/// An import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// Dots before the module's name.
    pub(super) level: usize,
    /// Module.
    pub(super) module: String,
    /// Name in it; `None` is the module itself.
    pub(super) name: Option<String>,
}

/// A class.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    /// Its bases.
    pub(super) bases: Vec<Expression>,
    /// Its decorators' names.
    pub(super) decorators: Vec<String>,
    /// What its body binds.
    pub(super) members: BTreeMap<String, Member>,
    /// What its methods assign to their instance.
    pub(super) instance: BTreeMap<String, Vec<Assigned>>,
    /// `__slots__`.
    pub(super) slots: Vec<String>,
    /// Whether attributes are made in ways that are not seen (`setattr`, `__getattr__`).
    pub(super) vague: bool,
    /// Whether parts of it could not be understood.
    pub(super) broken: bool,
}

/// What a class's body binds.
#[derive(Clone, Debug)]
pub(super) enum Member {
    /// A method or property.
    Function(Rc<Function>),
    /// An attribute.
    Value {
        /// Its annotation.
        annotation: Option<Expression>,
        /// Whether the class holds a value for it.
        valued: bool,
    },
    /// A class.
    Class(Rc<Class>),
}

/// An assignment to an attribute of the instance.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    /// Annotation.
    pub(super) annotation: Option<Expression>,
    /// What is assigned.
    pub(super) value: Expression,
    /// In which method.
    pub(super) method: String,
}

/// A function.
#[derive(Clone, Debug, Default)]
pub(super) struct Function {
    /// Its decorators' names, the outermost first.
    pub(super) decorators: Vec<String>,
    /// Its parameters without `*args` and `**kwargs`.
    pub(super) parameters: Vec<(String, Option<Expression>)>,
    /// How many of them can be given by position.
    pub(super) positional: usize,
    /// Whether it takes `*args`.
    pub(super) varargs: bool,
    /// The annotation of its result.
    pub(super) returns: Option<Expression>,
}

impl Function {
    /// Whether one of its decorators has this last name.
    pub(super) fn is_decorated(&self, names: &[&str]) -> bool {
        self.decorators
            .iter()
            .any(|name| names.contains(&name.rsplit('.').next().unwrap_or_default()))
    }
}
