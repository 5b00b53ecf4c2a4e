//! Archives there and back, and archives that nobody should send.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::pack::{self, Folder};
use super::unpack::{Error, unpack};

const ROOM: u64 = 1 << 20;

fn session(folder: &Path) {
    for (name, bytes) in [
        ("metadata.json", &b"{}"[..]),
        ("events.pmrec", &[7; 5_000]),
        ("batch_utilization.csv", b"a,b\n1,2\n"),
        ("notes.txt", b"nobody's business"),
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_session_comes_out_as_it_went_in_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    session(folder.path());
    let mut bytes = Vec::new();
    Folder::open(folder.path())
        .unwrap()
        .pack(&mut bytes)
        .unwrap();
    let to = tempfile::tempdir().unwrap();
    let copy = to.path().join("copy");
    assert_eq!(unpack(&bytes[..], &copy, ROOM).unwrap(), 5_010);
    assert_eq!(
        files(&copy),
        ["batch_utilization.csv", "events.pmrec", "metadata.json"]
    );
    assert_eq!(
        std::fs::read(copy.join("events.pmrec")).unwrap(),
        [7; 5_000]
    );
    // What is there already stays.
    let error = unpack(&bytes[..], &copy, ROOM).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
    assert_eq!(files(to.path()), ["copy"]);
    // A piece of it is no session, wherever it is cut.
    for end in [0, 100, 600, 2_000, bytes.len() - 1_600] {
        let error = unpack(&bytes[..end], &to.path().join("cut"), ROOM).unwrap_err();
        let torn = matches!(error, Error::Torn | Error::Archive(_));
        assert!(torn, "{end}: {error}");
        assert_eq!(files(to.path()), ["copy"]);
    }
    let error = unpack(&bytes[..], &to.path().join("full"), 5_000).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 5_000 }), "{error}");
}

#[test]
fn links_and_folders_that_are_no_session_are_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let error = Folder::open(folder.path()).unwrap_err();
    assert!(matches!(error, pack::Error::Folder(_)), "{error}");
    session(folder.path());
    let link = folder.path().join("link");
    symlink(folder.path(), &link).unwrap();
    let error = Folder::open(&link).unwrap_err();
    assert!(matches!(error, pack::Error::Folder(_)), "{error}");
    let table = folder.path().join("batch_utilization.csv");
    std::fs::remove_file(&table).unwrap();
    symlink("/etc/passwd", &table).unwrap();
    let mut bytes = Vec::new();
    let opened = Folder::open(folder.path()).unwrap();
    let error = opened.pack(&mut bytes).unwrap_err();
    assert!(
        matches!(&error, pack::Error::File { name, .. } if name == "batch_utilization.csv"),
        "{error}"
    );
    assert!(!bytes.windows(4).any(|four| four == b"root"));
}

/// An entry whose name is written into the header as it is.
fn entry(name: &str, kind: EntryType, content: &[u8], size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4777);
    if kind.is_symlink() || kind.is_hard_link() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn taken(entries: &[Vec<u8>]) -> Error {
    let last = entry("metadata.json", EntryType::Regular, b"{}", 2);
    let mut bytes = entries.concat();
    bytes.extend(last);
    bytes.extend([0; 1_024]);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("inner/to");
    std::fs::create_dir(folder.path().join("inner")).unwrap();
    let error = unpack(&bytes[..], &to, ROOM).unwrap_err();
    assert_eq!(files(folder.path()), ["inner"], "{error}");
    assert_eq!(files(&folder.path().join("inner")), [""; 0], "{error}");
    error
}

#[test]
fn names_that_lead_elsewhere_and_all_but_plain_files_are_refused() {
    for name in [
        "/etc/cron.d/x",
        "../metadata.json",
        "./metadata.json",
        "sub/metadata.json",
        "events.pmrec/../../x",
        "authorized_keys",
        "metadata.json\u{1b}[31m",
        "",
    ] {
        let error = taken(&[entry(name, EntryType::Regular, b"x", 1)]);
        assert!(matches!(error, Error::Stranger { .. }), "{name}: {error}");
        assert!(!error.to_string().contains('\u{1b}'));
    }
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::GNULongName,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let error = taken(&[entry("events.pmrec", kind, b"", 0)]);
        assert!(matches!(error, Error::Stranger { .. }), "{kind:?}: {error}");
    }
}

#[test]
fn sizes_that_lie_and_names_that_come_twice_are_refused() {
    let plain = |size| entry("events.pmrec", EntryType::Regular, b"abc", size);
    assert!(matches!(taken(&[plain(1 << 40)]), Error::TooLarge { .. }));
    assert!(matches!(
        taken(&[plain(u64::MAX)]),
        Error::TooLarge { .. } | Error::Archive(_)
    ));
    assert!(matches!(
        taken(&[plain(900_000)]),
        Error::Torn | Error::Archive(_)
    ));
    assert!(matches!(taken(&[plain(3), plain(3)]), Error::Write { .. }));
    // What follows the last file is refused as well.
    let whole = entry("metadata.json", EntryType::Regular, b"{}", 2);
    assert!(matches!(taken(&[whole]), Error::Write { .. }));
    let mut noise = Vec::new();
    noise.write_all(&[b'z'; 4_096]).unwrap();
    assert!(matches!(taken(&[noise]), Error::Archive(_)));
}

#[test]
fn what_a_usual_archiver_makes_is_read() {
    let mut builder = Builder::new(Vec::new());
    for name in ["summary.json", "metadata.json"] {
        let mut header = Header::new_ustar();
        header.set_size(2);
        header.set_cksum();
        builder.append_data(&mut header, name, &b"{}"[..]).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    assert_eq!(unpack(&bytes[..], &to, ROOM).unwrap(), 4);
    assert_eq!(files(&to), ["metadata.json", "summary.json"]);
}
