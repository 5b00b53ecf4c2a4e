//! Known live objects that a layout is tried on.

use std::collections::HashMap;

use crate::target::python::identify::Interpreter;
use crate::target::python::memory::ReadBytes;
use crate::target::python::object::{Entry, FunctionObject, Objects};

/// Standard modules that hold Python functions and are imported early by every interpreter.
const MODULES: &[&str] = &[
    "_frozen_importlib",
    "_frozen_importlib_external",
    "codecs",
    "os",
    "_collections_abc",
    "posixpath",
    "genericpath",
    "stat",
    "site",
    "zipimport",
];
/// Functions looked at, at most.
const FUNCTIONS: usize = 48;
/// Functions that must be found and agree.
pub(super) const ENOUGH: usize = 8;

/// Python functions of the standard library, by module and qualified name.
pub(super) struct Sample {
    pub(super) functions: Vec<FunctionObject>,
    /// Candidates that were Python functions by type, but wrong in another way; the first one's fault.
    pub(super) fault: Option<String>,
}

impl Sample {
    /// Functions in the dictionaries of standard modules; each is checked from several sides.
    pub(super) fn collect<M: ReadBytes>(objects: Objects<'_, M>, modules: &[Entry]) -> Self {
        let mut sample = Self {
            functions: Vec::new(),
            fault: None,
        };
        for name in MODULES {
            let Some(module) = modules
                .iter()
                .find(|entry| objects.is_text(entry.key, name))
            else {
                continue;
            };
            let Some(dict) = objects.module_dict(module.value) else {
                continue;
            };
            for entry in objects.dict_entries(dict).unwrap_or_default() {
                if sample.functions.len() >= FUNCTIONS {
                    return sample;
                }
                if objects.is_function(entry.value) {
                    match check_function(objects, dict, entry) {
                        Ok(Some(function)) => sample.functions.push(function),
                        Ok(None) => {}
                        Err(fault) => sample.fault = sample.fault.or(Some(fault)),
                    }
                }
            }
        }
        sample
    }

    /// The vectorcall function that nearly all of the sampled functions share and that is the interpreter's own code.
    pub(super) fn default_vectorcall(&self, interpreter: &Interpreter) -> Option<u64> {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for function in &self.functions {
            *counts.entry(function.vectorcall).or_default() += 1;
        }
        let (vectorcall, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count >= ENOUGH
            && 4 * count >= 3 * self.functions.len()
            && interpreter.is_text(vectorcall))
        .then_some(vectorcall)
    }
}

/// A function under its own name in its own module's dictionary must say so itself, in every field that is relied on.
fn check_function<M: ReadBytes>(
    objects: Objects<'_, M>,
    globals: u64,
    entry: Entry,
) -> Result<Option<FunctionObject>, String> {
    let Some(name) = objects.text(entry.key) else {
        return Ok(None);
    };
    let Some(function) = objects.function(entry.value) else {
        return Err(format!(
            "the function {name} holds no code object where one should be"
        ));
    };
    // Functions imported from elsewhere or stored under another name say nothing about the layout.
    if function.globals != globals
        || objects.text(function.qualname).as_deref() != Some(name.as_str())
    {
        return Ok(None);
    }
    let Some(code) = objects.code(function.code) else {
        return Err(format!("the code of the function {name} cannot be read"));
    };
    let code_name = objects
        .pointer(function.code + objects.layout.offsets.code.name)
        .and_then(|at| objects.text(at));
    let named = |offset| {
        objects
            .pointer(entry.value + offset)
            .and_then(|at| objects.text(at))
            .is_some()
    };
    let offsets = &objects.layout.offsets.function;
    if !named(offsets.name) || !named(offsets.module) || code_name.is_none() {
        return Err(format!(
            "the function {name} has no names where they should be"
        ));
    }
    if code.argcount > 255 || code.firstlineno > 1_000_000 || code.filename.is_empty() {
        return Err(format!(
            "the code of the function {name} has {} arguments and line {}",
            code.argcount, code.firstlineno
        ));
    }
    for (what, pointer, class) in [
        (
            "closure",
            function.closure,
            objects.layout.symbols.type_tuple,
        ),
        (
            "attributes",
            function.dict,
            objects.layout.symbols.type_dict,
        ),
    ] {
        if pointer != 0 && !objects.is_exact(pointer, class) {
            return Err(format!(
                "the {what} of the function {name} have another type than they should"
            ));
        }
    }
    if function.version >= 1 << 31 {
        return Err(format!(
            "the function {name} has the version {:#x}",
            function.version
        ));
    }
    Ok(Some(function))
}
