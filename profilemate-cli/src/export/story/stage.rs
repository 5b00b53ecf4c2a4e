//! Tracks, made when something stands on them for the first time.

use std::collections::{BTreeSet, HashMap};

use super::super::Error;
use super::super::flow::id;
use super::super::timeline::{Arguments, Holds, Slice, Timeline, Track};
use crate::recorded::Session;

/// Lanes of one kind of call in one process, at most.
const LANES: usize = 8;
/// Overlap that is the rounding of the tables.
const ROUNDING_NS: u64 = 2_000;
/// Process of what belongs to no process.
const SESSION: u32 = 0;

/// Where a slice goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    /// Track.
    pub(super) id: u64,
    /// Begin, moved to the end of the slice before where rounding made them overlap.
    pub(super) start_ns: u64,
}

/// The timeline and what is on it.
pub(super) struct Stage<'a> {
    session: &'a Session,
    timeline: &'a mut dyn Timeline,
    processes: HashMap<u32, u64>,
    tracks: HashMap<(u32, String), u64>,
    /// End of the last slice of each lane of (process, kind of call).
    lanes: HashMap<(u32, String), Vec<u64>>,
    workers: BTreeSet<u32>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(session: &'a Session, timeline: &'a mut dyn Timeline) -> Self {
        Self {
            session,
            timeline,
            processes: HashMap::new(),
            tracks: HashMap::new(),
            lanes: HashMap::new(),
            workers: BTreeSet::new(),
        }
    }

    /// Every process of the session that was traced.
    pub(super) fn processes(&mut self) -> Result<(), Error> {
        let session = self.session;
        for process in session.metadata.processes() {
            if matches!(
                process.role.as_deref(),
                Some("api_server" | "engine_core" | "worker")
            ) {
                self.process(process.pid)?;
            }
        }
        Ok(())
    }

    fn process(&mut self, pid: u32) -> Result<u64, Error> {
        if let Some(&id) = self.processes.get(&pid) {
            return Ok(id);
        }
        let process = self.session.metadata.process(pid);
        let role = process.and_then(|process| process.role.clone());
        let mut name = match (&role, pid) {
            (Some(role), _) => role.clone(),
            (None, SESSION) => "session".to_owned(),
            (None, _) => "process".to_owned(),
        };
        if let Some(engine) = process.and_then(|process| process.engine) {
            name = format!("{name} {engine}");
        }
        if let Some(rank) = process.and_then(|process| process.rank) {
            name = format!("{name} rank {rank}");
        }
        let id = id("process", pid);
        self.timeline.process(id, pid, &name)?;
        self.processes.insert(pid, id);
        Ok(id)
    }

    fn make(
        &mut self,
        pid: u32,
        name: &str,
        parent: Option<u64>,
        holds: Holds,
    ) -> Result<u64, Error> {
        let key = (pid, name.to_owned());
        if let Some(&id) = self.tracks.get(&key) {
            return Ok(id);
        }
        let process = self.process(pid)?;
        let track = Track {
            id: id("track", &key),
            parent: parent.unwrap_or(process),
            pid,
            name: name.to_owned(),
            holds,
        };
        self.timeline.track(&track)?;
        self.tracks.insert(key, track.id);
        Ok(track.id)
    }

    /// A track of slices and moments.
    pub(super) fn track(&mut self, pid: u32, name: &str) -> Result<u64, Error> {
        self.make(pid, name, None, Holds::Slices)
    }

    /// A track of one request; it is made once, and not remembered.
    pub(super) fn request(&mut self, pid: u32, request: &str) -> Result<u64, Error> {
        let process = self.process(pid)?;
        let group = id("track", (pid, super::REQUESTS));
        if self
            .tracks
            .insert((pid, super::REQUESTS.to_owned()), group)
            .is_none()
        {
            self.timeline.track(&Track {
                id: group,
                parent: process,
                pid,
                name: super::REQUESTS.to_owned(),
                holds: Holds::Slices,
            })?;
        }
        let track = Track {
            id: id("request", (pid, request)),
            parent: group,
            pid,
            name: format!("request {request}"),
            holds: Holds::Slices,
        };
        self.timeline.track(&track)?;
        Ok(track.id)
    }

    /// The first lane of a kind of call that is free: calls of several threads overlap, slices of a track may not.
    pub(super) fn lane(
        &mut self,
        pid: u32,
        kind: &str,
        start_ns: u64,
        end_ns: u64,
    ) -> Result<Placed, Error> {
        if kind == "forward pass" {
            self.workers.insert(pid);
        }
        let lanes = self.lanes.entry((pid, kind.to_owned())).or_default();
        let free = lanes
            .iter()
            .position(|&last| last <= start_ns.saturating_add(ROUNDING_NS));
        let lane = match free {
            Some(lane) => lane,
            None if lanes.len() < LANES => {
                lanes.push(0);
                lanes.len() - 1
            }
            None => LANES - 1,
        };
        let start_ns = start_ns.max(lanes[lane]).min(end_ns.max(lanes[lane]));
        lanes[lane] = lanes[lane].max(end_ns);
        let name = if lane == 0 {
            kind.to_owned()
        } else {
            format!("{kind} ({})", lane + 1)
        };
        let id = self.make(pid, &name, None, Holds::Slices)?;
        Ok(Placed { id, start_ns })
    }

    /// A slice, never ending before it begins.
    pub(super) fn slice(&mut self, slice: &Slice) -> Result<(), Error> {
        if slice.end_ns >= slice.start_ns {
            return self.timeline.slice(slice);
        }
        let mut slice = slice.clone();
        slice.end_ns = slice.start_ns;
        self.timeline.slice(&slice)
    }

    pub(super) fn moment(
        &mut self,
        track: u64,
        at_ns: u64,
        name: &str,
        arguments: &Arguments,
    ) -> Result<(), Error> {
        self.timeline.moment(track, at_ns, name, arguments)
    }

    pub(super) fn number(
        &mut self,
        pid: u32,
        name: &str,
        unit: &'static str,
        at_ns: u64,
        value: f64,
    ) -> Result<(), Error> {
        let track = self.make(pid, name, None, Holds::Numbers(unit))?;
        self.timeline.number(track, at_ns, value)
    }
}
