//! The Python helper that is resident in a process: it binds methods from inside when a tracer asks it to, and puts
//! them back when that tracer lets go or dies. Nothing is stopped and no memory is written from outside.
//!
//! The process has a memfd named `profilemate-helper` with its state as JSON, and a pipe on which it takes plans; see
//! `python/profilemate_helper/profilemate_helper/resident.py`. Both are the target's own files: they are opened only
//! if they are what they say to be, read with bounds, and nothing in them is believed that matters for safety. What
//! was bound is found afterwards as for every helper, in the process's memory.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags};
use serde::Deserialize;

use super::Error;
use crate::sys::lock;

/// Name of the memfd.
const MEMFD: &str = "/memfd:profilemate-helper";
/// Version of the protocol.
const PROTOCOL: u32 = 1;
/// What a plan begins with.
const MAGIC: &[u8; 4] = b"PMH1";
/// Bytes of a state, at most.
const LONGEST: usize = 256 << 10;
/// Files of a process that are looked at, at most.
const FILES: usize = 65_536;
/// How often an answer is looked for.
const NAP: Duration = Duration::from_millis(5);
/// How long an answer may take: the helper needs the process's GIL for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the helper says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Version of the protocol.
    pub helper: u32,
    /// The memfd's number in the process.
    pub fd: u32,
    /// The pipe's.
    pub pipe: u32,
    /// CPython's version.
    pub python: String,
    /// `waiting`, `bound` or `failed`.
    pub state: String,
    /// Plans read so far.
    pub serial: u64,
    /// Why it failed.
    pub reason: Option<String>,
    /// Why it samples routers no longer.
    #[serde(default)]
    pub sampling: Option<String>,
    /// What became of each method of the plans.
    #[serde(default)]
    pub methods: Vec<Told>,
}

/// What a helper says of one method.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// Its module.
    pub module: String,
    /// Its name there.
    pub qualname: Option<String>,
    /// Why it was not bound, if so.
    pub reason: Option<String>,
}

/// A helper that was found in a process.
#[derive(Debug)]
pub struct Resident {
    pid: u32,
    memfd: File,
}

/// A helper that has bound methods for us. It puts them back when this is dropped, or when this process dies.
#[derive(Debug)]
pub struct Serving {
    resident: Resident,
}

impl Resident {
    /// The helper in process `pid`, if there is one.
    pub fn find(pid: u32) -> Result<Option<Self>, Error> {
        let folder = format!("/proc/{pid}/fd");
        let entries = std::fs::read_dir(&folder).map_err(|source| Error::Proc {
            path: folder.clone(),
            source,
        })?;
        for entry in entries.take(FILES).flatten() {
            let Ok(link) = std::fs::read_link(entry.path()) else {
                continue;
            };
            let named = link
                .to_str()
                .is_some_and(|link| link.trim_end_matches(" (deleted)") == MEMFD);
            let Some(number) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
                .filter(|_| named)
            else {
                continue;
            };
            let Some(memfd) = open(pid, number, FileType::RegularFile, OFlags::RDWR)? else {
                continue;
            };
            let resident = Self { pid, memfd };
            // A forked child keeps its parent's for a while, under another number.
            if resident.state().is_some_and(|state| state.fd == number) {
                return Ok(Some(resident));
            }
        }
        Ok(None)
    }

    /// What it says of itself; `None` if it says nothing that can be read.
    pub fn state(&self) -> Option<State> {
        let began = Instant::now();
        // It may be writing just now.
        while began.elapsed() < Duration::from_millis(200) {
            let mut bytes = vec![0; LONGEST];
            let length = self.memfd.read_at(&mut bytes, 0).ok()?;
            if let Ok(state) = serde_json::from_slice::<State>(&bytes[..length]) {
                return (state.helper == PROTOCOL).then_some(state);
            }
            std::thread::sleep(NAP);
        }
        None
    }

    /// Writes a message into its pipe.
    fn send(&self, state: &State, text: &str) -> Result<(), Error> {
        let pid = self.pid;
        let refused = |reason: &str| Error::Helper {
            pid,
            reason: reason.to_owned(),
        };
        let length = u32::try_from(text.len()).map_err(|_error| refused("the plan is too long"))?;
        let mut message = MAGIC.to_vec();
        message.extend(length.to_le_bytes());
        message.extend(text.as_bytes());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let mut pipe = open(pid, state.pipe, FileType::Fifo, flags)?
            .ok_or_else(|| refused("it has no pipe"))?;
        // An empty pipe takes 64 KiB at once, and a plan has a quarter of that.
        match pipe.write(&message) {
            Ok(written) if written == message.len() => Ok(()),
            _ => Err(refused("it does not listen")),
        }
    }

