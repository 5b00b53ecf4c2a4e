//! Speedscope's JSON: one evented profile for each track. The format keeps a profile's events together, so all slices
//! are held in memory, up to a bound.

use std::collections::HashMap;
use std::io::Write;

use serde_json::{Value as Json, json};

use super::Error;
use super::timeline::{Arguments, Holds, Slice, Timeline, Track};
use crate::recorded::Session;

/// Slices, at most.
const MOST: usize = 4_000_000;

/// One track's slices: frame, begin, end.
#[derive(Clone, Debug, Default)]
struct Profile {
    name: String,
    slices: Vec<(u32, u64, u64)>,
}

/// Collects, and writes at the end.
pub struct Speedscope<'a> {
    out: &'a mut dyn Write,
    name: String,
    processes: HashMap<u32, String>,
    places: HashMap<u64, usize>,
    profiles: Vec<Profile>,
    frames: Vec<String>,
    known: HashMap<String, u32>,
    slices: usize,
}

impl<'a> Speedscope<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write, session: &Session) -> Self {
        Self {
            out,
            name: session
                .metadata
                .session_id
                .clone()
                .unwrap_or_else(|| "ProfileMate".to_owned()),
            processes: HashMap::new(),
            places: HashMap::new(),
            profiles: Vec::new(),
            frames: Vec::new(),
            known: HashMap::new(),
            slices: 0,
        }
    }

    fn frame(&mut self, name: &str) -> u32 {
        if let Some(&frame) = self.known.get(name) {
            return frame;
        }
        let frame = self.frames.len() as u32;
        self.frames.push(name.to_owned());
        self.known.insert(name.to_owned(), frame);
        frame
    }
}

impl Timeline for Speedscope<'_> {
    fn process(&mut self, _id: u64, pid: u32, name: &str) -> Result<(), Error> {
        self.processes.insert(pid, name.to_owned());
        Ok(())
    }

    fn track(&mut self, track: &Track) -> Result<(), Error> {
        if track.holds == Holds::Slices {
            let process = self.processes.get(&track.pid).cloned().unwrap_or_default();
            self.places.insert(track.id, self.profiles.len());
            self.profiles.push(Profile {
                name: format!("{process}: {}", track.name),
                slices: Vec::new(),
            });
        }
        Ok(())
    }

    fn slice(&mut self, slice: &Slice) -> Result<(), Error> {
        self.slices += 1;
        if self.slices > MOST {
            return Err(Error::TooMany {
                most: MOST,
                format: "speedscope",
            });
        }
        let frame = self.frame(&slice.name);
        let place = self.places.get(&slice.track);
        if let Some(profile) = place.and_then(|&place| self.profiles.get_mut(place)) {
            profile.slices.push((frame, slice.start_ns, slice.end_ns));
        }
        Ok(())
    }

    fn moment(
        &mut self,
        _track: u64,
        _at_ns: u64,
        _name: &str,
        _arguments: &Arguments,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn number(&mut self, _track: u64, _at_ns: u64, _value: f64) -> Result<(), Error> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        let frames: Vec<Json> = self
            .frames
            .iter()
            .map(|name| json!({ "name": name }))
            .collect();
        let head = json!({ "frames": frames });
        write!(
            self.out,
            "{{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\"exporter\":\"profilemate\",\
             \"name\":{},\"shared\":{head},\"profiles\":[",
            Json::from(self.name.as_str())
        )?;
        let mut any = false;
        for profile in &mut self.profiles {
            let slices = &mut profile.slices;
            slices.sort_by_key(|slice| (slice.1, slice.2));
            let (Some(first), Some(last)) = (slices.first(), slices.last()) else {
                continue;
            };
            let (start, end) = (first.1, last.2.max(last.1));
            let separator = if std::mem::replace(&mut any, true) {
                ","
            } else {
                ""
            };
            write!(
                self.out,
                "{separator}\n{{\"type\":\"evented\",\"name\":{},\"unit\":\"nanoseconds\",\"startValue\":{start},\
                 \"endValue\":{end},\"events\":[",
                Json::from(profile.name.as_str())
            )?;
            for (index, &(frame, begin, end)) in slices.iter().enumerate() {
                let separator = if index > 0 { "," } else { "" };
                write!(
                    self.out,
                    "{separator}{{\"type\":\"O\",\"frame\":{frame},\"at\":{begin}}},\
                     {{\"type\":\"C\",\"frame\":{frame},\"at\":{end}}}"
                )?;
            }
            self.out.write_all(b"]}")?;
        }
        self.out.write_all(b"\n]}\n")?;
        Ok(())
    }
}
