//! The reading end of the ring buffer.

use aya::maps::{MapData, RingBuf};

/// Records taken in one call, at most, so that a flood can not keep the caller from its other work.
const BATCH: usize = 1 << 16;

/// Takes records out of the ring buffer. The probes never wake anybody: the owner calls [`Reader::drain`] every ten
/// milliseconds or so.
pub struct Reader {
    ring: RingBuf<MapData>,
}

impl Reader {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Gives the bytes of each record to `each`, in the order in which they were begun. Returns how many; if that is
    /// [`Reader::BATCH`], there may be more.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < BATCH {
            let Some(record) = self.ring.next() else {
                break;
            };
            each(&record);
            taken += 1;
        }
        taken
    }

    /// What [`Reader::drain`] takes at most.
    pub const BATCH: usize = BATCH;
}