    /// Has it bind the methods of a `plan` (see `plan.py`).
    pub fn bind(self, plan: &str) -> Result<Serving, Error> {
        let pid = self.pid;
        let refused = |reason: &str| Error::Helper {
            pid,
            reason: reason.to_owned(),
        };
        if !lock::try_exclusive(&self.memfd).map_err(Error::Lock)? {
            return Err(Error::AnotherTracer { pid, tracer: 0 });
        }
        // From here on the lock goes when `self` is dropped, and with it whatever was bound.
        let state = self
            .state()
            .ok_or_else(|| refused("its state cannot be read"))?;
        self.send(&state, plan)?;
        let serving = Serving { resident: self };
        let bound = serving.wait(PATIENCE, |now| now.serial > state.serial);
        match bound {
            Some(now) if now.state == "bound" => Ok(serving),
            Some(now) => Err(refused(
                now.reason.as_deref().unwrap_or("it gives no reason"),
            )),
            None => Err(refused("it has not answered within 5 s")),
        }
    }
}

impl Serving {
    /// Lets go, and waits until the methods are as they were. `false`: that was not seen within a second; it is still
    /// going to happen.
    pub fn release(self) -> bool {
        let unlocked = lock::release(&self.resident.memfd).is_ok();
        unlocked
            && self
                .wait(Duration::from_secs(1), |state| state.state == "waiting")
                .is_some()
    }

    /// Has it tell the last sums of routers that it samples, and sample no longer. Gives why it had stopped before.
    pub fn end_sampling(&self) -> Result<Option<String>, Error> {
        let Some(state) = self.resident.state() else {
            return Ok(None);
        };
        self.resident.send(&state, r#"{"sampling":"end"}"#)?;
        let told = self.wait(Duration::from_secs(1), |now| {
            now.serial > state.serial && now.state == "bound"
        });
        Ok(told.and_then(|now| now.sampling))
    }

    /// The methods that it has not bound, as far as it has come to them, and why.
    pub fn refused(&self) -> Vec<Told> {
        let told = self
            .resident
            .state()
            .map_or_else(Vec::new, |state| state.methods);
        told.into_iter()
            .filter(|told| told.reason.is_some())
            .collect()
    }

    fn wait(&self, patience: Duration, good: impl Fn(&State) -> bool) -> Option<State> {
        let began = Instant::now();
        while began.elapsed() < patience {
            match self.resident.state() {
                Some(state) if good(&state) => return Some(state),
                _ => std::thread::sleep(NAP),
            }
        }
        None
    }
}

/// Opens file `number` of a process anew, if it is of this kind. A device or a file that would block is not opened.
fn open(pid: u32, number: u32, kind: FileType, flags: OFlags) -> Result<Option<File>, Error> {
    let path = format!("/proc/{pid}/fd/{number}");
    let failed = |errno: rustix::io::Errno| Error::Proc {
        path: path.clone(),
        source: errno.into(),
    };
    let found: OwnedFd =
        match rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(found) => found,
            // Closed meanwhile.
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
    let about = rustix::fs::fstat(&found).map_err(failed)?;
    if FileType::from_raw_mode(about.st_mode) != kind {
        return Ok(None);
    }
    // The very file that was looked at.
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    let opened = rustix::fs::open(
        &same,
        flags | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(failed)?;
    // Only files in memory have seals: no other file named like this is meant.
    let fits = kind != FileType::RegularFile || rustix::fs::fcntl_get_seals(&opened).is_ok();
    Ok(fits.then(|| opened.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_helper_has_none() {
        assert!(Resident::find(std::process::id()).unwrap().is_none());
    }

    #[test]
    fn only_a_file_in_memory_with_a_state_and_its_own_number_is_a_helper() {
        let fd =
            rustix::fs::memfd_create("profilemate-helper", rustix::fs::MemfdFlags::ALLOW_SEALING)
                .unwrap();
        let file = File::from(fd);
        let state = |number: i32| {
            format!(
                r#"{{"helper":1,"fd":{number},"pipe":0,"python":"3.11.7","state":"waiting","serial":0,"reason":null}}"#
            )
        };
        file.write_all_at(b"{", 0).unwrap();
        assert!(Resident::find(std::process::id()).unwrap().is_none());
        file.write_all_at(state(file.as_raw_fd() + 1000).as_bytes(), 0)
            .unwrap();
        assert!(Resident::find(std::process::id()).unwrap().is_none());
        file.set_len(0).unwrap();
        file.write_all_at(state(file.as_raw_fd()).as_bytes(), 0)
            .unwrap();
        let found = Resident::find(std::process::id()).unwrap().unwrap();
        assert_eq!(found.state().unwrap().python, "3.11.7");
        // File 0 is no pipe, or nobody reads a plan from it.
        assert!(matches!(
            found.bind("{}"),
            Err(Error::Helper { .. } | Error::Proc { .. })
        ));
    }
}
