//! [`Path`] to operations, against a live process.

use std::collections::HashMap;

use bytemuck::Zeroable;
use profilemate_common::path::{
    CODE_ARGUMENT, CODE_ATTRIBUTE, CODE_COLLECT, CODE_CONSTANT, CODE_DICT_VALUE, CODE_LEAF,
    CODE_LIST_ITEM, CODE_LOAD, CODE_RESULT, CODE_TUPLE_ITEM, ELEMENT_ATTRIBUTE, ELEMENT_LOAD,
    ELEMENT_SELF, LEAF_ADDRESS, LEAF_BOOL, LEAF_BYTES, LEAF_FLOAT, LEAF_INT, LEAF_IS_NONE,
    LEAF_KEY_INT, LEAF_LEN, LEAF_ROWS, LEAF_STR, LEAF_TENSOR, NO_INDEX, Op,
};

use super::error::CompileError;
use super::parse::parse;
use super::syntax::{Element, Kind, Path, Root, Step};
use crate::event::Shape;
use crate::target::python::function::{Binding, Function};
use crate::target::python::interned::Interned;
use crate::target::python::layout::CELL_VALUE;
use crate::target::python::memory::ReadBytes;
use crate::target::python::object::Local;
use crate::target::python::tensor::{TensorError, Tensors};

/// A compiled path: one field of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// Its operations; the last one is its leaf.
    pub ops: Vec<Op>,
    /// What the record holds.
    pub shape: Shape,
    /// Whether its value lies in the record's blob.
    pub needs_blob: bool,
}

/// Compiles the field paths of one function.
pub struct Compiler<'i, 'r, 'm, M> {
    pub(super) interned: &'i Interned<'r, 'm, M>,
    pub(super) function: &'i Function,
    pub(super) classes: HashMap<String, String>,
    /// The variables of its frames, if the paths are read there and not at calls.
    pub(super) locals: Option<Vec<Local>>,
    pub(super) tensors: Option<Result<Tensors, TensorError>>,
}

/// Where a compilation stands: the operations so far, the path so far, and the class there, if it is known.
pub(super) struct Way {
    pub(super) ops: Vec<Op>,
    pub(super) prefix: String,
    pub(super) class: Option<u64>,
}

pub(super) fn op(code: u8) -> Op {
    Op {
        code,
        index: NO_INDEX,
        hint: NO_INDEX,
        ..Op::zeroed()
    }
}

impl<'i, 'r, 'm, M: ReadBytes> Compiler<'i, 'r, 'm, M> {
    /// Compiles for calls of `function`, with attribute names from `interned`.
    pub fn new(interned: &'i Interned<'r, 'm, M>, function: &'i Function) -> Self {
        Self {
            interned,
            function,
            classes: HashMap::new(),
            tensors: None,
            locals: None,
        }
    }

    /// Says how tensors are read in this process, or why they are not.
    #[must_use]
    pub fn tensors(mut self, tensors: Result<Tensors, TensorError>) -> Self {
        self.tensors = Some(tensors);
        self
    }

    /// Says that the objects at `prefix`, a path without kind such as `ret.blocks[list:0]` or `blocks[*]`, are instances
    /// of `class` (`module:qualname`). Needed for slots; for other attributes a short cut.
    #[must_use]
    pub fn class_of(mut self, prefix: &str, class: &str) -> Self {
        let by_name = prefix
            .strip_prefix("arg.")
            .or_else(|| prefix.strip_prefix("local."))
            .filter(|rest| !rest.starts_with(|first: char| first.is_ascii_digit()));
        self.classes
            .insert(by_name.unwrap_or(prefix).to_owned(), class.to_owned());
        self
    }

    /// Compiles a path given as text.
    pub fn compile(&self, text: &str) -> Result<Compiled, CompileError> {
        self.compile_path(&parse(text)?)
    }

    /// Compiles a path.
    pub fn compile_path(&self, path: &Path) -> Result<Compiled, CompileError> {
        let mut way = match &self.locals {
            None => self.root(&path.root)?,
            Some(locals) => self.frame_root(locals, &path.root)?,
        };
        for step in &path.steps {
            self.step(&mut way, step)?;
        }
        let last = self.leaf(&mut way, path)?;
        way.ops.push(last);
        let needs_blob = path.kind.is_collection()
            || matches!(path.kind, Kind::Str | Kind::Bytes | Kind::Tensor);
        if needs_blob && self.locals.is_some() {
            return Err(CompileError::NotThere {
                what: "of a frame only numbers, lengths, truth values and identities are read",
            });
        }
        Ok(Compiled {
            ops: way.ops,
            shape: path.kind.shape(),
            needs_blob,
        })
    }

