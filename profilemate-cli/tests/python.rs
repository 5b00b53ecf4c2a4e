//! Live Python processes of every supported interpreter on this machine, read from outside and compared with what the
//! processes say of themselves.

mod python_target;

use profilemate::target::python::layout::Layout;
use profilemate::target::python::object::Objects;
use profilemate::target::python::{Binding, Interned, ResolveError, Resolver, Snapshot};
use python_target::for_each;

fn objects<'a>(
    snapshot: &'a Snapshot<'a, profilemate::target::python::ProcessMemory>,
    layout: &'a Layout,
) -> Objects<'a, Snapshot<'a, profilemate::target::python::ProcessMemory>> {
    Objects::new(snapshot, layout)
}

#[test]
fn identifies_and_validates() {
    for_each(|target| {
        let version: Vec<u64> = target.facts["version"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part.as_u64().unwrap())
            .collect();
        let layout = &target.layout;
        assert_eq!(
            layout.version.to_string(),
            format!("{}.{}.{}", version[0], version[1], version[2])
        );
        assert_eq!(u64::from(layout.hexversion), target.fact(&["hexversion"]));
        assert_eq!(layout.kernel.none, target.fact(&["none"]));
        assert_eq!(layout.kernel.type_deque, target.fact(&["deque"]));
        assert!(target.interpreter.is_text(layout.default_vectorcall));
        assert_eq!(layout.honours_vectorcall(), version[1] != 11);
        println!("  {layout:?}");
    });
}

#[test]
fn resolves_functions() {
    for_each(|target| {
        let resolver = Resolver::new(&target.memory, &target.layout);
        for (qualname, fact) in target.facts["functions"].as_object().unwrap() {
            let function = resolver.resolve("__main__", qualname).unwrap();
            assert_eq!(Some(function.address), fact[0].as_u64(), "{qualname}");
            assert_eq!(Some(function.code), fact[1].as_u64(), "{qualname}");
            assert_eq!(
                Some(u64::from(function.firstlineno)),
                fact[2].as_u64(),
                "{qualname}"
            );
            assert!(function.filename.ends_with("target.py"));
            assert!(function.is_default(&target.layout), "{qualname}");
            assert_eq!(
                function.is_generator,
                qualname.ends_with("coroutine") || qualname.ends_with("generator")
            );
        }
        let method = resolver.resolve("__main__", "Child.method").unwrap();
        assert_eq!(method.class, Some(target.fact(&["classes", "Child"])));
        assert_eq!(method.owner, Some(target.fact(&["classes", "Plain"])));
        let names: Vec<_> = method
            .arguments
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["self", "first", "second", "only"]);
        assert_eq!(method.argcount, 3);
        assert_eq!(
            method.argument("second").map(|(index, _)| index),
            Some(Some(2))
        );
        assert_eq!(method.argument("only").map(|(index, _)| index), Some(None));
        assert_eq!(method.argument("nothing"), None);
        assert_eq!(method.binding, Binding::Method);
        for (qualname, binding) in [
            ("Plain.static", Binding::Static),
            ("Plain.klass", Binding::Class),
            ("Plain.prop", Binding::Property),
            ("free_function", Binding::Module),
        ] {
            assert_eq!(
                resolver.resolve("__main__", qualname).unwrap().binding,
                binding
            );
        }
    });
}

#[test]
fn sees_through_decorators() {
    for_each(|target| {
        let resolver = Resolver::new(&target.memory, &target.layout);
        let execute = resolver.resolve("__main__", "Decorated.execute").unwrap();
        assert!(execute.wrapped && execute.varargs && execute.arguments.is_empty());
        assert_eq!(
            execute.argument("scheduler_output").map(|(index, _)| index),
            Some(Some(1))
        );
        let twice = resolver.resolve("__main__", "Decorated.twice").unwrap();
        assert_eq!(
            twice.argument("inner_name").map(|(index, _)| index),
            Some(Some(1))
        );
        assert!(
            !resolver
                .resolve("__main__", "Plain.method")
                .unwrap()
                .wrapped
        );
    });
}

