//! The plan in words and as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::driver::LibraryPlan;
use super::{FramePlan, MethodPlan, MethodState, Plan, ProcessPlan, WALK_FRAMES};

pub(super) fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "probe site: {}", plan.site);
    for process in &plan.processes {
        process_text(&mut out, process);
    }
    out
}

fn process_text(out: &mut String, process: &ProcessPlan) {
    let engine = process
        .engine
        .map(|engine| format!(" engine {engine}"))
        .unwrap_or_default();
    let rank = process
        .rank
        .map(|rank| format!(" rank {rank}"))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "\nprocess {} ({}{engine}{rank}) {}",
        process.pid,
        process.role.name(),
        process.title
    );
    if let (Some(python), Some(file)) = (&process.python, &process.interpreter) {
        let _ = writeln!(out, "  CPython {python}, {file}");
    }
    if let Some(vllm) = &process.vllm {
        let _ = writeln!(out, "  vLLM {vllm}");
    }
    match process.technique.reason() {
        Some(reason) => {
            let _ = writeln!(out, "  not touched: {reason}");
        }
        None => {
            let _ = writeln!(
                out,
                "  technique: {}",
                process.technique.name().replace('_', " ")
            );
        }
    }
    if let Some(late) = &process.late {
        let _ = writeln!(out, "  {}", late.text());
    }
    for method in &process.methods {
        method_text(out, method);
    }
    if !process.frames.is_empty() {
        let _ = writeln!(
            out,
            "  stacks walked at graph launches, captures, waits and first kernel launches: about {} ns for {WALK_FRAMES} \
             frames",
            process.walk_ns()
        );
    }
    for frame in &process.frames {
        frame_text(out, frame);
    }
    for library in &process.libraries {
        library_text(out, library);
    }
}

fn frame_text(out: &mut String, frame: &FramePlan) {
    let state = match &frame.state {
        MethodState::Ready => format!("frame, about {} ns more", frame.cost_ns()),
        MethodState::NotImported => format!("frame, when {} is imported", frame.module),
        MethodState::Unbound(reason) => format!("not looked for: {reason}"),
    };
    let _ = writeln!(
        out,
        "  {:<52} {state}",
        format!("{}:{}", frame.module, frame.qualname)
    );
    fields_text(out, &frame.fields);
}

fn library_text(out: &mut String, library: &LibraryPlan) {
    let _ = writeln!(out, "  {} (build id {})", library.path, library.build_id);
    for site in &library.sites {
        let _ = writeln!(
            out,
            "    {:<40} +{:<3} {:<24} {}, about {} ns a call",
            site.symbol,
            site.offset,
            site.instruction,
            site.cost.name(),
            site.cost_ns()
        );
    }
    for (symbol, reason) in &library.refused {
        let _ = writeln!(out, "    {symbol:<40} not probed: {reason}");
    }
}

fn method_text(out: &mut String, method: &MethodPlan) {
    let state = match &method.state {
        MethodState::Ready => format!(
            "{}, about {} ns a call",
            method.events.words(),
            method.cost_ns()
        ),
        MethodState::NotImported => format!(
            "{}, when {} is imported",
            method.events.words(),
            method.module
        ),
        MethodState::Unbound(reason) => format!("not bound: {reason}"),
    };
    let _ = writeln!(
        out,
        "  {:<52} {state}",
        format!("{}:{}", method.module, method.qualname)
    );
    fields_text(out, &method.fields);
}

fn fields_text(out: &mut String, fields: &[(String, String, Option<String>)]) {
    for (name, path, error) in fields {
        let note = error
            .as_ref()
            .map(|error| format!("  (not read: {error})"))
            .unwrap_or_default();
        let _ = writeln!(out, "      {name} = {path}{note}");
    }
}

pub(super) fn json(plan: &Plan) -> serde_json::Value {
    let processes: Vec<_> = plan.processes.iter().map(process_json).collect();
    json!({ "probe_site": plan.site, "processes": processes })
}

