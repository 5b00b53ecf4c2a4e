//! Walks of the stacks of live interpreters: from outside, and by the kernel (which needs root).
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "test code")]

mod python_target;
#[path = "touch_target/root.rs"]
mod root;
mod walk_target;

use profilemate::attach::{Kernel, Options, Reader};
use profilemate::target::python::thread_states;
use profilemate_common::path::Program;
use profilemate_common::record::{CLASS_BARE, Fields, STATUS_OK, STATUS_UNSET, STATUS_WRONG_TYPE};
use profilemate_common::walk::{
    FUNCTION_OTHER, FrameWalked, KIND_FRAME_WALKED, LocalWalker, OUTCOME_FOUND, OUTCOME_NO_STATE,
    OUTCOME_NONE,
};
use walk_target::{Call, Library, Target};

/// What is read of the wrapper's frame. The descriptor is an object with attributes or a named tuple.
const WRAPPER: &[&str] = &[
    "local.batch_descriptor.num_tokens",
    "local.batch_descriptor[0]",
    "local.batch_descriptor.num_reqs",
    "local.batch_descriptor[1]",
    "batch_descriptor.uniform:bool",
    "self.runtime_mode._value_",
    "local.gone",
    "args[0]",
];
/// What is read of the runner's.
const RUNNER: &[&str] = &[
    "scheduler_output.total_num_scheduled_tokens",
    "arg.1.num_scheduled_tokens:len",
    "scheduler_output.other:none",
    "depth",
];

const WRAPPER_ID: u32 = 7;
const RUNNER_ID: u32 = 8;

/// The methods that stand for `execute_model`.
const METHODS: [&str; 3] = ["execute_model", "captured", "stream"];

/// Every code object with its program.
fn targets(target: &Target) -> Vec<(u64, Program, bool)> {
    let mut targets = Vec::new();
    let wrapper = target.function("Wrapper.__call__");
    let program = target.program(&wrapper, WRAPPER_ID, WRAPPER);
    targets.push((wrapper.innermost, program, false));
    for method in METHODS {
        let function = target.function(&format!("Runner.{method}"));
        let program = target.program(&function, RUNNER_ID, RUNNER);
        targets.push((function.innermost, program, true));
    }
    targets
}

/// The frames that records tell of.
fn drain(ring: &mut Reader) -> Vec<(FrameWalked, Option<Fields>)> {
    let mut frames = Vec::new();
    ring.drain(|record| {
        let (head, rest) = record.split_at(size_of::<FrameWalked>());
        let head: FrameWalked = bytemuck::pod_read_unaligned(head);
        assert_eq!(head.kind, KIND_FRAME_WALKED);
        let fields = (head.class != CLASS_BARE)
            .then(|| bytemuck::pod_read_unaligned(&rest[..size_of::<Fields>()]));
        frames.push((head, fields));
    });
    frames
}

/// Checks what a walk told of `call`.
fn check(call: &Call, frames: &[(FrameWalked, Option<Fields>)], minor: u8) {
    let told: Vec<_> = frames
        .iter()
        .map(|(head, _)| (head.outcome, head.order, head.program))
        .collect();
    let expected = [
        (OUTCOME_FOUND, 0, WRAPPER_ID),
        (OUTCOME_FOUND, 1, RUNNER_ID),
    ];
    assert_eq!(told, expected, "3.{minor} {call:?}");
    let [(inner, wrapper), (outer, runner)] = frames else {
        unreachable!("two, as above");
    };
    assert!(
        u64::from(outer.depth) > u64::from(inner.depth) + call.depth,
        "3.{minor} {call:?}"
    );
    assert!(inner.frame != 0 && outer.instruction != 0);
    let (wrapper, runner) = (wrapper.unwrap(), runner.unwrap());
    let field = |fields: &Fields, index: usize| (fields.status[index], fields.values[index]);
    let ok = |value| (STATUS_OK, value);
    let absent = (STATUS_WRONG_TYPE, 0);
    let named = call.form == "named";
    let by_name = |value| if named { absent } else { ok(value) };
    let by_item = |value| if named { ok(value) } else { absent };
    let got: Vec<_> = (0..WRAPPER.len())
        .map(|index| field(&wrapper, index))
        .collect();
    let wanted = [
        by_name(call.tokens),
        by_item(call.tokens),
        by_name(call.requests),
        by_item(call.requests),
        by_name(1),
        ok(2),
        (STATUS_UNSET, 0),
        ok(call.total),
    ];
    // An instance of a named tuple's subclass has a dictionary, which holds none of the names.
    assert_eq!(got[1], wanted[1], "3.{minor} {call:?}");
    for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        if wanted.0 == STATUS_OK {
            assert_eq!(got, wanted, "3.{minor} {call:?} {}", WRAPPER[index]);
        } else {
            assert_ne!(got.0, STATUS_OK, "3.{minor} {call:?} {}", WRAPPER[index]);
        }
    }
    let got: Vec<_> = (0..RUNNER.len())
        .map(|index| field(&runner, index))
        .collect();
    let wanted = [ok(call.total), ok(call.requests), ok(1), ok(call.depth)];
    assert_eq!(got, wanted, "3.{minor} {call:?}");
}

