//! Whether one link can hear of a function's begin and end: tried out on a forked child of our own, once, because a
//! kernel that takes such a link need not keep what our programs rely on.

use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::OnceLock;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use profilemate_ebpf as object;

use crate::attach::nop5::{Child, READY, mapped, memfd};
use crate::attach::relocated::Relocated;
use crate::sys::bpf::{self, Attached, Uprobes};

/// Two functions, at 0 and at [`SECOND`]: an instruction that every kernel emulates, and the return.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 18] = [
    0x90, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x90, 0xc3,
];
#[cfg(not(target_arch = "x86_64"))]
const CODE: [u8; 24] = [
    0x1f, 0x20, 0x03, 0xd5, 0xc0, 0x03, 0x5f, 0xd6, 0, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0x20, 0x03, 0xd5,
    0xc0, 0x03, 0x5f, 0xd6,
];
/// Where the second function begins.
const SECOND: u64 = 16;
/// Calls of each.
const CALLS: u64 = 3;

/// Says why not, if one link can not hear of both on this kernel.
pub(super) fn works(ebpf: &Ebpf, bytes: &[u8]) -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(|| attempt(ebpf, bytes)).clone()
}

fn attempt(ebpf: &Ebpf, bytes: &[u8]) -> Result<(), String> {
    let words = |error: io::Error| error.to_string();
    let program =
        Relocated::new(ebpf, bytes, None)?.load(object::SESSION_TRIED, Attached::Session)?;
    let code = memfd(&CODE).map_err(words)?;
    let mut child = Child::start(&code, life).map_err(words)?;
    if child.answer().map_err(words)? != Some(READY) {
        return Err("the child did not map the code".into());
    }
    let path = CString::new(format!("/proc/self/fd/{}", code.as_raw_fd())).map_err(|_| "a name")?;
    let uprobes = Uprobes {
        path: &path,
        offsets: &[0, SECOND],
        // The end of the first one's calls is wanted, that of the second one's not.
        cookies: &[0, 1],
        pid: child.pid(),
        at_return: false,
    };
    let link = bpf::link_uprobes(program.as_fd(), Attached::Session, &uprobes).map_err(words)?;
    child.go.write_all(&[READY]).map_err(words)?;
    let called = child.answer().map_err(words)?;
    // The kernel takes its time to detach.
    std::thread::spawn(move || drop(link));
    let tried: PerCpuArray<&MapData, u64> = ebpf
        .map(object::TRIED)
        .ok_or("there is no map of what was tried")?
        .try_into()
        .map_err(|_| "the map of what was tried is another one")?;
    let heard = |index| -> u64 { tried.get(&index, 0).map_or(0, |values| values.iter().sum()) };
    match (called, heard(0), heard(1)) {
        (Some(READY), begins, ends) if (begins, ends) == (2 * CALLS, CALLS) => Ok(()),
        (_, begins, ends) => Err(format!(
            "of {} calls {begins} begins and {ends} ends were heard of",
            2 * CALLS
        )),
    }
}

/// The child's life: map, wait for the probes, call both functions.
///
/// # Safety
///
/// Runs in a forked child, so: system calls only, no allocation, no lock, no unwinding. The descriptors are open.
unsafe fn life(parent: libc::pid_t, page: i32, wait: i32, say: i32) -> ! {
    // SAFETY: only async-signal-safe calls, with valid pointers; the mapped code is the one above.
    unsafe {
        let code = mapped(parent, page, wait, say);
        let first: extern "C" fn() = std::mem::transmute(code);
        let second: extern "C" fn() = std::mem::transmute(code.add(SECOND as usize));
        for _ in 0..CALLS {
            first();
            second();
        }
        // Once more: it has called the functions.
        let word = READY;
        libc::write(say, (&raw const word).cast(), 1);
        libc::_exit(0)
    }
}
