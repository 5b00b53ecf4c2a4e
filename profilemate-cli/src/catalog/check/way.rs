//! A field path, followed through the sources.

use std::collections::BTreeMap;

use super::Told;
use super::model::{Function, Member};
use super::names::{ClassAt, Item, Names};
use super::types::{Type, Types};
use crate::target::python::path::{Element, Path, Root, Step};

/// Decorators that make an attribute of a method.
const PROPERTIES: &[&str] = &["property", "abstractproperty"];
/// Decorators that make an attribute of a method and keep its value in the instance.
const CACHED: &[&str] = &["cached_property"];
/// Decorators of classes, and base classes, whose annotated attributes every instance has.
const RECORDS: &[&str] = &["dataclass", "define", "attrs", "Struct", "BaseModel"];

/// Follows the paths of one method.
pub(super) struct Follower<'c, 'n, 't> {
    pub(super) types: Types<'n, 't>,
    /// Module of the method.
    pub(super) module: String,
    /// Class in which the method was looked up.
    pub(super) class: Option<ClassAt>,
    /// The method: the module and class that define it.
    pub(super) defined_in: String,
    /// The method.
    pub(super) function: &'c Function,
    /// The catalogue's classes of objects along the paths.
    pub(super) classes: &'c BTreeMap<String, String>,
}

/// Where a path stands.
struct At {
    prefix: String,
    of: Type,
    told: Told,
}

