//! Where sessions would be written, and how much room there is.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::{Line, Mark};
use crate::cli::Exit;

/// Below this a session would soon be cut off.
const LOW: u64 = 1 << 30;
/// Below this not even the first second fits.
const NONE: u64 = 16 << 20;

pub(super) fn lines(output: &Path) -> Vec<Line> {
    let place = existing(output);
    let shown = output.display();
    let writable = access(&place, Access::WRITE_OK | Access::EXEC_OK).is_ok() && place.is_dir();
    let folder = Line::new(
        "folder",
        if writable {
            Mark::Good
        } else {
            Mark::Bad(Exit::Output)
        },
        match (writable, place == output) {
            (true, true) => format!("{shown}, writable"),
            (true, false) => format!("{shown}, which can be made"),
            (false, _) => format!("{shown}: `{}` is not a writable folder", place.display()),
        },
    )
    .needs("writable");
    let folder = if writable {
        folder
    } else {
        folder.todo("choose another with `--output`")
    };
    vec![folder, room(&place)]
}

fn room(place: &Path) -> Line {
    let Ok(about) = statvfs(place) else {
        return Line::new("free space", Mark::Fact, "not readable").needs("1 GiB or more");
    };
    let bytes = about.f_bavail.saturating_mul(about.f_frsize);
    judge(bytes)
}

fn judge(bytes: u64) -> Line {
    let found = if bytes >= LOW {
        format!("{:.1} GiB", bytes as f64 / LOW as f64)
    } else {
        format!("{} MiB", bytes >> 20)
    };
    let mark = match bytes {
        NONE.. if bytes >= LOW => Mark::Good,
        NONE.. => Mark::Warn,
        _ => Mark::Bad(Exit::Output),
    };
    let line = Line::new("free space", mark, found).needs("1 GiB or more for a long session");
    if mark == Mark::Good {
        return line;
    }
    line.todo("make room, choose another disk with `--output`, or trace less with `--only`")
}

/// The folder, or the nearest one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute
        .ancestors()
        .find(|path| path.symlink_metadata().is_ok());
    there.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_be_made_is_good_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a/b");
        let lines = lines(&wanted);
        assert_eq!(lines[0].mark, Mark::Good, "{lines:?}");
        assert!(!wanted.exists());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let line = &lines(&file.join("sessions"))[0];
        assert_eq!(line.mark, Mark::Bad(Exit::Output));
        assert!(line.found.contains(file.to_str().unwrap()), "{line:?}");
    }

    #[test]
    fn room_is_judged_by_size() {
        assert_eq!(judge(5 << 30).mark, Mark::Good);
        assert_eq!(judge(100 << 20).mark, Mark::Warn);
        assert_eq!(judge(1 << 20).mark, Mark::Bad(Exit::Output));
        assert!(judge(1 << 20).todo.is_some());
    }
}
