//! Does a layout hold in a live process? Nothing is written to a process, and no path is compiled for it, before every
//! check here has passed.

use profilemate_common::memory::Memory;
use profilemate_common::python::{
    FLAG_BYTES, FLAG_DICT, FLAG_INT, FLAG_LIST, FLAG_STR, FLAG_TUPLE,
};

use super::sample::{ENOUGH, Sample};
use super::{FLAG_TYPE, Layout, VersionCache, offsets, variable};
use crate::target::python::hash::HashKey;
use crate::target::python::identify::{Interpreter, Version};
use crate::target::python::memory::{ReadBytes, Snapshot};
use crate::target::python::object::{Entry, Objects};

/// Why a layout is not relied on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// There is no table for this version.
    #[error("no object layout is known for CPython {0}")]
    UnknownVersion(Version),
    /// Something is not where the table says.
    #[error("this CPython {version} differs from the known layout: {what}")]
    Differs {
        /// Version.
        version: Version,
        /// What differs, in plain words.
        what: String,
    },
    /// The interpreter has not started so far that the checks could be made.
    #[error("the interpreter is still starting: {what}")]
    Starting {
        /// What is not there yet.
        what: String,
    },
}

impl LayoutError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownVersion(_) => "run the server on CPython 3.10, 3.11, 3.12, 3.13 or 3.14",
            Self::Differs { .. } => {
                "this build is not supported (debug build, patched, or newer); nothing was written to it"
            }
            Self::Starting { .. } => "try again when the server has started",
        }
    }
}

/// The flags that say of which built-in type a class is a subclass, from `int` to `type`.
const FLAGS_KIND: u64 = 0xff << 24;
/// Times that a check is made anew: the process runs on meanwhile, and a table that is being resized reads wrong.
const ATTEMPTS: usize = 3;

/// Checks the layout for the interpreter's version on known objects of the live process.
pub fn validate<M: ReadBytes>(
    interpreter: &Interpreter,
    memory: &M,
) -> Result<Layout, LayoutError> {
    let snapshot = Snapshot::new(memory);
    let mut result = check(interpreter, &snapshot);
    for _ in 1..ATTEMPTS {
        if result.is_ok() {
            break;
        }
        snapshot.refresh();
        result = check(interpreter, &snapshot);
    }
    result
}

fn check<M: ReadBytes>(
    interpreter: &Interpreter,
    memory: &Snapshot<'_, M>,
) -> Result<Layout, LayoutError> {
    let table = offsets(interpreter.version.minor)
        .ok_or(LayoutError::UnknownVersion(interpreter.version))?;
    let mut layout = Layout::unchecked(table, interpreter.version, interpreter.symbols);
    let checks = Checks {
        interpreter,
        memory,
    };
    checks.debug_offsets(&layout)?;
    checks.started(&mut layout)?;
    checks.types(&layout)?;
    checks.constants(&layout)?;
    let modules = checks.modules(&layout)?;
    checks.version(&mut layout, &modules)?;
    layout.hash = checks.hash(&layout, &modules);
    checks.classes(&layout, &modules)?;
    checks.functions(&mut layout, &modules)?;
    if let Some(cache) = table.version_cache {
        checks.version_cache(&layout, cache)?;
    }
    layout.interned = match &table.interned {
        Some(interned) => layout.interpreter.checked_add(interned.interpreter),
        None => variable::find_interned(&interpreter.data, memory, &layout),
    };
    layout.kernel.type_deque = deque(&Objects::new(memory, &layout), &modules).unwrap_or(0);
    Ok(layout)
}

struct Checks<'a, M> {
    interpreter: &'a Interpreter,
    memory: &'a Snapshot<'a, M>,
}