#[test]
fn versions_are_where_the_interpreter_looks() {
    for_each(|target| {
        let resolver = Resolver::new(&target.memory, &target.layout);
        let function = resolver.resolve("__main__", "Plain.static").unwrap();
        let minor = target.layout.version.minor;
        assert_eq!(function.version_address.is_some(), minor >= 11);
        // Called 300 times, so specialised, so versioned.
        assert_eq!(function.version_value != 0, minor >= 11);
        assert_eq!(function.version_cache_slot.is_some(), minor >= 13);
    });
}

#[test]
fn says_why_not() {
    for_each(|target| {
        let resolver = Resolver::new(&target.memory, &target.layout);
        let error = |module: &str, qualname: &str| resolver.resolve(module, qualname).unwrap_err();
        assert!(matches!(
            error("not.imported", "f"),
            ResolveError::NotImported { .. }
        ));
        assert!(matches!(
            error("__main__", "missing"),
            ResolveError::NotFound { .. }
        ));
        assert!(matches!(
            error("__main__", "Plain.missing"),
            ResolveError::NotFound { .. }
        ));
        assert!(matches!(
            error("__main__", "plain.method"),
            ResolveError::NotFound { .. }
        ));
        assert!(matches!(
            error("__main__", "LIMIT"),
            ResolveError::NotAFunction { .. }
        ));
        assert!(matches!(
            error("__main__", "Plain"),
            ResolveError::NotAFunction { .. }
        ));
        assert!(matches!(
            error("__main__", ""),
            ResolveError::NotFound { .. }
        ));
        assert!(
            matches!(error("sys", "getrefcount"), ResolveError::NotAFunction { kind, .. } if kind == "builtin_function_or_method")
        );
        assert_eq!(
            resolver.imported(&["os", "nope", "threading"]),
            ["os", "threading"]
        );
        assert_eq!(
            resolver.package_version("__main__").as_deref(),
            Some("1.2.3+test")
        );
    });
}

#[test]
fn reads_values() {
    for_each(|target| {
        let snapshot = Snapshot::new(&target.memory);
        let objects = objects(&snapshot, &target.layout);
        for (text, address) in target.facts["strings"].as_object().unwrap() {
            let address = address.as_u64().unwrap();
            assert_eq!(objects.text(address).as_ref(), Some(text));
            assert_eq!(objects.is_text(address, text), text.is_ascii());
            assert!(!objects.is_text(address, "other"));
        }
        for (number, address) in target.facts["ints"].as_object().unwrap() {
            assert_eq!(
                objects.int(address.as_u64().unwrap()),
                number.parse::<i64>().ok(),
                "{number}"
            );
        }
        assert_eq!(objects.int(target.fact(&["objects", "state"])), Some(3));
        assert_eq!(objects.int(target.fact(&["classes", "Plain"])), None);
        let big = target.fact(&["big_dict"]);
        assert_eq!(
            objects.dict_entries(big).unwrap().len(),
            70000 - 70000usize.div_ceil(3)
        );
        for i in [1usize, 2, 100, 69998] {
            assert_eq!(
                objects.int(objects.dict_value(big, &format!("key{i}")).unwrap()),
                Some(i as i64),
                "key{i}"
            );
        }
        for i in [0, 3, 69999, 70001] {
            assert_eq!(
                objects.dict_lookup(big, &format!("key{i}")),
                Some(None),
                "key{i}"
            );
        }
        let mixed = target.fact(&["mixed"]);
        assert_eq!(objects.dict_entries(mixed).unwrap().len(), 4);
        assert_eq!(
            objects
                .dict_value(mixed, "two")
                .and_then(|two| objects.int(two)),
            Some(2)
        );
        let blocks = objects
            .list(target.fact(&["objects", "blocks"]), 100)
            .unwrap();
        assert_eq!(blocks.len(), 5);
        let slotted = target.fact(&["classes", "Slotted"]);
        let (_, member) = objects.class_attribute(slotted, "ref_cnt").unwrap();
        let offset = objects
            .member_offset(member.value, slotted, "ref_cnt")
            .unwrap();
        assert_eq!(
            objects
                .pointer(blocks[2] + offset as u64)
                .and_then(|count| objects.int(count)),
            Some(1)
        );
        assert_eq!(
            objects.member_offset(member.value, slotted, "block_id"),
            None
        );
    });
}

