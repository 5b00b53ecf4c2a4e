//! By the interpreter's own interface for remote debugging (PEP 768, CPython 3.14): the path of a script is written
//! where the main thread looks when it is asked to, as `sys.remote_exec` does.
//!
//! There is one place for a request, so one that waits there already is not overwritten, and ours is taken back if
//! nobody has come for it. The main thread is first left to come by itself, which it does for any other reason within
//! milliseconds as a rule; only then it is asked to, by a bit in a byte in which it also keeps others.

use std::io;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid};

use super::{NAP, PATIENCE, memory};
use crate::sys::vm;
use crate::target::python::RemoteEntry;
use crate::touch::Error;
use crate::touch::check::read_proc;

/// For how long the main thread is left to come by itself.
const UNASKED: Duration = Duration::from_millis(200);
/// `_PY_EVAL_PLEASE_STOP_BIT`.
const PLEASE_STOP: u8 = 1 << 5;
/// Folders in which the script may be put, likeliest first.
const FOLDERS: [&str; 4] = ["/tmp", "/dev/shm", "/var/tmp", "/run"];

/// Has the main thread of process `pid` run `code`, and waits until `began`.
pub(super) fn run(
    pid: u32,
    entry: &RemoteEntry,
    code: &str,
    began: impl Fn() -> bool,
) -> Result<(), Error> {
    let request = Request { pid, entry };
    if request.is_pending()? {
        return Err(Error::RequestWaits { pid });
    }
    let script = Script::put(pid, code).map_err(|source| Error::Script { pid, source })?;
    let mut path = script.path.clone().into_bytes();
    path.push(0);
    if path.len() as u64 > entry.path_size {
        let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
        return Err(Error::Script { pid, source });
    }
    let mut before = vec![0; path.len()];
    vm::read(pid, entry.path, &mut before).map_err(memory(pid, entry.path))?;
    request.write(entry.path, &path)?;
    request.write(entry.pending, &1_i32.to_ne_bytes())?;
    let result = request.wait(&began);
    // Nobody looks at the path any more: the request was served, or taken back.
    let undone = request.write(entry.path, &before);
    result.and(undone)
}

struct Request<'a> {
    pid: u32,
    entry: &'a RemoteEntry,
}

impl Request<'_> {
    fn wait(&self, began: impl Fn() -> bool) -> Result<(), Error> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if began() {
                return Ok(());
            }
            if start.elapsed() > UNASKED && self.is_pending()? {
                self.ask()?;
            }
            std::thread::sleep(NAP);
        }
        if self.is_pending()? {
            self.write(self.entry.pending, &0_i32.to_ne_bytes())?;
        }
        // It may have come for it at the last moment, and still be reading the path.
        std::thread::sleep(UNASKED);
        if began() {
            return Ok(());
        }
        Err(Error::NotReached {
            pid: self.pid,
            waited_ms: PATIENCE.as_millis() as u64,
        })
    }

    /// Asks the main thread to look, if it is not asked already.
    fn ask(&self) -> Result<(), Error> {
        let at = self.entry.breaker;
        let byte: u8 = vm::read_value(self.pid, at).map_err(memory(self.pid, at))?;
        if byte & PLEASE_STOP == 0 {
            self.write(at, &[byte | PLEASE_STOP])?;
        }
        Ok(())
    }

    fn is_pending(&self) -> Result<bool, Error> {
        let at = self.entry.pending;
        let pending: i32 = vm::read_value(self.pid, at).map_err(memory(self.pid, at))?;
        Ok(pending != 0)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        vm::write(self.pid, address, bytes).map_err(memory(self.pid, address))
    }
}

/// A file in the target's own file system, for its user only. Removed when dropped.
struct Script {
    folder: OwnedFd,
    name: String,
    /// Its path, as the target sees it.
    path: String,
}

impl Script {
    fn put(pid: u32, text: &str) -> io::Result<Self> {
        let (user, group) = owner(pid).ok_or(io::ErrorKind::InvalidData)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for folder in FOLDERS {
            let result = rustix::fs::openat2(&root, folder, flags, Mode::empty(), resolve)
                .map_err(io::Error::from)
                .and_then(|opened| Self::put_into(opened, folder, text, user, group));
            match result {
                Ok(script) => return Ok(script),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn put_into(
        folder: OwnedFd,
        place: &str,
        text: &str,
        user: Uid,
        group: Gid,
    ) -> io::Result<Self> {
        let name = format!(".profilemate-{:016x}.py", fastrand::u64(..));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR)?;
        let script = Self {
            folder,
            path: format!("{place}/{name}"),
            name,
        };
        rustix::fs::fchown(&file, Some(user), Some(group))?;
        io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())?;
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let removed = rustix::fs::unlinkat(&self.folder, &self.name, rustix::fs::AtFlags::empty());
        if let Err(error) = removed {
            log::warn!("cannot remove {}: {error}", self.path);
        }
    }
}

/// User and group with which a process opens files.
fn owner(pid: u32) -> Option<(Uid, Gid)> {
    let status = read_proc(pid, "status").ok()?;
    let last = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().nth(3)?.parse::<u32>().ok()
    };
    Some((Uid::from_raw(last("Uid")?), Gid::from_raw(last("Gid")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_its_targets_alone_and_goes_with_its_request() {
        let own = std::process::id();
        let script = Script::put(own, "pass\n").unwrap();
        let path = script.path.clone();
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&about) & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "pass\n");
        drop(script);
        assert!(!std::path::Path::new(&path).exists());
    }
}
