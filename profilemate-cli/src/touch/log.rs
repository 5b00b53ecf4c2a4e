//! Reading the log of a marker page: in its file, without the process, and never more than it holds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use profilemate_common::page::{
    LOG_ENTRIES, LOG_ENTRIES_OFFSET, LOG_MADE, LOG_OFFSET, LogEntry, SLOTS,
};

/// How long an entry may stay half written before it is given up: its writer was killed.
const PATIENCE: Duration = Duration::from_secs(1);

/// A reader of one page's log, which its process and those forked from it write.
#[derive(Debug)]
pub struct PageLog {
    memfd: File,
    /// Number of the next entry to read.
    next: u64,
    lost: u64,
    read: u64,
    /// Since when the next entry is taken and not whole.
    torn_since: Option<Instant>,
    buffer: Vec<LogEntry>,
}

impl PageLog {
    /// A reader of what is written from now on.
    pub(super) fn new(memfd: File) -> std::io::Result<Self> {
        let mut log = Self {
            memfd,
            next: 0,
            lost: 0,
            read: 0,
            torn_since: None,
            buffer: Vec::new(),
        };
        log.next = log.made()?;
        Ok(log)
    }

    /// Gives each entry of calls that ended before the cycle counter stood at `until` to `take`, oldest first.
    pub fn drain(&mut self, until: u64, mut take: impl FnMut(&LogEntry)) -> std::io::Result<()> {
        let made = self.made()?;
        self.skip_overwritten(made);
        while self.next < made {
            let first = self.next as usize % LOG_ENTRIES;
            let count = ((made - self.next) as usize).min(LOG_ENTRIES - first);
            // Entries whose stamps were there at the first reading are whole at the second.
            self.load(first, count)?;
            let whole = self.count_whole();
            self.load(first, whole)?;
            // Who has taken a number since then may have been writing over what was read.
            let behind = self.next;
            self.skip_overwritten(self.made()?);
            let spoilt = (self.next - behind) as usize;
            let mut taken = 0;
            for entry in self.buffer[..whole].iter().skip(spoilt) {
                if entry.return_cycles > until {
                    break;
                }
                taken += 1;
                // A hostile process may write anything.
                if (entry.slot as usize) < SLOTS {
                    self.read += 1;
                    take(entry);
                } else {
                    self.lost += 1;
                }
            }
            self.next += taken;
            if whole < count {
                self.wait_for_writer();
                break;
            }
            self.torn_since = None;
            if (taken as usize) < whole.saturating_sub(spoilt) {
                break;
            }
        }
        Ok(())
    }

