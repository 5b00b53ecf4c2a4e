//! The two clocks that events carry.

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a timespec that the call may write.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // The clock exists on every Linux, so the call cannot fail; if it did, the time would be 0.
    if result == 0 {
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    } else {
        0
    }
}

/// The cycle counter that the marker page reads: the TSC.
#[cfg(target_arch = "x86_64")]
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The cycle counter that a marker page would read: the virtual counter.
#[cfg(target_arch = "aarch64")]
pub fn cycles() -> u64 {
    let counter: u64;
    // SAFETY: the register is readable in user space on Linux, and reading it touches no memory.
    unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) counter, options(nomem, nostack)) };
    counter
}

/// The cycle counter: none is known on this architecture, so nanoseconds stand in.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn cycles() -> u64 {
    monotonic_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_forward() {
        let (time, count) = (monotonic_ns(), cycles());
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(monotonic_ns() > time);
        assert!(cycles() > count);
    }
}
