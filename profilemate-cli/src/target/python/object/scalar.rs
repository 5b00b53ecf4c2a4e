//! `int`, and type names of constants.

use profilemate_common::python::{FLAG_INT, INT_DIGITS, INT_HEAD, INT_OB_SIZE};

use super::Objects;
use crate::target::python::memory::ReadBytes;

/// Bits of one digit of an `int`.
const DIGIT_BITS: u32 = 30;

impl<M: ReadBytes> Objects<'_, M> {
    /// The value of an `int` (or `bool`) that fits into 64 bits.
    pub fn int(&self, object: u64) -> Option<i64> {
        if !self.has_flag(object, FLAG_INT) {
            return None;
        }
        let head: u64 = self.memory.read(object.checked_add(INT_HEAD)?)?;
        let (negative, digits) = if self.layout.kernel.int == INT_OB_SIZE {
            let size = head as i64;
            (size < 0, size.unsigned_abs())
        } else {
            // The low bits: 0 positive, 1 zero, 2 negative; bit 2 marks a statically allocated one on 3.14.
            match head & 3 {
                1 => return Some(0),
                sign => (sign == 2, head >> 3),
            }
        };
        if digits > 3 {
            return None;
        }
        let mut value = 0u128;
        for index in 0..digits {
            let digit: u32 = self
                .memory
                .read(object.checked_add(INT_DIGITS + 4 * index)?)?;
            if digit >> DIGIT_BITS != 0 {
                return None;
            }
            value |= u128::from(digit) << (DIGIT_BITS * index as u32);
        }
        let value = i128::try_from(value).ok()?;
        i64::try_from(if negative { -value } else { value }).ok()
    }
}
