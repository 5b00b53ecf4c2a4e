//! Addresses of interned strings by text: how attribute names are recognised in the kernel, by identity.
//!
//! From 3.12 on the interpreter state leads to the dictionary of interned strings and the runtime to the table of
//! statically allocated ones, and a name is one lookup in each. Before, the dictionary is a static variable without a
//! symbol, found by its value. Where none of these can be read, names are harvested from where the interpreter itself
//! put interned strings: code objects' names, class and module dictionaries, and the keys that instances share.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use profilemate_common::memory::Memory;

use super::memory::ReadBytes;
use super::object::{Entry, Objects};
use super::resolve::Resolver;

/// Names kept, at most.
const NAMES: usize = 200_000;
/// Code objects and classes looked at by one harvest, at most.
const HARVEST: usize = 100_000;
/// Entries of one bucket of the static table, at most.
const CHAIN: usize = 256;
/// Depth of functions within functions.
const NESTING: usize = 8;

/// Interned strings of one process. Filled as it is asked.
pub struct Interned<'r, 'm, M> {
    resolver: &'r Resolver<'m, M>,
    names: RefCell<HashMap<String, u64>>,
    seen: RefCell<HashSet<u64>>,
    package: Cell<bool>,
}

impl<'r, 'm, M: ReadBytes> Interned<'r, 'm, M> {
    /// The interned strings of the resolver's process.
    pub fn new(resolver: &'r Resolver<'m, M>) -> Self {
        Self {
            resolver,
            names: RefCell::default(),
            seen: RefCell::default(),
            package: Cell::new(false),
        }
    }

    /// The resolver.
    pub fn resolver(&self) -> &'r Resolver<'m, M> {
        self.resolver
    }

    /// The interned string `name`, if there is one. `module` is where a use of it is likeliest.
    pub fn find(&self, name: &str, module: &str) -> Option<u64> {
        if !name.is_ascii() {
            return None;
        }
        let stored = || {
            self.in_static_table(name)
                .or_else(|| self.in_dictionary(name))
        };
        let harvested = || {
            self.harvest_module(module);
            self.known(name)
        };
        let found = self.known(name).or_else(stored).or_else(harvested);
        if found.is_some() || self.stores_are_readable() {
            return found;
        }
        self.harvest_package(module);
        self.known(name)
    }

    /// Whether every interned string could be found by looking it up, so that one that was not found is not there.
    fn stores_are_readable(&self) -> bool {
        let name = "__init__";
        self.resolver.layout().hash.is_some()
            && (self.in_static_table(name).is_some() || self.in_dictionary(name).is_some())
    }

    /// Names harvested so far.
    pub fn harvested(&self) -> usize {
        self.names.borrow().len()
    }

    fn known(&self, name: &str) -> Option<u64> {
        let address = self.names.borrow().get(name).copied()?;
        self.confirm(address, name)
    }

    /// The string is believed only if its own state says that it is interned.
    fn confirm(&self, address: u64, name: &str) -> Option<u64> {
        let objects = self.resolver.objects();
        (objects.is_text(address, name) && objects.is_interned(address)).then_some(address)
    }

    /// The dictionary of interned strings, each its own value.
    fn in_dictionary(&self, name: &str) -> Option<u64> {
        let layout = self.resolver.layout();
        let objects = self.resolver.objects();
        let dict = objects.pointer(layout.interned?)?;
        let entry = objects.dict_lookup(dict, name)??;
        (entry.key == entry.value).then(|| self.confirm(entry.key, name))?
    }

    /// `_PyRuntime.cached_objects.interned_strings`: a `_Py_hashtable_t` of chains.
    fn in_static_table(&self, name: &str) -> Option<u64> {
        let layout = self.resolver.layout();
        let objects = self.resolver.objects();
        let hash = layout.hash?.of(name.as_bytes());
        let table = objects.pointer(
            layout
                .symbols
                .runtime
                .checked_add(layout.offsets.interned.as_ref()?.runtime)?,
        )?;
        let [_, buckets, chains] = objects.memory.read::<[u64; 3]>(table)?;
        if !buckets.is_power_of_two() {
            return None;
        }
        let mut next =
            objects.pointer(chains.checked_add((hash & (buckets - 1)).checked_mul(8)?)?)?;
        for _ in 0..CHAIN {
            let [after, own_hash, key] = objects.memory.read::<[u64; 3]>(next)?;
            if own_hash == hash && objects.is_text(key, name) {
                return self.confirm(key, name);
            }
            if after == 0 {
                break;
            }
            next = after;
        }
        None
    }

    /// Harvests the functions and classes of a module.
    pub fn harvest_module(&self, module: &str) {
        if let Some(module) = self.resolver.module(module) {
            self.harvest(module);
        }
    }

    /// Harvests all imported modules of the package that `module` belongs to, once.
    fn harvest_package(&self, module: &str) {
        if self.package.replace(true) {
            return;
        }
        let package = module.split('.').next().unwrap_or(module);
        let prefix = format!("{package}.");
        for (name, module) in self.resolver.module_names() {
            if name == package || name.starts_with(&prefix) {
                self.harvest(module);
            }
        }
    }

    fn harvest(&self, module: u64) {
        let objects = self.resolver.objects();
        let Some(dict) = objects.module_dict(module) else {
            return;
        };
        for entry in objects.dict_entries(dict).unwrap_or_default() {
            self.add(entry.key);
            self.harvest_value(&objects, entry);
            if objects.is_class(entry.value) {
                self.harvest_class(entry.value);
            }
        }
    }

    fn harvest_class(&self, class: u64) {
        let objects = self.resolver.objects();
        if !self.first_visit(class) {
            return;
        }
        let keys = objects
            .shared_keys(class)
            .and_then(|keys| objects.key_entries(&keys))
            .unwrap_or_default();
        let entries = objects
            .class_dict(class)
            .and_then(|dict| objects.dict_entries(dict))
            .unwrap_or_default();
        for entry in keys.iter().chain(&entries) {
            self.add(entry.key);
        }
        for entry in entries {
            self.harvest_value(&objects, entry);
        }
    }

    fn harvest_value<N: ReadBytes>(&self, objects: &Objects<'_, N>, entry: Entry) {
        if let Some(function) = objects.function(entry.value) {
            self.harvest_code(function.code, 0);
        }
    }

    fn harvest_code(&self, code: u64, depth: usize) {
        if depth > NESTING || !self.first_visit(code) {
            return;
        }
        let objects = self.resolver.objects();
        for name in objects.code_names(code) {
            self.add(name);
        }
        for inner in objects.inner_code(code) {
            self.harvest_code(inner, depth + 1);
        }
    }

    fn first_visit(&self, object: u64) -> bool {
        let mut seen = self.seen.borrow_mut();
        seen.len() < HARVEST && seen.insert(object)
    }

    fn add(&self, string: u64) {
        let objects = self.resolver.objects();
        if self.names.borrow().len() < NAMES
            && objects.is_interned(string)
            && let Some(text) = objects.text(string)
        {
            self.names.borrow_mut().insert(text, string);
        }
    }
}
