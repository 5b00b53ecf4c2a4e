//! Why a process is not attached.

use crate::attach;
use crate::cli::{Exit, Failure};
use crate::target::python::{IdentifyError, LayoutError};
use crate::touch;

/// Why a process is not attached: in words, with a hint, and whether it may change by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Exit code if nothing else can be traced.
    pub exit: Exit,
    /// In words.
    pub reason: String,
    /// What the user can do.
    pub hint: Option<String>,
    /// It may be otherwise in a moment (an interpreter that is starting).
    pub passing: bool,
}

impl Trouble {
    /// A lasting one.
    pub fn lasting(exit: Exit, reason: impl Into<String>) -> Self {
        Self {
            exit,
            reason: reason.into(),
            hint: None,
            passing: false,
        }
    }

    /// A passing one.
    pub fn passing(exit: Exit, reason: impl Into<String>) -> Self {
        Self {
            exit,
            reason: reason.into(),
            hint: None,
            passing: true,
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let failure = Self::new(trouble.exit, anyhow::anyhow!(trouble.reason));
        match trouble.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl From<IdentifyError> for Trouble {
    fn from(error: IdentifyError) -> Self {
        let (exit, passing) = match &error {
            IdentifyError::Maps { .. } | IdentifyError::File { .. } => (Exit::Forbidden, true),
            IdentifyError::NotPython { .. } => (Exit::NoTarget, true),
            IdentifyError::NoSymbols { .. }
            | IdentifyError::Unsupported { .. }
            | IdentifyError::FreeThreaded { .. } => (Exit::Unsupported, false),
        };
        Self {
            exit,
            reason: chain(&error),
            hint: Some(error.hint().to_owned()),
            passing,
        }
    }
}

impl From<LayoutError> for Trouble {
    fn from(error: LayoutError) -> Self {
        // An interpreter that is only starting has no modules yet; the tracker gives up after a while.
        Self::passing(Exit::Unsupported, chain(&error))
            .hint("nothing was written; report the Python build (`python -VV`) with this message")
    }
}

impl From<touch::Error> for Trouble {
    fn from(error: touch::Error) -> Self {
        let exit = match &error {
            touch::Error::AnotherTracer { .. }
            | touch::Error::Traced { .. }
            | touch::Error::RequestWaits { .. } => Exit::Busy,
            touch::Error::Architecture { .. }
            | touch::Error::NotNative { .. }
            | touch::Error::ShadowStack { .. } => Exit::Unsupported,
            touch::Error::NotReached { .. } => Exit::Failed,
            touch::Error::Gone { .. } => Exit::NoTarget,
            _ => Exit::Forbidden,
        };
        let hint = match &error {
            touch::Error::AnotherTracer { .. } => {
                "end the other tracer first; two would undo each other's redirections"
            }
            touch::Error::Traced { .. } => "end the debugger or tracer that holds it",
            touch::Error::PtraceScope => {
                "it can only be lowered by a reboot; until then nothing can be traced on this host"
            }
            touch::Error::Seccomp { .. } => {
                "nothing was tried; start the server under a filter that allows `memfd_create` and executable mappings, \
                 as the usual container filters do"
            }
            touch::Error::Forbidden { .. } => {
                "run as root or with CAP_SYS_PTRACE; a security module (AppArmor, SELinux) may forbid it too"
            }
            touch::Error::Helper { .. } => {
                "`profilemate helper status --pid PID` says what it does"
            }
            touch::Error::NotReached { .. } => {
                "everything is as it was; it waits for work, or for something outside of Python: try again while it \
                 serves requests"
            }
            touch::Error::RequestWaits { .. } => "end the debugger that made it",
            touch::Error::Breakpoint { .. } => {
                "the processor has four; a debugger may use them, or the virtual machine may hide them"
            }
            touch::Error::OtherVersion { .. } | touch::Error::OtherBuild { .. } => {
                "run `profilemate detach --pid PID` of that build first"
            }
            _ => "nothing of the target was changed; `-vv` says more",
        };
        let passing = matches!(error, touch::Error::NotStopped { .. });
        Self {
            exit,
            reason: chain(&error),
            hint: Some(hint.to_owned()),
            passing,
        }
    }
}

impl From<attach::Error> for Trouble {
    fn from(error: attach::Error) -> Self {
        let hint = error.hint();
        Self {
            hint,
            ..Self::lasting(Exit::Forbidden, chain(&error))
        }
    }
}
