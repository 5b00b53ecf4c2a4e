//! What a field path says.

use std::fmt;

use crate::event::Shape;

/// Where a path begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// Argument 0 of a method.
    SelfArgument,
    /// The result.
    Result,
    /// An argument by name.
    Argument(String),
    /// An argument by position.
    Position(u32),
    /// A global of a module; `None` is the method's own.
    Global(Option<String>, String),
    /// A variable of an enclosing function.
    Closure(String),
    /// A local variable of a frame.
    Local(String),
}

/// One step on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An instance attribute or slot.
    Attribute(String),
    /// An item of a tuple.
    TupleItem(i32),
    /// An item of a list.
    ListItem(i32),
    /// The value of a string key of a dictionary.
    DictValue(String),
}

/// What of each item is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// The item.
    Item,
    /// An attribute of it.
    Attribute(String),
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $name:literal, $shape:ident;)*) => {
        /// What kind of value a path ends in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[doc = $doc])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// As it is written in a path.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// What the record holds.
            pub fn shape(self) -> Shape {
                match self {
                    $(Self::$kind => Shape::$shape,)*
                }
            }
        }
    };
}

kinds! {
    /// An integer.
    Int = "int", Int;
    /// A double.
    Float = "float", Float;
    /// `True` or `False`.
    Bool = "bool", Bool;
    /// Text.
    Str = "str", Str;
    /// Bytes.
    Bytes = "bytes", Bytes;
    /// Whether it is `None`.
    None = "none", Bool;
    /// Length.
    Len = "len", Int;
    /// Identity.
    Address = "addr", Address;
    /// Items that are integers.
    Ints = "ints", Ints;
    /// Items that are texts.
    Strs = "strs", Strs;
    /// Identities of items.
    Addresses = "addrs", Addresses;
    /// Pairs of key identity and integer.
    Items = "items", Pairs;
    /// Integers of a tensor in host memory.
    Tensor = "tensor", Tensor;
    /// Length of a tensor's first dimension.
    Rows = "rows", Int;
}

impl Kind {
    /// Whether the value is a collection.
    pub fn is_collection(self) -> bool {
        matches!(
            self,
            Self::Ints | Self::Strs | Self::Addresses | Self::Items
        )
    }
}

/// A field path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it begins.
    pub root: Root,
    /// The way.
    pub steps: Vec<Step>,
    /// What of each item is read, if it ends in a collection.
    pub element: Option<Element>,
    /// What it ends in.
    pub kind: Kind,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::SelfArgument => f.write_str("self")?,
            Root::Result => f.write_str("ret")?,
            Root::Argument(name) => write!(f, "arg.{name}")?,
            Root::Position(index) => write!(f, "arg.{index}")?,
            Root::Global(None, name) => write!(f, "global.{name}")?,
            Root::Global(Some(module), name) => write!(f, "{module}::{name}")?,
            Root::Closure(name) => write!(f, "closure.{name}")?,
            Root::Local(name) => write!(f, "local.{name}")?,
        }
        for step in &self.steps {
            write!(f, "{step}")?;
        }
        match &self.element {
            Some(Element::Attribute(name)) => write!(f, "[*].{name}")?,
            Some(Element::Item) if self.kind != Kind::Items => f.write_str("[*]")?,
            _ => {}
        }
        write!(f, ":{}", self.kind.name())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => write!(f, ".{name}"),
            Self::TupleItem(index) => write!(f, "[{index}]"),
            Self::ListItem(index) => write!(f, "[list:{index}]"),
            Self::DictValue(key) => write!(f, "['{key}']"),
        }
    }
}
