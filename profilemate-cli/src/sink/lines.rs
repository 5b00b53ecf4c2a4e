//! `--json`: calls of the user's own methods as JSON lines, while they happen.

use std::io::Write;

use serde_json::{Value, json};

use crate::table::AnyRow;
use crate::table::cell::Cell as _;

/// Writes one line for each row of `methods.csv`.
pub struct Lines {
    out: Box<dyn Write + Send>,
}

impl Lines {
    /// Lines go to `out`. Whether anybody reads them is not the session's business: errors are ignored.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out }
    }

    /// Takes any row; those of other tables make no line.
    pub fn row(&mut self, row: &AnyRow) {
        let AnyRow::MethodCall(call) = row else {
            return;
        };
        let fields: Value = serde_json::from_str(&call.fields).unwrap_or_else(|_| json!({}));
        let line = json!({
            "timestamp_sec": call.timestamp_sec.number(),
            "method": call.method,
            "duration_ms": call.duration_ms.number(),
            "outcome": call.outcome,
            "pid": call.pid,
            "tid": call.tid,
            "fields": fields,
        });
        let _unread = writeln!(self.out, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::table::cell::{Millis, Stamp};
    use crate::table::kv_cache_usage::KvCacheUse;
    use crate::table::methods::MethodCall;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_call_is_one_line_and_other_rows_are_none() {
        let shared = Shared::default();
        let mut lines = Lines::new(Box::new(shared.clone()));
        lines.row(&AnyRow::from(KvCacheUse::default()));
        lines.row(&AnyRow::from(MethodCall {
            timestamp_sec: Stamp(1_500_000_000),
            method: "m:C.f".into(),
            duration_ms: Some(Millis(2_000_000)),
            outcome: "none",
            fields: r#"{"n":3}"#.into(),
            ..MethodCall::default()
        }));
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["timestamp_sec"], 1.5);
        assert_eq!(
            (&line["duration_ms"], &line["fields"]["n"]),
            (&json!(2.0), &json!(3))
        );
    }
}
