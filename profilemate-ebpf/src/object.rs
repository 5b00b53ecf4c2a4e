//! The committed object for this host's architecture.

/// Gives the bytes the alignment that an ELF reader wants.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

#[cfg(target_arch = "x86_64")]
macro_rules! object {
    ($tail:literal) => {
        include_bytes!(concat!("../object/profilemate.x86_64.o", $tail))
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! object {
    ($tail:literal) => {
        include_bytes!(concat!("../object/profilemate.aarch64.o", $tail))
    };
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("ProfileMate's eBPF object exists for x86_64 and aarch64 hosts only");

const LENGTH: usize = object!("").len();
static ALIGNED: Aligned<LENGTH> = Aligned(*object!(""));

/// The eBPF object (ELF, no debug information, no BTF).
pub static OBJECT: &[u8] = &ALIGNED.0;
/// What the committed files were made from: `sha256sum` lines of sources, dependencies and objects.
pub const OBJECT_SHA256: &str = include_str!("../object/SOURCES.sha256");
/// Versions of the compiler and linker that built the objects.
pub const TOOLCHAIN: &str = include_str!("../object/TOOLCHAIN");