impl Follower<'_, '_, '_> {
    fn names(&self) -> &Names<'_> {
        self.types.names
    }

    /// Whether everything along the path is there.
    pub(super) fn follow(&self, path: &Path) -> Told {
        let mut at = self.root(&path.root);
        for step in &path.steps {
            self.step(&mut at, step);
        }
        if let Some(Element::Attribute(name)) = &path.element {
            let items = match std::mem::replace(&mut at.of, Type::Unknown) {
                Type::Items(item) => *item,
                Type::Tuple(mut items) => items.pop().unwrap_or(Type::Unknown),
                _ => Type::Unknown,
            };
            at.prefix.push_str("[*]");
            at.of = self.given(&at.prefix, items);
            let told = self.attribute(&at, name).0;
            at.told = at.told.and(told);
        }
        at.told
    }

    /// The class that the catalogue gives for a prefix, else `inferred`. What the sources say is a collection stays one.
    fn given(&self, prefix: &str, inferred: Type) -> Type {
        if matches!(inferred, Type::Tuple(_) | Type::Items(_) | Type::Values(_)) {
            return inferred;
        }
        let by_name = |key: &str| {
            let short = key
                .strip_prefix("arg.")
                .filter(|rest| !rest.starts_with(|first: char| first.is_ascii_digit()));
            short.unwrap_or(key) == prefix
        };
        let Some((_, class)) = self.classes.iter().find(|(key, _)| by_name(key)) else {
            return inferred;
        };
        let (module, name) = class.split_once(':').unwrap_or((class, ""));
        match self.names().find(module, name) {
            Item::Class(class) => Type::Class(class),
            _ => inferred,
        }
    }

    fn root(&self, root: &Root) -> At {
        let (prefix, of, told) = match root {
            Root::SelfArgument => self.instance(),
            Root::Result => {
                let returns = self.function.returns.as_ref();
                let of = returns.map_or(Type::Unknown, |returns| {
                    self.types.annotated(&self.defined_in, returns)
                });
                ("ret".to_owned(), of, Told::found())
            }
            Root::Argument(name) => self.argument(name),
            Root::Position(index) => self.position(*index),
            Root::Global(module, name) => {
                self.global(module.as_deref().unwrap_or(&self.module), name)
            }
            Root::Local(name) => {
                let told = Told::unclear("variables of frames are not looked for");
                (format!("local.{name}"), Type::Unknown, told)
            }
            Root::Closure(name) => {
                let told = Told::unclear("variables of enclosing functions are not looked for");
                (format!("closure.{name}"), Type::Unknown, told)
            }
        };
        let of = self.given(&prefix, of);
        At { prefix, of, told }
    }

    fn instance(&self) -> (String, Type, Told) {
        let is_bare = self.function.is_decorated(&["staticmethod", "classmethod"]);
        let (of, told) = match &self.class {
            Some(class) if !is_bare => (Type::Class(class.clone()), Told::found()),
            _ => {
                let why = "it is no method of an instance, so there is no `self`";
                (Type::Unknown, Told::absent(why))
            }
        };
        ("self".to_owned(), of, told)
    }

    fn argument(&self, name: &str) -> (String, Type, Told) {
        let parameters = &self.function.parameters;
        let told = if parameters.iter().any(|(own, _)| own == name) {
            Told::found()
        } else {
            let all: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
            Told::absent(format!(
                "it has no argument `{name}`, only {}",
                all.join(", ")
            ))
        };
        let of = self.types.parameter(&self.defined_in, self.function, name);
        (name.to_owned(), of, told)
    }

    fn position(&self, index: u32) -> (String, Type, Told) {
        let parameter = self
            .function
            .parameters
            .get(index as usize)
            .filter(|_| (index as usize) < self.function.positional);
        let (of, told) = match parameter {
            Some((name, _)) => {
                let of = self.types.parameter(&self.defined_in, self.function, name);
                (of, Told::found())
            }
            None if self.function.varargs => {
                let why = format!("argument {index} may be one of `*args`");
                (Type::Unknown, Told::unclear(why))
            }
            None => {
                let why = format!("it has no argument {index}");
                (Type::Unknown, Told::absent(why))
            }
        };
        (format!("arg.{index}"), of, told)
    }

    fn global(&self, module: &str, name: &str) -> (String, Type, Told) {
        let (of, told) = match self.names().find(module, name) {
            Item::Value(module, value) => (self.types.annotated(&module, &value), Told::found()),
            Item::Class(_) | Item::Function(..) | Item::Module(_) => (Type::Unknown, Told::found()),
            Item::Outside(what) => {
                let why = format!("`{what}` is not in the sources");
                (Type::Unknown, Told::unclear(why))
            }
            Item::Absent(why) => (Type::Unknown, Told::absent(why)),
            Item::Unclear(why) => (Type::Unknown, Told::unclear(why)),
        };
        (format!("{module}::{name}"), of, told)
    }

    fn step(&self, at: &mut At, step: &Step) {
        let (told, of) = match step {
            Step::Attribute(name) => self.attribute(at, name),
            Step::TupleItem(index) => match &at.of {
                Type::Tuple(items) => match items.get(*index as usize) {
                    Some(item) => (Told::found(), item.clone()),
                    None => (
                        Told::absent(format!(
                            "`{}` is a tuple of {} items",
                            at.prefix,
                            items.len()
                        )),
                        Type::Unknown,
                    ),
                },
                Type::Items(item) => (Told::found(), (**item).clone()),
                Type::Class(class) => (self.named_item(class, *index), Type::Unknown),
                _ => (unknown(&at.prefix), Type::Unknown),
            },
            Step::ListItem(_) => match &at.of {
                Type::Items(item) => (Told::found(), (**item).clone()),
                _ => (unknown(&at.prefix), Type::Unknown),
            },
            Step::DictValue(key) => {
                let of = match &at.of {
                    Type::Values(value) => (**value).clone(),
                    _ => Type::Unknown,
                };
                (
                    Told::unclear(format!(
                        "whether a dictionary holds '{key}' is known only when it runs"
                    )),
                    of,
                )
            }
        };
        at.prefix.push_str(&step.to_string());
        at.of = self.given(&at.prefix, of);
        let before = std::mem::replace(&mut at.told, Told::found());
        at.told = before.and(told);
    }

    /// Item `index` of a named tuple.
    fn named_item(&self, class: &ClassAt, index: i32) -> Told {
        let order = self.names().order(class);
        if !is_named_tuple(&order.names) {
            return Told::unclear(format!("{} is not known to be a tuple", class.name));
        }
        let values = |class: &ClassAt| {
            let members = class.class.members.values();
            members
                .filter(|member| {
                    matches!(
                        member,
                        Member::Value {
                            annotation: Some(_),
                            ..
                        }
                    )
                })
                .count()
        };
        let count: usize = order.classes.iter().map(values).sum();
        if (index as usize) < count {
            Told::found()
        } else {
            Told::absent(format!("{} has {count} items", class.name))
        }
    }

    fn attribute(&self, at: &At, name: &str) -> (Told, Type) {
        let class = match &at.of {
            Type::Class(class) => class,
            Type::Unknown => return (unknown(&at.prefix), Type::Unknown),
            Type::Tuple(_) | Type::Items(_) | Type::Values(_) => {
                let why = format!("`{}` is a collection, which has no `{name}`", at.prefix);
                return (Told::absent(why), Type::Unknown);
            }
        };
        let mut told = self.attribute_of(class, name);
        let mut owner = class.clone();
        if !told.is_found() && !self.is_bound(class, name) {
            let below = self.names().below(class);
            let has = below
                .into_iter()
                .find(|below| self.attribute_of(below, name).is_found());
            if let Some(below) = has {
                told =
                    Told::found_with(format!("in {}, which is below {}", below.name, class.name));
                owner = below;
            }
        }
        (told, self.types.attribute(&owner, name))
    }

    /// Whether the class or one above it binds the name in its body, whatever it is.
    fn is_bound(&self, class: &ClassAt, name: &str) -> bool {
        let classes = self.names().order(class).classes;
        classes
            .iter()
            .any(|above| above.class.members.contains_key(name))
    }

    fn attribute_of(&self, class: &ClassAt, name: &str) -> Told {
        let order = self.names().order(class);
        let what = &class.name;
        let mut of_the_class = false;
        if is_enum(&order.names) && ["_name_", "_value_"].contains(&name) {
            return Told::found();
        }
        for above in &order.classes {
            let own = &above.class;
            let assigned =
                own.instance.contains_key(name) || own.slots.iter().any(|slot| slot == name);
            match own.members.get(name) {
                Some(Member::Function(function)) if function.is_decorated(CACHED) => {
                    return Told::unclear(format!(
                        "{what}.{name} is a cached property: it is stored when it was asked for"
                    ));
                }
                Some(Member::Function(function)) if function.is_decorated(PROPERTIES) => {
                    return Told::absent(format!(
                        "{what}.{name} is a property: nothing is stored under that name"
                    ));
                }
                Some(Member::Function(_)) if !assigned => {
                    return Told::absent(format!("{what}.{name} is a method"));
                }
                Some(Member::Value {
                    annotation: Some(_),
                    ..
                }) if is_named_tuple(&order.names) => {
                    return Told::absent(format!(
                        "{what} is a named tuple: `{name}` is one of its items, not an attribute"
                    ));
                }
                Some(Member::Value { annotation, valued }) => {
                    let record = is_record(&order.names, &order.classes);
                    if annotation.is_some() && (record || !valued) {
                        return Told::found();
                    }
                    of_the_class = true;
                }
                _ => {}
            }
            if assigned {
                return Told::found();
            }
        }
        if of_the_class {
            return Told::unclear(format!(
                "{what}.{name} is an attribute of the class; only those of instances are read"
            ));
        }
        if order.classes.iter().any(|above| above.class.vague) {
            return Told::unclear(format!(
                "{what} makes attributes in ways that the sources do not show (`setattr`, `__getattr__`)"
            ));
        }
        if order.classes.iter().any(|above| above.class.broken) {
            return Told::unclear(format!("parts of {what} could not be understood"));
        }
        match order.unknown {
            Some(base) => Told::unclear(format!(
                "{what} does not show `{name}`, and {base} above it is not in the sources"
            )),
            None => Told::absent(format!("{what} has no attribute `{name}`")),
        }
    }
}

fn is_record(bases: &[String], classes: &[ClassAt]) -> bool {
    let last = |name: &str| RECORDS.contains(&name.rsplit('.').next().unwrap_or_default());
    let decorated = classes.iter().flat_map(|class| &class.class.decorators);
    decorated.chain(bases).any(|name| last(name))
}

/// Each member of an enumeration stores its name and its value under these names (`enum.py`, `EnumType`).
fn is_enum(names: &[String]) -> bool {
    names.iter().any(|name| {
        let last = name.rsplit('.').next().unwrap_or_default();
        ["Enum", "IntEnum", "StrEnum"].contains(&last)
    })
}

fn is_named_tuple(bases: &[String]) -> bool {
    bases
        .iter()
        .any(|base| base.rsplit('.').next() == Some("NamedTuple"))
}

fn unknown(prefix: &str) -> Told {
    Told::unclear(format!(
        "what `{prefix}` is cannot be told from the sources"
    ))
}
