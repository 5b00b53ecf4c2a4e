//! `module:qualname` to a live function, from outside, without stopping the process.
//!
//! A name is found as the interpreter would find it: in `sys.modules`, the module's dictionary, and the dictionaries
//! of the classes in the method resolution order. What the class dictionary holds counts: a decorated method is found
//! as its outermost function, the one that callers call.

use profilemate_common::memory::Memory;
use profilemate_common::python::DICT_USED;

use super::function::{Binding, Function};
use super::layout::{Layout, WRAPPER_CALLABLE};
use super::memory::{ReadBytes, Snapshot};
use super::object::{Code, Objects};

/// Layers of `__wrapped__` that are followed, at most.
const WRAPPERS: usize = 16;
/// Parts of a dotted name, at most.
const PARTS: usize = 16;
/// Times that a name is looked up before it is said not to be there: the process runs on meanwhile.
const ATTEMPTS: usize = 3;
/// `CO_VARARGS`.
const FLAG_VARARGS: u32 = 0x4;
/// `CO_GENERATOR`, `CO_COROUTINE`, `CO_ITERABLE_COROUTINE`, `CO_ASYNC_GENERATOR`.
const FLAG_GENERATOR: u32 = 0x20 | 0x80 | 0x100 | 0x200;

/// Why a name was not resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The module is not in `sys.modules` (yet).
    #[error("the module {module} is not imported")]
    NotImported {
        /// Module.
        module: String,
    },
    /// The module or class does not have it.
    #[error("{module} has no {qualname}")]
    NotFound {
        /// Module.
        module: String,
        /// The part of the qualified name that was not found.
        qualname: String,
    },
    /// It is there but is no Python function.
    #[error("{module}:{qualname} is a {kind}, not a Python function")]
    NotAFunction {
        /// Module.
        module: String,
        /// Qualified name.
        qualname: String,
        /// Its type's name.
        kind: String,
    },
    /// It is there but could not be read.
    #[error("{module}:{qualname} cannot be read: {what}")]
    Unreadable {
        /// Module.
        module: String,
        /// Qualified name.
        qualname: String,
        /// What could not.
        what: &'static str,
    },
}

/// Resolves names in one process. Keeps what it has read until [`Resolver::refresh`].
pub struct Resolver<'m, M> {
    snapshot: Snapshot<'m, M>,
    layout: Layout,
}

impl<'m, M: ReadBytes> Resolver<'m, M> {
    /// Resolves in the process whose memory is `memory` and whose checked layout is `layout`.
    pub fn new(memory: &'m M, layout: &Layout) -> Self {
        Self {
            snapshot: Snapshot::new(memory),
            layout: *layout,
        }
    }

