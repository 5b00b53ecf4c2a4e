//! The report for programs.

use serde_json::{Value, json};

use super::{Moved, Process, Report, Thread};

impl Report {
    /// The report as JSON: a list of processes.
    pub fn json(&self) -> Value {
        let conclusions = self.conclusions();
        let processes = self
            .processes
            .iter()
            .map(|process| self.process_json(process));
        let mut list: Vec<Value> = processes.collect();
        if let Some(first) = list.first_mut() {
            first["conclusions"] = json!(conclusions);
        }
        Value::Array(list)
    }

    fn process_json(&self, process: &Process) -> Value {
        let pid = process.seen.pid;
        let launch = self.launches.last.get(&pid).filter(|_| self.same_ids);
        let threads = |threads: &[Thread]| threads.iter().map(thread_json).collect::<Vec<_>>();
        json!({
            "pid": pid,
            "command": process.seen.command,
            "role": process.role.name(),
            "python": process.python.as_ref().ok(),
            "reason": process.python.as_ref().err(),
            "threads": process.python.as_ref().ok().map(|_| threads(&process.threads)),
            "native_threads": threads(&process.native_threads),
            "last_graph_launch": launch.map(|launch| json!({
                "graph_exec": format!("{:#x}", launch.exec),
                "tid": launch.tid,
                "ago_sec": self.now_ns.saturating_sub(launch.at_ns) as f64 / 1e9,
                "tracer": launch.tracer,
            })),
            "last_graph_launch_unknown": launch.is_none().then(|| {
                if process.cuda {
                    self.launches.why_unknown(pid)
                } else {
                    "it has not loaded the CUDA driver".to_owned()
                }
            }),
            "libraries_not_read": process.unread,
        })
    }
}

fn thread_json(thread: &Thread) -> Value {
    let task = thread.task.as_ref();
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    let frames = thread.python.as_ref().map(|python| {
        let frames = python.frames.iter();
        frames
            .map(|frame| json!({ "name": frame.name, "file": frame.file, "line": frame.line }))
            .collect::<Vec<_>>()
    });
    let methods: Vec<_> = thread
        .methods
        .iter()
        .map(|method| json!({ "id": method.id, "at_least_sec": method.at_least.map(seconds) }))
        .collect();
    let (moved, ran, unknown) = match thread.moved {
        Moved::No(_) => (Some(false), None, None),
        Moved::Ran { ran, .. } => (Some(true), Some(seconds(ran)), None),
        Moved::Unknown(why) => (None, None, Some(why)),
    };
    json!({
        "tid": thread.tid(),
        "name": task.map(|task| &task.name),
        "state": task.map(|task| &task.state),
        "waits_in": task.and_then(|task| task.waits_in.as_ref()),
        "moved": moved,
        "moved_unknown": unknown,
        "ran_sec": ran,
        "still_for_sec": thread.still_for().map(seconds),
        "waits_for": thread.wait.as_ref().map(|wait| &wait.id),
        "steady": thread.python.as_ref().map(|python| python.steady),
        "method": thread.methods.first().map(|method| &method.id),
        "methods": methods,
        "native": thread.native.as_ref().ok(),
        "native_unknown": thread.native.as_ref().err(),
        "frames": frames,
    })
}
