//! Looking at one process: its interpreter, its vLLM, its methods. Reads only; the result is a plan.

use semver::{Version, VersionReq};

use super::options::Options;
use super::trouble::Trouble;
use crate::catalog::{self, Catalog, Events, Method};
use crate::cli::Exit;
use crate::cli::args::Touch;
use crate::plan::{MethodPlan, MethodState, ProcessPlan, Technique};
use crate::target::process::Seen;
use crate::target::python::{
    Compiled, Compiler, Function, Interned, Interpreter, Layout, ProcessMemory, ResolveError,
    Resolver, identify, tensors, validate,
};
use crate::target::role::{self, Role};

/// Why a process that was just found is not attached.
pub(crate) const NOT_LOOKED_AT: &str = "not looked at yet";

/// An interpreter that was identified and whose layout was checked.
pub(super) struct Runtime {
    /// The process's memory.
    pub memory: ProcessMemory,
    /// The interpreter.
    pub interpreter: Interpreter,
    /// Its layout.
    pub layout: Layout,
}

impl Runtime {
    /// Opens the interpreter of process `pid`.
    pub(super) fn open(pid: u32) -> Result<Self, Trouble> {
        let memory = ProcessMemory { pid };
        let interpreter = identify(pid, &memory)?;
        let layout = validate(&interpreter, &memory)?;
        Ok(Self {
            memory,
            interpreter,
            layout,
        })
    }

    /// Whether the process runs on the C library musl.
    pub(super) fn has_musl(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/maps", self.memory.pid))
            .is_ok_and(|maps| maps.contains("/ld-musl-"))
    }
}

/// A method that can be bound.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    /// Its entry in the catalogue.
    pub method: Method,
    /// How its calls are told, where the page has a log.
    pub events: Events,
    /// The live function.
    pub function: Function,
    /// Its fields, compiled, without those that the process rightly lacks.
    pub fields: Vec<Field>,
}

/// A field: name, path, and what reads it or why nothing does.
pub(super) type Field = (String, String, Result<Compiled, String>);

/// What looking at a process found.
pub(super) struct Found {
    /// The plan for it.
    pub plan: ProcessPlan,
    /// Methods to bind now.
    pub ready: Vec<Ready>,
    /// Methods to bind when their module is imported.
    pub missing: Vec<Method>,
    /// Methods whose module is there and does not have them; while it is being imported, that may change.
    pub absent: Vec<Method>,
}

/// Looks for `wanted` methods in one process, with their fields of vLLM `version`. Where callables of C stand in for functions (the helper's, on CPython
/// 3.11), `stand_ins` are the functions that they call.
pub(super) fn look(
    seen: &Seen,
    runtime: &Runtime,
    wanted: &[Method],
    version: Option<&Version>,
    stand_ins: Option<&[u64]>,
) -> Found {
    let resolver = Resolver::new(&runtime.memory, &runtime.layout);
    let interned = Interned::new(&resolver);
    let mut found = Found {
        plan: bare_plan(seen),
        ready: Vec::new(),
        missing: Vec::new(),
        absent: Vec::new(),
    };
    found.plan.python = Some(runtime.layout.version.to_string());
    found.plan.interpreter = Some(runtime.interpreter.path.clone());
    found.plan.vllm = resolver.package_version("vllm");
    for method in wanted {
        let (plan, ready) = look_for(
            method,
            version,
            runtime.memory,
            &resolver,
            &interned,
            stand_ins,
        );
        match plan.state {
            MethodState::NotImported => found.missing.push(method.clone()),
            MethodState::Unbound(_) => found.absent.push(method.clone()),
            MethodState::Ready => {}
        }
        found.plan.methods.push(plan);
        found.ready.extend(ready);
    }
    found
}

/// Whether a field path reads a tensor.
fn reads_tensor(path: &str) -> bool {
    path.ends_with(":tensor") || path.ends_with(":rows")
}

