//! What can go wrong between the tracer and the kernel, in words for users.

use super::capability::{Capabilities, OLDEST_KERNEL};
use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use std::io;
use std::path::PathBuf;

/// Why the kernel side could not be loaded, attached or spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `PROFILEMATE_OBJECT` names a file that can not be read.
    #[error("the eBPF object `{}` can not be read", path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object was not accepted, or its maps could not be made.
    #[error("the kernel did not make the eBPF maps")]
    Load {
        /// Why.
        #[source]
        source: Box<EbpfError>,
    },
    /// The object lacks something that this tracer needs.
    #[error("the eBPF object has no `{name}`")]
    Missing {
        /// Program or map.
        name: &'static str,
    },
    /// A program was not accepted.
    #[error("the kernel refused to load the eBPF program `{program}`")]
    Refused {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A uprobe was not accepted.
    #[error("no uprobe could be put at offset {offset:#x} of `{}`", path.display())]
    Attach {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// Probes on driver functions were not accepted.
    #[error("no uprobes could be put into process {pid} at the driver functions of `{}`", path.display())]
    AttachDriver {
        /// The file.
        path: PathBuf,
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel has no links for perf events.
    #[error("the kernel is older than Linux {}.{}", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    OldKernel,
    /// A map could not be read or written.
    #[error("the eBPF map `{map}` could not be read or written")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A number does not fit.
    #[error("{what} {value} is out of range: it must be less than {limit}")]
    OutOfRange {
        /// What it numbers.
        what: &'static str,
        /// The number.
        value: u64,
        /// The least number that is too big.
        limit: u64,
    },
    /// All programs are in use.
    #[error("{limit} field programs are in use, and there is no room for more")]
    TooManyPrograms {
        /// How many there can be.
        limit: u32,
    },
    /// The kernel does not say where its tasks keep their thread pointers, or does not take the programs.
    #[error("Python stacks cannot be walked: {reason}")]
    Walk {
        /// Why.
        reason: String,
    },
    /// The kernel does not count how long probe programs run.
    #[error(
        "the kernel's run-time statistics of BPF programs cannot be switched on (Linux 5.8, `CAP_SYS_ADMIN`)"
    )]
    Statistics {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The price of a hit could not be found out.
    #[error("the price of a probe hit could not be found out")]
    Price {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A self-test could not be made.
    #[error("the self-test of a probe site could not be made")]
    SelfTest {
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes an error of a refused program.
pub(super) fn refused(program: &'static str, source: ProgramError) -> Error {
    Error::Refused {
        program,
        source: Box::new(source),
    }
}

impl Error {
    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Load { .. } | Self::Refused { .. } | Self::OldKernel => {
                Capabilities::probe().missing().into_iter().next()
            }
            Self::Attach { .. } | Self::AttachDriver { .. } => {
                let found = Capabilities::probe();
                let admin = "run with `sudo`; this kernel may want CAP_SYS_ADMIN for a uprobe";
                let missing = found.missing().into_iter().next();
                missing.or_else(|| (!found.admin).then(|| admin.to_owned()))
            }
            Self::TooManyPrograms { .. } => Some("trace fewer methods with `--without`".into()),
            Self::Object { .. } => Some("unset PROFILEMATE_OBJECT".into()),
            Self::Missing { .. } => Some("run `cargo xtask bpf build`".into()),
            Self::Walk { .. } => Some("a kernel built with CONFIG_DEBUG_INFO_BTF tells it".into()),
            Self::Map { .. }
            | Self::OutOfRange { .. }
            | Self::SelfTest { .. }
            | Self::Price { .. }
            | Self::Statistics { .. } => None,
        }
    }
}
