//! Walks of Python stacks: which processes, and which frames.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use aya::programs::links::FdLink;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use profilemate_common::path::Program;
use profilemate_common::walk::{StackLayout, TARGET_LAST, Target};
use profilemate_ebpf as object;

use super::btf::{BtfError, task_pointer};
use super::{Error, Kernel, Way, Wire, take, uprobe};

/// The maps of the processes that are walked.
pub(super) struct Stacks {
    layouts: HashMap<MapData, u32, Wire<StackLayout>>,
    targets: HashMap<MapData, Wire<Target>, u32>,
    walking: Array<MapData, u32>,
    /// Indices of the programs in use.
    used: BTreeMap<Target, u32>,
}

/// A uprobe on a C function at whose calls stacks are walked; detached when dropped.
#[derive(Debug)]
pub struct StackLink {
    _fd: FdLink,
}

impl Stacks {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            layouts: take(ebpf, object::STACKS)?,
            targets: take(ebpf, object::TARGETS)?,
            walking: take(ebpf, object::WALKING)?,
            used: BTreeMap::new(),
        })
    }
}

/// Offset of the thread pointer in the running kernel's tasks.
fn thread_pointer() -> Result<u32, Error> {
    static FOUND: OnceLock<Result<u32, BtfError>> = OnceLock::new();
    match FOUND.get_or_init(task_pointer) {
        Ok(offset) => Ok(*offset),
        Err(error) => Err(Error::Walk {
            reason: error.to_string(),
        }),
    }
}

impl Kernel {
    /// Has the stacks of process `pid` walked, laid out as `layout` says; its `task_pointer` is filled in here.
    pub fn set_stack(&mut self, pid: u32, layout: &StackLayout) -> Result<(), Error> {
        self.drivers.walk()?;
        if self.driver_way() == Way::OneByOne {
            // Driver probes that are attached one by one go on in the programs of the methods.
            self.load_walks()?;
        }
        let layout = StackLayout {
            task_pointer: thread_pointer()?,
            ..*layout
        };
        self.stacks
            .layouts
            .insert(pid, Wire(layout), 0)
            .map_err(|source| Error::Map {
                map: object::STACKS,
                source,
            })?;
        self.stacks
            .walking
            .set(0, 1, 0)
            .map_err(|source| Error::Map {
                map: object::WALKING,
                source,
            })
    }

    /// Has frames of process `pid` that run `code` told with `program`'s fields. With `last` a walk ends there.
    pub fn set_target(
        &mut self,
        pid: u32,
        code: u64,
        program: &Program,
        last: bool,
    ) -> Result<(), Error> {
        let index = self.put_program(program)?;
        let target = Target {
            code,
            pid,
            reserved: 0,
        };
        let number = if last { index | TARGET_LAST } else { index };
        self.stacks
            .targets
            .insert(Wire(target), number, 0)
            .map_err(|source| Error::Map {
                map: object::TARGETS,
                source,
            })?;
        if let Some(old) = self.stacks.used.insert(target, index) {
            self.indices.give_back(old, Instant::now());
        }
        Ok(())
    }

    /// Ends the walks of process `pid`.
    pub fn clear_stack(&mut self, pid: u32) {
        // What is not there need not be removed, and what cannot be removed is never looked up again.
        let _gone = self.stacks.layouts.remove(&pid);
        let targets: Vec<Target> = self
            .stacks
            .used
            .keys()
            .filter(|target| target.pid == pid)
            .copied()
            .collect();
        for target in targets {
            let _gone = self.stacks.targets.remove(&Wire(target));
            if let Some(index) = self.stacks.used.remove(&target) {
                self.indices.give_back(index, Instant::now());
            }
        }
    }

    /// Walks the stack at each call of a C function: `offset` of the file at `path` is its first instruction, or one
    /// that it always passes. `pid` alone makes events, no other process that maps the file pays for them.
    pub fn attach_stack(&mut self, path: &Path, offset: u64, pid: u32) -> Result<StackLink, Error> {
        self.load_walks()?;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie: None,
        };
        let scope =
            NonZeroU32::new(pid).map_or(UProbeScope::CallingProcess, UProbeScope::OneProcess);
        let failed = |source| Error::Attach {
            path: path.into(),
            offset,
            source: Box::new(source),
        };
        let program = uprobe(&mut self.ebpf, object::STACK_PROBED)?;
        let id = program.attach(point, path, scope).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let fd = FdLink::try_from(link).map_err(|_| Error::OldKernel)?;
        Ok(StackLink { _fd: fd })
    }
}
