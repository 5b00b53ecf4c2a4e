//! The field paths on real interpreters: evaluated from outside, and in the kernel.

use super::cases::{Case, Names, decode};
use super::layouts::layout;
use super::mark::{MarkPage, SITE};
use super::objects::cases;
use crate::attach::{Kernel, Options};
use bytemuck::{Pod, Zeroable as _};
use profilemate_common::memory::Memory;
use profilemate_common::path::eval::{Call, LocalMachine};
use profilemate_common::path::{OPS, Program};
use profilemate_common::python::KernelLayout;
use profilemate_common::record::{CLASS_BLOB, FIELDS, Fields, MethodCalled, PHASE_RETURN};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The memory of another process.
#[derive(Clone, Copy)]
struct Process(u32);

impl Memory for Process {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let mut value = T::zeroed();
        let local = libc::iovec {
            iov_base: (&raw mut value).cast(),
            iov_len: size_of::<T>(),
        };
        let remote = libc::iovec {
            iov_base: address as *mut _,
            iov_len: size_of::<T>(),
        };
        // SAFETY: one local range that is `value`, for which any bytes are valid; the remote one is checked.
        let read = unsafe {
            libc::process_vm_readv(self.0 as i32, &raw const local, 1, &raw const remote, 1, 0)
        };
        (read == size_of::<T>() as isize).then_some(value)
    }
}

/// A running `objects.py`; ended when dropped.
struct Python {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    names: Names,
    layout: KernelLayout,
    call: Call,
}

impl Python {
    fn start(interpreter: &Path, page: Option<&Path>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/attach/tests/objects.py");
        let mut child = Command::new(interpreter)
            .arg(script)
            .args(page)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let map = |key: &str| -> HashMap<String, u64> {
            let entries = told[key].as_object().unwrap();
            entries
                .iter()
                .map(|(name, value)| (name.clone(), value.as_u64().unwrap()))
                .collect()
        };
        let names = Names {
            addresses: map("addresses"),
            names: map("names"),
        };
        let layout = layout(told["minor"].as_u64().unwrap() as u32, &names.addresses);
        let items = names.addresses["args"] + u64::from(layout.tuple_items);
        let call = Call {
            args: items,
            nargs: 2,
            kwnames: names.addresses["kwnames"],
            result: names.addresses["list_object"],
            phase: PHASE_RETURN,
            process: child.id(),
        };
        Self {
            child,
            stdin,
            stdout,
            names,
            layout,
            call,
        }
    }

    /// Has the process pass the site.
    fn pass(&mut self, slot: u8) {
        let call = &self.call;
        let words = [
            1,
            call.args,
            2,
            call.kwnames,
            u64::from(slot) << 32 | u64::from(call.nargs),
            call.result,
            3,
            1,
        ];
        let line: Vec<String> = words.iter().map(u64::to_string).collect();
        writeln!(self.stdin, "{}", line.join(" ")).unwrap();
        self.stdin.flush().unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        assert_eq!(answer, "passed\n");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The interpreters on this machine, by version.
fn interpreters() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(versions) = std::env::var_os("HOME")
        .and_then(|home| std::fs::read_dir(Path::new(&home).join(".pyenv/versions")).ok())
    {
        for entry in versions.flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let minor = name
                .strip_prefix("3.")
                .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
            if minor.is_some_and(|minor| (10..=14).contains(&minor)) {
                found.push(entry.path().join("bin/python3"));
            }
        }
    }
    found.retain(|path| path.exists());
    found.sort();
    if found.is_empty() {
        println!("skipped: no CPython 3.10 to 3.14 under ~/.pyenv/versions");
    }
    found
}

