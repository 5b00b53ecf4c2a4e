//! Field paths compiled against live Python processes: every name, class and position in the operations must be the
//! process's own.

mod python_target;

use profilemate::event::Shape;
use profilemate::target::python::{CompileError, Compiled, Compiler, Interned, Resolver, assemble};
use profilemate_common::path::{
    CODE_ARGUMENT, CODE_ATTRIBUTE, CODE_COLLECT, CODE_CONSTANT, CODE_DICT_VALUE, CODE_LEAF,
    CODE_LOAD, CODE_RESULT, ELEMENT_ATTRIBUTE, ELEMENT_LOAD, LEAF_INT, LEAF_STR, NO_INDEX,
};
use profilemate_common::record::{CLASS_BLOB, CLASS_FIELDS};
use python_target::{Target, for_each};

/// Compiles one path for one function of the target's main module.
fn compile(
    target: &Target,
    function: &str,
    path: &str,
    classes: &[(&str, &str)],
) -> Result<Compiled, CompileError> {
    let resolver = Resolver::new(&target.memory, &target.layout);
    let function = resolver.resolve("__main__", function).expect("a function");
    let interned = Interned::new(&resolver);
    let compiler = Compiler::new(&interned, &function);
    classes
        .iter()
        .fold(compiler, |compiler, (prefix, class)| {
            compiler.class_of(prefix, class)
        })
        .compile(path)
}

#[test]
fn attributes_of_self() {
    for_each(|target| {
        let compiled = compile(target, "Plain.method", "self.number", &[]).unwrap();
        let [argument, attribute, leaf] = compiled.ops[..] else {
            panic!("{compiled:?}")
        };
        assert_eq!((argument.code, argument.index), (CODE_ARGUMENT, 0));
        assert_eq!(
            (attribute.code, attribute.key),
            (CODE_ATTRIBUTE, target.fact(&["interned", "number"]))
        );
        assert_eq!(attribute.expected, target.fact(&["classes", "Plain"]));
        // From 3.13 on the compiler's list of attributes comes first, in another order.
        let first = attribute.index == 0;
        assert!(
            if target.layout.version.minor < 13 {
                first
            } else {
                attribute.index != NO_INDEX
            },
            "{attribute:?}"
        );
        assert_eq!((leaf.code, leaf.leaf), (CODE_LEAF, LEAF_INT));
        assert_eq!((compiled.shape, compiled.needs_blob), (Shape::Int, false));
    });
}

#[test]
fn arguments_by_name_and_position() {
    for_each(|target| {
        let argument = |function, path| {
            compile(target, function, path, &[])
                .map(|compiled| (compiled.ops[0].index, compiled.ops[0].key != 0))
        };
        assert_eq!(argument("Plain.method", "first"), Ok((1, true)));
        assert_eq!(argument("Plain.method", "arg.2"), Ok((2, true)));
        assert_eq!(argument("Plain.method", "only"), Ok((NO_INDEX, true)));
        assert_eq!(argument("Plain.method", "arg.7"), Ok((7, false)));
        assert_eq!(
            argument("Decorated.execute", "scheduler_output"),
            Ok((1, true))
        );
        assert_eq!(argument("Decorated.execute", "self"), Ok((0, true)));
        assert_eq!(argument("Decorated.twice", "inner_name"), Ok((1, true)));
        assert_eq!(argument("Plain.static", "b"), Ok((1, true)));
        let error = argument("Plain.method", "third").unwrap_err().to_string();
        assert_eq!(
            error,
            "__main__:Plain.method has no argument third; it has self, first, second, only"
        );
        assert!(matches!(
            argument("Plain.static", "self"),
            Err(CompileError::NoSelf { .. })
        ));
        assert!(matches!(
            argument("free_function", "self.x"),
            Err(CompileError::NoSelf { .. })
        ));
    });
}

