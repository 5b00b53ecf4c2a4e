//! The stream file `events.pmrec`: a head of eight bytes, then frames.
//!
//! A frame is `u32` length of its bytes, `u8` kind, the bytes. All integers are little endian; the records inside are
//! as the kernel wrote them. A file that ends inside a frame (a killed tracer) is read up to the last whole frame.

use std::io::{self, Read};

use profilemate_common::driver::{DriverCalled, KIND_DRIVER_CALLED};
use profilemate_common::record::{
    self, Fields, KIND_METHOD_CALLED, KIND_METHOD_LOGGED, MethodCalled,
};
use profilemate_common::walk::{FrameWalked, KIND_FRAME_WALKED};

/// First six bytes of the file.
pub const MAGIC: [u8; 6] = *b"PMREC\n";
/// Version of the file's format, two bytes behind the magic.
pub const FORMAT: u16 = 1;
/// A record of the ring buffer, cut to its used bytes.
pub const KIND_RECORD: u8 = 1;
/// A [`crate::event::Note`] as JSON.
pub const KIND_NOTE: u8 = 2;
/// The tracer's clock (`CLOCK_MONOTONIC` in nanoseconds, eight bytes) when it last looked at what is waiting; makes a
/// replay release rows at the same places.
pub const KIND_TICK: u8 = 3;
/// Bytes of one frame, at most.
pub const MAX_LEN: usize = 4 << 20;

/// Bytes before a frame's own.
pub const HEAD_LEN: usize = 5;

/// Why a file is no capture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first bytes are not [`MAGIC`].
    #[error("the first bytes are not those of a capture")]
    Magic,
    /// Another [`FORMAT`].
    #[error("its format is {0}, this version reads {FORMAT}")]
    Format(u16),
    /// Reading failed.
    #[error("reading failed")]
    Io(#[from] io::Error),
}

/// How a capture file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind a whole frame.
    Whole,
    /// Inside a frame; this many bytes of it are there.
    Torn(u64),
    /// With a frame longer than [`MAX_LEN`], at this offset; what follows is not read.
    Oversized(u64),
}

/// The eight bytes at the start of the file.
pub fn file_head() -> [u8; 8] {
    let mut head = [0; 8];
    head[..6].copy_from_slice(&MAGIC);
    head[6..].copy_from_slice(&FORMAT.to_le_bytes());
    head
}

/// Reads frames one by one.
pub struct FrameReader<R> {
    input: R,
    buffer: Vec<u8>,
    offset: u64,
    end: Option<End>,
}

impl<R: Read> FrameReader<R> {
    /// Checks the head of the file.
    pub fn new(mut input: R) -> Result<Self, Error> {
        let mut head = [0; 8];
        if fill(&mut input, &mut head)? < head.len() || head[..6] != MAGIC {
            return Err(Error::Magic);
        }
        let format = u16::from_le_bytes([head[6], head[7]]);
        if format != FORMAT {
            return Err(Error::Format(format));
        }
        Ok(Self {
            input,
            buffer: Vec::new(),
            offset: 8,
            end: None,
        })
    }

    /// The next whole frame: kind and bytes. `None` at the end, see [`FrameReader::end`].
    pub fn next_frame(&mut self) -> Result<Option<(u8, &[u8])>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        let mut head = [0; HEAD_LEN];
        let got = fill(&mut self.input, &mut head)?;
        if got < HEAD_LEN {
            self.end = Some(if got == 0 {
                End::Whole
            } else {
                End::Torn(got as u64)
            });
            return Ok(None);
        }
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len > MAX_LEN {
            self.end = Some(End::Oversized(self.offset));
            return Ok(None);
        }
        self.buffer.resize(len, 0);
        let got = fill(&mut self.input, &mut self.buffer)?;
        if got < len {
            self.end = Some(End::Torn((HEAD_LEN + got) as u64));
            return Ok(None);
        }
        self.offset += (HEAD_LEN + len) as u64;
        Ok(Some((head[4], &self.buffer)))
    }

    /// How the file ended, once [`FrameReader::next_frame`] has said so.
    pub fn end(&self) -> Option<End> {
        self.end
    }
}

