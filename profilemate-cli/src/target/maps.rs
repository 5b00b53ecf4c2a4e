//! `/proc/PID/maps`, and the files in it.

use std::fs::File;
use std::ops::Range;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

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
        // `maps` pads low addresses with zeros, the links have none.
        link: format!("{:x}-{:x}", addresses.start, addresses.end),
        executable: permissions.as_bytes().get(2) == Some(&b'x'),
        writable: permissions.as_bytes().get(1) == Some(&b'w'),
        offset: u64::from_str_radix(offset, 16).ok()?,
        inode: inode.parse().ok()?,
        path: path.to_owned(),
        addresses: (!addresses.is_empty()).then_some(addresses)?,
    })
}

/// Largest file that is read, bytes (a static debug build of an interpreter has about 200 MB).
const FILE_SIZE: u64 = 2 << 30;

/// Opens the very file that process `pid` has mapped there.
pub(super) fn open(pid: u32, mapping: &Mapping) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let link = format!("/proc/{pid}/map_files/{}", mapping.link);
    let (file, by_path) = match rustix::fs::open(&link, flags, Mode::empty()) {
        Ok(file) => (file, false),
        Err(_) => (open_below_root(pid, &mapping.path, flags)?, true),
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || stat.st_size as u64 > FILE_SIZE
    {
        return Err(std::io::Error::other("it is no ordinary file"));
    }
    if by_path && stat.st_ino != mapping.inode {
        return Err(std::io::Error::other(
            "the file at this path is not the one that is mapped",
        ));
    }
    Ok(File::from(file))
}

/// Opens `path` in the target's root, where absolute symbolic links stay in that root too.
fn open_below_root(pid: u32, path: &str, flags: OFlags) -> std::io::Result<rustix::fd::OwnedFd> {
    let root = rustix::fs::openat(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        &root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
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
        assert_eq!(maps[0].link, "400000-422000");
        assert!(maps[0].executable);
        assert_eq!((maps[0].offset, maps[0].inode), (0x1000, 5_351_403));
        assert_eq!(maps[0].path, "/usr/bin/py thon 3.14");
    }
}
