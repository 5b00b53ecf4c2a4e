//! What a thread waits for, by what is on its stack: data (`waits.toml`), and the one loop over it.

use serde::Deserialize;

use crate::target::native::Found;
use crate::target::python::traceback::Frame;

const WAITS: &str = include_str!("waits.toml");

/// A known kind of waiting.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Its name.
    pub id: String,
    /// What is waited for, in words.
    pub says: String,
    /// What to look at if it goes on for long.
    #[serde(default)]
    pub hint: Option<String>,
    #[serde(default)]
    native: Vec<String>,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    functions: Vec<String>,
    #[serde(default)]
    past: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(rename = "wait")]
    waits: Vec<Wait>,
}

/// The known kinds, in the order in which they are asked.
///
/// # Panics
/// If the embedded file does not parse, which a test holds.
pub fn waits() -> Vec<Wait> {
    let list: List =
        toml::from_str(WAITS).expect("the embedded list parses; `the_list_parses` holds it");
    list.waits
}

/// What a thread with these frames and native functions, the innermost first, waits for; `None` if none of the known.
pub fn waiting(waits: &[Wait], frames: &[Frame], native: &[Found]) -> Option<Wait> {
    waits
        .iter()
        .find(|wait| wait.holds(frames, native))
        .cloned()
}

impl Wait {
    fn holds(&self, frames: &[Frame], native: &[Found]) -> bool {
        if !self.native.is_empty() {
            return native.iter().any(|found| {
                let starts = |name: &String| found.function.starts_with(name.as_str());
                found.library != "libc" && self.native.iter().any(starts)
            });
        }
        let passed = |frame: &&Frame| !self.past.iter().any(|file| is_file(frame, file));
        let (Some(file), Some(frame)) = (&self.file, frames.iter().find(passed)) else {
            return false;
        };
        let plain = frame.name.rsplit('.').next().unwrap_or(&frame.name);
        is_file(frame, file)
            && (self.functions.is_empty() || self.functions.iter().any(|name| name == plain))
    }
}

/// Whether a frame runs the file `path`, which may be the end of a longer path.
fn is_file(frame: &Frame, path: &str) -> bool {
    frame
        .file
        .strip_suffix(path)
        .is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, file: &str) -> Frame {
        Frame {
            name: name.into(),
            file: file.into(),
            line: None,
            address: 0,
            code: 0,
            instruction: 0,
        }
    }

    fn id(frames: &[Frame], native: &[Found]) -> Option<String> {
        waiting(&waits(), frames, native).map(|wait| wait.id)
    }

    #[test]
    fn the_list_parses() {
        let waits = waits();
        for wait in &waits {
            assert!(
                wait.native.is_empty() != wait.file.is_none(),
                "{wait:?} has one kind of evidence"
            );
        }
    }

    #[test]
    fn engine_and_workers_of_vllm_are_told_apart() {
        let ring = "/v/vllm/distributed/device_communicators/shm_broadcast.py";
        let executor = "/v/vllm/v1/executor/multiproc_executor.py";
        let dequeue = frame("MessageQueue.dequeue", ring);
        let engine = [
            dequeue.clone(),
            frame(
                "MultiprocExecutor.collective_rpc.<locals>.get_response",
                executor,
            ),
            frame("EngineCore.step", "/v/vllm/v1/engine/core.py"),
        ];
        let worker = [
            dequeue.clone(),
            frame("WorkerProc.worker_busy_loop", executor),
        ];
        let inside = [
            dequeue,
            frame(
                "GroupCoordinator.broadcast_object",
                "/v/vllm/distributed/parallel_state.py",
            ),
            frame("WorkerProc.worker_busy_loop", executor),
        ];
        assert_eq!(id(&engine, &[]).as_deref(), Some("workers"));
        assert_eq!(id(&worker, &[]).as_deref(), Some("engine"));
        assert_eq!(id(&inside, &[]), None);
        let idle = [
            frame("Condition.wait", "/usr/lib/python3.12/threading.py"),
            frame("Queue.get", "/usr/lib/python3.12/queue.py"),
            frame(
                "EngineCoreProc._process_input_queue",
                "/v/vllm/v1/engine/core.py",
            ),
        ];
        assert_eq!(id(&idle, &[]).as_deref(), Some("requests"));
        assert_eq!(id(&idle[..1], &[]).as_deref(), Some("lock"));
        assert_eq!(id(&[frame("wait", "/x/mythreading.py")], &[]), None);
    }

    #[test]
    fn a_synchronise_on_the_stack_comes_before_what_python_says() {
        let found = |library, function: &str| Found {
            library,
            function: function.into(),
        };
        let native = [
            found("libc", "clock_nanosleep"),
            found("libcuda", "cuStreamSynchronize_ptsz"),
        ];
        let frames = [frame("Condition.wait", "/usr/lib/python3.12/threading.py")];
        assert_eq!(id(&frames, &native).as_deref(), Some("gpu"));
        assert_eq!(id(&frames, &native[..1]).as_deref(), Some("lock"));
    }
}
