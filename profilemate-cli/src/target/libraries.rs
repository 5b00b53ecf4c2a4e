//! The GPU libraries that a process has mapped.

use std::collections::BTreeMap;

use super::maps;

/// What is looked for: how the file's name begins, and what it is.
const KNOWN: [(&str, &str); 5] = [
    ("libcuda.so", "CUDA driver"),
    ("libcudart.so", "CUDA runtime"),
    ("libcupti.so", "CUPTI"),
    ("libnccl.so", "NCCL"),
    ("libamdhip64.so", "HIP runtime"),
];

/// A mapped library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// What it is.
    pub kind: &'static str,
    /// Its path in the target's mount namespace.
    pub path: String,
}

/// The GPU libraries that process `pid` has mapped, each once; `None` if its memory map cannot be read.
pub fn gpu(pid: u32) -> Option<Vec<Library>> {
    let bytes = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let maps = maps::parse(&String::from_utf8_lossy(&bytes));
    Some(known(maps.iter().map(|mapping| mapping.path.as_str())))
}

fn known<'p>(paths: impl Iterator<Item = &'p str>) -> Vec<Library> {
    let mut found = BTreeMap::new();
    for path in paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        if let Some((_, kind)) = KNOWN.iter().find(|(start, _)| name.starts_with(start)) {
            found.insert(path.to_owned(), *kind);
        }
    }
    found
        .into_iter()
        .map(|(path, kind)| Library { kind, path })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_is_listed_once_and_others_are_not() {
        let paths = [
            "/usr/lib/x86_64-linux-gnu/libcuda.so.570.86.15",
            "/usr/lib/x86_64-linux-gnu/libcuda.so.570.86.15",
            "/opt/nvidia/libcudart.so.12",
            "/usr/lib/libc.so.6",
            "/home/me/libcuda.so.d/note",
        ];
        let found = known(paths.into_iter());
        let kinds: Vec<&str> = found.iter().map(|library| library.kind).collect();
        assert_eq!(kinds, ["CUDA runtime", "CUDA driver"], "{found:?}");
    }
}
