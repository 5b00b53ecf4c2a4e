//! What will be done to a target, decided before anything is done: pure and printable (`--dry-run`).

pub mod driver;
pub mod late;
pub mod site;
mod text;

use profilemate_common::page;

use crate::catalog::Events;
use crate::target::role::Role;

/// The plan for a whole target as it is now; processes that appear later get theirs when they do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Which instruction of the marker page is probed, and why.
    pub site: String,
    /// One entry per process of the tree.
    pub processes: Vec<ProcessPlan>,
}

/// The plan for one process.
#[derive(Clone, Debug)]
pub struct ProcessPlan {
    /// Process id.
    pub pid: u32,
    /// Title or command.
    pub title: String,
    /// Part in vLLM.
    pub role: Role,
    /// Engine index.
    pub engine: Option<u32>,
    /// Tensor parallel rank.
    pub rank: Option<u32>,
    /// CPython version.
    pub python: Option<String>,
    /// Interpreter's file.
    pub interpreter: Option<String>,
    /// vLLM version.
    pub vllm: Option<String>,
    /// What is done, or why nothing is.
    pub technique: Technique,
    /// How the helper is started in it first, if it has none.
    pub late: Option<late::Late>,
    /// The catalogue's methods for this version.
    pub methods: Vec<MethodPlan>,
    /// Frames that walks of its threads' stacks look for.
    pub frames: Vec<FramePlan>,
    /// The CUDA libraries that it maps.
    pub libraries: Vec<driver::LibraryPlan>,
}

/// How a process is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Technique {
    /// Marker page and redirected pointers.
    MethodProbes,
    /// The page that the Python helper mapped is probed; nothing is redirected from outside.
    Helper,
    /// Nothing is written: stacks are walked at calls of the CUDA driver.
    StackWalks,
    /// Nothing is done now; it is looked at again, because this may change.
    Wait(String),
    /// Nothing is done.
    None(String),
}

impl Technique {
    /// As written to `metadata.json`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MethodProbes => "method_probes",
            Self::Helper => "helper",
            Self::StackWalks => "stack_walks",
            Self::Wait(_) | Self::None(_) => "none",
        }
    }

    /// Why nothing is done.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Wait(reason) | Self::None(reason) => Some(reason),
            Self::MethodProbes | Self::Helper | Self::StackWalks => None,
        }
    }
}

/// The plan for one function whose frames are looked for.
#[derive(Clone, Debug)]
pub struct FramePlan {
    /// Catalogue id.
    pub id: String,
    /// Python module.
    pub module: String,
    /// Qualified name.
    pub qualname: String,
    /// Whether its frames can be told.
    pub state: MethodState,
    /// Fields: name, path, and why it cannot be read.
    pub fields: Vec<(String, String, Option<String>)>,
    /// Reads that one frame makes.
    pub reads: u32,
}

/// The plan for one method.
#[derive(Clone, Debug)]
pub struct MethodPlan {
    /// Catalogue id.
    pub id: String,
    /// Python module.
    pub module: String,
    /// Qualified name.
    pub qualname: String,
    /// Events made.
    pub events: Events,
    /// Whether it can be bound.
    pub state: MethodState,
    /// Fields: name, path, and why it cannot be read.
    pub fields: Vec<(String, String, Option<String>)>,
    /// Reads that one event makes.
    pub reads: u32,
}

/// Whether a method can be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodState {
    /// It is bound.
    Ready,
    /// Its module is not imported yet; it is bound when it is.
    NotImported,
    /// It cannot be bound.
    Unbound(String),
}

/// Expected cost of a trap between real work, and of one read of target memory, in ns (docs/overhead.md).
const TRAP_NS: u32 = 2000;
const READ_NS: u32 = 60;
/// Expected cost of a walk that passes [`WALK_FRAMES`] frames, and of one frame that is told, beside its reads
/// (docs/overhead.md).
const WALK_NS: u32 = 3500;
const TOLD_NS: u32 = 800;
/// Frames from a call of the driver to vLLM's model runner, as a rule.
pub const WALK_FRAMES: u32 = 25;
/// Expected cost of a counted call, and of one that the page's log tells, in ns.
const COUNT_NS: u32 = 20;
const LOG_NS: u32 = 40;

impl MethodPlan {
    /// Whether the user gave it, and not the catalogue.
    pub fn is_users(&self) -> bool {
        self.id.starts_with("user.")
    }

    /// What one call is expected to cost the target, in nanoseconds, on the machine of docs/overhead.md.
    pub fn cost_ns(&self) -> u32 {
        if self.events == Events::Logged {
            return LOG_NS;
        }
        let mode = self.events.mode();
        let traps =
            u32::from(mode & page::MODE_RETURN != 0) + u32::from(mode & page::MODE_ENTRY != 0);
        COUNT_NS + traps * (TRAP_NS + self.reads * READ_NS)
    }
}

impl FramePlan {
    /// What telling one frame is expected to cost the target, in nanoseconds, beside the walk that finds it. Its
    /// fields are read twice.
    pub fn cost_ns(&self) -> u32 {
        TOLD_NS + 2 * self.reads * READ_NS
    }
}

impl ProcessPlan {
    /// What one walk is expected to cost the target, in nanoseconds, beside the frames that it tells.
    pub fn walk_ns(&self) -> u32 {
        WALK_NS
    }

    /// Takes what a look found. The `first` look decides; a later one adds methods whose modules came.
    pub fn take(&mut self, found: Self, role: Role, first: bool) {
        let mut methods = if first {
            Vec::new()
        } else {
            std::mem::take(&mut self.methods)
        };
        methods.retain(|old| {
            !found
                .methods
                .iter()
                .any(|new| new.qualname == old.qualname && new.module == old.module)
        });
        methods.extend(found.methods.iter().cloned());
        let technique = std::mem::replace(&mut self.technique, Technique::MethodProbes);
        let frames = std::mem::take(&mut self.frames);
        let late = self.late.take();
        *self = Self {
            role,
            technique,
            late,
            methods,
            frames,
            ..found
        };
    }

    /// Takes what was found of the frames; what was found earlier stays.
    pub fn take_frames(&mut self, found: Vec<FramePlan>) {
        self.frames.retain(|old| {
            !found
                .iter()
                .any(|new| new.qualname == old.qualname && new.module == old.module)
        });
        self.frames.extend(found);
    }

    /// Why not one of its methods can be bound now.
    pub fn why_none(&self) -> String {
        let reasons: std::collections::BTreeSet<&str> = self
            .methods
            .iter()
            .filter_map(|method| match &method.state {
                MethodState::Unbound(reason) => Some(reason.as_str()),
                MethodState::Ready | MethodState::NotImported => None,
            })
            .take(5)
            .collect();
        if reasons.is_empty() {
            return "none of the methods' modules is imported".to_owned();
        }
        reasons.into_iter().collect::<Vec<_>>().join("; ")
    }

    /// Marks methods that were found and yet refused: (id, reason).
    pub fn refuse(&mut self, refused: &[(String, String)]) {
        for (id, reason) in refused {
            for method in self.methods.iter_mut().filter(|method| &method.id == id) {
                if method.state == MethodState::Ready {
                    method.state = MethodState::Unbound(reason.clone());
                }
            }
        }
    }
}

impl Plan {
    /// The plan as text, for people.
    pub fn text(&self) -> String {
        text::text(self)
    }

    /// The plan as JSON.
    pub fn json(&self) -> serde_json::Value {
        text::json(self)
    }
}
