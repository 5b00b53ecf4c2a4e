//! Thin, safe wrappers around the system calls that have none in the crates we use. With [`crate::touch`] the only
//! room of user space that has `unsafe`.

pub mod bpf;
#[cfg(target_arch = "x86_64")]
pub mod breakpoint;
pub mod btf;
pub mod clock;
pub mod lock;
pub mod perf;
pub mod process;
pub mod ptrace;
pub mod status;
pub mod vm;
