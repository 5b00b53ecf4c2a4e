//! Field paths compiled against live Python processes and evaluated on their objects, as the kernel would.
#![allow(clippy::float_cmp, reason = "exact values are expected")]

mod python_target;

use profilemate::target::python::{Compiler, Interned, ProcessMemory, Resolver, assemble};
use profilemate_common::path::eval::{Call, LocalMachine};
use profilemate_common::record::{
    CollectionHead, PHASE_RETURN, STATUS_NONE, STATUS_OK, STATUS_TOO_BIG, STATUS_UNSET,
    STATUS_WRONG_TYPE, STRING_SIZE,
};
use python_target::{Target, for_each};

/// The kernel's part, played over `process_vm_readv`.
type Machinery = Box<LocalMachine<ProcessMemory>>;

/// Evaluates one path for a call of `Plain.method(plain, child, 5, only=result)` that returned `result`.
fn evaluate(target: &Target, path: &str, classes: &[(&str, &str)]) -> (u8, u64, Machinery) {
    let resolver = Resolver::new(&target.memory, &target.layout);
    let function = resolver
        .resolve("__main__", "Plain.method")
        .expect("a function");
    let interned = Interned::new(&resolver);
    let compiler = Compiler::new(&interned, &function);
    let compiler = classes.iter().fold(compiler, |compiler, (prefix, class)| {
        compiler.class_of(prefix, class)
    });
    let compiled = compiler
        .compile(path)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let program = assemble(1, 0, &[compiled]).expect("a program");
    let call = Call {
        args: target.fact(&["call"]) + u64::from(target.layout.kernel.tuple_items),
        nargs: 3,
        kwnames: target.fact(&["keywords"]),
        result: target.fact(&["result"]),
        phase: PHASE_RETURN,
        process: target.interpreter.pid,
    };
    let mut machine = Box::new(LocalMachine::new(target.memory));
    machine.run(&call, &program, &target.layout.kernel);
    (machine.fields.status[0], machine.fields.values[0], machine)
}

fn head(machine: &Machinery, value: u64) -> (CollectionHead, usize) {
    let at = (value & 0xffff_ffff) as usize;
    (
        bytemuck::pod_read_unaligned(&machine.blob[at..at + 8]),
        at + 8,
    )
}

fn string(machine: &Machinery, at: usize) -> String {
    let length = machine.blob[at] as usize;
    String::from_utf8(machine.blob[at + 1..at + 1 + length].to_vec()).expect("text")
}

#[test]
fn scalars() {
    for_each(|target| {
        let slots = [
            ("ret.slotted", "__main__:Slotted"),
            ("ret.cut", "__main__:Slotted"),
        ];
        let plain = [
            ("ret.plains[list:2]", "__main__:Plain"),
            ("ret.shuffled", "__main__:Shuffled"),
            ("ret.sub", "__main__:Plain"),
        ];
        for classes in [&[][..], &plain[..]] {
            for (path, value) in [
                ("self.number", 7i64),
                ("self.negative", -5),
                ("self.big", i64::MAX),
                ("first.number", 8),
                ("second", 5),
                ("arg.2", 5),
                ("only.total", 123),
                ("ret.total", 123),
                ("ret.counts:len", 2),
                ("ret.ids:len", 1),
                ("ret.blocks:len", 5),
                ("ret.queue:len", 3),
                ("ret.text:len", 5),
                ("ret.raw:len", 5),
                ("ret.flag:bool", 1),
                ("ret.nothing:none", 1),
                ("ret.total:none", 0),
                ("ret.pair[0]", 1),
                ("ret.pair[1].number", 42),
                ("ret.plains[list:2].number", 2),
                ("ret.state", 3),
                ("ret.single['only'].number", 77),
                ("ret.wide[list:0].wide_57", 57),
                ("ret.wide[list:1].wide_57", 57),
                ("ret.wide[list:1].wide_2", 2),
                ("ret.shuffled.number", 91),
                ("ret.shuffled.table['alpha']", 11),
                ("ret.shuffled.added_late", 1),
                ("ret.sub.number", 55),
                ("global.LIMIT", 77),
                ("sys::hexversion", i64::from(target.layout.hexversion)),
            ] {
                let (status, got, _) = evaluate(target, path, classes);
                assert_eq!(
                    (status, got as i64),
                    (STATUS_OK, value),
                    "{path} {classes:?}"
                );
            }
        }
        assert_eq!(evaluate(target, "ret.slotted.block_id", &slots).1, 4);
        assert_eq!(evaluate(target, "ret.cut.ref_cnt", &slots).0, STATUS_UNSET);
        assert_eq!(
            f64::from_bits(evaluate(target, "ret.ratio:float", &[]).1),
            2.5
        );
        assert_eq!(
            evaluate(target, "ret:addr", &[]).1,
            target.fact(&["result"])
        );
        let (_, at, machine) = evaluate(target, "self.text:str", &[]);
        assert_eq!(string(&machine, at as usize), "request-7");
        let (_, at, machine) = evaluate(target, "ret.raw:bytes", &[]);
        assert_eq!(string(&machine, at as usize), "bytes");
    });
}