#[test]
fn slots_need_their_class() {
    for_each(|target| {
        let classes = [
            ("blocks[*]", "__main__:Slotted"),
            ("ret", "__main__:Slotted"),
        ];
        let with = compile(target, "Plain.method", "ret.block_id", &classes).unwrap();
        assert_eq!(
            (with.ops[0].code, with.ops[1].code),
            (CODE_RESULT, CODE_LOAD)
        );
        assert_eq!(with.ops[1].expected, target.fact(&["classes", "Slotted"]));
        assert!(
            with.ops[1].offset == 16,
            "the first slot lies behind the head: {:?}",
            with.ops
        );
        let without = compile(target, "Plain.method", "ret.block_id", &[]).unwrap();
        assert_eq!(
            (without.ops[1].code, without.ops[1].expected),
            (CODE_ATTRIBUTE, 0)
        );
        let error = compile(target, "Plain.method", "ret.number", &classes).unwrap_err();
        assert!(matches!(error, CompileError::NoAttribute { .. }), "{error}");
        let error = compile(
            target,
            "Plain.method",
            "ret.x",
            &[("ret", "__main__:Nothing")],
        )
        .unwrap_err();
        assert!(matches!(error, CompileError::Class { .. }), "{error}");
    });
}

#[test]
fn elements_of_collections() {
    for_each(|target| {
        let items = compile(target, "Plain.method", "first.items[*].number", &[]).unwrap();
        let last = items.ops.last().unwrap();
        assert_eq!(
            (last.code, last.element, last.leaf),
            (CODE_COLLECT, ELEMENT_ATTRIBUTE, LEAF_INT)
        );
        assert_eq!(last.key, target.fact(&["interned", "number"]));
        let slots = compile(
            target,
            "Plain.method",
            "arg.first[*].block_id",
            &[("arg.first[*]", "__main__:Slotted")],
        )
        .unwrap();
        assert_eq!(
            (slots.ops[1].element, slots.ops[1].offset),
            (ELEMENT_LOAD, 16)
        );
        let texts = compile(target, "Plain.method", "first.items:strs", &[]).unwrap();
        assert_eq!(
            (texts.ops[2].leaf, texts.shape, texts.needs_blob),
            (LEAF_STR, Shape::Strs, true)
        );
    });
}

#[test]
fn globals_and_closures() {
    for_each(|target| {
        let global = compile(target, "Plain.method", "global.LIMIT", &[]).unwrap();
        assert_eq!(
            (global.ops[0].code, global.ops[1].code),
            (CODE_CONSTANT, CODE_DICT_VALUE)
        );
        assert_eq!(global.ops[1].key, target.fact(&["interned", "LIMIT"]));
        let other = compile(target, "Plain.method", "sys::hexversion", &[]).unwrap();
        assert_ne!(other.ops[0].key, global.ops[0].key);
        let closure = compile(target, "Decorated.execute", "closure.count", &[]).unwrap();
        assert_eq!(
            (closure.ops[0].code, closure.ops[1].code),
            (CODE_CONSTANT, CODE_LOAD)
        );
        assert_eq!(closure.ops[1].expected, target.layout.symbols.type_cell);
        assert!(matches!(
            compile(target, "Plain.method", "global.NOTHING", &[]),
            Err(CompileError::NoGlobal { .. })
        ));
        assert!(matches!(
            compile(target, "Plain.method", "closure.count", &[]),
            Err(CompileError::NoClosure { .. })
        ));
    });
}

#[test]
fn what_would_run_code_or_is_unknown() {
    for_each(|target| {
        let error = compile(target, "Plain.method", "self.prop", &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Plain.prop is a property: reading it would run code in the process"
        );
        assert!(matches!(
            compile(target, "Plain.method", "self.method", &[]),
            Err(CompileError::RunsCode { .. })
        ));
        let error = compile(
            target,
            "Plain.method",
            "self.an_attribute_that_nothing_has",
            &[],
        )
        .unwrap_err();
        assert!(matches!(error, CompileError::UnknownName { .. }), "{error}");
        assert!(matches!(
            compile(target, "Plain.method", "self..x", &[]),
            Err(CompileError::Parse(_))
        ));
    });
}

#[test]
fn programs() {
    for_each(|target| {
        let field = |path| compile(target, "Plain.method", path, &[]).unwrap();
        let program = assemble(9, 2, &[field("self.number"), field("ret:none")]).unwrap();
        assert_eq!(
            (
                program.id,
                program.layout,
                program.op_count,
                program.field_count
            ),
            (9, 2, 5, 2)
        );
        assert_eq!(program.class, u32::from(CLASS_FIELDS));
        let program = assemble(9, 2, &[field("self.number"), field("self.text:str")]).unwrap();
        assert_eq!(program.class, u32::from(CLASS_BLOB));
    });
}