impl<M: ReadBytes> Checks<'_, M> {
    fn differs(&self, what: impl Into<String>) -> LayoutError {
        LayoutError::Differs {
            version: self.interpreter.version,
            what: what.into(),
        }
    }

    /// `_Py_DebugOffsets` on 3.13+: what the interpreter says of itself.
    fn debug_offsets(&self, layout: &Layout) -> Result<(), LayoutError> {
        const COOKIE: u64 = u64::from_ne_bytes(*b"xdebugpy");
        const VERSION: u64 = 8;
        if layout.offsets.debug.is_empty() {
            return Ok(());
        }
        let runtime = layout.symbols.runtime;
        let word = |at: u64| self.memory.read::<u64>(runtime.wrapping_add(at));
        if word(0) != Some(COOKIE) {
            return Err(self.differs("_PyRuntime does not begin with its debug cookie"));
        }
        let stated = word(VERSION).and_then(|hex| Version::from_hex(hex as u32));
        if stated != Some(self.interpreter.version) {
            return Err(self.differs("the debug offsets are of another version"));
        }
        for offset in layout.offsets.debug {
            let stated = word(8 * offset.word);
            if stated != Some(offset.value) {
                let stated = stated.map_or("nothing".to_owned(), |stated| stated.to_string());
                return Err(self.differs(format!(
                    "{} is at {stated}, not at {}",
                    offset.name, offset.value
                )));
            }
        }
        Ok(())
    }

    fn types(&self, layout: &Layout) -> Result<(), LayoutError> {
        let objects = Objects::new(self.memory, layout);
        let symbols = &layout.symbols;
        for (class, name, kind) in [
            (symbols.type_type, "type", FLAG_TYPE),
            (symbols.type_function, "function", 0),
            (symbols.type_code, "code", 0),
            (symbols.type_cell, "cell", 0),
            (symbols.type_module, "module", 0),
            (symbols.type_int, "int", FLAG_INT),
            (symbols.type_float, "float", 0),
            (symbols.type_str, "str", FLAG_STR),
            (symbols.type_bytes, "bytes", FLAG_BYTES),
            (symbols.type_tuple, "tuple", FLAG_TUPLE),
            (symbols.type_list, "list", FLAG_LIST),
            (symbols.type_dict, "dict", FLAG_DICT),
            (symbols.type_set, "set", 0),
            (symbols.type_frozenset, "frozenset", 0),
            (symbols.type_staticmethod, "staticmethod", 0),
            (symbols.type_classmethod, "classmethod", 0),
            (symbols.type_property, "property", 0),
            (symbols.type_member, "member_descriptor", 0),
        ] {
            if !objects.is_exact(class, symbols.type_type) {
                return Err(self.differs(format!("the type {name} is not of type type")));
            }
            if objects.type_name(class).as_deref() != Some(name) {
                return Err(self.differs(format!("the type {name} calls itself otherwise")));
            }
            let kinds = objects.type_flags(class).map(|flags| flags & FLAGS_KIND);
            if kinds != Some(kind) {
                return Err(self.differs(format!("the type {name} says that it is another kind")));
            }
        }
        Ok(())
    }

    fn constants(&self, layout: &Layout) -> Result<(), LayoutError> {
        let objects = Objects::new(self.memory, layout);
        if objects.type_name_of(layout.symbols.none).as_deref() != Some("NoneType") {
            return Err(self.differs("None is of another type"));
        }
        for (object, value) in [(layout.symbols.true_, 1), (layout.symbols.false_, 0)] {
            if objects.type_name_of(object).as_deref() != Some("bool")
                || objects.int(object) != Some(value)
            {
                return Err(self.differs("True and False are not where they should be"));
            }
        }
        Ok(())
    }

    /// The main interpreter has a state and `sys.modules`. Before that the linker may still be at work, and nothing
    /// else is sure to be in place.
    fn started(&self, layout: &mut Layout) -> Result<(), LayoutError> {
        let starting = |what: &str| LayoutError::Starting {
            what: what.to_owned(),
        };
        let objects = Objects::new(self.memory, layout);
        let state = objects.pointer(
            layout
                .symbols
                .runtime
                .wrapping_add(layout.offsets.runtime_main),
        );
        let state = state.ok_or_else(|| starting("there is no main interpreter yet"))?;
        let modules = objects.pointer(state.wrapping_add(layout.offsets.interpreter_modules));
        modules.ok_or_else(|| starting("there is no sys.modules yet"))?;
        layout.interpreter = state;
        Ok(())
    }

    /// The items of `sys.modules`, and so text and dictionaries.
    fn modules(&self, layout: &Layout) -> Result<Vec<Entry>, LayoutError> {
        let objects = Objects::new(self.memory, layout);
        let modules = objects
            .pointer(
                layout
                    .interpreter
                    .wrapping_add(layout.offsets.interpreter_modules),
            )
            .unwrap_or(0);
        if !objects.is_exact(modules, layout.symbols.type_dict) {
            return Err(self.differs("sys.modules is no dictionary"));
        }
        let entries = objects
            .dict_entries(modules)
            .ok_or_else(|| self.differs("sys.modules cannot be read"))?;
        let named = entries
            .iter()
            .filter(|entry| objects.text(entry.key).is_some())
            .count();
        if entries.is_empty() || 4 * named < 3 * entries.len() {
            return Err(self.differs("the keys of sys.modules are no strings"));
        }
        Ok(entries)
    }

    fn version(&self, layout: &mut Layout, modules: &[Entry]) -> Result<(), LayoutError> {
        let objects = Objects::new(self.memory, layout);
        let sys = modules
            .iter()
            .find(|entry| objects.is_text(entry.key, "sys"));
        let sys = sys.ok_or_else(|| LayoutError::Starting {
            what: "sys is not imported yet".to_owned(),
        })?;
        let hexversion = objects
            .module_dict(sys.value)
            .and_then(|dict| objects.dict_value(dict, "hexversion"))
            .and_then(|value| objects.int(value))
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| self.differs("sys.hexversion cannot be read"))?;
        let version = Version::from_hex(hexversion)
            .ok_or_else(|| self.differs("sys.hexversion is of another Python"))?;
        let known = self.interpreter.version;
        if version.minor != known.minor
            || known
                .patch
                .is_some_and(|patch| version.patch != Some(patch))
        {
            return Err(self.differs(format!("sys.hexversion says {version}")));
        }
        layout.version = version;
        layout.hexversion = hexversion;
        Ok(())
    }

    /// The string hash, if it gives what live strings have cached. Without it names are found by scanning.
    fn hash(&self, layout: &Layout, modules: &[Entry]) -> Option<HashKey> {
        let objects = Objects::new(self.memory, layout);
        let [k0, k1] = self.memory.read::<[u64; 2]>(layout.symbols.hash_secret)?;
        let (compression, finalization) = layout.offsets.hash_rounds;
        let hash = HashKey {
            k0,
            k1,
            compression,
            finalization,
        };
        let texts = modules
            .iter()
            .filter_map(|entry| Some((objects.text(entry.key)?, objects.cached_hash(entry.key)?)));
        let mut ascii = texts.filter(|(text, _)| text.is_ascii()).take(ENOUGH);
        ascii
            .all(|(text, cached)| hash.of(text.as_bytes()) == cached)
            .then_some(hash)
    }

    fn functions(&self, layout: &mut Layout, modules: &[Entry]) -> Result<(), LayoutError> {
        let sample = Sample::collect(Objects::new(self.memory, layout), modules);
        if let Some(fault) = sample.fault {
            return Err(self.differs(fault));
        }
        if sample.functions.len() < ENOUGH {
            return Err(self.differs(format!(
                "only {} functions of the standard library were found",
                sample.functions.len()
            )));
        }
        layout.default_vectorcall =
            sample.default_vectorcall(self.interpreter).ok_or_else(|| {
                self.differs(
                    "functions of the standard library do not share one vectorcall function",
                )
            })?;
        Ok(())
    }

    /// A known class: its order of bases, its dictionary and the keys that its instances share.
    fn classes(&self, layout: &Layout, modules: &[Entry]) -> Result<(), LayoutError> {
        let objects = Objects::new(self.memory, layout);
        let importlib = modules
            .iter()
            .find(|entry| objects.is_text(entry.key, "_frozen_importlib"));
        let class = importlib
            .and_then(|module| objects.module_dict(module.value))
            .and_then(|dict| objects.dict_value(dict, "ModuleSpec"))
            .ok_or_else(|| LayoutError::Starting {
                what: "importlib is not there yet".to_owned(),
            })?;
        if objects.mro(class).is_none_or(|mro| mro.len() != 2) || !objects.is_heap_class(class) {
            return Err(self.differs("the class ModuleSpec has other bases"));
        }
        let init = objects
            .class_attribute(class, "__init__")
            .and_then(|(_, entry)| objects.function(entry.value));
        let qualname = init.and_then(|init| objects.text(init.qualname));
        if qualname.as_deref() != Some("ModuleSpec.__init__") {
            return Err(self.differs("the class ModuleSpec does not hold its methods"));
        }
        for name in ["name", "loader", "origin"] {
            if objects.shared_key_index(class, name).is_none() {
                return Err(self.differs("the class ModuleSpec does not hold its instances' keys"));
            }
        }
        Ok(())
    }

    /// The cache of functions by version: every filled entry must be a function with a version that belongs there.
    fn version_cache(&self, layout: &Layout, cache: VersionCache) -> Result<(), LayoutError> {
        let objects = Objects::new(self.memory, layout);
        let words = cache.item_size as usize / 8;
        let items = self
            .memory
            .read_words(
                layout.interpreter.wrapping_add(cache.offset),
                cache.items as usize * words,
            )
            .ok_or_else(|| self.differs("the cache of function versions cannot be read"))?;
        let (mut right, mut wrong) = (0usize, 0usize);
        for (item, index) in items
            .chunks_exact(words)
            .zip(0u32..)
            .filter(|(item, _)| item[0] != 0)
        {
            match objects.function(item[0]) {
                Some(function) if function.version % cache.items == index => right += 1,
                _ => wrong += 1,
            }
        }
        if right < ENOUGH && wrong == 0 {
            return Err(LayoutError::Starting {
                what: "few functions have run".to_owned(),
            });
        }
        // The process runs on, so a few may have changed between the readings.
        if 20 * wrong > right {
            return Err(self.differs(format!(
                "{wrong} of {} cached function versions are wrong",
                right + wrong
            )));
        }
        Ok(())
    }
}

fn deque<M: ReadBytes>(objects: &Objects<'_, M>, modules: &[Entry]) -> Option<u64> {
    let module = modules
        .iter()
        .find(|entry| objects.is_text(entry.key, "_collections"))?;
    let class = objects.dict_value(objects.module_dict(module.value)?, "deque")?;
    (objects.is_class(class) && objects.type_name(class).as_deref() == Some("collections.deque"))
        .then_some(class)
}