/// Programs that hold the cases, as many as fit into each.
fn programs(cases: &[Case]) -> Vec<(Program, &[Case])> {
    let mut programs = Vec::new();
    let mut rest = cases;
    while !rest.is_empty() {
        let mut program = Program {
            id: programs.len() as u32 + 1,
            class: CLASS_BLOB.into(),
            ..Program::zeroed()
        };
        let mut count = 0;
        for case in rest {
            let end = program.op_count as usize + case.ops.len();
            if end > OPS || count == FIELDS {
                break;
            }
            program.ops[program.op_count as usize..end].copy_from_slice(&case.ops);
            program.op_count = end as u32;
            count += 1;
        }
        program.field_count = count as u32;
        let (these, others) = rest.split_at(count);
        programs.push((program, these));
        rest = others;
    }
    programs
}

#[test]
fn field_paths_give_what_the_interpreter_would() {
    for interpreter in interpreters() {
        let python = Python::start(&interpreter, None);
        let mut machine = Box::new(LocalMachine::new(Process(python.child.id())));
        let cases = cases(&python.names);
        let mut wrong = Vec::new();
        for (program, cases) in programs(&cases) {
            machine.run(&python.call, &program, &python.layout);
            for (field, case) in cases.iter().enumerate() {
                let found = decode(
                    &case.expect,
                    machine.fields.status[field],
                    machine.fields.values[field],
                    &machine.blob,
                );
                if found != case.expect {
                    wrong.push(format!("{}: {found:?}, not {:?}", case.name, case.expect));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{}:\n{}",
            interpreter.display(),
            wrong.join("\n")
        );
        println!("{}: {} paths are right", interpreter.display(), cases.len());
    }
}

#[test]
fn the_kernel_reads_the_same_as_the_tracer() {
    if super::root() {
        let kernel = Kernel::load(Options::default()).unwrap();
        assert!(
            kernel.loops(),
            "every kernel that the tests run on has loops"
        );
        assert_same(kernel);
    }
}

#[test]
fn a_kernel_without_loops_reads_the_same_as_the_tracer() {
    if super::root() {
        let mut kernel = Kernel::load(Options::default()).unwrap();
        kernel.read_in_parts().unwrap();
        assert_same(kernel);
    }
}

fn assert_same(mut kernel: Kernel) {
    let page = MarkPage::new().unwrap();
    let _link = kernel.attach_page(&page.path(), SITE, 5).unwrap();
    let mut ring = kernel.ring().unwrap();
    for (number, interpreter) in interpreters().iter().enumerate() {
        let mut python = Python::start(interpreter, Some(&page.path()));
        let mut machine = Box::new(LocalMachine::new(Process(python.child.id())));
        let cases = cases(&python.names);
        let layout = number as u32;
        kernel.set_layout(layout, &python.layout).unwrap();
        for (mut program, cases) in programs(&cases) {
            program.layout = layout;
            kernel.set_program(5, 9, &program).unwrap();
            let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
            // The kernel learns at the first event what it takes for the short cut at the next ones.
            for _ in 0..3 {
                python.pass(9);
                let blob_len = machine.run(&python.call, &program, &python.layout);
                let mut records: Vec<Vec<u8>> = Vec::new();
                ring.drain(|record| records.push(record.to_vec()));
                assert_eq!(records.len(), 1);
                let (head, rest) = records[0].split_at(size_of::<MethodCalled>());
                let head: MethodCalled = bytemuck::pod_read_unaligned(head);
                assert_eq!((head.pid, head.page, head.slot), (python.child.id(), 5, 9));
                assert_eq!(
                    (head.program, head.field_count),
                    (program.id, cases.len() as u8)
                );
                assert_eq!(
                    (head.entry_cycles, head.return_cycles, head.result),
                    (2, 3, python.call.result)
                );
                let (fields, blob) = rest.split_at(size_of::<Fields>());
                let fields: Fields = bytemuck::pod_read_unaligned(fields);
                let whose = format!("{}: {names:#?}", interpreter.display());
                assert_eq!(fields.status, machine.fields.status, "{whose}");
                assert_eq!(head.blob_len as usize, blob_len);
                assert_eq!(blob, &machine.blob[..blob_len], "{whose}");
                assert_eq!(fields.values, machine.fields.values, "{whose}");
            }
        }
        println!(
            "{}: {} paths are the same in the kernel",
            interpreter.display(),
            cases.len()
        );
    }
}