#[test]
fn finds_interned_names() {
    for_each(|target| {
        let resolver = Resolver::new(&target.memory, &target.layout);
        let interned = Interned::new(&resolver);
        for (name, address) in target.facts["interned"].as_object().unwrap() {
            assert_eq!(interned.find(name, "__main__"), address.as_u64(), "{name}");
        }
        assert_eq!(
            interned.find("no such name anywhere in this process", "__main__"),
            None
        );
    });
}

/// A process that is just starting, looked at again and again, is not taken for a wrong build for long. (A table that
/// grows while it is read can look wrong for a moment; a session looks again for seconds before it believes that.)
#[test]
fn a_starting_process_is_not_refused() {
    use profilemate::target::python::{LayoutError, ProcessMemory, identify, validate};
    for python in python_target::pythons() {
        let mut child = std::process::Command::new(&python)
            .args([
                "-c",
                "import sys, json, asyncio, logging, unittest, email.message; sys.stdin.read()",
            ])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let memory = ProcessMemory { pid: child.id() };
        let mut layouts = 0;
        let mut differed = 0;
        for _ in 0..20_000 {
            // Before `exec` and while its libraries are being loaded, it is no Python yet.
            let Ok(interpreter) = identify(child.id(), &memory) else {
                continue;
            };
            match validate(&interpreter, &memory) {
                Ok(_) => layouts += 1,
                Err(LayoutError::Starting { .. }) => {}
                Err(LayoutError::Differs { .. }) if differed < 5 => {
                    differed += 1;
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    continue;
                }
                Err(error) => panic!("{}: {error}", python.display()),
            }
            differed = 0;
            if layouts == 10 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(layouts, 10);
    }
}

#[test]
fn says_what_is_no_supported_python() {
    use profilemate::target::python::{IdentifyError, ProcessMemory, identify};
    let own = std::process::id();
    assert!(matches!(
        identify(own, &ProcessMemory { pid: own }),
        Err(IdentifyError::NotPython { .. })
    ));
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    assert!(matches!(
        identify(pid, &ProcessMemory { pid }),
        Err(IdentifyError::Maps { .. })
    ));
}

/// The table of one version never passes for another.
#[test]
fn a_wrong_layout_is_refused() {
    use profilemate::target::python::{LayoutError, Version, validate};
    for_each(|target| {
        for minor in (9..=15).filter(|minor| *minor != target.layout.version.minor) {
            let mut interpreter = target.interpreter.clone();
            interpreter.version = Version { minor, patch: None };
            let error = validate(&interpreter, &target.memory).unwrap_err();
            assert_ne!(error.hint(), "", "{error}");
            println!("  as 3.{minor}: {error}");
        }
        let mut interpreter = target.interpreter.clone();
        std::mem::swap(
            &mut interpreter.symbols.type_code,
            &mut interpreter.symbols.type_cell,
        );
        let error = validate(&interpreter, &target.memory);
        assert!(
            matches!(error, Err(LayoutError::Differs { .. })),
            "{error:?}"
        );
        let mut interpreter = target.interpreter.clone();
        interpreter.text.clear();
        let error = validate(&interpreter, &target.memory).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("do not share one vectorcall function"),
            "{error}"
        );
    });
}

/// Other Pythons than the supported ones are named as such (where this machine has them).
#[test]
fn other_pythons_are_named() {
    use profilemate::target::python::{IdentifyError, ProcessMemory, identify};
    let home = std::env::var("HOME").unwrap_or_default();
    let versions = std::fs::read_dir(format!("{home}/.pyenv/versions"))
        .into_iter()
        .flatten()
        .flatten();
    let mut looked_at = 0;
    for version in versions {
        let name = version.file_name().to_string_lossy().into_owned();
        if !["3.6.", "3.7.", "3.8.", "3.9."]
            .iter()
            .any(|old| name.starts_with(old))
        {
            continue;
        }
        let mut child = std::process::Command::new(version.path().join("bin/python3"))
            .args(["-c", "import sys; print(1, flush=True); sys.stdin.read()"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let result = identify(child.id(), &ProcessMemory { pid: child.id() });
        child.kill().unwrap();
        child.wait().unwrap();
        let minor = name
            .rsplit_once('.')
            .map_or(name.as_str(), |(minor, _)| minor)
            .to_owned();
        assert!(
            matches!(&result, Err(IdentifyError::Unsupported { version, .. }) if *version == minor),
            "{name}: {result:?}"
        );
        looked_at += 1;
    }
    println!("{looked_at} old versions looked at");
}
