//! How a helper will be started in a process that runs already.

use serde_json::json;

use crate::target::python::Entry;
use crate::target::python::entry::{EVAL, RUN};

/// How, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// By the main thread, when it comes by a hardware breakpoint on a function, where it calls another.
    AtEvalEntry {
        /// Address of `_PyEval_EvalFrameDefault`.
        eval: u64,
        /// Address of `PyRun_SimpleString`.
        run: u64,
    },
    /// By the main thread, on a request that is written to the interpreter's interface for remote debugging.
    RemoteDebugging {
        /// Where the request is written.
        request: u64,
        /// Where the path of the script is written.
        path: u64,
    },
}

impl From<&Entry> for Late {
    fn from(entry: &Entry) -> Self {
        match entry {
            Entry::Eval(entry) => Self::AtEvalEntry {
                eval: entry.eval,
                run: entry.run,
            },
            Entry::Remote(entry) => Self::RemoteDebugging {
                request: entry.pending,
                path: entry.path,
            },
        }
    }
}

impl Late {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::AtEvalEntry { eval, run } => format!(
                "its main thread starts the helper: at a hardware breakpoint on `{EVAL}` ({eval:#x}) it calls `{RUN}` \
                 ({run:#x})"
            ),
            Self::RemoteDebugging { request, path } => format!(
                "its main thread starts the helper: by a request for remote debugging (PEP 768) written to {request:#x}, \
                 with the path of a script written to {path:#x}"
            ),
        }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        match self {
            Self::AtEvalEntry { eval, run } => json!({
                "technique": "eval_entry", "symbol": EVAL, "address": format!("{eval:#x}"), "calls": RUN,
                "calls_address": format!("{run:#x}"),
            }),
            Self::RemoteDebugging { request, path } => json!({
                "technique": "remote_debugging", "address": format!("{request:#x}"),
                "path_address": format!("{path:#x}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn technique_symbol_and_address_are_named() {
        let late = Late::AtEvalEntry {
            eval: 0x7f00,
            run: 0x7f10,
        };
        assert!(late.text().contains("`_PyEval_EvalFrameDefault` (0x7f00)"));
        assert_eq!(late.json()["calls_address"], "0x7f10");
        let late = Late::RemoteDebugging {
            request: 0x10,
            path: 0x14,
        };
        assert!(late.text().contains("PEP 768") && late.text().contains("0x10"));
        assert_eq!(late.json()["technique"], "remote_debugging");
    }
}
