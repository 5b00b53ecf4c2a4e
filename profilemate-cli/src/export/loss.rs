//! When records were lost: the kernel's counts as they stand in `events.pmrec`.

use std::fs::File;
use std::io::BufReader;

use crate::capture::frame::{FrameReader, KIND_NOTE, KIND_TICK};
use crate::capture::pipeline::CAPTURE_FILE;
use crate::event::Note;
use crate::recorded::Session;

/// Changes that are kept, at most.
const MOST: usize = 65_536;

/// (nanoseconds since the session's start, records lost until then), where the count changed. Empty if the session has
/// no capture, or none that can be read.
pub fn over_time(session: &Session) -> Vec<(u64, u64)> {
    let mut changes = Vec::new();
    let started = session
        .metadata
        .anchor
        .as_ref()
        .and_then(|anchor| anchor.monotonic_ns);
    let path = session.folder.join(CAPTURE_FILE);
    let (Some(started), true) = (started, path.is_file()) else {
        return changes;
    };
    let Ok(file) = File::open(path) else {
        return changes;
    };
    let Ok(mut frames) = FrameReader::new(BufReader::with_capacity(1 << 20, file)) else {
        return changes;
    };
    let (mut now, mut lost) = (0, 0);
    while let Ok(Some((kind, bytes))) = frames.next_frame() {
        match kind {
            KIND_TICK => {
                let at = bytes.try_into().map_or(0, u64::from_le_bytes);
                now = at.saturating_sub(started);
            }
            KIND_NOTE => {
                if let Ok(Note::Ledger(ledger)) = serde_json::from_slice(bytes)
                    && let total = ledger.lost.saturating_add(ledger.log.lost)
                    && total != lost
                    && changes.len() < MOST
                {
                    lost = total;
                    changes.push((now, lost));
                }
            }
            _ => {}
        }
    }
    changes
}
