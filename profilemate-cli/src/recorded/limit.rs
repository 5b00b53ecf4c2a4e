//! A reader that refuses to read on for ever inside one record.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes between two records, at most: a record and what the CSV reader buffers.
const MOST: u64 = 8 << 20;

/// What is left to read before the next record must end.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Rc<Cell<u64>>);

impl Budget {
    /// A record has ended.
    pub(super) fn refill(&self) {
        self.0.set(MOST);
    }
}

/// Reads on while there is a budget.
#[derive(Debug)]
pub(super) struct Limited<R> {
    inner: R,
    budget: Budget,
}

impl<R: Read> Limited<R> {
    /// Reads from `inner`, and gives the budget to refill.
    pub(super) fn new(inner: R) -> (Self, Budget) {
        let budget = Budget::default();
        budget.refill();
        let limited = Self {
            inner,
            budget: budget.clone(),
        };
        (limited, budget)
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.0.get();
        if left == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a row does not end: is a quotation mark missing?",
            ));
        }
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.budget.0.set(left - read as u64);
        Ok(read)
    }
}
