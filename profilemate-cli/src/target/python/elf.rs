//! Symbols and build id of an ELF file that the target has mapped.

use std::collections::HashMap;
use std::fs::File;

use object::read::ReadCache;
use object::{Object, ObjectSegment, ObjectSymbol, SegmentFlags};

/// What is wanted of an ELF file.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// Values of the wanted symbols that are defined, as linked (without load bias).
    pub(super) symbols: HashMap<&'static str, u64>,
    /// Hexadecimal build id.
    pub(super) build_id: Option<String>,
    /// Loaded segments: (address as linked, file offset, file size).
    pub(super) segments: Vec<(u64, u64, u64)>,
}

/// Symbols looked at, at most: a bound on what a made-up file can cost.
const SYMBOLS: usize = 2_000_000;

/// Reads the symbols named in `wanted` from the dynamic symbol table, and from the full one if some are missing there.
pub(super) fn read(file: File, wanted: &[&'static str]) -> Result<Image, object::Error> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache)?;
    let mut image = Image::default();
    for segment in elf.segments() {
        if matches!(segment.flags(), SegmentFlags::Elf { .. }) {
            let (offset, size) = segment.file_range();
            image.segments.push((segment.address(), offset, size));
        }
    }
    image.build_id = elf.build_id()?.map(hex);
    collect(elf.dynamic_symbols(), wanted, &mut image.symbols);
    if image.symbols.len() < wanted.len() {
        collect(elf.symbols(), wanted, &mut image.symbols);
    }
    Ok(image)
}

fn collect<'data>(
    symbols: impl Iterator<Item = impl ObjectSymbol<'data>>,
    wanted: &[&'static str],
    into: &mut HashMap<&'static str, u64>,
) {
    for symbol in symbols.take(SYMBOLS) {
        if symbol.is_undefined() || symbol.address() == 0 {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        if let Some(wanted) = wanted.iter().find(|wanted| **wanted == name) {
            into.entry(wanted).or_insert(symbol.address());
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().take(64).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Image {
    /// Load bias of a mapping of this file: what to add to an address as linked. `None` if no segment is mapped there.
    pub(super) fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|(_, begin, size)| {
            let first_page = begin & !4095;
            offset >= first_page && offset < begin.saturating_add(*size)
        })?;
        Some(start.wrapping_sub(segment.0.wrapping_sub(segment.1).wrapping_add(offset)))
    }
}
