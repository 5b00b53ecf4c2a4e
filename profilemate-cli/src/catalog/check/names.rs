//! Names to definitions, across the files of the tree.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::expression::Expression;
use super::model::{Bound, Class, Function, Import, Member, Module};
use super::python;
use super::tree::{Text, Tree};

/// Files that are parsed, at most.
const FILES: usize = 512;
/// Imports and aliases that are followed for one name, at most.
const DEPTH: usize = 12;
/// Classes above one class, at most.
const BASES: usize = 64;

/// Names that a class can have as its base without getting attributes from it.
const BARE: &[&str] = &[
    "object",
    "ABC",
    "Protocol",
    "Generic",
    "NamedTuple",
    "Struct",
    "Enum",
    "IntEnum",
    "Exception",
    "RuntimeError",
    "ValueError",
];

/// A class and where it is.
#[derive(Clone, Debug)]
pub(super) struct ClassAt {
    /// Module that defines it.
    pub(super) module: String,
    /// Its name there.
    pub(super) name: String,
    /// What it defines.
    pub(super) class: Rc<Class>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// A class.
    Class(ClassAt),
    /// A function, and the module that defines it.
    Function(String, Rc<Function>),
    /// A module of the tree.
    Module(String),
    /// Another value, of which the expression tells the type or is the value; and the module it stands in.
    Value(String, Expression),
    /// Something outside of the tree.
    Outside(String),
    /// It is not there.
    Absent(String),
    /// It cannot be told.
    Unclear(String),
}

/// Names of one tree. Keeps what it has parsed.
pub(super) struct Names<'t> {
    tree: &'t Tree,
    modules: RefCell<BTreeMap<String, Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    module: Result<Rc<Module>, Missing>,
    is_package: bool,
}

#[derive(Clone)]
enum Missing {
    Absent,
    Unusable(&'static str),
}

/// The classes of a class's resolution order, and what is not known of it.
#[derive(Default)]
pub(super) struct Order {
    /// The class itself, and those above it.
    pub(super) classes: Vec<ClassAt>,
    /// A base that may bring attributes and is not in the tree.
    pub(super) unknown: Option<String>,
    /// Names of all bases, as written.
    pub(super) names: Vec<String>,
}

impl<'t> Names<'t> {
    pub(super) fn new(tree: &'t Tree) -> Self {
        Self {
            tree,
            modules: RefCell::default(),
        }
    }

    fn load(&self, name: &str) -> Loaded {
        if let Some(loaded) = self.modules.borrow().get(name) {
            return loaded.clone();
        }
        let full = self.modules.borrow().len() >= FILES;
        let loaded = if full {
            Loaded {
                module: Err(Missing::Unusable("too many files would have to be read")),
                is_package: false,
            }
        } else {
            self.read(name)
        };
        self.modules
            .borrow_mut()
            .insert(name.to_owned(), loaded.clone());
        loaded
    }

    fn read(&self, name: &str) -> Loaded {
        let below = name
            .strip_prefix("vllm")
            .unwrap_or_default()
            .trim_start_matches('.');
        let plain = below
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
        if !is_inside(name) || !plain || below.contains("..") {
            return Loaded {
                module: Err(Missing::Absent),
                is_package: false,
            };
        }
        let path = below.replace('.', "/");
        let places = if path.is_empty() {
            vec![("__init__.py".to_owned(), true)]
        } else {
            vec![
                (format!("{path}.py"), false),
                (format!("{path}/__init__.py"), true),
            ]
        };
        for (path, is_package) in places {
            let module = match self.tree.read(&path) {
                Text::Absent => continue,
                Text::Unusable(why) => Err(Missing::Unusable(why)),
                Text::There(text) => python::parse(&text).map(Rc::new).map_err(Missing::Unusable),
            };
            return Loaded { module, is_package };
        }
        Loaded {
            module: Err(Missing::Absent),
            is_package: false,
        }
    }

    /// What `name`, which may be dotted, stands for in `module`.
    pub(super) fn find(&self, module: &str, name: &str) -> Item {
        self.dotted(module, name, 0)
    }

    fn dotted(&self, module: &str, name: &str, depth: usize) -> Item {
        let mut parts = name.split('.');
        let mut item = self.plain(module, parts.next().unwrap_or_default(), depth);
        for part in parts {
            item = match item {
                Item::Module(module) => self.plain(&module, part, depth + 1),
                Item::Class(class) => self.member(&class, part),
                Item::Outside(name) => Item::Outside(format!("{name}.{part}")),
                Item::Absent(_) | Item::Unclear(_) => return item,
                Item::Function(..) | Item::Value(..) => {
                    return Item::Unclear(format!(
                        "what `{part}` is of cannot be told from the sources"
                    ));
                }
            };
        }
        item
    }

    fn plain(&self, module: &str, name: &str, depth: usize) -> Item {
        if depth > DEPTH {
            return Item::Unclear(format!(
                "`{name}` is imported in a circle or by very long ways"
            ));
        }
        if !is_inside(module) {
            return Item::Outside(format!("{module}.{name}"));
        }
        let loaded = match self.load(module).module {
            Ok(loaded) => loaded,
            Err(Missing::Absent) => return Item::Absent(format!("there is no module {module}")),
            Err(Missing::Unusable(why)) => return Item::Unclear(format!("{module}: {why}")),
        };
        match loaded.names.get(name).and_then(|all| all.first()) {
            Some(Bound::Class(class)) => Item::Class(ClassAt {
                module: module.to_owned(),
                name: name.to_owned(),
                class: Rc::clone(class),
            }),
            Some(Bound::Function(function)) => {
                Item::Function(module.to_owned(), Rc::clone(function))
            }
            Some(Bound::Import(import)) => self.imported(module, import, depth),
            Some(Bound::Value(Expression::Name(other))) if other != name => {
                self.dotted(module, other, depth + 1)
            }
            Some(Bound::Value(value)) => Item::Value(module.to_owned(), value.clone()),
            None => self.unbound(module, &loaded, name, depth),
        }
    }

