//! The driver probes' programs, loaded to be attached many at once, which the eBPF library does not do.

use super::{DriverSite, Way};
use crate::attach::Error;
use crate::attach::relocated::Relocated;
use crate::sys::bpf::{self, Attached, Uprobes};
use aya::Ebpf;
use profilemate_ebpf as object;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The loaded programs.
pub(super) struct Programs {
    pub(super) called: OwnedFd,
    /// What runs at the end of calls; `None` if that is the same program.
    returned: Option<OwnedFd>,
    attached: Attached,
    /// The program array in which the first one goes on; the kernel keeps programs of one way to be attached apart
    /// from those of another.
    array: OwnedFd,
    /// All programs of the object, with this array.
    relocated: Relocated,
    /// Whether the array is filled.
    walks: bool,
}

impl Programs {
    /// Loads the programs of the object `bytes` that are `attached` so, to work on the maps of `ebpf`.
    pub(super) fn load(ebpf: &Ebpf, bytes: &[u8], attached: Attached) -> Result<Self, String> {
        let array = bpf::program_array(object::PART_COUNT).map_err(|error| error.to_string())?;
        let relocated = Relocated::new(ebpf, bytes, Some(array.as_fd()))?;
        let (called, returned) = match attached {
            Attached::Session => (object::DRIVER_SESSION, None),
            Attached::Many | Attached::One => {
                (object::DRIVER_CALLED, Some(object::DRIVER_RETURNED))
            }
        };
        Ok(Self {
            called: relocated.load(called, attached)?,
            returned: returned
                .map(|name| relocated.load(name, attached))
                .transpose()?,
            attached,
            array,
            relocated,
            walks: false,
        })
    }

    /// How they are attached.
    pub(super) fn way(&self) -> Way {
        match self.attached {
            Attached::One => Way::OneByOne,
            Attached::Many => Way::Many,
            Attached::Session => Way::Session,
        }
    }

    /// Loads the programs that the probes go on in where stacks are walked, once.
    pub(super) fn load_walks(&mut self) -> Result<(), String> {
        if self.walks {
            return Ok(());
        }
        for (index, name) in (0..).zip(object::PART_NAMES) {
            let program = if index == object::PART_FIELDS {
                self.relocated.load_fields(self.attached)
            } else {
                self.relocated.load(name, self.attached)
            };
            bpf::set_program(self.array.as_fd(), index, program?.as_fd())
                .map_err(|error| format!("`{name}`: {error}"))?;
        }
        self.walks = true;
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
        let program = match &self.returned {
            Some(returned) if at_return => returned,
            _ => &self.called,
        };
        let uprobes = Uprobes {
            path: &name,
            offsets: &offsets,
            cookies: &cookies,
            pid,
            at_return,
        };
        bpf::link_uprobes(program.as_fd(), self.attached, &uprobes).map_err(failed)
    }
}
