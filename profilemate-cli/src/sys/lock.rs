//! `flock`: a lock that the kernel drops when its holder dies, however it dies.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FlockOperation;

/// Takes the exclusive lock of an open file without waiting. `false` if somebody else holds it.
pub fn try_exclusive(file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock back.
pub fn release(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(file, FlockOperation::Unlock)?)
}