fn look_for(
    method: &Method,
    version: Option<&Version>,
    memory: ProcessMemory,
    resolver: &Resolver<'_, ProcessMemory>,
    interned: &Interned<'_, '_, ProcessMemory>,
    stand_ins: Option<&[u64]>,
) -> (MethodPlan, Option<Ready>) {
    let mut plan = MethodPlan {
        id: method.id.clone(),
        module: method.module.clone(),
        qualname: method.qualname.clone(),
        events: method.events,
        state: MethodState::NotImported,
        fields: Vec::new(),
        reads: 0,
    };
    let outcome = match stand_ins {
        Some(functions) => resolver.resolve_among(&method.module, &method.qualname, functions),
        None => resolver.resolve(&method.module, &method.qualname),
    };
    let function = match outcome {
        Ok(function) => function,
        // The helper binds a module's methods a moment after its import.
        Err(ResolveError::NotAFunction { .. }) if stand_ins.is_some() => return (plan, None),
        Err(ResolveError::NotImported { .. }) => return (plan, None),
        Err(error) => {
            plan.state = MethodState::Unbound(error.to_string());
            return (plan, None);
        }
    };
    if function.is_generator {
        log::info!(
            "{}: its calls only make a generator or coroutine; they are seen, its steps are not",
            method.qualname
        );
    }
    let compile = || compile(method, version, memory, resolver, interned, &function);
    let mut fields = again(resolver, compile, |(_, _, ops)| ops.is_err());
    for (name, path, ops) in &fields {
        plan.reads += ops.as_ref().map_or(0, |ops| ops.ops.len() as u32);
        let error = ops.as_ref().err().cloned();
        plan.fields.push((name.clone(), path.clone(), error));
    }
    plan.state = MethodState::Ready;
    if stand_ins.is_none() {
        plan.events = plan.events.logged(fields.len());
    }
    fields.retain(|(_, path, ops)| ops.is_ok() || !method.may_lack(path));
    let ready = Ready {
        method: method.clone(),
        events: plan.events,
        function,
        fields,
    };
    (plan, Some(ready))
}

/// What `compile` gives; where one of it has failed, what it gives from memory read afresh. The process runs on, and may
/// be importing: not all that was read before is of one moment.
pub(super) fn again<T>(
    resolver: &Resolver<'_, ProcessMemory>,
    compile: impl Fn() -> Vec<T>,
    has_failed: impl Fn(&T) -> bool,
) -> Vec<T> {
    let compiled = compile();
    if !compiled.iter().any(has_failed) {
        return compiled;
    }
    resolver.refresh();
    compile()
}

/// The fields of a method in vLLM `version`, compiled.
fn compile(
    method: &Method,
    version: Option<&Version>,
    memory: ProcessMemory,
    resolver: &Resolver<'_, ProcessMemory>,
    interned: &Interned<'_, '_, ProcessMemory>,
    function: &Function,
) -> Vec<Field> {
    let mut compiler = Compiler::new(interned, function);
    if method.fields.iter().any(|field| reads_tensor(&field.path)) {
        compiler = compiler.tensors(tensors(memory, resolver));
    }
    for (prefix, class) in &method.classes {
        compiler = compiler.class_of(prefix, class);
    }
    let there = |versions: &VersionReq| version.is_none_or(|version| versions.matches(version));
    let fields = method.fields.iter();
    fields
        .filter(|field| there(&field.versions))
        .map(|field| {
            let ops = compiler.compile(&field.path);
            let ops = ops.map_err(|error| error.to_string());
            (field.name.clone(), field.path.clone(), ops)
        })
        .collect()
}

/// What a process runs, which is told of it also if nothing in it is traced.
pub(super) fn introduce(runtime: &Runtime, plan: &mut ProcessPlan) {
    plan.python = Some(runtime.layout.version.to_string());
    plan.interpreter = Some(runtime.interpreter.path.clone());
    plan.vllm = imported_version(runtime);
}

/// Says which fields are not read. The user's own are a warning: nobody looks for them in a plan.
pub(super) fn warn_of_fields(pid: u32, ready: &[Ready]) {
    for ready in ready {
        let level = if ready.method.is_users() {
            log::Level::Warn
        } else {
            log::Level::Info
        };
        for (name, path, compiled) in &ready.fields {
            if let Err(error) = compiled {
                let method = &ready.method.qualname;
                log::log!(
                    level,
                    "process {pid}: {method}: `{name}={path}` is not read: {error}"
                );
            }
        }
    }
}