    /// A name that a module does not bind itself: a star import, a module below it, or nothing.
    fn unbound(&self, module: &str, loaded: &Module, name: &str, depth: usize) -> Item {
        let mut unclear = loaded.vague.map(str::to_owned);
        for star in &loaded.stars {
            let from = self.absolute(module, star);
            match self.plain(&from, name, depth + 1) {
                Item::Absent(_) => {}
                Item::Outside(_) => {
                    unclear = Some(format!("it may come from `from {from} import *`"));
                }
                Item::Unclear(why) => unclear = Some(why),
                found => return found,
            }
        }
        let below = format!("{module}.{name}");
        if self.load(module).is_package && self.load(&below).module.is_ok() {
            return Item::Module(below);
        }
        match unclear {
            Some(why) => Item::Unclear(format!("{module} does not show `{name}`: {why}")),
            None => Item::Absent(format!("{module} has no `{name}`")),
        }
    }

    fn imported(&self, module: &str, import: &Import, depth: usize) -> Item {
        let from = self.absolute(module, import);
        let Some(name) = &import.name else {
            return if is_inside(&from) {
                Item::Module(from)
            } else {
                Item::Outside(from)
            };
        };
        match self.plain(&from, name, depth + 1) {
            Item::Absent(why) => {
                let below = format!("{from}.{name}");
                if is_inside(&below) && self.load(&below).module.is_ok() {
                    Item::Module(below)
                } else {
                    Item::Absent(why)
                }
            }
            found => found,
        }
    }

    /// The module that an import names, which may be relative to `module`.
    fn absolute(&self, module: &str, import: &Import) -> String {
        if import.level == 0 {
            return import.module.clone();
        }
        let up = import.level - usize::from(self.load(module).is_package);
        let mut parts: Vec<&str> = module.split('.').collect();
        parts.truncate(parts.len().saturating_sub(up));
        if !import.module.is_empty() {
            parts.push(&import.module);
        }
        parts.join(".")
    }

    /// What the class or those above it bind under `name`.
    fn member(&self, class: &ClassAt, name: &str) -> Item {
        let order = self.order(class);
        for above in &order.classes {
            match above.class.members.get(name) {
                Some(Member::Function(function)) => {
                    return Item::Function(above.module.clone(), Rc::clone(function));
                }
                Some(Member::Class(inner)) => {
                    return Item::Class(ClassAt {
                        module: above.module.clone(),
                        name: format!("{}.{name}", above.name),
                        class: Rc::clone(inner),
                    });
                }
                Some(Member::Value { annotation, .. }) => {
                    let value = annotation.clone().unwrap_or(Expression::Other);
                    return Item::Value(above.module.clone(), value);
                }
                None => {}
            }
        }
        if order.classes.iter().any(|above| above.class.broken) {
            let why = "parts of it could not be understood";
            return Item::Unclear(format!("{} does not show `{name}`: {why}", class.name));
        }
        match order.unknown {
            Some(base) => Item::Unclear(format!(
                "{} does not show `{name}`, and {base} above it is not in the sources",
                class.name
            )),
            None => Item::Absent(format!("{} has no `{name}`", class.name)),
        }
    }

    /// The class and those above it, from the left to the right, and upwards.
    pub(super) fn order(&self, class: &ClassAt) -> Order {
        let mut order = Order::default();
        let mut open = vec![class.clone()];
        while let Some(next) = open.pop() {
            let known = |other: &ClassAt| Rc::ptr_eq(&other.class, &next.class);
            if order.classes.iter().any(known) {
                continue;
            }
            if order.classes.len() >= BASES {
                order.unknown = Some("a long line of classes".to_owned());
                break;
            }
            for base in next.class.bases.iter().rev() {
                let name = base.name().unwrap_or("?");
                order.names.push(name.to_owned());
                match self.find(&next.module, name) {
                    Item::Class(above) => open.push(above),
                    _ if is_bare(name) => {}
                    _ => order.unknown = Some(name.to_owned()),
                }
            }
            order.classes.push(next);
        }
        order
    }

    /// Classes of the same file that are below `class`.
    pub(super) fn below(&self, class: &ClassAt) -> Vec<ClassAt> {
        let Ok(module) = self.load(&class.module).module else {
            return Vec::new();
        };
        let classes = module
            .names
            .iter()
            .filter_map(|(name, bound)| match bound.first() {
                Some(Bound::Class(own)) => Some(ClassAt {
                    module: class.module.clone(),
                    name: name.clone(),
                    class: Rc::clone(own),
                }),
                _ => None,
            });
        classes
            .filter(|other| !Rc::ptr_eq(&other.class, &class.class))
            .filter(|other| {
                let above = self.order(other).classes;
                above
                    .iter()
                    .any(|above| Rc::ptr_eq(&above.class, &class.class))
            })
            .collect()
    }
}

/// Whether a module would be in the tree.
fn is_inside(module: &str) -> bool {
    module == "vllm" || module.starts_with("vllm.")
}

fn is_bare(name: &str) -> bool {
    BARE.contains(&name.rsplit('.').next().unwrap_or_default())
}