    /// Entries that were handed out.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Entries that were overwritten before they were read, or never finished.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn made(&self) -> std::io::Result<u64> {
        let mut made = [0; 8];
        self.memfd
            .read_exact_at(&mut made, (LOG_OFFSET + LOG_MADE) as u64)?;
        Ok(u64::from_ne_bytes(made))
    }

    fn load(&mut self, first: usize, count: usize) -> std::io::Result<()> {
        self.buffer.resize(count, LogEntry::zeroed());
        let at = LOG_OFFSET + LOG_ENTRIES_OFFSET + first * size_of::<LogEntry>();
        self.memfd
            .read_exact_at(bytemuck::cast_slice_mut(&mut self.buffer), at as u64)
    }

    /// Entries from the next on whose stamps are those of their numbers.
    fn count_whole(&self) -> usize {
        self.buffer
            .iter()
            .zip(self.next + 1..)
            .take_while(|(entry, stamp)| entry.stamp == *stamp as u32)
            .count()
    }

    fn skip_overwritten(&mut self, made: u64) {
        let oldest = made.saturating_sub(LOG_ENTRIES as u64);
        if self.next < oldest {
            self.lost += oldest - self.next;
            self.next = oldest;
        }
    }

    fn wait_for_writer(&mut self) {
        let since = *self.torn_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            self.lost += 1;
            self.next += 1;
            self.torn_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page's file, written to as the page's code does.
    struct Writer(File);

    impl Writer {
        fn new() -> Self {
            let file = tempfile::tempfile().unwrap();
            file.set_len((LOG_OFFSET + profilemate_common::page::LOG_SIZE) as u64)
                .unwrap();
            Self(file)
        }

        fn reader(&self) -> PageLog {
            PageLog::new(self.0.try_clone().unwrap()).unwrap()
        }

        fn take(&self, count: u64) -> u64 {
            let mut made = [0; 8];
            let at = (LOG_OFFSET + LOG_MADE) as u64;
            self.0.read_exact_at(&mut made, at).unwrap();
            let made = u64::from_ne_bytes(made);
            self.0
                .write_all_at(&(made + count).to_ne_bytes(), at)
                .unwrap();
            made
        }

        fn fill(&self, number: u64, slot: u32, ended: u64) {
            let entry = LogEntry {
                stamp: number as u32 + 1,
                slot,
                return_cycles: ended,
                ..LogEntry::default()
            };
            let at = LOG_ENTRIES_OFFSET + number as usize % LOG_ENTRIES * size_of::<LogEntry>();
            self.0
                .write_all_at(bytemuck::bytes_of(&entry), (LOG_OFFSET + at) as u64)
                .unwrap();
        }

        fn call(&self, ended: u64) {
            self.fill(self.take(1), 3, ended);
        }
    }

    fn ends(log: &mut PageLog, until: u64) -> Vec<u64> {
        let mut ends = Vec::new();
        log.drain(until, |entry| ends.push(entry.return_cycles))
            .unwrap();
        ends
    }

    #[test]
    fn a_reader_sees_what_comes_after_it_once_and_in_order() {
        let writer = Writer::new();
        writer.call(1);
        let mut log = writer.reader();
        assert!(ends(&mut log, 100).is_empty());
        writer.call(2);
        writer.call(3);
        assert_eq!(ends(&mut log, 100), [2, 3]);
        assert!(ends(&mut log, 100).is_empty());
        assert_eq!((log.read(), log.lost()), (2, 0));
    }

    #[test]
    fn what_ended_later_than_asked_for_waits() {
        let writer = Writer::new();
        let mut log = writer.reader();
        for ended in [10, 20, 30] {
            writer.call(ended);
        }
        assert_eq!(ends(&mut log, 20), [10, 20]);
        assert_eq!(ends(&mut log, 40), [30]);
    }

    #[test]
    fn an_entry_that_is_being_written_holds_back_those_behind_it() {
        let writer = Writer::new();
        let mut log = writer.reader();
        writer.call(1);
        let slow = writer.take(1);
        writer.call(3);
        assert_eq!(ends(&mut log, 100), [1]);
        assert!(ends(&mut log, 100).is_empty());
        writer.fill(slow, 3, 2);
        assert_eq!(ends(&mut log, 100), [2, 3]);
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn an_entry_whose_writer_was_killed_is_given_up() {
        let writer = Writer::new();
        let mut log = writer.reader();
        writer.take(1);
        writer.call(2);
        assert!(ends(&mut log, 100).is_empty());
        log.torn_since = Instant::now().checked_sub(2 * PATIENCE);
        assert!(ends(&mut log, 100).is_empty());
        assert_eq!(ends(&mut log, 100), [2]);
        assert_eq!((log.read(), log.lost()), (1, 1));
    }

    #[test]
    fn what_is_overwritten_is_counted_as_lost() {
        let writer = Writer::new();
        let mut log = writer.reader();
        let made = LOG_ENTRIES as u64 + 5;
        for ended in 0..made {
            writer.call(ended);
        }
        assert_eq!(ends(&mut log, made), (5..made).collect::<Vec<_>>());
        assert_eq!((log.read(), log.lost()), (LOG_ENTRIES as u64, 5));
    }

    #[test]
    fn the_end_of_the_log_is_followed_by_its_begin() {
        let writer = Writer::new();
        writer.take(LOG_ENTRIES as u64 - 2);
        let mut log = writer.reader();
        for ended in [1, 2, 3, 4] {
            writer.call(ended);
        }
        assert_eq!(ends(&mut log, 100), [1, 2, 3, 4]);
    }

    #[test]
    fn nonsense_is_counted_and_a_short_file_is_an_error() {
        let writer = Writer::new();
        let mut log = writer.reader();
        writer.fill(writer.take(1), u32::MAX, 1);
        assert!(ends(&mut log, 100).is_empty());
        assert_eq!(log.lost(), 1);
        writer.0.set_len(100).unwrap();
        assert!(log.drain(100, |_| ()).is_err());
    }
}
