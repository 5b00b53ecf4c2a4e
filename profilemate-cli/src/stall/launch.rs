//! The last CUDA graph that each process launched, as a tracer at work has recorded it.
//!
//! Without a tracer nobody notes it. With one, the calls of the driver stand in its `events.pmrec`, which is open in
//! it; the end of that file is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use profilemate_common::driver::{DriverCalled, Function, KIND_DRIVER_CALLED};

use crate::capture::frame::{self, FrameReader};
use crate::capture::pipeline::CAPTURE_FILE;
use crate::target::process::{self, Seen};

/// Bytes at the end of a stream that are read.
const TAIL: u64 = 16 << 20;
/// Files of a tracer that are looked at, at most.
const FILES: usize = 4096;
/// Tracers that are asked, at most.
const TRACERS: usize = 16;
/// Frames that must follow each other for a place in the stream to be the beginning of one.
const CHAIN: usize = 8;

/// A launch of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Process that recorded it.
    pub tracer: u32,
    /// Thread that made it.
    pub tid: u32,
    /// The executable graph's handle.
    pub exec: u64,
    /// When it was told, `CLOCK_MONOTONIC` in nanoseconds.
    pub at_ns: u64,
}

/// What tracers at work know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launches {
    /// The last launch of each process.
    pub last: BTreeMap<u32, Launch>,
    /// Tracers at work.
    pub tracers: Vec<u32>,
    /// Streams that could not be read, and why.
    pub unread: Vec<(u32, String)>,
}

impl Launches {
    /// Asks the tracers at work.
    pub fn now() -> Self {
        let mut launches = Self::default();
        let all = process::all().unwrap_or_default();
        for tracer in all.iter().filter(|seen| is_tracer(seen)) {
            let Some(file) = stream(tracer.pid) else {
                continue;
            };
            if launches.tracers.len() >= TRACERS {
                break;
            }
            launches.tracers.push(tracer.pid);
            match tail(file) {
                Ok(bytes) => launches.take(tracer.pid, &bytes),
                Err(error) => launches.unread.push((tracer.pid, error.to_string())),
            }
        }
        launches
    }

    /// Why nothing is known of process `pid`.
    pub fn why_unknown(&self, pid: u32) -> String {
        match (self.tracers.as_slice(), self.unread.first()) {
            ([], _) => "no tracer is at work; `profilemate trace` records launches".to_owned(),
            (_, Some((tracer, why))) => format!("the stream of tracer {tracer}: {why}"),
            (tracers, None) => format!(
                "tracer {} has recorded no launch of process {pid} of late",
                tracers
                    .iter()
                    .map(u32::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }

    fn take(&mut self, tracer: u32, bytes: &[u8]) {
        let head = frame::file_head();
        let Ok(mut frames) = FrameReader::new(head.chain(bytes)) else {
            return;
        };
        while let Ok(Some((kind, bytes))) = frames.next_frame() {
            let Some(call) = (kind == frame::KIND_RECORD)
                .then(|| launch(bytes))
                .flatten()
            else {
                continue;
            };
            let launch = Launch {
                tracer,
                tid: call.tid,
                exec: call.args[0],
                at_ns: call.ts_ns,
            };
            let newest = self.last.entry(call.pid).or_insert(launch);
            if newest.at_ns <= launch.at_ns {
                *newest = launch;
            }
        }
    }
}

fn launch(bytes: &[u8]) -> Option<DriverCalled> {
    if frame::record_kind(bytes)? != KIND_DRIVER_CALLED {
        return None;
    }
    let call: DriverCalled = bytes
        .get(..size_of::<DriverCalled>())
        .map(bytemuck::pod_read_unaligned)?;
    (call.function == Function::GraphLaunch as u8).then_some(call)
}

fn is_tracer(seen: &Seen) -> bool {
    seen.comm == "profilemate" && seen.pid != std::process::id() && !seen.ended
}

/// The stream that a tracer writes.
fn stream(tracer: u32) -> Option<File> {
    let entries = std::fs::read_dir(format!("/proc/{tracer}/fd")).ok()?;
    let ending = format!("/{CAPTURE_FILE}");
    entries.take(FILES).flatten().find_map(|entry| {
        let path = entry.path();
        let link = std::fs::read_link(&path).ok()?;
        if !link.to_str()?.ends_with(&ending) {
            return None;
        }
        let file = File::open(&path).ok()?;
        file.metadata().ok()?.is_file().then_some(file)
    })
}

/// The last whole frames of a stream.
fn tail(mut file: File) -> std::io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let head = frame::file_head().len() as u64;
    let start = length.saturating_sub(TAIL).max(head.min(length));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    if start > head {
        let from = first_frame(&bytes)
            .ok_or_else(|| std::io::Error::other("no frame was found at its end"))?;
        bytes.drain(..from);
    }
    Ok(bytes)
}

/// Where the first frame begins in the middle of a stream: where several follow each other that are well formed.
fn first_frame(bytes: &[u8]) -> Option<usize> {
    let end = bytes.len().min(frame::MAX_LEN);
    (0..end).find(|start| {
        let mut at = *start;
        (0..CHAIN).all(|_| match well_formed(bytes.get(at..).unwrap_or_default()) {
            Some(length) => {
                at += length;
                true
            }
            None => false,
        })
    })
}

/// The length of the frame that `bytes` begin with, if they do.
fn well_formed(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    let kind = *bytes.get(4)?;
    let body = bytes.get(frame::HEAD_LEN..frame::HEAD_LEN.checked_add(length)?)?;
    let good = match kind {
        frame::KIND_RECORD => frame::used(body).is_some_and(|used| used.len() == length),
        frame::KIND_NOTE => body.first() == Some(&b'{') && body.last() == Some(&b'}'),
        frame::KIND_TICK => length == 8,
        _ => false,
    };
    good.then_some(frame::HEAD_LEN + length)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    fn frame_of(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = (body.len() as u32).to_le_bytes().to_vec();
        out.push(kind);
        out.extend(body);
        out
    }

    fn launched(pid: u32, exec: u64, at_ns: u64) -> Vec<u8> {
        let call = DriverCalled {
            kind: KIND_DRIVER_CALLED,
            function: Function::GraphLaunch as u8,
            pid,
            tid: pid + 1,
            ts_ns: at_ns,
            args: [exec, 0, 0],
            ..DriverCalled::zeroed()
        };
        frame_of(frame::KIND_RECORD, bytemuck::bytes_of(&call))
    }

    #[test]
    fn the_last_launch_of_each_process_is_told() {
        let bytes = [launched(1, 10, 5), launched(2, 20, 6), launched(1, 11, 7)].concat();
        let mut launches = Launches::default();
        launches.take(9, &bytes);
        assert_eq!(launches.last[&1].exec, 11);
        assert_eq!((launches.last[&2].exec, launches.last[&2].tid), (20, 3));
        assert!(Launches::default().why_unknown(1).contains("no tracer"));
    }

    #[test]
    fn the_middle_of_a_stream_is_read_from_its_first_whole_frame_on() {
        let mut bytes = Vec::new();
        for n in 0..20 {
            bytes.extend(launched(1, n, n));
            bytes.extend(frame_of(frame::KIND_TICK, &[n as u8; 8]));
        }
        for cut in 1..200 {
            let from = first_frame(&bytes[cut..]).unwrap();
            let whole = launched(1, 0, 0).len() + 13;
            let place = (cut + from) % whole;
            assert!([0, whole - 13].contains(&place), "{cut}: {from}");
        }
        assert_eq!(first_frame(&[0xff; 4096]), None);
        assert_eq!(first_frame(&[]), None);
    }
}
