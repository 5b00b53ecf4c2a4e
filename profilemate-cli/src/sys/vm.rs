//! Another process's memory, by `process_vm_readv` and `process_vm_writev`: no stop, no shared file offset.

use std::io;

use bytemuck::Pod;

/// Reads exactly `into.len()` bytes at `address` of process `pid`.
pub fn read(pid: u32, address: u64, into: &mut [u8]) -> io::Result<()> {
    exact(into.len(), read_some(pid, address, into)?)
}

/// Reads up to `into.len()` bytes: fewer where the readable memory ends earlier.
pub fn read_some(pid: u32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = remote(address, into.len())?;
    // SAFETY: `local` spans the exclusively borrowed `into`; the remote address is only looked at by the kernel.
    let done = unsafe {
        libc::process_vm_readv(pid_t(pid)?, &raw const local, 1, &raw const remote, 1, 0)
    };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Reads one value; `bytemuck` knows that any bytes make one.
pub fn read_value<T: Pod>(pid: u32, address: u64) -> io::Result<T> {
    let mut value = T::zeroed();
    read(pid, address, bytemuck::bytes_of_mut(&mut value))?;
    Ok(value)
}

/// Writes exactly `from` at `address` of process `pid`. No atomicity is promised: write only what nobody reads
/// meanwhile, or what differs in one byte.
pub(crate) fn write(pid: u32, address: u64, from: &[u8]) -> io::Result<()> {
    let local = libc::iovec {
        iov_base: from.as_ptr().cast_mut().cast(),
        iov_len: from.len(),
    };
    let remote = remote(address, from.len())?;
    // SAFETY: `local` spans `from`, which the call only reads; the remote address is only looked at by the kernel.
    let done = unsafe {
        libc::process_vm_writev(pid_t(pid)?, &raw const local, 1, &raw const remote, 1, 0)
    };
    exact(
        from.len(),
        usize::try_from(done).map_err(|_| io::Error::last_os_error())?,
    )
}

fn exact(wanted: usize, done: usize) -> io::Result<()> {
    if done == wanted {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

fn pid_t(pid: u32) -> io::Result<libc::pid_t> {
    libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn remote(address: u64, len: usize) -> io::Result<libc::iovec> {
    let base = usize::try_from(address).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(libc::iovec {
        iov_base: base as *mut libc::c_void,
        iov_len: len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_reads_back_and_null_does_not() {
        let value = std::hint::black_box(0x1122_3344_5566_7788_u64);
        let own = std::process::id();
        assert_eq!(
            read_value::<u64>(own, &raw const value as u64).ok(),
            Some(value)
        );
        assert!(read_value::<u64>(own, 0).is_err());
        assert!(read_value::<u64>(own, u64::MAX - 3).is_err());
    }

    #[test]
    fn own_memory_can_be_written() {
        let mut value = 1_u64;
        write(
            std::process::id(),
            &raw mut value as u64,
            &7_u64.to_ne_bytes(),
        )
        .unwrap();
        assert_eq!(std::hint::black_box(value), 7);
        assert!(write(std::process::id(), 8, &[0]).is_err());
    }
}