    pub(super) fn method(&self) -> String {
        format!("{}:{}", self.function.module, self.function.qualname)
    }

    pub(super) fn name(&self, name: &str) -> Result<u64, CompileError> {
        self.interned
            .find(name, &self.function.module)
            .ok_or_else(|| CompileError::UnknownName {
                name: name.to_owned(),
            })
    }

    /// The class that was given for this prefix.
    pub(super) fn class_at(&self, prefix: &str) -> Result<Option<u64>, CompileError> {
        let Some(class) = self.classes.get(prefix) else {
            return Ok(None);
        };
        let (module, qualname) = class.split_once(':').unwrap_or((class, ""));
        let class = self.interned.resolver().class(module, qualname);
        class.map(Some).map_err(|source| CompileError::Class {
            prefix: prefix.to_owned(),
            source,
        })
    }

    fn root(&self, root: &Root) -> Result<Way, CompileError> {
        let (ops, prefix, class) = match root {
            Root::SelfArgument => {
                if !matches!(self.function.binding, Binding::Method | Binding::Property) {
                    return Err(CompileError::NoSelf {
                        method: self.method(),
                    });
                }
                (
                    vec![self.position(0)],
                    "self".to_owned(),
                    self.function.class,
                )
            }
            Root::Result => (vec![op(CODE_RESULT)], "ret".to_owned(), None),
            Root::Position(index) => (vec![self.position(*index)], format!("arg.{index}"), None),
            Root::Argument(name) => {
                let (index, key) = self
                    .function
                    .argument(name)
                    .ok_or_else(|| self.no_argument(name))?;
                (
                    vec![Op {
                        index: index.unwrap_or(NO_INDEX),
                        key,
                        ..op(CODE_ARGUMENT)
                    }],
                    name.clone(),
                    None,
                )
            }
            Root::Global(module, name) => self.global(module.as_deref(), name)?,
            Root::Closure(name) => (self.closure(name)?, format!("closure.{name}"), None),
            Root::Local(_) => {
                return Err(CompileError::NotThere {
                    what: "local variables are read in frames only, not at calls",
                });
            }
        };
        let class = self.class_at(&prefix)?.or(class);
        Ok(Way { ops, prefix, class })
    }

    /// An argument by position; if its name is known it may also have been given by keyword.
    fn position(&self, index: u32) -> Op {
        let own = self
            .function
            .arguments
            .get(..self.function.argcount as usize)
            .unwrap_or_default();
        let wrapped = self
            .function
            .wrapped_arguments
            .get(..self.function.wrapped_argcount as usize)
            .unwrap_or_default();
        let name = own.get(index as usize).or_else(|| {
            wrapped
                .get(index as usize)
                .filter(|_| self.function.varargs)
        });
        Op {
            index,
            key: name.map_or(0, |(_, address)| *address),
            ..op(CODE_ARGUMENT)
        }
    }

    fn no_argument(&self, name: &str) -> CompileError {
        let own = self.function.arguments.iter();
        let wrapped = self
            .function
            .wrapped_arguments
            .iter()
            .filter(|_| self.function.varargs);
        let known: Vec<_> = own.chain(wrapped).map(|(name, _)| name.as_str()).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        CompileError::NoArgument {
            method: self.method(),
            name: name.to_owned(),
            known,
        }
    }

    pub(super) fn global(
        &self,
        module: Option<&str>,
        name: &str,
    ) -> Result<(Vec<Op>, String, Option<u64>), CompileError> {
        let resolver = self.interned.resolver();
        let objects = resolver.objects();
        let dict = match module {
            None => Some(self.function.globals),
            Some(module) => resolver
                .module(module)
                .and_then(|module| objects.module_dict(module)),
        };
        let missing = || CompileError::NoGlobal {
            module: module.unwrap_or(&self.function.module).to_owned(),
            name: name.to_owned(),
        };
        let dict = dict.ok_or_else(missing)?;
        let entry = objects
            .dict_lookup(dict, name)
            .flatten()
            .ok_or_else(missing)?;
        if !objects.is_interned(entry.key) {
            return Err(missing());
        }
        let ops = vec![
            Op {
                key: dict,
                ..op(CODE_CONSTANT)
            },
            Op {
                key: entry.key,
                hint: entry.index,
                ..op(CODE_DICT_VALUE)
            },
        ];
        let prefix = module.map_or_else(
            || format!("global.{name}"),
            |module| format!("{module}::{name}"),
        );
        Ok((ops, prefix, None))
    }

