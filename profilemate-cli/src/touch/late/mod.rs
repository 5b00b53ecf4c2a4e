//! Starting the helper in a process that is running already. Only where the user asks for it: it runs code of ours in
//! the interpreter, a few lines that start a thread, which does the rest.
//!
//! Two ways are known to be clean: the interpreter's own interface (3.14), and a call at the entry of the eval loop,
//! where a thread holds the interpreter's lock and stands between two calls (3.10 to 3.13). At any other place an
//! interpreter may be in the middle of something, and it is not tried.

mod eval;
mod remote;

use std::time::{Duration, Instant};

use super::check::{Filters, check_status};
use super::seccomp::{self, Call};
use super::threads::with_stopped;
use super::{Error, Resident};
use crate::target::python::Entry;

/// How long the main thread may take to come by.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the thread that was started may take: it imports a few modules.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(2);

/// Has process `pid` run `code`, which starts a helper, and waits for that. Gives the helper, and for how many
/// nanoseconds a thread stood.
///
/// `code` runs in the program's main thread. It must leave nothing behind there, raise nothing, and end soon.
pub fn load(pid: u32, entry: &Entry, code: &str) -> Result<(Resident, u64), Error> {
    let filters = check_status(pid)?;
    let stood_ns = match entry {
        Entry::Eval(entry) => eval::run(pid, entry, filters, code)?,
        Entry::Remote(entry) => {
            let stood_ns = match filters {
                Filters::None => 0,
                Filters::Ask => {
                    with_stopped(pid, |thread| seccomp::ask(pid, thread.tid(), &calls()))?.1
                }
            };
            remote::run(pid, entry, code, || began(pid).is_some())?;
            stood_ns
        }
    };
    let until = Instant::now() + BEGINS_WITHIN;
    loop {
        match began(pid) {
            Some(Ok(resident)) => return Ok((resident, stood_ns)),
            Some(Err(reason)) => return Err(Error::Helper { pid, reason }),
            None if Instant::now() > until => {
                let reason = "it has not begun within 5 s".to_owned();
                return Err(Error::Helper { pid, reason });
            }
            None => std::thread::sleep(NAP),
        }
    }
}

/// The helper, once there is one, or why there will be none.
fn began(pid: u32) -> Option<Result<Resident, String>> {
    let resident = Resident::find(pid).ok()??;
    let state = resident.state()?;
    Some(if state.state == "failed" {
        Err(state.reason.unwrap_or_else(|| "it gives no reason".into()))
    } else {
        Ok(resident)
    })
}

/// System calls that the helper makes and that a program might not make otherwise, as far as a filter can know them
/// before.
fn calls() -> [Call; 9] {
    let call = |number, args| Call { number, args };
    let any = |number| call(number, [0; 6]);
    let page = profilemate_common::page::CODE_SIZE as u64;
    let data = profilemate_common::page::DATA_SIZE as u64;
    let (read_execute, read_write) = (
        (libc::PROT_READ | libc::PROT_EXEC) as u64,
        (libc::PROT_READ | libc::PROT_WRITE) as u64,
    );
    let private = libc::MAP_PRIVATE as u64;
    let fixed = private | libc::MAP_FIXED as u64;
    let cloexec = u64::from(libc::MFD_CLOEXEC);
    [
        call(libc::SYS_memfd_create, [0, cloexec, 0, 0, 0, 0]),
        call(
            libc::SYS_mmap,
            [0, page + data, read_execute, private, 3, 0],
        ),
        call(libc::SYS_mmap, [0, data, read_write, fixed, 3, page]),
        any(libc::SYS_pipe2),
        any(libc::SYS_poll),
        call(libc::SYS_flock, [3, libc::LOCK_EX as u64, 0, 0, 0, 0]),
        any(libc::SYS_ftruncate),
        any(libc::SYS_pwrite64),
        any(libc::SYS_munmap),
    ]
}

fn memory(pid: u32, address: u64) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Memory {
        pid,
        address,
        source,
    }
}