#[test]
fn absent_values() {
    for_each(|target| {
        for (path, status) in [
            ("ret.nothing", STATUS_NONE),
            ("ret.huge", STATUS_TOO_BIG),
            ("ret.text", STATUS_WRONG_TYPE),
            ("ret.total:len", STATUS_WRONG_TYPE),
            ("ret.counts[0]", STATUS_WRONG_TYPE),
            ("ret.block_id", STATUS_UNSET),
            ("ret.total.number", STATUS_WRONG_TYPE),
            ("ret.nothing:ints", STATUS_NONE),
        ] {
            assert_eq!(evaluate(target, path, &[]).0, status, "{path}");
        }
    });
}

#[test]
fn collections() {
    for_each(|target| {
        let (status, value, machine) = evaluate(target, "ret.plains[*].number", &[]);
        let (counts, at) = head(&machine, value);
        let items: Vec<i64> = (0..counts.stored as usize)
            .map(|i| bytemuck::pod_read_unaligned(&machine.blob[at + 8 * i..][..8]))
            .collect();
        assert_eq!(
            (status, counts.total, items),
            (STATUS_OK, 4, vec![0, 1, 2, 3])
        );
        let (status, value, machine) = evaluate(
            target,
            "ret.blocks[*].block_id",
            &[("ret.blocks[*]", "__main__:Slotted")],
        );
        let (counts, at) = head(&machine, value);
        let items: Vec<i64> = (0..counts.stored as usize)
            .map(|i| bytemuck::pod_read_unaligned(&machine.blob[at + 8 * i..][..8]))
            .collect();
        assert_eq!((status, items), (STATUS_OK, vec![0, 1, 2, 3, 4]));
        let (status, value, machine) = evaluate(
            target,
            "ret.plains[*].text:strs",
            &[("ret.plains[*]", "__main__:Plain")],
        );
        let (counts, at) = head(&machine, value);
        let items: Vec<String> = (0..counts.stored as usize)
            .map(|i| string(&machine, at + STRING_SIZE * i))
            .collect();
        assert_eq!(
            (status, items.join(" ")),
            (
                STATUS_OK,
                "request-0 request-1 request-2 request-3".to_owned()
            )
        );
        let (status, value, machine) = evaluate(target, "ret.counts:items", &[]);
        let (counts, at) = head(&machine, value);
        let items: Vec<i64> = (0..counts.stored as usize)
            .map(|i| bytemuck::pod_read_unaligned(&machine.blob[at + 16 * i + 8..][..8]))
            .collect();
        assert_eq!((status, items), (STATUS_OK, vec![5, 70_000_000_000]));
        let (_, value, machine) = evaluate(target, "ret.ids:strs", &[]);
        let (counts, at) = head(&machine, value);
        assert_eq!((counts.stored, string(&machine, at)), (1, "a-1".to_owned()));
    });
}
