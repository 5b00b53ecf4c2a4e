//! Reading foreign memory, wherever it comes from.

use bytemuck::Pod;

/// A source of another process's memory: the kernel's `bpf_probe_read_user`, `process_vm_readv`, or recorded bytes.
pub trait Memory {
    /// Reads one `T` at `address`; `None` where the address is not readable.
    fn read<T: Pod>(&self, address: u64) -> Option<T>;

    /// Reads one `T` at `address`; zeros where the address is not readable. For reads behind a pointer that was
    /// readable a moment ago, where zero means "not there" anyway.
    #[inline(always)]
    fn read_or_zero<T: Pod>(&self, address: u64) -> T {
        self.read(address).unwrap_or_else(T::zeroed)
    }
}
