//! Programs of the object that the eBPF library does not load as they must be loaded: those that are attached many at
//! once, and those with a function that a helper calls.
//!
//! The library's parser relocates the object once more, against the maps that the library has made, and the programs
//! are loaded here.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::Object;
use profilemate_ebpf as object;

use crate::sys::bpf::{self, Attached};

/// The object, with the maps' descriptors in its instructions.
pub(super) struct Relocated {
    parsed: Object,
}

impl Relocated {
    /// Relocates the object `bytes` against the maps of `ebpf`, with `parts` (if it is given) in the place of its
    /// program array. All maps must still be there.
    pub(super) fn new(
        ebpf: &Ebpf,
        bytes: &[u8],
        parts: Option<BorrowedFd<'_>>,
    ) -> Result<Self, String> {
        let mut parsed = Object::parse(bytes).map_err(|error| error.to_string())?;
        let maps = std::mem::take(&mut parsed.maps);
        let made: Vec<(&str, RawFd, &aya_obj::Map)> = ebpf
            .maps()
            .filter_map(|(name, map)| {
                let fd = match parts {
                    Some(parts) if name == object::PARTS => parts.as_raw_fd(),
                    _ => data(map)?.fd().as_fd().as_raw_fd(),
                };
                Some((name, fd, maps.get(name)?))
            })
            .collect();
        let text: HashSet<usize> = parsed
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        parsed
            .relocate_maps(made.into_iter(), &text)
            .map_err(|error| error.to_string())?;
        parsed
            .relocate_calls(&text)
            .map_err(|error| error.to_string())?;
        Ok(Self { parsed })
    }

    /// Loads the program called `name`.
    pub(super) fn load(&self, name: &str, attached: Attached) -> Result<OwnedFd, String> {
        let program = self
            .parsed
            .programs
            .get(name)
            .ok_or_else(|| format!("the object has no `{name}`"))?;
        let function = self
            .parsed
            .functions
            .get(&program.function_key())
            .ok_or_else(|| format!("the object has no code of `{name}`"))?;
        let code: Vec<[u8; 8]> = function
            .instructions
            .iter()
            .copied()
            .map(bytes_of)
            .collect();
        bpf::load(name, &code, attached).map_err(|error| format!("`{name}`: {error}"))
    }

    /// Loads the program that reads fields: the one that loops where the kernel has that.
    pub(super) fn load_fields(&self, attached: Attached) -> Result<OwnedFd, String> {
        self.load(object::FIELDS_LOOPED, attached)
            .or_else(|reason| {
                log::debug!("fields are read in parts: {reason}");
                self.load(object::FIELDS_READ, attached)
            })
    }
}

/// The descriptor of the map `name` of `ebpf`.
pub(super) fn descriptor<'a>(ebpf: &'a Ebpf, name: &str) -> Option<BorrowedFd<'a>> {
    Some(data(ebpf.map(name)?)?.fd().as_fd())
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::RingBuf(data)
        | Map::ProgramArray(data) => Some(data),
        _ => None,
    }
}

/// An instruction as the kernel takes it.
fn bytes_of(instruction: aya_obj::generated::bpf_insn) -> [u8; 8] {
    let [low, high] = instruction.off.to_ne_bytes();
    let [a, b, c, d] = instruction.imm.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") {
        instruction.dst_reg() | instruction.src_reg() << 4
    } else {
        instruction.dst_reg() << 4 | instruction.src_reg()
    };
    [instruction.code, registers, low, high, a, b, c, d]
}
