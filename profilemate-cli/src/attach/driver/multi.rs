//! The driver probes' programs, loaded to be attached many at once.
//!
//! The eBPF library loads a uprobe program without the attach type that such links ask for. So its parser relocates
//! the two programs once more, against the maps that the library has made, and they are loaded here.

use super::{DriverSite, data};
use crate::attach::Error;
use crate::sys::bpf::{self, Uprobes};
use aya::Ebpf;
use aya_obj::Object;
use profilemate_ebpf as object;
use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The loaded programs.
pub(super) struct Programs {
    pub(super) called: OwnedFd,
    returned: OwnedFd,
    /// The program array in which the first one goes on; the kernel keeps programs of one way to be attached apart
    /// from those of another.
    array: OwnedFd,
    /// The programs for it, until [`Programs::load_parts`].
    parts: Vec<Part>,
    /// Those that are loaded.
    loaded: Vec<OwnedFd>,
}

/// A program that others go on in: its entry, name and instructions.
struct Part {
    index: u32,
    name: &'static str,
    code: Vec<[u8; 8]>,
}

impl Programs {
    /// Loads both programs of the object `bytes`, to work on the maps of `ebpf`.
    pub(super) fn load(ebpf: &Ebpf, bytes: &[u8]) -> Result<Self, String> {
        let mut parsed = Object::parse(bytes).map_err(|error| error.to_string())?;
        let maps = std::mem::take(&mut parsed.maps);
        let array = bpf::program_array(object::PART_COUNT).map_err(|error| error.to_string())?;
        let made: Vec<(&str, RawFd, &aya_obj::Map)> = ebpf
            .maps()
            .filter_map(|(name, map)| {
                let fd = if name == object::PARTS {
                    array.as_raw_fd()
                } else {
                    data(map)?.fd().as_fd().as_raw_fd()
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
        let code = |name: &str| -> Result<Vec<[u8; 8]>, String> {
            let program = parsed
                .programs
                .get(name)
                .ok_or_else(|| format!("the object has no `{name}`"))?;
            let function = parsed
                .functions
                .get(&program.function_key())
                .ok_or_else(|| format!("the object has no code of `{name}`"))?;
            Ok(function
                .instructions
                .iter()
                .copied()
                .map(bytes_of)
                .collect())
        };
        let load = |name: &str| -> Result<OwnedFd, String> {
            bpf::load_for_uprobes(name, &code(name)?).map_err(|error| error.to_string())
        };
        let parts: Result<Vec<Part>, String> = (0..)
            .zip(object::PART_NAMES)
            .map(|(index, name)| {
                Ok(Part {
                    index,
                    name,
                    code: code(name)?,
                })
            })
            .collect();
        Ok(Self {
            called: load(object::DRIVER_CALLED)?,
            returned: load(object::DRIVER_RETURNED)?,
            array,
            parts: parts?,
            loaded: Vec::new(),
        })
    }

    /// Loads the programs that the probes go on in where stacks are walked, which takes the verifier a quarter of a
    /// second; once.
    pub(super) fn load_parts(&mut self) -> io::Result<()> {
        for part in std::mem::take(&mut self.parts) {
            let program = bpf::load_for_uprobes(part.name, &part.code)?;
            bpf::set_program(self.array.as_fd(), part.index, program.as_fd())?;
            self.loaded.push(program);
        }
        Ok(())
    }

    /// Attaches at all sites with one link.
    pub(super) fn attach(
        &self,
        path: &Path,
        pid: u32,
        sites: &[DriverSite],
        at_return: bool,
    ) -> Result<OwnedFd, Error> {
        let failed = |source| Error::AttachDriver {
            path: path.into(),
            pid,
            source,
        };
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
        let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
        let cookies: Vec<u64> = sites.iter().map(|site| site.cookie.encode()).collect();
        let program = if at_return {
            &self.returned
        } else {
            &self.called
        };
        let uprobes = Uprobes {
            path: &name,
            offsets: &offsets,
            cookies: &cookies,
            pid,
            at_return,
        };
        bpf::link_uprobes(program.as_fd(), &uprobes).map_err(failed)
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
