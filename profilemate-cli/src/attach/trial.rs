//! Trying out what an attach needs of this kernel, on memory of our own.

use std::os::fd::AsRawFd as _;

use super::nop5::memfd;
use super::{Error, Kernel, Options};

/// Loads the programs and puts a uprobe at `offset` of a file in memory that holds `code` and that nobody maps.
/// Everything is gone again when this returns. Takes about half a second, most of it the verifier's.
pub fn trial(code: &[u8], offset: u64) -> Result<(), Error> {
    let mut kernel = Kernel::load(Options {
        ring_bytes: 4096,
        ..Options::default()
    })?;
    let file = memfd(code).map_err(|source| Error::SelfTest { source })?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    kernel.attach_page(path.as_ref(), offset, 0).map(drop)
}