/// Every combination of descriptor, lock, thread and method, with other numbers in each.
fn matrix(entry: &'static str) -> Vec<Call> {
    let values = [0, 1, 8, 512, 100_000, (1 << 31) + 5];
    let mut calls = Vec::new();
    for method in METHODS {
        for form in ["frozen", "dict", "named"] {
            for held in [false, true] {
                for thread in [false, true] {
                    let number = calls.len();
                    calls.push(Call {
                        method,
                        form,
                        held,
                        thread,
                        entry,
                        tokens: values[number % 6],
                        requests: number as u64 * 3 % 17,
                        total: values[(number + 3) % 6] + number as u64,
                        depth: [0, 1, 5, 20][number % 4],
                    });
                }
            }
        }
    }
    calls
}

#[test]
fn a_stack_is_read_from_outside() {
    let library = Library::build();
    for python in python_target::pythons() {
        let mut target = Target::start(&python, &library);
        let targets = targets(&target);
        let minor = target.layout.version.minor;
        let mut walker = Box::new(LocalWalker::new(target.memory));
        for call in matrix("hold") {
            target.call(&call, |target| {
                let mut found = Vec::new();
                for thread in thread_states(&target.memory, &target.layout) {
                    let mut frames = Vec::new();
                    let find = |code| {
                        targets
                            .iter()
                            .find(|(own, ..)| *own == code)
                            .map(|(_, program, last)| (program, *last))
                    };
                    walker.walk(
                        thread.thread_id,
                        &target.stack,
                        &target.layout.kernel,
                        find,
                        |walked| {
                            let has_fields = walked.head.outcome == OUTCOME_FOUND;
                            frames.push((walked.head, has_fields.then_some(walked.fields)));
                        },
                    );
                    if frames[0].0.outcome == OUTCOME_FOUND {
                        found.push(frames);
                    } else {
                        assert_eq!(frames[0].0.outcome, OUTCOME_NONE, "{call:?}");
                    }
                }
                assert_eq!(found.len(), 1, "3.{minor} {call:?}");
                check(&call, &found[0], minor);
            });
        }
        println!(
            "{}: {} stacks are right",
            python.display(),
            matrix("").len()
        );
    }
}

#[test]
fn the_kernel_walks_every_stack() {
    if !root::is_root() {
        return;
    }
    let library = Library::build();
    let mut kernel = Kernel::load(Options::default()).unwrap();
    let mut ring = kernel.ring().unwrap();
    for python in python_target::pythons() {
        let mut target = Target::start(&python, &library);
        let minor = target.layout.version.minor;
        let pid = target.pid();
        kernel.set_layout(0, &target.layout.kernel).unwrap();
        kernel.set_stack(pid, &target.stack).unwrap();
        for (code, program, last) in targets(&target) {
            kernel.set_target(pid, code, &program, last).unwrap();
        }
        let link = kernel
            .attach_stack(&library.path, library.offset("anchor"), pid)
            .unwrap();
        for call in matrix("anchor") {
            target.call(&call, |_| {});
            let frames = drain(&mut ring);
            check(&call, &frames, minor);
            assert_eq!(
                (frames[0].0.pid, frames[0].0.function),
                (pid, FUNCTION_OTHER)
            );
            assert_eq!(frames[0].0.tid == pid, !call.thread, "{call:?}");
        }
        // Deeper than a walk goes, and a thread that is not Python's.
        let odd = matrix("anchor")[0];
        target.call(&Call { depth: 100, ..odd }, |_| {});
        let deep = drain(&mut ring);
        let outcomes: Vec<u8> = deep.iter().map(|(head, _)| head.outcome).collect();
        assert_eq!(
            outcomes,
            [OUTCOME_FOUND],
            "the wrapper, and nothing further out"
        );
        target.call(
            &Call {
                entry: "foreign",
                ..odd
            },
            |_| {},
        );
        let foreign = drain(&mut ring);
        assert_eq!(foreign.len(), 1);
        assert_eq!(foreign[0].0.outcome, OUTCOME_NO_STATE);
        kernel.clear_stack(pid);
        target.call(&odd, |_| {});
        assert!(drain(&mut ring).is_empty());
        drop(link);
        println!("{}: {} walks are right", python.display(), matrix("").len());
    }
    let ledger = kernel.ledger().unwrap();
    assert_eq!(
        ledger.fired,
        ledger.submitted + ledger.lost + ledger.filtered
    );
    assert_eq!(ledger.lost, 0);
}
