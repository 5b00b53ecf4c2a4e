//! Exit codes and how errors are shown.

use std::process::ExitCode;

/// How a run ended, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed for another reason.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: done, but records were lost or a process could not be attached (`metadata.json` says what), or a check found
    /// something missing.
    Incomplete,
    /// 4: there is no such target: no such process, not Python, none found, several found.
    NoTarget,
    /// 5: the target's Python or vLLM version is not supported.
    Unsupported,
    /// 6: not allowed: a capability is missing, or the host or the target forbids it.
    Forbidden,
    /// 7: the output cannot be written.
    Output,
    /// 8: another tracer is attached to the target.
    Busy,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::NoTarget => 4,
            Self::Unsupported => 5,
            Self::Forbidden => 6,
            Self::Output => 7,
            Self::Busy => 8,
        }
    }
}

/// An error that ends the run: what failed, what to do, and with which code.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What failed, with its causes.
    pub error: anyhow::Error,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error: {}", self.error)?;
        for cause in self.error.chain().skip(1) {
            write!(f, "\n  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}
