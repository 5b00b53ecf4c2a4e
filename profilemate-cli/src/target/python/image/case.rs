//! Field paths of the recorded process, with what it said that they give.

use profilemate_common::memory::Memory;
use profilemate_common::path::Program;
use profilemate_common::path::eval::{Call, LocalMachine};
use profilemate_common::python::KernelLayout;
use profilemate_common::record::{
    CollectionHead, PHASE_RETURN, STATUS_NONE, STATUS_NOT_PASSED, STATUS_OK, STATUS_OUT_OF_RANGE,
    STATUS_TOO_BIG, STATUS_TRUNCATED, STATUS_UNSET, STATUS_WRONG_TYPE, STRING_SIZE,
};
use serde_json::Value;

use crate::event::Shape;
use crate::target::python::layout::Layout;
use crate::target::python::memory::ReadBytes;
use crate::target::python::{CompileError, Compiler, Interned, ResolveError, Resolver, assemble};

/// What a path gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Got {
    /// Nothing, with this status.
    Absent(u8),
    /// A number, truth value, or bits.
    Word(u64),
    /// Characters.
    Text(Vec<u8>),
    /// Numbers, or pairs of numbers.
    Words(Vec<u64>),
    /// Texts.
    Texts(Vec<Vec<u8>>),
    /// The first items of more.
    Part,
}

/// A path, compiled.
pub(super) struct Case {
    pub(super) path: String,
    pub(super) program: Program,
    shape: Shape,
    pub(super) expected: Got,
}

/// All paths of an image.
pub(super) struct Cases {
    pub(super) call: Call,
    pub(super) list: Vec<Case>,
    /// What should have been compiled and was not, or the other way round.
    pub(super) refused: Vec<String>,
}

impl Cases {
    /// Compiles every path, for a call of `Plain.method(plain, child, 5, only=result)` that returned `result`.
    pub(super) fn compile<M: ReadBytes>(memory: &M, layout: &Layout, facts: &Value) -> Self {
        let cases = Self::attempt(memory, layout, facts).unwrap();
        assert!(cases.refused.is_empty(), "{:?}", cases.refused);
        cases
    }

    /// As [`Cases::compile`], of memory that need not be right.
    pub(super) fn attempt<M: ReadBytes>(
        memory: &M,
        layout: &Layout,
        facts: &Value,
    ) -> Result<Self, ResolveError> {
        let resolver = Resolver::new(memory, layout);
        let function = resolver.resolve("__main__", "Plain.method")?;
        let interned = Interned::new(&resolver);
        let mut list = Vec::new();
        let mut refused = Vec::new();
        for case in facts["cases"].as_array().unwrap() {
            let path = case["path"].as_str().unwrap();
            let classes = case["classes"].as_object().unwrap().iter();
            let compiler = classes.fold(
                Compiler::new(&interned, &function),
                |compiler, (prefix, class)| compiler.class_of(prefix, class.as_str().unwrap()),
            );
            match compiler.compile(path) {
                Ok(_) if case["refused"] == true => refused.push(format!("{path}: not refused")),
                Ok(compiled) => list.push(Case {
                    path: format!("{path} {}", case["classes"]),
                    shape: compiled.shape,
                    expected: expected(case, compiled.shape),
                    program: assemble(1, 0, &[compiled]).unwrap(),
                }),
                Err(CompileError::RunsCode { .. }) if case["refused"] == true => {}
                Err(error) => refused.push(format!("{path}: {error}")),
            }
        }
        let call = Call {
            args: facts["call"].as_u64().unwrap() + u64::from(layout.kernel.tuple_items),
            nargs: 3,
            kwnames: facts["keywords"].as_u64().unwrap(),
            result: facts["result"].as_u64().unwrap(),
            phase: PHASE_RETURN,
            process: 1,
        };
        Ok(Self {
            call,
            list,
            refused,
        })
    }
}

impl Case {
    /// Runs the path twice: the second time with what the first one has learned.
    pub(super) fn run<M: Memory>(
        &self,
        call: &Call,
        memory: &M,
        layout: &KernelLayout,
    ) -> [Got; 2] {
        let mut machine = Box::new(LocalMachine::new(Borrowed(memory)));
        machine.run(call, &self.program, layout);
        let first = got(&machine, self.shape);
        machine.run_again(call, &self.program, layout);
        [first, got(&machine, self.shape)]
    }
}

/// A memory by reference.
struct Borrowed<'m, M>(&'m M);

impl<M: Memory> Memory for Borrowed<'_, M> {
    fn read<T: bytemuck::Pod>(&self, address: u64) -> Option<T> {
        self.0.read(address)
    }
}

fn expected(case: &Value, shape: Shape) -> Got {
    if let Some(why) = case["absent"].as_str() {
        return Got::Absent(match why {
            "none" => STATUS_NONE,
            "type" => STATUS_WRONG_TYPE,
            "unset" => STATUS_UNSET,
            "too big" => STATUS_TOO_BIG,
            "not passed" => STATUS_NOT_PASSED,
            "range" => STATUS_OUT_OF_RANGE,
            _ => panic!("{case}"),
        });
    }
    let word = |value: &Value| {
        let signed = value.as_i64().map(|value| value as u64);
        signed
            .or(value.as_u64())
            .unwrap_or_else(|| panic!("{case}"))
    };
    let text = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
    let value = &case["value"];
    let list = || value.as_array().unwrap().iter();
    match shape {
        Shape::Float => Got::Word(value.as_f64().unwrap().to_bits()),
        Shape::Int | Shape::Bool | Shape::Address => Got::Word(word(value)),
        Shape::Str | Shape::Bytes => Got::Text(text(value)),
        Shape::Strs => Got::Texts(list().map(text).collect()),
        Shape::Ints | Shape::Addresses => Got::Words(list().map(word).collect()),
        Shape::Pairs => Got::Words(
            list()
                .flat_map(|pair| pair.as_array().unwrap().iter().map(word))
                .collect(),
        ),
        Shape::Tensor => panic!("{case}"),
    }
}

fn got<M>(machine: &LocalMachine<M>, shape: Shape) -> Got {
    let (status, value) = (machine.fields.status[0], machine.fields.values[0]);
    if status == STATUS_TRUNCATED {
        return Got::Part;
    }
    if status != STATUS_OK {
        return Got::Absent(status);
    }
    let at = value as usize;
    let text = |at: usize| {
        let length = usize::from(machine.blob[at]);
        machine.blob[at + 1..at + 1 + length].to_vec()
    };
    let stored = || {
        let head: CollectionHead = bytemuck::pod_read_unaligned(&machine.blob[at..at + 8]);
        head.stored as usize
    };
    let words = |count: usize| {
        let bytes = &machine.blob[at + 8..at + 8 + 8 * count];
        Got::Words(bytes.chunks(8).map(bytemuck::pod_read_unaligned).collect())
    };
    match shape {
        Shape::Int | Shape::Bool | Shape::Address | Shape::Float => Got::Word(value),
        Shape::Str | Shape::Bytes => Got::Text(text(at)),
        Shape::Strs => Got::Texts(
            (0..stored())
                .map(|item| text(at + 8 + STRING_SIZE * item))
                .collect(),
        ),
        Shape::Ints | Shape::Addresses => words(stored()),
        Shape::Pairs => words(2 * stored()),
        Shape::Tensor => Got::Absent(status),
    }
}
