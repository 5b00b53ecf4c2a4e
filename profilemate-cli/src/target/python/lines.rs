//! Line tables of code objects: from an instruction to its line.

/// The line of instruction `unit` (counted in two-byte units) in a table of 3.11 and later (`co_linetable`, "location
/// table": entries of a first byte with the high bit set and more bytes without it). `None`: it belongs to no line.
pub(super) fn locate(table: &[u8], first_line: u32, unit: u64) -> Option<u32> {
    let mut line = i64::from(first_line);
    let mut at = 0_u64;
    let mut rest = table;
    while let Some((&head, after)) = rest.split_first() {
        let length = after.iter().take_while(|byte| **byte < 0x80).count();
        let (body, next) = after.split_at(length);
        rest = next;
        let kind = head >> 3 & 0x0f;
        let delta = match kind {
            0..=9 | 15 => 0,
            10..=12 => i64::from(kind) - 10,
            _ => signed(body),
        };
        line = line.checked_add(delta)?;
        at += u64::from(head & 7) + 1;
        if unit < at {
            return if kind == 15 {
                None
            } else {
                u32::try_from(line).ok()
            };
        }
    }
    None
}

/// The first signed number of variable length: six bits a byte, the lowest first, the sign in the lowest bit.
fn signed(bytes: &[u8]) -> i64 {
    let mut value = 0_i64;
    for (index, byte) in bytes.iter().take(8).enumerate() {
        value |= i64::from(byte & 0x3f) << (6 * index);
        if byte & 0x40 == 0 {
            break;
        }
    }
    if value & 1 == 0 {
        value >> 1
    } else {
        -(value >> 1)
    }
}

/// The line of the instruction at byte `offset` in a table of 3.10: pairs of bytes covered and signed change of line,
/// of which -128 means no line.
pub(super) fn locate_3_10(table: &[u8], first_line: u32, offset: u64) -> Option<u32> {
    let mut line = i64::from(first_line);
    let mut at = 0_u64;
    for pair in table.chunks_exact(2) {
        let (covered, change) = (pair[0], pair[1].cast_signed());
        at += u64::from(covered);
        if change != i8::MIN {
            line = line.checked_add(i64::from(change))?;
        }
        if offset < at {
            return if change == i8::MIN {
                None
            } else {
                u32::try_from(line).ok()
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_entry_moves_the_line_as_it_says() {
        // One unit, short form: same line. Two units, one line on. One unit, no line. One unit, no columns, -3.
        let table = [
            0x80,
            0x00, //
            0x80 | 11 << 3 | 1,
            0x04,
            0x08,           //
            0x80 | 15 << 3, //
            0x80 | 13 << 3,
            0x07, //
        ];
        let lines: Vec<Option<u32>> = (0..6).map(|unit| locate(&table, 10, unit)).collect();
        assert_eq!(lines, [Some(10), Some(11), Some(11), None, Some(8), None]);
    }

    #[test]
    fn long_numbers_are_read() {
        // 100 lines on: 200 is 0b11_001000.
        let table = [0x80 | 14 << 3, 0x48, 0x03, 0x00, 0x00, 0x00];
        assert_eq!(locate(&table, 1, 0), Some(101));
    }

    #[test]
    fn the_table_of_3_10() {
        let table = [4, 1, 2, 0x80, 6, 0xff];
        let lines: Vec<Option<u32>> = [0, 3, 4, 6, 11, 12]
            .iter()
            .map(|at| locate_3_10(&table, 5, *at))
            .collect();
        assert_eq!(lines, [Some(6), Some(6), None, Some(5), Some(5), None]);
    }

    #[test]
    fn a_damaged_table_gives_no_line_and_no_panic() {
        for byte in 0..=255_u8 {
            let table = [byte; 64];
            locate(&table, u32::MAX, 1000);
            locate_3_10(&table, u32::MAX, 100_000);
        }
    }
}