/// What a process is and which methods are wanted in it, before its functions are looked for.
pub(super) enum Wish {
    /// These methods.
    Methods(Vec<Method>),
    /// Nothing now, but look again: something may change.
    Later(String),
    /// Nothing.
    Never(Trouble),
}

/// Decides which methods are wanted in a process.
pub(super) fn wish(catalog: &Catalog, options: &Options, role: Role, vllm: Option<&str>) -> Wish {
    let mut methods = Vec::new();
    match (role, vllm) {
        (Role::ApiServer, None) => {}
        (_, None) if options.methods.is_empty() => {
            return Wish::Later("vLLM is not imported".to_owned());
        }
        (_, None) => {}
        (role, Some(text)) => match taken(catalog, options, text) {
            Ok(version) => methods.extend(
                catalog
                    .select(&version, |table| options.wanted.table(table))
                    .into_iter()
                    .filter(|method| role != Role::ApiServer || method.api_server)
                    .cloned(),
            ),
            Err(trouble) if options.methods.is_empty() => return Wish::Never(trouble),
            Err(trouble) => log::warn!("{}", trouble.reason),
        },
    }
    methods.extend(options.methods.iter().cloned());
    if methods.is_empty() {
        return Wish::Later("it is the API server: its engine runs in another process".to_owned());
    }
    Wish::Methods(methods)
}

/// The version that a process's vLLM is taken for: its own, also if it is newer than the catalogue; else the one that
/// the user gave.
pub(super) fn taken(catalog: &Catalog, options: &Options, text: &str) -> Result<Version, Trouble> {
    let own = catalog::release(text);
    if let Some(own) = own.clone().filter(|own| catalog.range.matches(own)) {
        return Ok(own);
    }
    let newer = own.filter(|own| catalog.is_newer(own));
    options.assume.clone().or(newer).ok_or_else(|| {
        Trouble::lasting(
            Exit::Unsupported,
            format!("its vLLM is {text}, and the catalogue knows {} only", catalog.range),
        )
        .hint("`--assume-vllm VERSION` takes it for another version; every method is still checked against the process")
    })
}

/// The version that the vLLM of a process is taken for, if it has one.
pub(super) fn version(catalog: &Catalog, options: &Options, runtime: &Runtime) -> Option<Version> {
    taken(catalog, options, &imported_version(runtime)?).ok()
}

/// Why the catalogue may not fit a process's vLLM, although its methods are found; `None` if it was written for it.
pub(super) fn doubt(catalog: &Catalog, options: &Options, text: &str) -> Option<String> {
    let own = catalog::release(text);
    if own.as_ref().is_some_and(|own| catalog.range.matches(own)) {
        return None;
    }
    let version = taken(catalog, options, text).ok()?;
    Some(if options.assume.is_some() {
        format!("vLLM {text} was taken for {version} (`--assume-vllm`)")
    } else {
        format!(
            "vLLM {text} is newer than the catalogue ({}): what was found in the process is used, and may mean \
             something else there",
            catalog.range
        )
    })
}

/// A plan that does nothing yet.
pub(super) fn bare_plan(seen: &Seen) -> ProcessPlan {
    let title = role::title(seen);
    ProcessPlan {
        pid: seen.pid,
        title: if seen.command.is_empty() {
            seen.comm.clone()
        } else {
            seen.command.chars().take(120).collect()
        },
        role: title.map_or(Role::Other, |title| title.role),
        engine: title.and_then(|title| title.engine),
        rank: title.and_then(|title| title.rank),
        python: None,
        interpreter: None,
        vllm: None,
        technique: Technique::Wait(NOT_LOOKED_AT.to_owned()),
        late: None,
        methods: Vec::new(),
        frames: Vec::new(),
        libraries: Vec::new(),
    }
}

