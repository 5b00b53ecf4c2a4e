//! Paths that begin at the local variables of a frame.

use profilemate_common::path::{CODE_LOAD, CODE_LOCAL, Op};

use super::compile::{Compiler, Way, op};
use super::error::CompileError;
use super::syntax::Root;
use crate::target::python::function::{Binding, Function};
use crate::target::python::interned::Interned;
use crate::target::python::layout::CELL_VALUE;
use crate::target::python::memory::ReadBytes;
use crate::target::python::object::Local;

impl<'i, 'r, 'm, M: ReadBytes> Compiler<'i, 'r, 'm, M> {
    /// Compiles for frames of `function`, or of the innermost one that it wraps: arguments and `self` are their local
    /// variables.
    pub fn for_frame(
        interned: &'i Interned<'r, 'm, M>,
        function: &'i Function,
    ) -> Result<Self, CompileError> {
        let objects = interned.resolver().objects();
        let locals = objects.locals(function.innermost);
        Ok(Self {
            locals: Some(locals.ok_or(CompileError::NotThere {
                what: "the names of its local variables cannot be read",
            })?),
            ..Self::new(interned, function)
        })
    }

    pub(super) fn frame_root(&self, locals: &[Local], root: &Root) -> Result<Way, CompileError> {
        let (ops, prefix, class) = match root {
            Root::SelfArgument => {
                if !matches!(self.function.binding, Binding::Method | Binding::Property) {
                    return Err(CompileError::NoSelf {
                        method: self.method(),
                    });
                }
                let first = locals.first().ok_or_else(|| self.no_local("self"))?;
                // The variable of argument 0 is empty where an inner function uses it on 3.10; then its cell has it.
                let own = locals.iter().rev().find(|local| local.name == first.name);
                (
                    self.local(own.unwrap_or(first)),
                    "self".to_owned(),
                    self.function.class,
                )
            }
            Root::Position(index) => {
                let local = locals.get(*index as usize);
                let name = local.map_or_else(|| index.to_string(), |local| local.name.clone());
                (
                    self.local(self.named(locals, &name)?),
                    format!("arg.{index}"),
                    None,
                )
            }
            Root::Argument(name) | Root::Local(name) | Root::Closure(name) => {
                let prefix = match root {
                    Root::Closure(_) => format!("closure.{name}"),
                    _ => name.clone(),
                };
                (self.local(self.named(locals, name)?), prefix, None)
            }
            Root::Global(module, name) => self.global(module.as_deref(), name)?,
            Root::Result => {
                return Err(CompileError::NotThere {
                    what: "a frame that still runs has no result",
                });
            }
        };
        let class = self.class_at(&prefix)?.or(class);
        Ok(Way { ops, prefix, class })
    }

    /// The variable `name`. Of two (3.10 keeps an argument that an inner function uses in a cell) the cell.
    fn named<'l>(&self, locals: &'l [Local], name: &str) -> Result<&'l Local, CompileError> {
        let found = locals.iter().rev().find(|local| local.name == name);
        found.ok_or_else(|| self.no_local(name))
    }

    fn no_local(&self, name: &str) -> CompileError {
        CompileError::NoLocal {
            method: self.method(),
            name: name.to_owned(),
        }
    }

    fn local(&self, local: &Local) -> Vec<Op> {
        let mut ops = vec![Op {
            index: local.index,
            ..op(CODE_LOCAL)
        }];
        if local.is_cell {
            ops.push(Op {
                offset: CELL_VALUE as i32,
                expected: self.interned.resolver().layout().symbols.type_cell,
                ..op(CODE_LOAD)
            });
        }
        ops
    }
}
