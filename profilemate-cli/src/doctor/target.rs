//! One process of the target: what it is, and what a trace would do with it.

use std::fmt::Write as _;

use super::{Line, Mark, Section};
use crate::cli::Exit;
use crate::plan::driver::{DriverPlan, LibraryPlan};
use crate::plan::{MethodPlan, MethodState, ProcessPlan, Technique};
use crate::session::Trouble;
use crate::sys::status;
use crate::target::libraries;
use crate::target::role::Role;
use crate::touch::{self, MarkerPage, Resident};

/// Characters of a title or command that are shown.
const TITLE: usize = 48;
/// Methods and reasons named in one line, at most.
const NAMED: usize = 4;

/// What there is to say of one process of the plan. `trouble` is what keeps it from being traced.
pub(super) fn section(plan: &ProcessPlan, trouble: Option<&Trouble>) -> Section {
    let mut lines = Vec::new();
    if let (Some(python), Some(file)) = (&plan.python, &plan.interpreter) {
        let found = format!("CPython {python}, {file}; its layout was checked on live objects");
        lines.push(
            Line::new("python", Mark::Good, found)
                .needs("3.10, 3.12, 3.13 or 3.14; 3.11 with the helper"),
        );
    }
    if let Some(version) = &plan.vllm {
        lines.push(vllm(version, plan));
    }
    let active = plan.technique.reason().is_none();
    if active {
        lines.push(technique(plan));
        lines.push(methods(&plan.methods));
    } else {
        lines.push(nothing_done(plan, trouble));
    }
    if plan.python.is_some() && plan.role != Role::ApiServer {
        lines.extend(environment(plan));
    }
    let blocked = lines.iter().any(|line| matches!(line.mark, Mark::Bad(_)));
    let title: String = plan.title.chars().take(TITLE).collect();
    let part = plan.role.name().replace('_', " ");
    let rank = plan
        .rank
        .map(|rank| format!(" rank {rank}"))
        .unwrap_or_default();
    let engine = plan
        .engine
        .map(|engine| format!(" engine {engine}"))
        .unwrap_or_default();
    Section {
        title: format!("process {} ({part}{engine}{rank}) {title}", plan.pid),
        pid: Some(plan.pid),
        traced: (active || blocked).then_some(!blocked),
        lines,
    }
}

fn vllm(version: &str, plan: &ProcessPlan) -> Line {
    let range = crate::catalog::Catalog::vllm().range;
    let known = crate::catalog::release(version).is_some_and(|release| range.matches(&release));
    let ready = |module: &str| {
        plan.methods
            .iter()
            .any(|method| method.state == MethodState::Ready && method.module == module)
    };
    let chosen = variable(&environment_of(plan.pid), "VLLM_USE_V2_MODEL_RUNNER");
    let runner = match (
        ready("vllm.v1.worker.gpu_model_runner"),
        ready("vllm.v1.worker.gpu.model_runner"),
    ) {
        (false, false) => "",
        (true, false) => ", model runner V1",
        (false, true) => ", model runner V2",
        // vLLM imports both and takes one by its configuration, unless it is told which.
        (true, true) => match chosen.as_deref() {
            Some("0") => ", model runner V1 (VLLM_USE_V2_MODEL_RUNNER=0)",
            Some("1") => ", model runner V2 (VLLM_USE_V2_MODEL_RUNNER=1)",
            _ => ", model runners V1 and V2 both imported: the methods of both are bound",
        },
    };
    let line =
        |mark| Line::new("vllm", mark, format!("{version}{runner}")).needs(range.to_string());
    if known {
        line(Mark::Good)
    } else {
        line(Mark::Warn).todo("`trace --assume-vllm VERSION` takes it for a version in this range")
    }
}

fn technique(plan: &ProcessPlan) -> Line {
    let found = match plan.technique {
        Technique::Helper => "the helper's callables, already in the process",
        _ => {
            "method probes: a marker page is mapped, pointers are redirected, and put back at the end"
        }
    };
    Line::new("technique", Mark::Good, found)
}

