//! ProfileMate's eBPF programs. Built for `bpfel-unknown-none` by `cargo xtask bpf build`; on a host this compiles to
//! an empty `main`, so that the usual tools check it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// An atomic addition whose result is not used is the one atomic operation that every supported kernel has; the stable
// library offers none for this target.
#![cfg_attr(
    target_arch = "bpf",
    feature(core_intrinsics),
    allow(internal_features, reason = "see above")
)]
#![allow(
    unexpected_cfgs,
    reason = "`bpf_target_arch` is set by `cargo xtask bpf build`"
)]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "the programs run in the kernel only")
)]
#![allow(
    clippy::cast_ptr_alignment,
    clippy::needless_pass_by_value,
    reason = "offsets into a workplace are aligned by construction; a program takes its context by value"
)]

mod probe;

/// The verifier admits no path that panics, so this is never reached.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for programs under the GPL only.
#[cfg(target_arch = "bpf")]
// SAFETY: the section and the name are what loaders look for; nothing else has them.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
