//! A uprobe on the mark: it is hit once for each event, at both sites, and disturbs no register. Needs root.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "test code")]

mod touch_target;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use profilemate::sys::perf::{Attributes, Event};
use profilemate::touch::{MARK_NOP1_OFFSET, MARK_NOP5_OFFSET, MarkerPage, redirect, restore_all};
use profilemate_common::page::{MODE_ENTRY, MODE_RETURN};
use touch_target::{Target, is_root};

/// A counting uprobe in one process.
struct Counter(Event);

impl Counter {
    fn attach(page: &MarkerPage, offset: usize) -> io::Result<Self> {
        let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
        let path = CString::new(page.uprobe_path().as_os_str().as_bytes()).unwrap();
        let attributes = Attributes {
            kind: kind.trim().parse().unwrap(),
            address: path.as_ptr() as u64,
            length: offset as u64,
            ..Attributes::default()
        };
        // SAFETY: the path outlives the call.
        unsafe { Event::open(&attributes, page.pid()) }.map(Self)
    }

    fn hits(&self) -> u64 {
        self.0.count().unwrap()
    }
}

#[test]
fn a_uprobe_on_either_nop_is_hit_once_for_each_mark() {
    if !is_root() {
        return;
    }
    for offset in [MARK_NOP1_OFFSET, MARK_NOP5_OFFSET] {
        let mut target = Target::start();
        let page = target.page();
        let modes = [
            (0, MODE_RETURN),
            (5, MODE_ENTRY),
            (6, MODE_ENTRY | MODE_RETURN),
        ];
        let requests = modes.map(|(index, mode)| target.redirect(index, mode));
        assert!(
            redirect(&page, &requests)
                .unwrap()
                .iter()
                .all(Result::is_ok)
        );
        let counter =
            Counter::attach(&page, offset).expect("this kernel lets root attach a uprobe");
        for index in [0, 5, 6] {
            assert_eq!(target.tell(&format!("call {index} 200")), "called");
        }
        let marks: u64 = page.slots().unwrap().iter().map(|slot| slot.marks).sum();
        assert_eq!(marks, 200 + 200 + 200 * 6 * 2);
        assert_eq!(counter.hits(), marks, "offset {offset:#x}");
        // On kernel 6.18 a forked child dies at an optimised five-byte nop, which is why the other one is the default.
        if offset == MARK_NOP1_OFFSET {
            assert!(target.tell("fork 6 200").starts_with("child "));
            assert_eq!(target.tell("reap"), format!("reaped {}", libc::SIGTERM));
        }
        let found = MarkerPage::find(target.pid()).unwrap().unwrap();
        assert!(found.is_current(), "a probed page is still ours");
        drop(counter);
        assert_eq!(target.tell("call 6 200"), "called");
        assert_eq!(restore_all(&page).unwrap().restored, 3);
        target.finish();
    }
}