/// Methods found and missing, and what their calls would cost.
fn methods(methods: &[MethodPlan]) -> Line {
    let ready: Vec<&MethodPlan> = methods
        .iter()
        .filter(|method| method.state == MethodState::Ready)
        .collect();
    let costs = || ready.iter().map(|method| method.cost_ns());
    let mut found = format!("{} of {} found", ready.len(), methods.len());
    if let (Some(least), Some(most)) = (costs().min(), costs().max()) {
        let _ = write!(found, ", {least} to {most} ns expected for a call");
    }
    let missing = missing(methods);
    let later = methods.len() - ready.len() - missing.len();
    if later > 0 {
        let _ = write!(
            found,
            "; {later} in modules not imported here, bound if they are"
        );
    }
    let line = Line::new("methods", Mark::Good, found).needs("those of the catalogue");
    if missing.is_empty() {
        return line;
    }
    Line {
        mark: Mark::Warn,
        ..line
    }
    .todo(format!(
        "not bound: {}; the tables that need them say so in metadata.json",
        listed(&missing)
    ))
}

/// Methods that cannot be bound, each with the reason.
fn missing(methods: &[MethodPlan]) -> Vec<String> {
    methods
        .iter()
        .filter_map(|method| match &method.state {
            MethodState::Unbound(reason) => Some(format!("{} ({reason})", method.qualname)),
            MethodState::Ready | MethodState::NotImported => None,
        })
        .collect()
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let list = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if more == 0 {
        list
    } else {
        format!("{list} and {more} more")
    }
}

/// Why nothing is done in a process. In a front end, a shell or a helper process that is as it should be.
fn nothing_done(plan: &ProcessPlan, trouble: Option<&Trouble>) -> Line {
    let reason = plan.technique.reason().unwrap_or_default();
    let expected = matches!(plan.role, Role::EngineCore | Role::Worker);
    let mark = match trouble.map(|trouble| trouble.exit) {
        Some(exit) if exit != Exit::NoTarget || expected => Mark::Bad(exit),
        _ => Mark::Fact,
    };
    let line = Line::new("technique", mark, format!("none: {reason}"));
    match trouble.and_then(|trouble| trouble.hint.clone()) {
        Some(hint) if mark != Mark::Fact => line.todo(hint),
        _ => line,
    }
}

/// What lies around the process: who else is at it, the helper, GPU libraries.
fn environment(plan: &ProcessPlan) -> Vec<Line> {
    let pid = plan.pid;
    let mut lines = Vec::new();
    if plan.technique != Technique::Helper {
        lines.push(match touch::check(pid) {
            Ok(()) => Line::new("can be stopped", Mark::Good, "yes, for a moment")
                .needs("no debugger, SIGTRAP not ignored"),
            Err(error) => refused("can be stopped", error.into()),
        });
        lines.push(seccomp(pid));
    }
    lines.push(page(pid));
    lines.push(helper(plan));
    lines.extend(gpu(plan));
    lines
}

fn refused(name: &'static str, trouble: Trouble) -> Line {
    let line = Line::new(name, Mark::Bad(trouble.exit), trouble.reason);
    match trouble.hint {
        Some(hint) => line.todo(hint),
        None => line,
    }
}

fn seccomp(pid: u32) -> Line {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mode = status::field(&status, "Seccomp");
    let needed = "memfd_create and an executable mmap pass";
    match mode {
        Some("0") => Line::new("seccomp", Mark::Good, "no filter"),
        Some("2") => Line::new(
            "seccomp",
            Mark::Fact,
            "a filter, which is asked before anything is written",
        )
        .todo("nothing, if it is a container's usual one; else `trace` tells what it would refuse"),
        // `touch::check` has said what is wrong.
        _ => Line::new("seccomp", Mark::Fact, "strict, or not readable"),
    }
    .needs(needed)
}