    /// Forgets what was read. To be called before names are looked up anew, and before anything is written.
    pub fn refresh(&self) {
        self.snapshot.refresh();
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Objects, over the reads cached in this pass.
    pub fn objects(&self) -> Objects<'_, Snapshot<'m, M>> {
        Objects::new(&self.snapshot, &self.layout)
    }

    /// Reads made in this pass.
    pub fn reads(&self) -> u32 {
        self.snapshot.reads()
    }

    fn modules(&self) -> Option<u64> {
        self.objects().pointer(
            self.layout
                .interpreter
                .checked_add(self.layout.offsets.interpreter_modules)?,
        )
    }

    /// The module object, if it is imported. (`None` in `sys.modules` means that the import was forbidden.)
    pub fn module(&self, name: &str) -> Option<u64> {
        let module = self.objects().dict_value(self.modules()?, name)?;
        self.objects().is_module(module).then_some(module)
    }

    /// Which of these modules are imported, in one pass over fresh memory. Cheap enough to be asked again and again.
    pub fn imported<'name>(&self, names: &[&'name str]) -> Vec<&'name str> {
        self.refresh();
        names
            .iter()
            .copied()
            .filter(|name| self.module(name).is_some())
            .collect()
    }

    /// How many modules are imported, in fresh memory.
    pub fn module_count(&self) -> Option<u64> {
        self.refresh();
        self.snapshot.read(self.modules()?.checked_add(DICT_USED)?)
    }

    /// Names and addresses of all imported modules.
    pub fn module_names(&self) -> Vec<(String, u64)> {
        let objects = self.objects();
        let entries = self
            .modules()
            .and_then(|modules| objects.dict_entries(modules))
            .unwrap_or_default();
        entries
            .into_iter()
            .filter_map(|entry| Some((objects.text(entry.key)?, entry.value)))
            .collect()
    }

    /// A `str` in a module, such as `vllm.version` `__version__`.
    pub fn module_text(&self, module: &str, name: &str) -> Option<String> {
        let objects = self.objects();
        objects.text(objects.dict_value(objects.module_dict(self.module(module)?)?, name)?)
    }

    /// The version that a package states in `PACKAGE.__version__`, `PACKAGE.version.__version__` or
    /// `PACKAGE._version.__version__` / `version`.
    pub fn package_version(&self, package: &str) -> Option<String> {
        let places = [
            ("", "__version__"),
            (".version", "__version__"),
            ("._version", "__version__"),
            ("._version", "version"),
        ];
        places
            .iter()
            .find_map(|(module, name)| self.module_text(&format!("{package}{module}"), name))
    }

    /// The class `module:qualname`.
    pub fn class(&self, module: &str, qualname: &str) -> Result<u64, ResolveError> {
        let found = self.walk(module, qualname)?;
        if self.objects().is_class(found.object) {
            Ok(found.object)
        } else {
            Err(self.not_a_function(module, qualname, found.object))
        }
    }

    /// The function `module:qualname`. What does not seem to be there is looked for again, in memory read afresh.
    pub fn resolve(&self, module: &str, qualname: &str) -> Result<Function, ResolveError> {
        let mut result = self.resolve_once(module, qualname);
        for _ in 1..ATTEMPTS {
            match &result {
                Ok(_)
                | Err(ResolveError::NotImported { .. } | ResolveError::NotAFunction { .. }) => {
                    break;
                }
                Err(_) => {
                    self.refresh();
                    result = self.resolve_once(module, qualname);
                }
            }
        }
        result
    }

    fn resolve_once(&self, module: &str, qualname: &str) -> Result<Function, ResolveError> {
        let found = self.walk(module, qualname)?;
        let (address, binding) = self.unwrap(found.object, found.class.is_some());
        if !self.objects().is_function(address) {
            return Err(self.not_a_function(module, qualname, found.object));
        }
        let unreadable = |what| ResolveError::Unreadable {
            module: module.to_owned(),
            qualname: qualname.to_owned(),
            what,
        };
        self.describe(module, qualname, address)
            .map_err(unreadable)
            .map(|function| Function {
                binding,
                class: found.class,
                owner: found.owner,
                ..function
            })
    }

    /// As [`Resolver::resolve`], where callables of C stand in for the functions: the function is the one of
    /// `functions` that has the name.
    pub fn resolve_among(
        &self,
        module: &str,
        qualname: &str,
        functions: &[u64],
    ) -> Result<Function, ResolveError> {
        let found = self.walk(module, qualname)?;
        let objects = self.objects();
        let named = |function: &&u64| {
            let text =
                |offset: u64| objects.text(objects.pointer((**function).checked_add(offset)?)?);
            let offsets = &self.layout.offsets.function;
            objects.is_function(**function)
                && text(offsets.qualname).as_deref() == Some(qualname)
                && text(offsets.module).as_deref() == Some(module)
        };
        let address = *functions
            .iter()
            .find(named)
            .ok_or_else(|| self.not_a_function(module, qualname, found.object))?;
        let unreadable = |what| ResolveError::Unreadable {
            module: module.to_owned(),
            qualname: qualname.to_owned(),
            what,
        };
        let function = self
            .describe(module, qualname, address)
            .map_err(unreadable)?;
        let binding = if found.class.is_some() {
            Binding::Method
        } else {
            Binding::Module
        };
        Ok(Function {
            binding,
            class: found.class,
            owner: found.owner,
            ..function
        })
    }

    fn not_a_function(&self, module: &str, qualname: &str, object: u64) -> ResolveError {
        let kind = self
            .objects()
            .type_name_of(object)
            .unwrap_or_else(|| "object of unknown type".to_owned());
        ResolveError::NotAFunction {
            module: module.to_owned(),
            qualname: qualname.to_owned(),
            kind,
        }
    }

    fn walk(&self, module: &str, qualname: &str) -> Result<Found, ResolveError> {
        let objects = self.objects();
        let missing = |part: &str| ResolveError::NotFound {
            module: module.to_owned(),
            qualname: part.to_owned(),
        };
        let module_object = self
            .module(module)
            .ok_or_else(|| ResolveError::NotImported {
                module: module.to_owned(),
            })?;
        let mut parts = qualname.split('.').take(PARTS);
        let first = parts.next().unwrap_or_default();
        let dict = objects
            .module_dict(module_object)
            .ok_or_else(|| missing(first))?;
        let object = objects
            .dict_value(dict, first)
            .ok_or_else(|| missing(first))?;
        let mut found = Found {
            object,
            class: None,
            owner: None,
        };
        for part in parts {
            let class = found.object;
            let (owner, entry) = objects
                .class_attribute(class, part)
                .ok_or_else(|| missing(qualname))?;
            found = Found {
                object: entry.value,
                class: Some(class),
                owner: Some(owner),
            };
        }
        Ok(found)
    }

    /// What a static method, class method or property holds; anything else is itself.
    fn unwrap(&self, object: u64, in_class: bool) -> (u64, Binding) {
        let objects = self.objects();
        let symbols = &self.layout.symbols;
        let binding = match objects.type_of(object) {
            Some(class) if class == symbols.type_staticmethod => Binding::Static,
            Some(class) if class == symbols.type_classmethod => Binding::Class,
            Some(class) if class == symbols.type_property => Binding::Property,
            _ if in_class => return (object, Binding::Method),
            _ => return (object, Binding::Module),
        };
        let inner = object
            .checked_add(WRAPPER_CALLABLE)
            .and_then(|at| objects.pointer(at));
        (inner.unwrap_or(object), binding)
    }

    fn describe(
        &self,
        module: &str,
        qualname: &str,
        address: u64,
    ) -> Result<Function, &'static str> {
        let objects = self.objects();
        let function = objects.function(address).ok_or("the function object")?;
        let code = objects.code(function.code).ok_or("the code object")?;
        let offsets = &self.layout.offsets.function;
        let wrapped = self.innermost(address);
        let (innermost, wrapped_arguments, wrapped_argcount) = match &wrapped {
            Some((inner, code)) => (*inner, code.arguments.clone(), code.argcount),
            None => (function.code, Vec::new(), 0),
        };
        Ok(Function {
            module: module.to_owned(),
            qualname: qualname.to_owned(),
            address,
            code: function.code,
            innermost,
            vectorcall_address: address + offsets.vectorcall,
            vectorcall_value: function.vectorcall,
            version_address: offsets.version.map(|offset| address + offset),
            version_value: function.version,
            version_cache_slot: self.version_cache_slot(address, function.version),
            arguments: code.arguments,
            argcount: code.argcount,
            varargs: code.flags & FLAG_VARARGS != 0,
            flags: code.flags,
            filename: code.filename,
            firstlineno: code.firstlineno,
            is_generator: code.flags & FLAG_GENERATOR != 0,
            binding: Binding::Module,
            class: None,
            owner: None,
            globals: function.globals,
            closure: (function.closure != 0).then_some(function.closure),
            wrapped: wrapped.is_some(),
            wrapped_arguments,
            wrapped_argcount,
        })
    }

    /// The code of the innermost function along `__wrapped__`, and what is read of it; `None` if the function has no
    /// `__wrapped__`.
    fn innermost(&self, function: u64) -> Option<(u64, Code)> {
        let objects = self.objects();
        let mut inner = None;
        let mut object = function;
        for _ in 0..WRAPPERS {
            let Some(current) = objects.function(self.unwrap(object, false).0) else {
                break;
            };
            if object != function {
                inner = Some(current.code);
            }
            let wrapped =
                (current.dict != 0).then(|| objects.dict_value(current.dict, "__wrapped__"));
            let Some(wrapped) = wrapped.flatten() else {
                break;
            };
            object = wrapped;
        }
        Some((inner?, objects.code(inner?)?))
    }

    fn version_cache_slot(&self, function: u64, version: u32) -> Option<u64> {
        let cache = self.layout.offsets.version_cache?;
        let index = u64::from(version.checked_rem(cache.items)?);
        let slot = self
            .layout
            .interpreter
            .checked_add(cache.offset + cache.item_size * index)?;
        (version != 0 && self.snapshot.read(slot) == Some(function)).then_some(slot)
    }
}

struct Found {
    object: u64,
    class: Option<u64>,
    owner: Option<u64>,
}
