//! The only room that writes into a target: it maps the marker page, and redirects functions through it.
//!
//! Order of effects, for one process: [`MarkerPage::find`] or [`MarkerPage::create`], [`MarkerPage::lock`], then
//! [`redirect`], and on the way out [`restore`] or [`restore_all`]. Nothing here decides what to redirect; that is in
//! the plan before anything here runs.
//!
//! A tracer may be killed by `SIGKILL` at any moment, also in the fraction of a millisecond in which a thread of the
//! target runs borrowed instructions: that thread goes back by itself then ([`way_back`]). Only the start of the helper
//! in a running server, which is never done unasked, has no such way.

mod check;
mod code;
mod cost;
mod error;
mod log;
mod mapping;
mod page;
mod redirect;
mod resident;
mod swap;

#[cfg(target_arch = "x86_64")]
mod inject;
#[cfg(target_arch = "x86_64")]
mod late;
#[cfg(target_arch = "x86_64")]
mod seccomp;
#[cfg(target_arch = "x86_64")]
mod stopped;
#[cfg(target_arch = "x86_64")]
mod thread_id;
#[cfg(target_arch = "x86_64")]
mod threads;
#[cfg(target_arch = "x86_64")]
mod way_back;

pub use check::check;
pub use code::{
    MARK_NOP1_OFFSET, MARK_NOP5_OFFSET, bytes as page_code, method_stub, vectorcall_stub,
};
pub use cost::stood_ns;
pub use error::Error;
#[cfg(target_arch = "x86_64")]
pub use late::load;
pub use log::PageLog;
pub use page::MarkerPage;
pub use redirect::{
    Redirect, Redirected, Refusal, Restored, VersionCache, VersionWrite, redirect, restore,
    restore_all,
};
pub use resident::{Resident, Serving, State, Told};
pub use swap::{Outcome, SwapRequest, Width, swap};

/// Starts the helper in a process that runs already.
#[cfg(not(target_arch = "x86_64"))]
pub fn load(
    _pid: u32,
    _entry: &crate::target::python::Entry,
    _code: &str,
) -> Result<(Resident, u64), Error> {
    Err(Error::Architecture {
        missing: "the injection of system calls",
    })
}