/// The marker page: none, another tracer's, or one that a killed tracer left.
fn page(pid: u32) -> Line {
    let name = "other tracer";
    let pages = match MarkerPage::find_all(pid) {
        Ok(pages) => pages,
        Err(error) => return refused(name, error.into()),
    };
    let mut left = 0;
    for page in &pages {
        match page.holder() {
            Ok(None) => {}
            Ok(Some(tracer)) => {
                let error = touch::Error::AnotherTracer { pid, tracer };
                return refused(name, error.into());
            }
            Err(error) => return refused(name, error.into()),
        }
        let slots = page.slots().unwrap_or_default();
        left += slots
            .iter()
            .filter(|slot| slot.function != 0 && slot.callee == 0)
            .count();
    }
    match (pages.is_empty(), left) {
        (true, _) => Line::new(name, Mark::Good, "none"),
        (false, 0) => Line::new(name, Mark::Good, "none; an unused marker page of an earlier session is mapped"),
        (false, left) => Line::new(name, Mark::Warn, format!("none alive; a killed one left {left} redirections"))
            .todo("calls go on unharmed; the next trace puts them back, or `profilemate detach --pid PID`"),
    }
    .needs("none")
}

/// The Python helper, and what else was put into the environment to activate a profiler.
fn helper(plan: &ProcessPlan) -> Line {
    let environment = environment_of(plan.pid);
    let set = |name: &str| variable(&environment, name).is_some();
    let needed = plan
        .python
        .as_deref()
        .is_some_and(|version| version.starts_with("3.11"));
    let state = Resident::find(plan.pid)
        .ok()
        .flatten()
        .and_then(|resident| resident.state());
    let line = match state.as_ref().map(|state| state.state.as_str()) {
        Some("waiting") => Line::new("helper", Mark::Good, "waits in it, and touches nothing"),
        Some("bound") => Line::new("helper", Mark::Good, "serves a tracer"),
        Some(_) => {
            let reason = state.as_ref().and_then(|state| state.reason.clone());
            let found = format!("failed: {}", reason.unwrap_or_else(|| "no reason given".into()));
            Line::new("helper", if needed { Mark::Warn } else { Mark::Fact }, found)
        }
        None if plan.technique == Technique::Helper => {
            Line::new("helper", Mark::Good, "loaded, and it has bound its methods")
        }
        None if needed => Line::new("helper", Mark::Warn, "none").todo(
            "`profilemate helper status --pid PID` says why; `trace --touch helper --pid PID` starts one in it, `trace -- CMD` \
             with a command, and `profilemate helper install` for its next start",
        ),
        None => Line::new("helper", Mark::Good, "none"),
    };
    let mut line = line.needs(if needed {
        "one that waits in the process (3.11)"
    } else {
        "nothing: no preparation"
    });
    let old = ["VLLM_ENABLE_PROFILING", "VLLM_PROFILING_DIR"];
    let old: Vec<&str> = old.into_iter().filter(|name| set(name)).collect();
    if !old.is_empty() && !set("PROFILEMATE_PAGE") {
        let _ = write!(
            line.found,
            "; {} is set, which a running server does not need",
            old.join(" and ")
        );
    }
    line
}

