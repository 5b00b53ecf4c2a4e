//! Where a process has marker pages mapped, from `/proc/PID/maps`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use profilemate_common::page::{CODE_SIZE, DATA_SIZE, LOG_OFFSET, LOG_SIZE, MEMFD_NAME};

use super::Error;
use super::check::read_proc;

/// One mapped page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Address of the code; the data follows at once.
    pub(super) base: u64,
    /// Inode of the memfd.
    pub(super) inode: u64,
    /// Whether the log follows the data.
    pub(super) log: bool,
}

impl Mapping {
    /// Opens the mapped file itself, not what a path may name.
    pub(super) fn open(&self, pid: u32) -> Result<OwnedFd, Error> {
        let path = format!(
            "/proc/{pid}/map_files/{:x}-{:x}",
            self.base,
            self.base + CODE_SIZE as u64
        );
        let file = File::open(&path).map_err(|source| Error::Proc { path, source })?;
        let same = file
            .metadata()
            .is_ok_and(|about| about.ino() == self.inode && about.nlink() == 0);
        // Only files in memory have seals.
        if same && rustix::fs::fcntl_get_seals(&file).is_ok() {
            Ok(file.into())
        } else {
            Err(Error::NotOurs {
                pid,
                what: "the mapped file is another one",
            })
        }
    }
}

/// All pages that process `pid` has mapped, as their name and shape tell. Their content is yet to be checked.
pub(super) fn mappings(pid: u32) -> Result<Vec<Mapping>, Error> {
    Ok(parse(&read_proc(pid, "maps")?))
}

fn parse(maps: &str) -> Vec<Mapping> {
    let lines: Vec<Line> = maps.lines().filter_map(Line::parse).collect();
    let follows =
        |line: &Line<'_>, before: &Line<'_>| line.start == before.end && line.inode == before.inode;
    let pages = lines.windows(2).enumerate().filter(|(_, pair)| {
        let (code, data) = (&pair[0], &pair[1]);
        let code_fits = code.is(b"r-xp", 0, CODE_SIZE as u64);
        let data_fits = data.is(b"rw-p", CODE_SIZE as u64, DATA_SIZE as u64);
        code_fits && data_fits && follows(data, code)
    });
    pages
        .map(|(at, pair)| Mapping {
            base: pair[0].start,
            inode: pair[0].inode,
            log: lines.get(at + 2).is_some_and(|log| {
                log.is(b"rw-s", LOG_OFFSET as u64, LOG_SIZE as u64) && follows(log, &pair[1])
            }),
        })
        .collect()
}

struct Line<'a> {
    start: u64,
    end: u64,
    permissions: &'a [u8],
    offset: u64,
    inode: u64,
}

impl<'a> Line<'a> {
    /// A line of a mapped memfd of our name; `None` for all others.
    fn parse(line: &'a str) -> Option<Self> {
        let rest = line.strip_suffix(" (deleted)")?;
        let mut fields = rest.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?.as_bytes();
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        let named =
            fields.next()?.strip_prefix("/memfd:") == Some(MEMFD_NAME) && fields.next().is_none();
        let (start, end) = (
            u64::from_str_radix(start, 16).ok()?,
            u64::from_str_radix(end, 16).ok()?,
        );
        named.then_some(Self {
            start,
            end,
            permissions,
            offset,
            inode,
        })
    }

    fn is(&self, permissions: &[u8], offset: u64, len: u64) -> bool {
        self.permissions == permissions
            && self.offset == offset
            && self.end.wrapping_sub(self.start) == len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0000001000 r-xp 00000000 00:01 5    /memfd:profilemate (deleted)
7f0000001000-7f000000b000 rw-p 00001000 00:01 5    /memfd:profilemate (deleted)
7f0000010000-7f0000011000 r-xp 00000000 00:01 6    /usr/lib/libc.so.6
7f0000020000-7f0000021000 rw-p 00000000 00:01 0
";

    #[test]
    fn a_page_is_found_by_name_and_shape() {
        assert_eq!(
            parse(MAPS),
            [Mapping {
                base: 0x7f00_0000_0000,
                inode: 5,
                log: false
            }]
        );
    }

    #[test]
    fn a_log_is_what_follows_the_data_and_is_shared() {
        let end = 0x7f00_0000_b000 + LOG_SIZE;
        let log =
            format!("7f000000b000-{end:x} rw-s 0000b000 00:01 5    /memfd:profilemate (deleted)\n");
        let mut lines: Vec<&str> = MAPS.split_inclusive('\n').collect();
        lines.insert(2, &log);
        assert!(parse(&lines.concat())[0].log);
        for (from, to) in [("rw-s", "rw-p"), ("0000b000 00:01 5", "0000b000 00:01 6")] {
            assert!(!parse(&lines.concat().replace(from, to))[0].log);
        }
    }

    #[test]
    fn another_name_or_shape_is_no_page() {
        for (from, to) in [
            ("memfd:profilemate", "memfd:profilemate2"),
            ("r-xp 00000000 00:01 5", "rwxp 00000000 00:01 5"),
            (
                "00:01 5    /memfd:profilemate (deleted)\n7f0000010",
                "00:01 7    /memfd:profilemate (deleted)\n7f0000010",
            ),
            ("7f000000b000", "7f000000c000"),
            (" (deleted)", ""),
        ] {
            assert_eq!(parse(&MAPS.replace(from, to)), [], "{from} -> {to}");
        }
    }
}