/// The technique for a process whose methods are known.
pub(super) fn technique(runtime: &Runtime, options: &Options, has_stand_ins: bool) -> Technique {
    if options.touch == Touch::None {
        return Technique::StackWalks;
    }
    if has_stand_ins {
        return Technique::Helper;
    }
    if options.touch == Touch::Helper {
        return Technique::Wait(
            "no Python helper serves in it; `--touch helper --pid PID` starts one in a running process, `profilemate \
             trace --touch helper -- CMD` with a command, and `profilemate helper install` for its next start"
                .to_owned(),
        );
    }
    if runtime.layout.honours_vectorcall() {
        return Technique::MethodProbes;
    }
    Technique::Wait(format!(
        "CPython {} calls Python functions without looking at their vectorcall pointer, so a running server cannot be \
         redirected from outside; `--touch helper --pid PID` starts the helper in it, `profilemate trace -- CMD` with a \
         command, and `profilemate helper install` for its next start",
        runtime.layout.version
    ))
}

/// vLLM's version in the process, if it is imported.
pub(super) fn imported_version(runtime: &Runtime) -> Option<String> {
    Resolver::new(&runtime.memory, &runtime.layout).package_version("vllm")
}

/// Role told by the modules that a process has imported, where it has no title.
pub(super) fn role_by_modules(runtime: &Runtime) -> Role {
    let resolver = Resolver::new(&runtime.memory, &runtime.layout);
    let imported =
        resolver.imported(&["vllm.v1.core.sched.scheduler", "vllm.v1.worker.gpu_worker"]);
    if imported.contains(&"vllm.v1.core.sched.scheduler") {
        return Role::EngineCore;
    }
    if imported.is_empty() {
        Role::Other
    } else {
        Role::Worker
    }
}

/// How many modules are imported.
pub(super) fn module_count(runtime: &Runtime) -> Option<u64> {
    Resolver::new(&runtime.memory, &runtime.layout).module_count()
}

/// Whether the module of one of the methods is imported.
pub(super) fn any_imported(runtime: &Runtime, methods: &[Method]) -> bool {
    let resolver = Resolver::new(&runtime.memory, &runtime.layout);
    let modules: Vec<&str> = methods
        .iter()
        .map(|method| method.module.as_str())
        .collect();
    !resolver.imported(&modules).is_empty()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::catalog::Catalog;

    const PROGRAM: &str = "\
import sys
class Box:
    def late(self): pass
print('there', flush=True)
sys.stdin.readline()
exec('def other(box): return box.first_known_now')
print('done', flush=True)
sys.stdin.readline()
";

    /// What a look has read is of many moments: a process that imports meanwhile is more than it was.
    #[test]
    fn a_field_whose_name_came_while_it_was_looked_for_is_read() {
        let Ok(mut child) = Command::new("/usr/bin/python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            println!("skipped: no /usr/bin/python3");
            return;
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let runtime = Runtime::open(child.id()).unwrap_or_else(|trouble| panic!("{trouble:?}"));
        let resolver = Resolver::new(&runtime.memory, &runtime.layout);
        let interned = Interned::new(&resolver);
        assert_eq!(interned.find("first_known_now", "__main__"), None);
        let mut go = child.stdin.take().unwrap();
        go.write_all(b"\n").unwrap();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "there\ndone\n");
        let mut method = Catalog::vllm().methods.remove(0);
        method.module = "__main__".to_owned();
        method.qualname = "Box.late".to_owned();
        method.classes.clear();
        method.fields.truncate(1);
        method.fields[0].path = "self.first_known_now".to_owned();
        let known_never = |optional| catalog::Field {
            path: format!("self.known_never_{optional}"),
            optional,
            ..method.fields[0].clone()
        };
        let never = [known_never(false), known_never(true)];
        method.fields.extend(never);
        let (plan, ready) = look_for(&method, None, runtime.memory, &resolver, &interned, None);
        drop(go);
        child.wait().unwrap();
        assert_eq!(plan.state, MethodState::Ready);
        assert_eq!(plan.fields[0].2, None);
        let unread: Vec<_> = plan.fields.iter().map(|field| field.2.is_some()).collect();
        assert_eq!(unread, [false, true, true], "the plan shows them all");
        let ready = ready.unwrap();
        let told: Vec<_> = ready.fields.iter().map(|field| field.1.as_str()).collect();
        assert_eq!(told, ["self.first_known_now", "self.known_never_false"]);
    }
}
