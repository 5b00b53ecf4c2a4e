//! What a session is told to: tracks with slices, moments, numbers over time, and lines between slices.

use super::Error;

/// A value that stands beside a slice.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

impl Value {
    /// As JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        match self {
            Self::Integer(value) => (*value).into(),
            Self::Text(text) => text.clone().into(),
        }
    }
}

/// Values beside a slice, by name.
pub type Arguments = Vec<(&'static str, Value)>;

/// What a track holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Slices and moments.
    Slices,
    /// Numbers over time, of this unit.
    Numbers(&'static str),
}

/// A track.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Its id, never 0.
    pub id: u64,
    /// The track it stands under; of a process or another track.
    pub parent: u64,
    /// The process it belongs to.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub holds: Holds,
}

/// Something that lasted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// Track.
    pub track: u64,
    /// Name.
    pub name: String,
    /// Begin, in nanoseconds since the session's start.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Values.
    pub arguments: Arguments,
    /// Lines that begin here.
    pub out: Vec<u64>,
    /// Lines that end here.
    pub into: Vec<u64>,
}

/// Takes what happened. Slices of one track do not overlap. Calls come table by table, not by time.
pub trait Timeline {
    /// A process; `id` is its track's.
    fn process(&mut self, id: u64, pid: u32, name: &str) -> Result<(), Error>;
    /// A track, before anything on it.
    fn track(&mut self, track: &Track) -> Result<(), Error>;
    /// Something that lasted.
    fn slice(&mut self, slice: &Slice) -> Result<(), Error>;
    /// A moment on a track of slices.
    fn moment(
        &mut self,
        track: u64,
        at_ns: u64,
        name: &str,
        arguments: &Arguments,
    ) -> Result<(), Error>;
    /// A number on a track of numbers.
    fn number(&mut self, track: u64, at_ns: u64, value: f64) -> Result<(), Error>;
    /// Nothing more comes.
    fn finish(&mut self) -> Result<(), Error>;
}