    fn closure(&self, name: &str) -> Result<Vec<Op>, CompileError> {
        let objects = self.interned.resolver().objects();
        let cell = self.function.closure.and_then(|closure| {
            let index = objects
                .free_variables(self.function.code)?
                .iter()
                .position(|free| free == name)?;
            objects.tuple(closure, 256)?.get(index).copied()
        });
        let type_cell = self.interned.resolver().layout().symbols.type_cell;
        let cell = cell.filter(|cell| objects.is_exact(*cell, type_cell));
        let cell = cell.ok_or_else(|| CompileError::NoClosure {
            method: self.method(),
            name: name.to_owned(),
        })?;
        Ok(vec![
            Op {
                key: cell,
                ..op(CODE_CONSTANT)
            },
            Op {
                offset: CELL_VALUE as i32,
                expected: type_cell,
                ..op(CODE_LOAD)
            },
        ])
    }

    fn step(&self, way: &mut Way, step: &Step) -> Result<(), CompileError> {
        let next = match step {
            Step::Attribute(name) => {
                let reach = self.reach(way.class, name)?;
                Op {
                    index: reach.index,
                    offset: reach.offset,
                    key: reach.key,
                    expected: reach.expected,
                    ..op(if reach.load {
                        CODE_LOAD
                    } else {
                        CODE_ATTRIBUTE
                    })
                }
            }
            Step::TupleItem(index) => Op {
                offset: *index,
                ..op(CODE_TUPLE_ITEM)
            },
            Step::ListItem(index) => Op {
                offset: *index,
                ..op(CODE_LIST_ITEM)
            },
            Step::DictValue(key) => Op {
                key: self.name(key)?,
                ..op(CODE_DICT_VALUE)
            },
        };
        way.ops.push(next);
        way.prefix.push_str(&step.to_string());
        way.class = self.class_at(&way.prefix)?;
        Ok(())
    }

    fn tensor(&self, leaf: u8) -> Result<Op, CompileError> {
        let tensors = match &self.tensors {
            Some(Ok(tensors)) => tensors,
            Some(Err(error)) => return Err(CompileError::Tensor(error.clone())),
            None => return Err(CompileError::Tensor(TensorError::NoTorch)),
        };
        Ok(Op {
            leaf,
            offset: tensors.pointer,
            expected: tensors.vtable,
            ..op(CODE_LEAF)
        })
    }

    fn leaf(&self, way: &mut Way, path: &Path) -> Result<Op, CompileError> {
        let leaf = match path.kind {
            Kind::Int | Kind::Ints => LEAF_INT,
            Kind::Float => LEAF_FLOAT,
            Kind::Bool => LEAF_BOOL,
            Kind::Str | Kind::Strs => LEAF_STR,
            Kind::Bytes => LEAF_BYTES,
            Kind::None => LEAF_IS_NONE,
            Kind::Len => LEAF_LEN,
            Kind::Address | Kind::Addresses => LEAF_ADDRESS,
            Kind::Items => LEAF_KEY_INT,
            Kind::Tensor => return self.tensor(LEAF_TENSOR),
            Kind::Rows => return self.tensor(LEAF_ROWS),
        };
        let Some(element) = &path.element else {
            return Ok(Op {
                leaf,
                ..op(CODE_LEAF)
            });
        };
        let collect = Op {
            leaf,
            element: ELEMENT_SELF,
            ..op(CODE_COLLECT)
        };
        let Element::Attribute(name) = element else {
            return Ok(collect);
        };
        way.prefix.push_str("[*]");
        let reach = self.reach(self.class_at(&way.prefix)?, name)?;
        Ok(Op {
            element: if reach.load {
                ELEMENT_LOAD
            } else {
                ELEMENT_ATTRIBUTE
            },
            index: reach.index,
            offset: reach.offset,
            key: reach.key,
            expected: reach.expected,
            ..collect
        })
    }
}
