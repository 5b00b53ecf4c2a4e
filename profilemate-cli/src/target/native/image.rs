//! The functions of one library file: by its symbols, and for functions without one by the table of its unwind
//! information.

use std::fs::File;
use std::ops::Range;

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};
use object::read::ReadCache;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

/// Symbols of a file that are looked at, at most.
const SYMBOLS: usize = 1 << 20;
/// Functions in a table of unwind information, at most.
const FUNCTIONS: usize = 1 << 20;
/// Bytes of a section that are read, at most.
const SECTION: u64 = 256 << 20;
/// Bytes of an exported function in which its jump is looked for.
const STUB: u64 = 32;

/// A named piece of code, at addresses as linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Where.
    pub(super) range: Range<u64>,
    /// The symbol's name.
    pub(super) name: String,
}

/// An exported function that does nothing but jump where a variable says, as all of libcuda's do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    /// The symbol's name.
    pub(super) name: String,
    /// Address of the variable, as linked.
    pub(super) variable: u64,
}

/// What a library file tells of its functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// Segments: where in the file, and at which address they are linked.
    pub(super) segments: Vec<(Range<u64>, u64)>,
    /// Functions with a symbol and a size, by address.
    pub(super) named: Vec<Named>,
    /// Where functions begin, sorted, with a symbol or without.
    pub(super) starts: Vec<u64>,
    /// Exported functions that lead on.
    pub(super) stubs: Vec<Stub>,
}

impl Image {
    /// Reads a file. With `stubs`, functions that only jump on are told.
    pub(super) fn read(file: &File, stubs: bool) -> Result<Self, object::Error> {
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache)?;
        let mut image = Self {
            segments: elf
                .segments()
                .map(|segment| {
                    let (offset, size) = segment.file_range();
                    (offset..offset.saturating_add(size), segment.address())
                })
                .collect(),
            starts: starts(&elf).unwrap_or_default(),
            ..Self::default()
        };
        for symbol in elf.dynamic_symbols().chain(elf.symbols()).take(SYMBOLS) {
            let is_code = symbol.kind() == SymbolKind::Text && !symbol.is_undefined();
            let Some(name) = symbol.name().ok().filter(|_| is_code && symbol.size() > 0) else {
                continue;
            };
            if stubs {
                image
                    .stubs
                    .extend(jump(&elf, symbol.address()).map(|variable| Stub {
                        name: name.to_owned(),
                        variable,
                    }));
            }
            image.named.push(Named {
                range: symbol.address()..symbol.address().saturating_add(symbol.size()),
                name: name.to_owned(),
            });
        }
        // Of several names of one function, the shortest and first: `pthread_cond_wait` before `__pthread_cond_wait`.
        image.named.sort_by(|one, other| {
            let key = |named: &Named| (named.range.start, named.name.len());
            key(one)
                .cmp(&key(other))
                .then_with(|| one.name.cmp(&other.name))
        });
        image.named.dedup_by_key(|named| named.range.start);
        Ok(image)
    }

    /// The address as linked of a byte of the file.
    pub(super) fn linked(&self, offset: u64) -> Option<u64> {
        let (file, address) = self
            .segments
            .iter()
            .find(|(file, _)| file.contains(&offset))?;
        address.checked_add(offset - file.start)
    }

    /// The name of the function that holds `address`.
    pub(super) fn name(&self, address: u64) -> Option<&str> {
        let after = self
            .named
            .partition_point(|named| named.range.start <= address);
        let named = self.named.get(after.checked_sub(1)?)?;
        named.range.contains(&address).then_some(&named.name)
    }

    /// Where the function that holds `address` begins, by the unwind information.
    pub(super) fn start(&self, address: u64) -> Option<u64> {
        let after = self.starts.partition_point(|start| *start <= address);
        self.starts.get(after.checked_sub(1)?).copied()
    }
}

/// Where functions begin, of the binary search table in `.eh_frame_hdr`.
fn starts<'data>(elf: &impl Object<'data>) -> Option<Vec<u64>> {
    let section = elf
        .section_by_name(".eh_frame_hdr")
        .filter(|section| section.size() <= SECTION)?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(section.address());
    let header = EhFrameHdr::new(section.data().ok()?, LittleEndian)
        .parse(&bases, 8)
        .ok()?;
    let table = header.table()?;
    let mut rows = table.iter(&bases);
    let mut starts = Vec::new();
    while let Ok(Some((start, _))) = rows.next() {
        if let (Pointer::Direct(start), true) = (start, starts.len() < FUNCTIONS) {
            starts.push(start);
        } else {
            break;
        }
    }
    starts.sort_unstable();
    Some(starts)
}

/// The variable whose value the function at `address` jumps to, if it does only that.
fn jump<'data>(elf: &impl Object<'data>, address: u64) -> Option<u64> {
    use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
    let code = elf.segments().find_map(|segment| {
        let (_, size) = segment.file_range();
        let within = address.checked_sub(segment.address())?;
        let length = STUB.min(size.checked_sub(within)?);
        segment.data_range(address, length).ok()?
    })?;
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        match instruction.flow_control() {
            FlowControl::IndirectBranch
                if instruction.op0_kind() == OpKind::Memory
                    && instruction.is_ip_rel_memory_operand() =>
            {
                return Some(instruction.ip_rel_memory_address());
            }
            // A check that the library is open comes before the jump.
            FlowControl::Next | FlowControl::ConditionalBranch if !instruction.is_invalid() => {}
            _ => return None,
        }
    }
    None
}
