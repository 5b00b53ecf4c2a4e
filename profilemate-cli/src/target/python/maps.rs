//! `/proc/PID/maps`.

use std::ops::Range;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Addresses.
    pub(super) addresses: Range<u64>,
    /// The name of its link in `/proc/PID/map_files`.
    pub(super) link: String,
    /// Whether it may be executed.
    pub(super) executable: bool,
    /// Whether it may be written.
    pub(super) writable: bool,
    /// Where in the file it begins, bytes.
    pub(super) offset: u64,
    /// The file's inode number.
    pub(super) inode: u64,
    /// The file's path in the target's mount namespace; empty if the memory is anonymous.
    pub(super) path: String,
}

/// The file and anonymous mappings in the text of a `maps` file. Lines that cannot be understood are passed over.
pub(super) fn parse(text: &str) -> Vec<Mapping> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mapping> {
    let mut remaining = line;
    let mut next = || {
        let trimmed = remaining.trim_start_matches(' ');
        let (field, after) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
        remaining = after;
        (!field.is_empty()).then_some(field)
    };
    let range = next()?;
    let permissions = next()?;
    let offset = next()?;
    let _device = next()?;
    let inode = next()?;
    let path = remaining.trim_start_matches(' ');
    if !path.is_empty() && !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let addresses = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    Some(Mapping {
        link: range.to_owned(),
        executable: permissions.as_bytes().get(2) == Some(&b'x'),
        writable: permissions.as_bytes().get(1) == Some(&b'w'),
        offset: u64::from_str_radix(offset, 16).ok()?,
        inode: inode.parse().ok()?,
        path: path.to_owned(),
        addresses: (!addresses.is_empty()).then_some(addresses)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_odd_names_and_other_lines() {
        let text = "00400000-00422000 r-xp 00001000 fe:00 5351403                            /usr/bin/py thon 3.14\n\
                    7ffd1000-7ffd2000 rw-p 00000000 00:00 0                                  [stack]\n\
                    7fe78c985000-7fe78cbec000 rw-p 00000000 00:00 0 \n\
                    garbage\n\
                    7fe78c985000-zz rw-p 00000000 00:00 0 /x\n";
        let maps = parse(text);
        assert_eq!(maps.len(), 2);
        assert_eq!((maps[1].writable, maps[1].path.as_str()), (true, ""));
        assert_eq!(maps[0].addresses, 0x40_0000..0x42_2000);
        assert_eq!(maps[0].link, "00400000-00422000");
        assert!(maps[0].executable);
        assert_eq!((maps[0].offset, maps[0].inode), (0x1000, 5_351_403));
        assert_eq!(maps[0].path, "/usr/bin/py thon 3.14");
    }
}
