//! CPython's string hash, so that a name can be looked up in a live dictionary by probing instead of by scanning.

/// The key of the process's hash, `_Py_HashSecret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashKey {
    /// First half.
    pub(super) k0: u64,
    /// Second half.
    pub(super) k1: u64,
    /// Rounds for each eight bytes: 1 (3.11+) or 2 (3.10).
    pub(super) compression: u8,
    /// Rounds at the end: 3 (3.11+) or 4 (3.10).
    pub(super) finalization: u8,
}

struct State([u64; 4]);

impl State {
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *b = b.rotate_left(13) ^ *a;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*d);
        *d = d.rotate_left(16) ^ *c;
        *a = a.wrapping_add(*d);
        *d = d.rotate_left(21) ^ *a;
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    fn absorb(&mut self, word: u64, rounds: u8) {
        self.0[3] ^= word;
        for _ in 0..rounds {
            self.round();
        }
        self.0[0] ^= word;
    }
}

impl HashKey {
    /// `hash()` of the string with these characters (one byte each, so ASCII), as the `Py_hash_t` that is cached in it.
    pub(super) fn of(&self, text: &[u8]) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let mut state = State([
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ]);
        let mut words = text.chunks_exact(8);
        for word in &mut words {
            state.absorb(
                u64::from_le_bytes(word.try_into().unwrap_or_default()),
                self.compression,
            );
        }
        let mut last = [0u8; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        last[7] = text.len() as u8;
        state.absorb(u64::from_le_bytes(last), self.compression);
        state.0[2] ^= 0xff;
        for _ in 0..self.finalization {
            state.round();
        }
        let hash = state.0[0] ^ state.0[1] ^ state.0[2] ^ state.0[3];
        // CPython keeps -1 for errors.
        if hash == u64::MAX { u64::MAX - 1 } else { hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference vector of `SipHash`-2-4: key 00..0f, message 00..0e.
    #[test]
    fn agrees_with_the_reference() {
        let key = HashKey {
            k0: 0x0706_0504_0302_0100,
            k1: 0x0f0e_0d0c_0b0a_0908,
            compression: 2,
            finalization: 4,
        };
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(key.of(&message), 0xa129_ca61_49be_45e5);
    }

    /// `PYTHONHASHSEED=0 python3.12 -c 'print(hash("abc"), hash("num_scheduled_tokens"))'`.
    #[test]
    fn agrees_with_cpython() {
        let key = HashKey {
            k0: 0,
            k1: 0,
            compression: 1,
            finalization: 3,
        };
        assert_eq!(key.of(b"abc") as i64, -4_594_863_902_769_663_758);
        assert_eq!(
            key.of(b"num_scheduled_tokens") as i64,
            -6_479_003_150_488_109_641
        );
        assert_eq!(key.of(b""), 0);
    }

    /// The same by 3.10, whose hash has more rounds.
    #[test]
    fn agrees_with_cpython_3_10() {
        let key = HashKey {
            k0: 0,
            k1: 0,
            compression: 2,
            finalization: 4,
        };
        assert_eq!(key.of(b"abc") as i64, 4_596_069_200_710_135_518);
    }
}
