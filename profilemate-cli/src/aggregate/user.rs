//! `user.*`: calls of the methods that the user named.

use super::fields::Fields;
use super::{Aggregator, Rows, Seen};
use crate::event::{Outcome, Value};
use crate::table::cell::Millis;
use crate::table::methods::MethodCall;

impl Aggregator {
    pub(super) fn user(&mut self, seen: Seen<'_>, rows: &mut Rows) {
        let outcome = match seen.call.outcome {
            Outcome::Pending => return,
            Outcome::Raised => "raised",
            Outcome::None => "none",
            Outcome::True => "true",
            Outcome::False => "false",
            Outcome::Object(_) => "object",
        };
        rows.put(MethodCall {
            timestamp_sec: self.stamp(seen.start_ns()),
            method: format!("{}:{}", seen.method.module, seen.method.qualname),
            duration_ms: seen.duration_ns.map(Millis),
            outcome,
            pid: seen.call.pid,
            tid: seen.call.tid,
            fields: json(seen.fields),
        });
    }
}

/// The fields as a JSON object, in the order of the program. What was not read is left out; a collection of which only
/// the first items are there becomes `{"first": [...], "total": N}`. Empty if there is no field.
fn json(fields: Fields<'_>) -> String {
    let mut out = Vec::new();
    for (name, value) in fields.iter() {
        let Some(value) = json_value(value) else {
            continue;
        };
        out.push(if out.is_empty() { b'{' } else { b',' });
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut out, name);
        out.push(b':');
        let _ = serde_json::to_writer(&mut out, &value);
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    String::from_utf8(out).unwrap_or_default()
}

fn json_value(value: &Value) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    Some(match value {
        Value::Int(value) => Json::from(*value),
        Value::Bool(value) => Json::from(*value),
        // JSON has no infinity and no NaN.
        Value::Float(value) if !value.is_finite() => Json::from(value.to_string()),
        Value::Float(value) => Json::from(*value),
        Value::Str(text) => Json::from(text.as_str()),
        Value::Address(address) => Json::from(hexadecimal(*address)),
        Value::Ints(items, total) => {
            list(items.iter().map(|&item| Json::from(item)).collect(), *total)
        }
        Value::Strs(items, total) => list(
            items.iter().map(|item| Json::from(item.as_str())).collect(),
            *total,
        ),
        Value::Addresses(items, total) => list(
            items
                .iter()
                .map(|&item| Json::from(hexadecimal(item)))
                .collect(),
            *total,
        ),
        Value::Pairs(items, total) => {
            let pairs = items.iter().map(|&(key, item)| {
                Json::from(vec![Json::from(hexadecimal(key)), Json::from(item)])
            });
            list(pairs.collect(), *total)
        }
        Value::Tensor { items, total, .. } => {
            list(items.iter().map(|&item| Json::from(item)).collect(), *total)
        }
        Value::None => Json::Null,
        Value::Absent(_) => return None,
    })
}

fn hexadecimal(address: u64) -> String {
    format!("{address:#x}")
}

fn list(items: Vec<serde_json::Value>, total: u32) -> serde_json::Value {
    if items.len() == total as usize {
        return serde_json::Value::Array(items);
    }
    serde_json::json!({ "first": items, "total": total })
}
