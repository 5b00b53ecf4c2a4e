//! Types of expressions and attributes, as far as annotations and plain assignments tell them.

use std::rc::Rc;

use super::expression::Expression;
use super::model::{Assigned, Function, Member};
use super::names::{ClassAt, Item, Names};
use super::python;

/// Definitions that are followed for one type, at most.
const DEPTH: usize = 12;

/// A type, as far as it is known.
#[derive(Clone, Debug)]
pub(super) enum Type {
    /// An instance of a class of the tree.
    Class(ClassAt),
    /// A tuple with these items.
    Tuple(Vec<Type>),
    /// A collection of such items.
    Items(Box<Type>),
    /// A dictionary with such values.
    Values(Box<Type>),
    /// Not known.
    Unknown,
}

/// Tells types.
pub(super) struct Types<'n, 't> {
    pub(super) names: &'n Names<'t>,
}

impl Types<'_, '_> {
    /// The type that an annotation in `module` stands for.
    pub(super) fn annotated(&self, module: &str, annotation: &Expression) -> Type {
        self.annotation(module, annotation, 0)
    }

    fn annotation(&self, module: &str, annotation: &Expression, depth: usize) -> Type {
        if depth > DEPTH {
            return Type::Unknown;
        }
        match annotation {
            Expression::Name(name) => match self.names.find(module, name) {
                Item::Class(class) => Type::Class(class),
                Item::Value(module, value) => self.annotation(&module, &value, depth + 1),
                _ => Type::Unknown,
            },
            Expression::Text(text) => self.annotation(module, &python::annotation(text), depth + 1),
            Expression::Union(parts) => {
                let mut others = parts.iter().filter(|part| **part != Expression::None);
                match (others.next(), others.next()) {
                    (Some(only), None) => self.annotation(module, only, depth + 1),
                    _ => Type::Unknown,
                }
            }
            Expression::Subscript(generic, arguments) => {
                self.generic(module, generic, arguments, depth)
            }
            _ => Type::Unknown,
        }
    }

    fn generic(
        &self,
        module: &str,
        generic: &Expression,
        arguments: &[Expression],
        depth: usize,
    ) -> Type {
        let of = |index: usize| {
            arguments.get(index).map_or(Type::Unknown, |argument| {
                self.annotation(module, argument, depth + 1)
            })
        };
        let name = generic.name().unwrap_or_default();
        match name.rsplit('.').next().unwrap_or_default() {
            "list" | "List" | "set" | "Set" | "frozenset" | "deque" | "Sequence" | "Iterable"
            | "Collection" => Type::Items(Box::new(of(0))),
            "dict" | "Dict" | "Mapping" | "defaultdict" | "OrderedDict" => {
                Type::Values(Box::new(of(1)))
            }
            "tuple" | "Tuple" => match arguments {
                [_, Expression::Other] => Type::Items(Box::new(of(0))),
                all => Type::Tuple((0..all.len()).map(of).collect()),
            },
            "Optional" | "Final" | "ClassVar" | "Annotated" => of(0),
            "Union" => self.annotation(module, &Expression::Union(arguments.to_vec()), depth + 1),
            "type" | "Type" => Type::Unknown,
            _ => self.annotation(module, generic, depth + 1),
        }
    }

    /// The type of a parameter.
    pub(super) fn parameter(&self, module: &str, function: &Function, name: &str) -> Type {
        let annotation = function
            .parameters
            .iter()
            .find(|(own, _)| own == name)
            .and_then(|(_, annotation)| annotation.as_ref());
        annotation.map_or(Type::Unknown, |annotation| {
            self.annotated(module, annotation)
        })
    }

    /// The type of an attribute of instances of `class`.
    pub(super) fn attribute(&self, class: &ClassAt, name: &str) -> Type {
        self.attribute_of(class, name, 0)
    }

    fn attribute_of(&self, class: &ClassAt, name: &str, depth: usize) -> Type {
        if depth > DEPTH {
            return Type::Unknown;
        }
        for above in self.names.order(class).classes {
            if let Some(Member::Value {
                annotation: Some(annotation),
                ..
            }) = above.class.members.get(name)
            {
                return self.annotation(&above.module, annotation, depth + 1);
            }
            let Some(assigned) = above.class.instance.get(name) else {
                continue;
            };
            let annotated = assigned.iter().find_map(|one| one.annotation.as_ref());
            if let Some(annotation) = annotated {
                return self.annotation(&above.module, annotation, depth + 1);
            }
            let values = assigned
                .iter()
                .map(|one| self.value(&above, one, depth + 1));
            let known = |value: &Type| !matches!(value, Type::Unknown);
            return values.into_iter().find(known).unwrap_or(Type::Unknown);
        }
        Type::Unknown
    }

    fn value(&self, class: &ClassAt, assigned: &Assigned, depth: usize) -> Type {
        match &assigned.value {
            Expression::Call(function) => {
                let name = function.name().unwrap_or_default();
                match self.names.find(&class.module, name) {
                    Item::Class(made) => Type::Class(made),
                    Item::Function(module, function) => {
                        function.returns.as_ref().map_or(Type::Unknown, |returns| {
                            self.annotation(&module, returns, depth)
                        })
                    }
                    _ => Type::Unknown,
                }
            }
            Expression::Name(name) => self.variable(class, &assigned.method, name, depth),
            _ => Type::Unknown,
        }
    }

    /// The type of `a.b` in a method, where `a` is one of its parameters.
    fn variable(&self, class: &ClassAt, method: &str, name: &str, depth: usize) -> Type {
        let Some(Member::Function(function)) = class.class.members.get(method) else {
            return Type::Unknown;
        };
        let function = Rc::clone(function);
        let mut parts = name.split('.');
        let first = parts.next().unwrap_or_default();
        let own = function
            .parameters
            .first()
            .is_some_and(|(own, _)| own == first);
        let mut at = if own {
            Type::Class(class.clone())
        } else {
            self.parameter(&class.module, &function, first)
        };
        for part in parts {
            let Type::Class(class) = at else {
                return Type::Unknown;
            };
            at = self.attribute_of(&class, part, depth + 1);
        }
        at
    }
}