/// The environment with which a process was started; empty if it cannot be read.
fn environment_of(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The mapped GPU libraries, each with its path, and what would be probed in it.
fn gpu(plan: &ProcessPlan) -> Vec<Line> {
    let Some(found) = libraries::gpu(plan.pid) else {
        return vec![Line::new(
            "GPU libraries",
            Mark::Fact,
            "the memory map cannot be read",
        )];
    };
    if found.is_empty() {
        return vec![Line::new(
            "GPU libraries",
            Mark::Fact,
            "none mapped (a CPU build, or not loaded yet)",
        )];
    }
    found
        .into_iter()
        .map(|library| {
            let planned = plan
                .libraries
                .iter()
                .find(|planned| planned.path == library.path);
            let probes = planned.map_or_else(|| "not probed".to_owned(), probes);
            Line::new(
                library.kind,
                Mark::Fact,
                format!("{}: {probes}", library.path),
            )
        })
        .collect()
}

/// How many functions of a library would be probed, and at what cost a call.
fn probes(library: &LibraryPlan) -> String {
    let refused = library.refused.len();
    let costs = library.sites.iter().map(DriverPlan::cost_ns);
    match costs.clone().min().zip(costs.max()) {
        None => format!("not probed, {refused} functions refused"),
        Some((least, most)) => format!(
            "{} functions probed at about {least} to {most} ns a call, {refused} refused",
            library.sites.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Events;

    fn method(qualname: &str, state: MethodState) -> MethodPlan {
        MethodPlan {
            id: "x".into(),
            module: "vllm.v1.worker.gpu_model_runner".into(),
            qualname: qualname.into(),
            events: Events::Return,
            state,
            fields: Vec::new(),
            reads: 2,
        }
    }

    fn plan(technique: Technique, role: Role) -> ProcessPlan {
        ProcessPlan {
            pid: u32::MAX,
            title: "VLLM::EngineCore".into(),
            role,
            engine: None,
            rank: Some(0),
            python: None,
            interpreter: None,
            vllm: Some("0.32.0".into()),
            technique,
            late: None,
            libraries: Vec::new(),
            frames: Vec::new(),
            methods: Vec::new(),
        }
    }

    #[test]
    fn missing_methods_are_named_with_the_reason_and_cost_is_told() {
        let line = methods(&[
            method("A.a", MethodState::Ready),
            method("A.b", MethodState::Unbound("A has no b".into())),
            method("A.c", MethodState::NotImported),
        ]);
        assert_eq!(line.mark, Mark::Warn);
        assert!(
            line.found.starts_with("1 of 3 found") && line.found.contains("; 1 in modules"),
            "{line:?}"
        );
        assert!(line.todo.is_some_and(|todo| todo.contains("A has no b")));
        assert_eq!(
            methods(&[method("A.a", MethodState::Ready)]).mark,
            Mark::Good
        );
    }

    #[test]
    fn a_front_end_in_which_nothing_is_done_is_no_fault_and_an_engine_is() {
        let wait = || Technique::Wait("vLLM is not imported".into());
        let trouble = Trouble::passing(Exit::NoTarget, "vLLM is not imported");
        let front = section(&plan(wait(), Role::ApiServer), Some(&trouble));
        assert_eq!(front.traced, None);
        let engine = section(&plan(wait(), Role::EngineCore), Some(&trouble));
        assert_eq!(engine.traced, Some(false));
        assert!(
            engine
                .lines
                .iter()
                .any(|line| line.mark == Mark::Bad(Exit::NoTarget))
        );
        let busy = Trouble::lasting(Exit::Busy, "held").hint("end it");
        let held = section(&plan(wait(), Role::Other), Some(&busy));
        assert!(
            held.lines
                .iter()
                .any(|line| line.todo.as_deref() == Some("end it"))
        );
    }

    #[test]
    fn variables_are_found_by_their_whole_name() {
        let environment = b"A=1\0VLLM_USE=2\0VLLM_USE_V2_MODEL_RUNNER=1\0";
        assert_eq!(
            variable(environment, "VLLM_USE_V2_MODEL_RUNNER").as_deref(),
            Some("1")
        );
        assert_eq!(variable(environment, "VLLM"), None);
    }

    #[test]
    fn the_runner_is_told_by_its_module() {
        let mut process = plan(Technique::MethodProbes, Role::Worker);
        process
            .methods
            .push(method("GPUModelRunner.execute_model", MethodState::Ready));
        let found = section(&process, None);
        assert_eq!(found.traced, Some(true));
        assert!(
            found.lines[0].found.contains("model runner V1"),
            "{found:?}"
        );
        process.vllm = Some("0.2.0".into());
        assert_eq!(section(&process, None).lines[0].mark, Mark::Warn);
    }
}