/// Reads until `buffer` is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The head of a record, if the bytes are long enough to hold one.
pub fn record_head(bytes: &[u8]) -> Option<MethodCalled> {
    bytes
        .get(..size_of::<MethodCalled>())
        .map(bytemuck::pod_read_unaligned)
}

/// The scalar fields of a record that has them.
pub fn record_fields(bytes: &[u8]) -> Option<Fields> {
    let start = size_of::<MethodCalled>();
    bytes
        .get(start..start + size_of::<Fields>())
        .map(bytemuck::pod_read_unaligned)
}

/// The used bytes of a record from the ring buffer, which may hand out more; `None` if the bytes are no record.
pub fn used(bytes: &[u8]) -> Option<&[u8]> {
    let len = match record_kind(bytes)? {
        // A frame's head is shaped like a call's.
        KIND_METHOD_CALLED | KIND_METHOD_LOGGED | KIND_FRAME_WALKED => {
            let head = record_head(bytes)?;
            record::record_len(head.class, head.blob_len)?
        }
        KIND_DRIVER_CALLED => size_of::<DriverCalled>(),
        _ => return None,
    };
    bytes.get(..len)
}

/// When a record was made, `CLOCK_MONOTONIC` in nanoseconds: of a walked frame, when the call began that it is around.
pub fn record_time(bytes: &[u8]) -> Option<u64> {
    match record_kind(bytes)? {
        KIND_METHOD_CALLED | KIND_METHOD_LOGGED => Some(record_head(bytes)?.ts_ns),
        KIND_FRAME_WALKED => {
            let frame: FrameWalked =
                bytemuck::pod_read_unaligned(bytes.get(..size_of::<FrameWalked>())?);
            Some(frame.entry_ns)
        }
        KIND_DRIVER_CALLED => {
            let call: DriverCalled =
                bytemuck::pod_read_unaligned(bytes.get(..size_of::<DriverCalled>())?);
            Some(call.ts_ns)
        }
        _ => None,
    }
}

/// The kind of a record: its first two bytes.
pub fn record_kind(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|kind| u16::from_ne_bytes(*kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = file_head().to_vec();
        for (kind, bytes) in frames {
            out.extend((bytes.len() as u32).to_le_bytes());
            out.push(*kind);
            out.extend(*bytes);
        }
        out
    }

    fn read(bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, End) {
        let mut reader = FrameReader::new(bytes).unwrap();
        let mut frames = Vec::new();
        while let Some((kind, bytes)) = reader.next_frame().unwrap() {
            frames.push((kind, bytes.to_vec()));
        }
        (frames, reader.end().unwrap())
    }

    #[test]
    fn frames_come_back_as_written() {
        let (frames, end) = read(&file(&[(1, b"abc"), (2, b""), (9, b"z")]));
        assert_eq!(
            frames,
            [(1, b"abc".to_vec()), (2, vec![]), (9, b"z".to_vec())]
        );
        assert_eq!(end, End::Whole);
    }

    #[test]
    fn a_torn_last_frame_is_left_out_and_reported() {
        let whole = file(&[(1, b"abc"), (2, b"hello")]);
        for cut in 1..10 {
            let (frames, end) = read(&whole[..whole.len() - cut]);
            assert_eq!(frames, [(1, b"abc".to_vec())]);
            assert_eq!(end, End::Torn(10 - cut as u64));
        }
    }

    #[test]
    fn an_oversized_frame_ends_the_file() {
        let mut bytes = file(&[(1, b"abc")]);
        bytes.extend(u32::MAX.to_le_bytes());
        bytes.extend([1, 0, 0]);
        let (frames, end) = read(&bytes);
        assert_eq!(frames.len(), 1);
        assert_eq!(end, End::Oversized(16));
    }

    #[test]
    fn another_file_is_refused() {
        assert!(matches!(
            FrameReader::new(&b"PK\x03\x04 and more"[..]),
            Err(Error::Magic)
        ));
        assert!(matches!(FrameReader::new(&b"PM"[..]), Err(Error::Magic)));
        assert!(matches!(
            FrameReader::new(&b"PMREC\n\x07\x00"[..]),
            Err(Error::Format(7))
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_behind_the_head_are_read_to_an_end(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = file_head().to_vec();
            bytes.extend(tail);
            read(&bytes);
        }
    }
}
