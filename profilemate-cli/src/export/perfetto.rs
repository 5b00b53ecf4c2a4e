//! Perfetto's protobuf trace.
//!
//! The messages are the part of Perfetto's published `perfetto_trace.proto` that is written here; a test decodes what
//! is written with the whole of it.

use std::collections::HashMap;
use std::io::Write;

use prost::{Message, Oneof};

use super::Error;
use super::timeline::{Arguments, Holds, Slice, Timeline, Track, Value};

/// The one sequence of packets that we write.
const SEQUENCE: u32 = 1;
/// `TracePacket.SEQ_INCREMENTAL_STATE_CLEARED`.
const CLEARED: u32 = 1;
/// `TrackEvent.Type`.
const BEGIN: i32 = 1;
const END: i32 = 2;
const INSTANT: i32 = 3;
const COUNTER: i32 = 4;

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<Packet>,
}

#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(uint64, optional, tag = "8")]
    timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    trusted_packet_sequence_id: Option<u32>,
    #[prost(message, optional, tag = "11")]
    track_event: Option<TrackEvent>,
    #[prost(uint32, optional, tag = "13")]
    sequence_flags: Option<u32>,
    #[prost(message, optional, tag = "60")]
    track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackDescriptor {
    #[prost(uint64, optional, tag = "1")]
    uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(message, optional, tag = "3")]
    process: Option<ProcessDescriptor>,
    #[prost(uint64, optional, tag = "5")]
    parent_uuid: Option<u64>,
    #[prost(message, optional, tag = "8")]
    counter: Option<CounterDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct ProcessDescriptor {
    #[prost(int32, optional, tag = "1")]
    pid: Option<i32>,
    #[prost(string, optional, tag = "6")]
    process_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CounterDescriptor {
    #[prost(string, optional, tag = "6")]
    unit_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    debug_annotations: Vec<DebugAnnotation>,
    #[prost(int32, optional, tag = "9")]
    r#type: Option<i32>,
    #[prost(uint64, optional, tag = "11")]
    track_uuid: Option<u64>,
    #[prost(string, repeated, tag = "22")]
    categories: Vec<String>,
    #[prost(string, optional, tag = "23")]
    name: Option<String>,
    #[prost(double, optional, tag = "44")]
    double_counter_value: Option<f64>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct DebugAnnotation {
    #[prost(oneof = "Annotated", tags = "4, 6")]
    value: Option<Annotated>,
    #[prost(string, optional, tag = "10")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Annotated {
    #[prost(int64, tag = "4")]
    Int(i64),
    #[prost(string, tag = "6")]
    Text(String),
}

/// Writes packet by packet.
pub struct Perfetto<'a> {
    out: &'a mut dyn Write,
    trace: Trace,
    buffer: Vec<u8>,
    begun: bool,
    categories: HashMap<u64, String>,
}

impl<'a> Perfetto<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            trace: Trace::default(),
            buffer: Vec::new(),
            begun: false,
            categories: HashMap::new(),
        }
    }

    fn packet(&mut self, mut packet: Packet) -> Result<(), Error> {
        packet.trusted_packet_sequence_id = Some(SEQUENCE);
        if !std::mem::replace(&mut self.begun, true) {
            packet.sequence_flags = Some(CLEARED);
        }
        self.trace.packet.clear();
        self.trace.packet.push(packet);
        self.buffer.clear();
        // A trace is its packets one after the other: each is written as a trace of its own.
        self.trace
            .encode(&mut self.buffer)
            .map_err(std::io::Error::other)?;
        self.out.write_all(&self.buffer)?;
        Ok(())
    }

    fn event(&mut self, at_ns: u64, event: TrackEvent) -> Result<(), Error> {
        self.packet(Packet {
            timestamp: Some(at_ns),
            track_event: Some(event),
            ..Packet::default()
        })
    }

    fn category(&self, track: u64) -> Vec<String> {
        self.categories.get(&track).cloned().into_iter().collect()
    }
}

fn annotations(arguments: &Arguments) -> Vec<DebugAnnotation> {
    let one = |(name, value): &(&'static str, Value)| DebugAnnotation {
        name: Some((*name).to_owned()),
        value: Some(match value {
            Value::Integer(value) => Annotated::Int(*value),
            Value::Text(text) => Annotated::Text(text.clone()),
        }),
    };
    arguments.iter().map(one).collect()
}

impl Timeline for Perfetto<'_> {
    fn process(&mut self, id: u64, pid: u32, name: &str) -> Result<(), Error> {
        self.packet(Packet {
            track_descriptor: Some(TrackDescriptor {
                uuid: Some(id),
                process: Some(ProcessDescriptor {
                    pid: i32::try_from(pid).ok(),
                    process_name: Some(name.to_owned()),
                }),
                ..TrackDescriptor::default()
            }),
            ..Packet::default()
        })
    }

    fn track(&mut self, track: &Track) -> Result<(), Error> {
        let counter = match track.holds {
            Holds::Slices => None,
            Holds::Numbers(unit) => Some(CounterDescriptor {
                unit_name: Some(unit.to_owned()),
            }),
        };
        // Requests come and go; one word for all of them is enough.
        if counter.is_none() && self.categories.len() < 4_096 {
            self.categories.insert(track.id, track.name.clone());
        }
        self.packet(Packet {
            track_descriptor: Some(TrackDescriptor {
                uuid: Some(track.id),
                name: Some(track.name.clone()),
                parent_uuid: Some(track.parent),
                counter,
                ..TrackDescriptor::default()
            }),
            ..Packet::default()
        })
    }

    fn slice(&mut self, slice: &Slice) -> Result<(), Error> {
        let flow_ids = slice.out.iter().chain(&slice.into).copied().collect();
        let begin = TrackEvent {
            r#type: Some(BEGIN),
            track_uuid: Some(slice.track),
            name: Some(slice.name.clone()),
            categories: self.category(slice.track),
            debug_annotations: annotations(&slice.arguments),
            flow_ids,
            ..TrackEvent::default()
        };
        self.event(slice.start_ns, begin)?;
        let end = TrackEvent {
            r#type: Some(END),
            track_uuid: Some(slice.track),
            ..TrackEvent::default()
        };
        self.event(slice.end_ns, end)
    }

    fn moment(
        &mut self,
        track: u64,
        at_ns: u64,
        name: &str,
        arguments: &Arguments,
    ) -> Result<(), Error> {
        let event = TrackEvent {
            r#type: Some(INSTANT),
            track_uuid: Some(track),
            name: Some(name.to_owned()),
            categories: self.category(track),
            debug_annotations: annotations(arguments),
            ..TrackEvent::default()
        };
        self.event(at_ns, event)
    }

    fn number(&mut self, track: u64, at_ns: u64, value: f64) -> Result<(), Error> {
        let event = TrackEvent {
            r#type: Some(COUNTER),
            track_uuid: Some(track),
            double_counter_value: Some(value),
            ..TrackEvent::default()
        };
        self.event(at_ns, event)
    }

    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
