//! `bpf(2)`, for what our eBPF library has not got yet: one link for many uprobes (Linux 6.6), and functions that a
//! helper calls in an object without type information (Linux 5.17).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::btf::{self, FunctionInfo};

// Numbers from `linux/bpf.h`.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const BTF_LOAD: libc::c_long = 18;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
const PROG_TYPE_KPROBE: u32 = 2;
const TRACE_UPROBE_MULTI: u32 = 48;
const TRACE_UPROBE_SESSION: u32 = 57;
const UPROBE_MULTI_RETURN: u32 = 1;
/// Bytes of a program's name, with its final zero.
const NAME: usize = 16;
/// Bytes of an instruction.
const INSTRUCTION: usize = 8;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
}

/// `union bpf_attr` for `BPF_BTF_LOAD`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
}

/// How a program is to be attached, which the kernel is told when it is loaded.
#[derive(Clone, Copy, Debug)]
pub enum Attached {
    /// One at a time; also programs that such a one goes on in.
    One,
    /// By [`link_uprobes`]; also programs that such a one goes on in.
    Many,
    /// By [`link_uprobes`], and run at the begin of a function and, if they then return 0, at its end; also programs
    /// that such a one goes on in.
    Session,
}

impl Attached {
    /// The kernel's number.
    fn number(self) -> u32 {
        match self {
            Self::One => 0,
            Self::Many => TRACE_UPROBE_MULTI,
            Self::Session => TRACE_UPROBE_SESSION,
        }
    }
}

/// `union bpf_attr` for `BPF_LINK_CREATE` of many uprobes.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_MAP_CREATE`, as far as it is used.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr` for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct MapUpdate {
    map_fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes a program array for programs that are not [`Attached::One`]: the kernel keeps those apart from other ones.
pub fn program_array(entries: u32) -> io::Result<OwnedFd> {
    let attr = MapCreate {
        map_type: MAP_TYPE_PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: entries,
    };
    // SAFETY: the structure is what the command takes.
    unsafe { command(MAP_CREATE, (&raw const attr).cast(), size_of::<MapCreate>()) }
}

/// Puts `program` into entry `index` of a program array.
pub fn set_program(array: BorrowedFd<'_>, index: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd() as u32;
    let attr = MapUpdate {
        map_fd: array.as_raw_fd() as u64,
        key: (&raw const index) as u64,
        value: (&raw const program) as u64,
        flags: 0,
    };
    // SAFETY: the structure is what the command takes, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            MAP_UPDATE_ELEM,
            (&raw const attr).cast::<libc::c_void>(),
            size_of::<MapUpdate>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

const _: () = assert!(size_of::<ProgLoad>() == 96 && size_of::<LinkCreate>() == 64);

/// Loads a program that is attached to uprobes. `code` is its relocated instructions.
pub fn load(name: &str, code: &[[u8; INSTRUCTION]], attached: Attached) -> io::Result<OwnedFd> {
    let functions = btf::functions(code);
    // Older kernels have no use for this, and some programs no need.
    let types = match functions.as_slice() {
        [_only] => None,
        _ => Some(load_types()?),
    };
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_KPROBE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        expected_attach_type: attached.number(),
        ..ProgLoad::default()
    };
    if let Some(types) = &types {
        attr.prog_btf_fd = types.as_raw_fd() as u32;
        attr.func_info_rec_size = size_of::<FunctionInfo>() as u32;
        attr.func_info = functions.as_ptr() as u64;
        attr.func_info_cnt = functions.len() as u32;
    }
    for (to, from) in attr.prog_name.iter_mut().zip(name.bytes().take(NAME - 1)) {
        *to = from;
    }
    // SAFETY: the structure is what the command takes, and what it points to outlives the call.
    unsafe { command(PROG_LOAD, (&raw const attr).cast(), size_of::<ProgLoad>()) }
}

fn load_types() -> io::Result<OwnedFd> {
    let types = btf::types();
    let attr = BtfLoad {
        btf: types.as_ptr() as u64,
        btf_size: types.len() as u32,
        ..BtfLoad::default()
    };
    // SAFETY: the structure is what the command takes, and what it points to outlives the call.
    unsafe { command(BTF_LOAD, (&raw const attr).cast(), size_of::<BtfLoad>()) }
}

/// Where uprobes are put, and what each is told.
#[derive(Clone, Copy, Debug)]
pub struct Uprobes<'u> {
    /// The file.
    pub path: &'u CStr,
    /// Offsets in the file.
    pub offsets: &'u [u64],
    /// As many cookies.
    pub cookies: &'u [u64],
    /// The only process that they are put into.
    pub pid: u32,
    /// Whether the program runs when the functions that begin there return, and only then.
    pub at_return: bool,
}

/// Attaches a program that is loaded to be `attached` so at many places with one link. They go when the link is closed.
pub fn link_uprobes(
    program: BorrowedFd<'_>,
    attached: Attached,
    uprobes: &Uprobes<'_>,
) -> io::Result<OwnedFd> {
    if uprobes.offsets.len() != uprobes.cookies.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: attached.number(),
        path: uprobes.path.as_ptr() as u64,
        offsets: uprobes.offsets.as_ptr() as u64,
        cookies: uprobes.cookies.as_ptr() as u64,
        cnt: uprobes.offsets.len() as u32,
        multi_flags: if uprobes.at_return {
            UPROBE_MULTI_RETURN
        } else {
            0
        },
        pid: uprobes.pid,
        ..LinkCreate::default()
    };
    // SAFETY: the structure is what the command takes, and what it points to outlives the call.
    unsafe {
        command(
            LINK_CREATE,
            (&raw const attr).cast(),
            size_of::<LinkCreate>(),
        )
    }
}

/// Whether this kernel attaches many uprobes with one link, and to a process rather than (as the first such kernels
/// did) to one thread of it. Those that do see at once that the process id is none, before they look at the path.
pub fn links_uprobes(program: BorrowedFd<'_>) -> bool {
    let impossible = Uprobes {
        path: c"/",
        offsets: &[0],
        cookies: &[0],
        pid: u32::MAX,
        at_return: false,
    };
    let answer = link_uprobes(program, Attached::Many, &impossible);
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// # Safety
///
/// `attr` is what `command` takes, `size` bytes long, and its pointers are valid.
unsafe fn command(
    command: libc::c_long,
    attr: *const libc::c_void,
    size: usize,
) -> io::Result<OwnedFd> {
    // SAFETY: as the caller says.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
