//! `str`.

use profilemate_common::python::{FLAG_STR, STR_LENGTH};

use super::{Objects, TEXT_LENGTH};
use crate::target::python::memory::ReadBytes;

/// The state bits of a `str`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    interned: bool,
    width: usize,
    compact: bool,
    ascii: bool,
}

impl State {
    /// `interned:2, kind:3, compact:1, ascii:1`, the same from 3.10 to 3.14.
    fn from_bits(bits: u32) -> Option<Self> {
        let width = match (bits >> 2) & 7 {
            1 => 1,
            2 => 2,
            4 => 4,
            _ => return None,
        };
        let state = Self {
            interned: bits & 3 != 0,
            width,
            compact: bits & 0x20 != 0,
            ascii: bits & 0x40 != 0,
        };
        (!state.ascii || width == 1).then_some(state)
    }
}

impl<M: ReadBytes> Objects<'_, M> {
    fn state(&self, object: u64) -> Option<State> {
        State::from_bits(
            self.memory
                .read(object.checked_add(u64::from(self.layout.kernel.str_state))?)?,
        )
    }

    /// Address and length in characters of a compact string's characters.
    fn characters(&self, object: u64) -> Option<(u64, usize, State)> {
        if !self.is_exact(object, self.layout.symbols.type_str) && !self.has_flag(object, FLAG_STR)
        {
            return None;
        }
        let state = self.state(object)?;
        let length =
            usize::try_from(self.memory.read::<i64>(object.checked_add(STR_LENGTH)?)?).ok()?;
        if !state.compact {
            // Instances of subclasses and strings of old extension code: not needed, so not read.
            return None;
        }
        let head = if state.ascii {
            self.layout.kernel.str_ascii
        } else {
            self.layout.kernel.str_compact
        };
        Some((object.checked_add(u64::from(head))?, length, state))
    }

    /// The text of a compact `str` of at most [`TEXT_LENGTH`] characters.
    pub fn text(&self, object: u64) -> Option<String> {
        let (address, length, state) = self.characters(object)?;
        if length > TEXT_LENGTH {
            return None;
        }
        let mut bytes = vec![0; length * state.width];
        if !self.memory.read_bytes(address, &mut bytes) {
            return None;
        }
        if state.ascii {
            return String::from_utf8(bytes).ok().filter(|text| text.is_ascii());
        }
        let unit = |unit: &[u8]| {
            unit.iter()
                .rev()
                .fold(0u32, |value, byte| value << 8 | u32::from(*byte))
        };
        bytes
            .chunks_exact(state.width)
            .map(|bytes| char::from_u32(unit(bytes)))
            .collect()
    }

    /// Whether the object is the ASCII string `text`. Cheaper than [`Objects::text`]: most differ in length.
    pub fn is_text(&self, object: u64, text: &str) -> bool {
        let Some((address, length, state)) = self.characters(object) else {
            return false;
        };
        if length != text.len() || !state.ascii || length > TEXT_LENGTH {
            return false;
        }
        let mut bytes = [0u8; 256];
        if length <= bytes.len() {
            let bytes = &mut bytes[..length];
            return self.memory.read_bytes(address, bytes) && bytes == text.as_bytes();
        }
        self.text(object).as_deref() == Some(text)
    }

    /// Whether the object is an exact `str` whose state says that it is interned.
    pub fn is_interned(&self, object: u64) -> bool {
        self.is_exact(object, self.layout.symbols.type_str)
            && self.state(object).is_some_and(|state| state.interned)
    }

    /// The cached hash of a `str`; `None` if it was never computed.
    pub fn cached_hash(&self, object: u64) -> Option<u64> {
        let hash: u64 = self
            .memory
            .read(object.checked_add(u64::from(self.layout.kernel.str_hash))?)?;
        (hash != u64::MAX).then_some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        let interned_ascii = State::from_bits(0b110_0101);
        assert_eq!(
            interned_ascii,
            Some(State {
                interned: true,
                width: 1,
                compact: true,
                ascii: true
            })
        );
        assert_eq!(
            State::from_bits(0b010_1000),
            Some(State {
                interned: false,
                width: 2,
                compact: true,
                ascii: false
            })
        );
        assert_eq!(
            State::from_bits(0b110_1000),
            None,
            "ASCII has one byte a character"
        );
        assert_eq!(State::from_bits(0), None);
        assert_eq!(State::from_bits(u32::MAX), None);
    }
}