fn process_json(process: &ProcessPlan) -> serde_json::Value {
    let methods: Vec<_> = process
        .methods
        .iter()
        .map(|method| {
            let (state, reason) = state_json(&method.state);
            let fields = fields_json(&method.fields);
            json!({
                "id": method.id, "module": method.module, "qualname": method.qualname, "state": state,
                "reason": reason, "events": method.events.words(), "expected_cost_ns": method.cost_ns(),
                "fields": fields,
            })
        })
        .collect();
    let frames: Vec<_> = process
        .frames
        .iter()
        .map(|frame| {
            let (state, reason) = state_json(&frame.state);
            json!({
                "id": frame.id, "module": frame.module, "qualname": frame.qualname, "state": state, "reason": reason,
                "expected_cost_ns": frame.cost_ns(), "fields": fields_json(&frame.fields),
            })
        })
        .collect();
    let walk_ns = (!frames.is_empty()).then(|| process.walk_ns());
    json!({
        "pid": process.pid, "title": process.title, "role": process.role.name(), "engine": process.engine,
        "rank": process.rank, "python": process.python, "interpreter": process.interpreter, "vllm": process.vllm,
        "technique": process.technique.name(), "reason": process.technique.reason(),
        "late": process.late.as_ref().map(super::late::Late::json), "methods": methods,
        "frames": frames, "expected_walk_ns": walk_ns,
        "libraries": process.libraries.iter().map(library_json).collect::<Vec<_>>(),
    })
}

fn library_json(library: &LibraryPlan) -> serde_json::Value {
    let sites: Vec<_> = library
        .sites
        .iter()
        .map(|site| {
            json!({
                "symbol": site.symbol, "aliases": site.aliases, "offset": site.offset,
                "instruction": site.instruction, "cost": site.cost.name(), "expected_cost_ns": site.cost_ns(),
            })
        })
        .collect();
    json!({
        "path": library.path, "build_id": library.build_id, "sites": sites,
        "not_probed": library.refused.iter().map(|(symbol, reason)| json!({ "symbol": symbol, "reason": reason }))
            .collect::<Vec<_>>(),
    })
}

fn state_json(state: &MethodState) -> (&'static str, Option<&String>) {
    match state {
        MethodState::Ready => ("ready", None),
        MethodState::NotImported => ("not_imported", None),
        MethodState::Unbound(reason) => ("unbound", Some(reason)),
    }
}

fn fields_json(fields: &[(String, String, Option<String>)]) -> Vec<serde_json::Value> {
    fields
        .iter()
        .map(|(name, path, error)| json!({ "name": name, "path": path, "not_read": error }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Technique;
    use super::*;
    use crate::catalog::Events;
    use crate::target::role::Role;

    fn plan() -> Plan {
        let method = |state| MethodPlan {
            id: "scheduler.schedule".into(),
            module: "vllm.v1.core.sched.scheduler".into(),
            qualname: "Scheduler.schedule".into(),
            events: Events::Return,
            state,
            fields: vec![("running".into(), "self.running:len".into(), None)],
            reads: 3,
        };
        Plan {
            site: "one-byte nop".into(),
            processes: vec![ProcessPlan {
                pid: 7,
                title: "VLLM::EngineCore".into(),
                role: Role::EngineCore,
                engine: Some(0),
                rank: None,
                python: Some("3.12.1".into()),
                interpreter: Some("/usr/lib/libpython3.12.so.1.0".into()),
                vllm: Some("0.32.0".into()),
                technique: Technique::MethodProbes,
                late: None,
                methods: vec![
                    method(MethodState::Ready),
                    method(MethodState::Unbound("no such method".into())),
                ],
                frames: vec![FramePlan {
                    id: "frame.execute_model".into(),
                    module: "vllm.v1.worker.gpu_model_runner".into(),
                    qualname: "GPUModelRunner.execute_model".into(),
                    state: MethodState::Ready,
                    fields: vec![(
                        "tokens".into(),
                        "scheduler_output.total_num_scheduled_tokens".into(),
                        None,
                    )],
                    reads: 3,
                }],
                libraries: vec![LibraryPlan {
                    path: "/usr/lib/libcuda.so.1".into(),
                    build_id: "c0ffee".into(),
                    sites: Vec::new(),
                    refused: vec![("cuGraphLaunch".into(), "it is odd".into())],
                }],
            }],
        }
    }

    #[test]
    fn the_plan_names_process_interpreter_method_technique_fields_and_cost() {
        let text = text(&plan());
        for part in [
            "process 7",
            "CPython 3.12.1",
            "vLLM 0.32.0",
            "method probes",
            "Scheduler.schedule",
            "2200 ns",
            "3500 ns for 25 frames",
            "frame, about 1160 ns more",
            "libcuda.so.1 (build id c0ffee)",
            "not probed: it is odd",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(
            text.contains("running = self.running:len")
                && text.contains("not bound: no such method")
        );
    }

    #[test]
    fn the_plan_as_json_says_the_same() {
        let json = json(&plan());
        assert_eq!(json["processes"][0]["methods"][0]["state"], "ready");
        assert_eq!(
            json["processes"][0]["methods"][1]["reason"],
            "no such method"
        );
        assert_eq!(json["processes"][0]["frames"][0]["expected_cost_ns"], 1160);
    }
}
