//! One question to the running kernel's type information (BTF): where a task keeps its thread pointer.
//!
//! The format is that of `Documentation/bpf/btf.rst`: a head, type records one behind the other, and strings. The
//! reader is a dozen lines because only structures and their members matter; the crates for it are under the LGPL or
//! keep their types to themselves.

use std::collections::HashMap;

/// Where the kernel tells its types.
const FILE: &str = "/sys/kernel/btf/vmlinux";
/// First two bytes of the file.
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Bytes of a member of a structure.
const MEMBER: usize = 12;

/// Why the thread pointer is not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum BtfError {
    /// The kernel has no type information.
    #[error("the kernel tells no types in {FILE}")]
    Missing(#[source] std::io::Error),
    /// It is damaged, or of another format.
    #[error("the kernel's types in {FILE} are of an unknown format")]
    Format,
    /// It does not know the member.
    #[error("the kernel's {0} has no {1}")]
    NoMember(&'static str, &'static str),
}

/// Offset in bytes of the thread pointer (`fs`) in the kernel's `task_struct`.
pub(super) fn task_pointer() -> Result<u32, BtfError> {
    let bytes = std::fs::read(FILE).map_err(BtfError::Missing)?;
    thread_pointer(&bytes)
}

fn thread_pointer(bytes: &[u8]) -> Result<u32, BtfError> {
    let thread = member(bytes, "task_struct", "thread")?;
    let base = member(bytes, "thread_struct", "fsbase")?;
    thread.checked_add(base).ok_or(BtfError::Format)
}

/// Offset in bytes of `name` in the structure `of`.
fn member(bytes: &[u8], of: &'static str, name: &'static str) -> Result<u32, BtfError> {
    let types = Types::parse(bytes).ok_or(BtfError::Format)?;
    let members = types.members(of).ok_or(BtfError::Format)?;
    let bits = members.get(name).ok_or(BtfError::NoMember(of, name))?;
    Ok(bits / 8)
}

struct Types<'b> {
    records: &'b [u8],
    strings: &'b [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    word.try_into().ok().map(u32::from_ne_bytes)
}

impl<'b> Types<'b> {
    fn parse(bytes: &'b [u8]) -> Option<Self> {
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let body = bytes.get(word(bytes, 4)? as usize..)?;
        let part = |offset: usize| {
            let start = word(bytes, offset)? as usize;
            body.get(start..start.checked_add(word(bytes, offset + 4)? as usize)?)
        };
        Some(Self {
            records: part(8)?,
            strings: part(16)?,
        })
    }

    fn text(&self, at: u32) -> Option<&'b str> {
        let rest = self.strings.get(at as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// Names of the members of the largest structure `of`, with their offsets in bits: a forward declaration in
    /// another part of the kernel has none.
    fn members(&self, of: &str) -> Option<HashMap<&'b str, u32>> {
        let mut found = HashMap::new();
        let mut at = 0;
        while at < self.records.len() {
            let info = word(self.records, at + 4)?;
            let (kind, count) = (info >> 24 & 31, (info & 0xffff) as usize);
            if kind == KIND_STRUCT && self.text(word(self.records, at)?)? == of {
                for index in 0..count {
                    let member = at + 12 + MEMBER * index;
                    let offset = word(self.records, member + 8)?;
                    // With the flag set the upper bits say how wide a bit field is.
                    let bits = if info >> 31 == 1 {
                        offset & 0xff_ffff
                    } else {
                        offset
                    };
                    found.insert(self.text(word(self.records, member)?)?, bits);
                }
            }
            at = at.checked_add(12 + extra(kind, count)?)?;
        }
        Some(found)
    }
}

/// Bytes that follow the head of a type record; `None` for an unknown kind.
fn extra(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Integers, variables and declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, data sections, 64-bit enumerations.
        KIND_STRUCT | KIND_UNION | 15 | 19 => MEMBER * count,
        // Enumerations and function prototypes.
        6 | 13 => 8 * count,
        // Pointers, forward declarations, type definitions and the like.
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A structure `task_struct` with `state` at bit 0 and `thread` at bit 64, and `thread_struct` with `fsbase`.
    fn image() -> Vec<u8> {
        let strings = b"\0task_struct\0state\0thread\0thread_struct\0fsbase\0";
        let at = |name: &str| {
            strings
                .windows(name.len() + 2)
                .position(|window| {
                    window[0] == 0
                        && &window[1..=name.len()] == name.as_bytes()
                        && window[name.len() + 1] == 0
                })
                .unwrap() as u32
                + 1
        };
        let records: Vec<u32> = vec![
            // int
            at("state"),
            1 << 24,
            8,
            0,
            at("task_struct"),
            4 << 24 | 2,
            24,
            at("state"),
            1,
            0,
            at("thread"),
            3,
            64,
            at("thread_struct"),
            1 << 31 | 4 << 24 | 1,
            8,
            at("fsbase"),
            1,
            64 << 24 | 128,
        ];
        let length = 4 * records.len() as u32;
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for value in [24, 0, length, length, strings.len() as u32] {
            bytes.extend(value.to_ne_bytes());
        }
        for value in records {
            bytes.extend(value.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn the_thread_pointer_is_found_in_an_image() {
        assert_eq!(thread_pointer(&image()).unwrap(), 8 + 16);
        let nameless = image()
            .iter()
            .map(|byte| if *byte == b'f' { b'g' } else { *byte })
            .collect::<Vec<_>>();
        assert!(matches!(
            thread_pointer(&nameless),
            Err(BtfError::NoMember("thread_struct", "fsbase"))
        ));
        assert!(matches!(thread_pointer(b"no types"), Err(BtfError::Format)));
    }

    #[test]
    fn the_running_kernel_tells_it() {
        match task_pointer() {
            Ok(offset) => assert!(
                offset % 8 == 0 && (64..1 << 16).contains(&offset),
                "{offset}"
            ),
            Err(BtfError::Missing(error)) => println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
    }

    proptest! {
        #[test]
        fn damaged_types_are_no_danger(at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..200) {
            let mut bytes = image();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            let _ = thread_pointer(&bytes);
        }
    }
}
