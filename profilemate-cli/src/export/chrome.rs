//! Chrome's JSON trace events: one object an event, one line each.

use std::collections::HashMap;
use std::io::Write;

use serde_json::{Map, Value as Json, json};

use super::Error;
use super::timeline::{Arguments, Holds, Slice, Timeline, Track};

/// Where a track's events go.
#[derive(Clone, Debug)]
struct Place {
    pid: u32,
    tid: u64,
    name: String,
}

/// Writes event by event.
pub struct Chrome<'a> {
    out: &'a mut dyn Write,
    places: HashMap<u64, Place>,
    any: bool,
}

impl<'a> Chrome<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Result<Self, Error> {
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        Ok(Self {
            out,
            places: HashMap::new(),
            any: false,
        })
    }

    fn event(&mut self, event: &Json) -> Result<(), Error> {
        let separator: &[u8] = if std::mem::replace(&mut self.any, true) {
            b",\n"
        } else {
            b"\n"
        };
        self.out.write_all(separator)?;
        serde_json::to_writer(&mut *self.out, event).map_err(std::io::Error::from)?;
        Ok(())
    }

    fn place(&self, track: u64) -> Place {
        let unknown = Place {
            pid: 0,
            tid: 0,
            name: String::new(),
        };
        self.places.get(&track).cloned().unwrap_or(unknown)
    }
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn object(arguments: &Arguments) -> Json {
    let object: Map<_, _> = arguments
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.json()))
        .collect();
    Json::Object(object)
}

impl Timeline for Chrome<'_> {
    fn process(&mut self, _id: u64, pid: u32, name: &str) -> Result<(), Error> {
        self.event(
            &json!({ "ph": "M", "name": "process_name", "pid": pid, "args": { "name": name } }),
        )
    }

    fn track(&mut self, track: &Track) -> Result<(), Error> {
        let place = Place {
            pid: track.pid,
            tid: self.places.len() as u64 + 1,
            name: track.name.clone(),
        };
        let (pid, tid) = (place.pid, place.tid);
        self.places.insert(track.id, place);
        if track.holds != Holds::Slices {
            return Ok(());
        }
        self.event(&json!({ "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": { "name": track.name } }))?;
        self.event(&json!({ "ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": { "sort_index": tid } }))
    }

    fn slice(&mut self, slice: &Slice) -> Result<(), Error> {
        let Place { pid, tid, name } = self.place(slice.track);
        let at = micros(slice.start_ns);
        self.event(&json!({
            "ph": "X", "name": slice.name, "cat": name, "pid": pid, "tid": tid, "ts": at,
            "dur": micros(slice.end_ns.saturating_sub(slice.start_ns)), "args": object(&slice.arguments),
        }))?;
        for id in &slice.out {
            self.event(&json!({ "ph": "s", "name": "flow", "cat": "flow", "id": id, "pid": pid, "tid": tid, "ts": at }))?;
        }
        for id in &slice.into {
            self.event(&json!({ "ph": "f", "bp": "e", "name": "flow", "cat": "flow", "id": id, "pid": pid, "tid": tid, "ts": at }))?;
        }
        Ok(())
    }

    fn moment(
        &mut self,
        track: u64,
        at_ns: u64,
        name: &str,
        arguments: &Arguments,
    ) -> Result<(), Error> {
        let Place {
            pid,
            tid,
            name: cat,
        } = self.place(track);
        self.event(&json!({
            "ph": "i", "s": "t", "name": name, "cat": cat, "pid": pid, "tid": tid, "ts": micros(at_ns),
            "args": object(arguments),
        }))
    }

    fn number(&mut self, track: u64, at_ns: u64, value: f64) -> Result<(), Error> {
        let Place { pid, name, .. } = self.place(track);
        self.event(&json!({ "ph": "C", "name": name, "pid": pid, "ts": micros(at_ns), "args": { "value": value } }))
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.out.write_all(b"\n]}\n")?;
        Ok(())
    }
}
