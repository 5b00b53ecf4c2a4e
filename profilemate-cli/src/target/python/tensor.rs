//! PyTorch's tensors: what is needed to recognise one in the process.
//!
//! A tensor object leads to a `c10::TensorImpl`. Its class is told by the address of its vtable, which `libc10.so`
//! exports. The rest of its layout is checked at each read (`profilemate-common/src/path/eval/tensor.rs`).

use profilemate_common::memory::Memory as _;

use super::elf;
use super::memory::ProcessMemory;
use super::resolve::Resolver;
use crate::target::maps;

/// The vtable's symbol.
const VTABLE: &str = "_ZTVN3c1010TensorImplE";
/// A vtable begins with the offset to the top (0) and the type's description; the pointer in an object is behind.
const FIRST_FUNCTION: u64 = 16;
/// Versions (major, minor) whose layout is known.
const VERSIONS: std::ops::RangeInclusive<(u32, u32)> = (2, 6)..=(2, 13);
/// The first version in which the object holds the pointer itself and not a `MaybeOwned`.
const BARE_POINTER: (u32, u32) = (2, 10);

/// How tensors are recognised in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensors {
    /// Address that the first word of a `c10::TensorImpl` holds.
    pub vtable: u64,
    /// Where in the Python object the pointer to it lies.
    pub pointer: i32,
}

/// Why tensors are not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// PyTorch is not imported.
    #[error("PyTorch is not imported")]
    NoTorch,
    /// Another version.
    #[error("the memory layout of PyTorch {version} is not known (2.6 to 2.13 are)")]
    Version {
        /// What it says of itself.
        version: String,
    },
    /// No `libc10.so`, or several.
    #[error("the process maps {count} files named libc10.so")]
    Libraries {
        /// How many.
        count: usize,
    },
    /// The library cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// Path in the target.
        path: String,
        /// Why.
        reason: String,
    },
}

/// How tensors are recognised in the process of `resolver`, whose memory is `memory`.
pub fn tensors(
    memory: ProcessMemory,
    resolver: &Resolver<'_, ProcessMemory>,
) -> Result<Tensors, TensorError> {
    let text = resolver
        .module_text("torch.version", "__version__")
        .ok_or(TensorError::NoTorch)?;
    let version = release(&text)
        .filter(|version| VERSIONS.contains(version))
        .ok_or(TensorError::Version { version: text })?;
    Ok(Tensors {
        vtable: vtable(memory)?,
        pointer: if version < BARE_POINTER { 24 } else { 16 },
    })
}

fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether a mapped file is the library, also if another has taken its place on the disk.
fn is_library(path: &str) -> bool {
    path.strip_suffix(" (deleted)")
        .unwrap_or(path)
        .ends_with("/libc10.so")
}

fn vtable(memory: ProcessMemory) -> Result<u64, TensorError> {
    let text = std::fs::read_to_string(format!("/proc/{}/maps", memory.pid)).unwrap_or_default();
    let mappings = maps::parse(&text);
    let mut found: Vec<&maps::Mapping> = Vec::new();
    for mapping in mappings.iter().filter(|own| is_library(&own.path)) {
        let same =
            |other: &&maps::Mapping| other.inode == mapping.inode && other.path == mapping.path;
        if !found.iter().any(same) {
            found.push(mapping);
        }
    }
    let [mapping] = found[..] else {
        return Err(TensorError::Libraries { count: found.len() });
    };
    let broken = |reason: String| TensorError::File {
        path: mapping.path.clone(),
        reason,
    };
    let file = maps::open(memory.pid, mapping).map_err(|error| broken(error.to_string()))?;
    let image = elf::read(file, &[VTABLE]).map_err(|error| broken(error.to_string()))?;
    let symbol = image.symbols.get(VTABLE).copied();
    let bias = image.bias(mapping.addresses.start, mapping.offset);
    let address = symbol
        .zip(bias)
        .map(|(symbol, bias)| bias.wrapping_add(symbol))
        .ok_or_else(|| broken(format!("it has no symbol {VTABLE}")))?;
    match memory.read::<[u64; 2]>(address) {
        Some([0, description]) if description != 0 => Ok(address.wrapping_add(FIRST_FUNCTION)),
        _ => Err(broken(format!("{VTABLE} is no vtable in memory"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_was_replaced_on_the_disk_is_still_the_one_in_use() {
        assert!(is_library(
            "/venv/lib/python3.12/site-packages/torch/lib/libc10.so"
        ));
        assert!(is_library("/tmp/x/libc10.so (deleted)"));
        assert!(!is_library("/tmp/x/libc10.so.bak") && !is_library("/tmp/x/mylibc10.so"));
    }

    #[test]
    fn versions_that_are_not_known_are_refused() {
        let known = |text| release(text).is_some_and(|version| VERSIONS.contains(&version));
        assert!(known("2.13.0+cu130"));
        assert!(known("2.9.1+cpu"));
        assert!(!known("2.14.0a0+git1234"));
        assert!(!known("1.13.1"));
        assert!(!known("2"));
    }
}
