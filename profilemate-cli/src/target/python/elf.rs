//! Symbols and build id of an ELF file that the target has mapped.

use std::collections::HashMap;
use std::fs::File;

use object::read::ReadCache;
use object::{Object, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolKind};

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
    let mut image = Image {
        segments: segments(&elf),
        build_id: elf.build_id()?.map(hex),
        ..Image::default()
    };
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

/// Functions of an ELF file by name.
#[derive(Debug, Default)]
pub(super) struct Functions {
    found: Vec<(&'static str, u64)>,
    /// Hexadecimal build id.
    pub(super) build_id: Option<String>,
    segments: Vec<(u64, u64, u64)>,
}

/// Reads where the functions named in `wanted` are, by both symbol tables.
pub(super) fn functions(file: File, wanted: &[&'static str]) -> Result<Functions, object::Error> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache)?;
    let mut functions = Functions {
        build_id: elf.build_id()?.map(hex),
        segments: segments(&elf),
        ..Functions::default()
    };
    let symbols = elf.dynamic_symbols().take(SYMBOLS);
    for symbol in symbols.chain(elf.symbols().take(SYMBOLS)) {
        if symbol.is_undefined() || symbol.address() == 0 || symbol.kind() != SymbolKind::Text {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        if let Some(wanted) = wanted.iter().find(|wanted| **wanted == name) {
            functions.found.push((wanted, symbol.address()));
        }
    }
    functions.found.sort_unstable();
    functions.found.dedup();
    Ok(functions)
}

impl Functions {
    /// Addresses of the functions of that name, as linked.
    pub(super) fn addresses(&self, name: &str) -> Vec<u64> {
        let named = self.found.iter().filter(|(found, _)| *found == name);
        named.map(|(_, address)| *address).collect()
    }

    /// Load bias of a mapping of this file.
    pub(super) fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        bias(&self.segments, start, offset)
    }
}

fn segments<'data>(elf: &impl Object<'data>) -> Vec<(u64, u64, u64)> {
    elf.segments()
        .filter(|segment| matches!(segment.flags(), SegmentFlags::Elf { .. }))
        .map(|segment| {
            let (offset, size) = segment.file_range();
            (segment.address(), offset, size)
        })
        .collect()
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
        bias(&self.segments, start, offset)
    }
}

fn bias(segments: &[(u64, u64, u64)], start: u64, offset: u64) -> Option<u64> {
    let (address, begin, _) = segments.iter().find(|(_, begin, size)| {
        let first_page = begin & !4095;
        offset >= first_page && offset < begin.saturating_add(*size)
    })?;
    Some(start.wrapping_sub(address.wrapping_sub(*begin).wrapping_add(offset)))
}
