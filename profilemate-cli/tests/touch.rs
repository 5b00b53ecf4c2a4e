//! The marker page, its modes and slots, against a C target that checks the calling convention. Needs root.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "test code")]

mod touch_target;

use profilemate::sys::{clock, vm};
use profilemate::touch::{
    Error, MarkerPage, Outcome, Refusal, Restored, SwapRequest, Width, redirect, restore,
    restore_all, swap,
};
use profilemate_common::page::{
    MODE_COUNT, MODE_ENTRY, MODE_LOG, MODE_OFF, MODE_RETURN, MODE_SKIP, SLOTS, SWAPS, Slot,
};
use touch_target::{Slots, Target, is_root, slot};

#[test]
fn every_mode_counts_what_it_should_and_keeps_all_registers() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    // Function 0 returns, 5 raises, 6 calls itself five times at the first level.
    let results = redirect(
        &page,
        &[0, 5, 6].map(|index| target.redirect(index, MODE_OFF)),
    )
    .unwrap();
    let slots = results.all_slots();
    for (mode, marks_a_call) in [
        (MODE_OFF, 0),
        (MODE_COUNT, 0),
        (MODE_RETURN, 1),
        (MODE_ENTRY, 1),
        (MODE_ENTRY | MODE_RETURN, 2),
        (MODE_ENTRY | MODE_RETURN | MODE_COUNT, 2),
        (MODE_LOG, 0),
        (MODE_ENTRY | MODE_RETURN | MODE_COUNT | MODE_LOG, 2),
    ] {
        for (number, index, calls_a_call) in [(slots[0], 0, 1), (slots[1], 5, 1), (slots[2], 6, 6)]
        {
            page.set_mode(number, mode).unwrap();
            let before = slot(&page, number);
            assert_eq!(target.tell(&format!("call {index} 100")), "called");
            let after = slot(&page, number);
            let calls = 100 * calls_a_call;
            assert_eq!(
                after.calls - before.calls,
                calls,
                "mode {mode}, function {index}"
            );
            assert_eq!(
                after.marks - before.marks,
                calls * marks_a_call,
                "mode {mode}, function {index}"
            );
            let counted = |slot: &Slot| {
                slot.histogram
                    .iter()
                    .map(|calls| u64::from(*calls))
                    .sum::<u64>()
            };
            let expected = if mode & MODE_COUNT == 0 { 0 } else { calls };
            assert_eq!(counted(&after) - counted(&before), expected);
            assert_eq!(after.cycles > before.cycles, mode & MODE_COUNT != 0);
        }
    }
    target.finish();
}

#[test]
fn the_log_names_slot_thread_and_process_and_tells_how_the_call_went() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    let mut log = page.log().unwrap().expect("a C library that is known");
    let slots = redirect(&page, &[0, 5].map(|index| target.redirect(index, MODE_LOG)))
        .unwrap()
        .all_slots();
    let began = clock::cycles();
    target.tell("call 0 3");
    target.tell("call 5 2");
    page.set_mode(slots[1], MODE_OFF).unwrap();
    target.tell("call 5 2");
    let mut entries = Vec::new();
    log.drain(clock::cycles(), |entry| entries.push(*entry))
        .unwrap();
    let who = u64::from(target.pid()) << 32 | u64::from(target.pid());
    let of = |number: u8| {
        entries
            .iter()
            .filter(move |entry| entry.slot == u32::from(number))
    };
    assert_eq!(
        (of(slots[0]).count(), of(slots[1]).count(), entries.len()),
        (3, 2, 5)
    );
    assert!(of(slots[0]).all(|entry| entry.result != 0));
    assert!(of(slots[1]).all(|entry| entry.result == 0), "it raised");
    let mut last = began;
    for entry in &entries {
        assert_eq!(entry.who, who);
        assert!(last <= entry.entry_cycles && entry.entry_cycles < entry.return_cycles);
        last = entry.return_cycles;
    }
    target.finish();
}

#[test]
fn a_result_to_skip_makes_no_event() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    // A function that raises returns NULL, which is as good a result to skip as any.
    let number = redirect(&page, &[target.redirect(5, MODE_RETURN | MODE_SKIP)])
        .unwrap()
        .all_slots()[0];
    target.tell("call 5 10");
    assert_eq!(
        (slot(&page, number).calls, slot(&page, number).marks),
        (10, 0)
    );
    page.set_skip(number, 1).unwrap();
    target.tell("call 5 10");
    assert_eq!(
        (slot(&page, number).calls, slot(&page, number).marks),
        (20, 10)
    );
    target.finish();
}

#[test]
fn a_c_method_stands_in_for_a_function_in_every_slot() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    for number in 0..SLOTS as u8 {
        page.set_callee(number, target.function(3)).unwrap();
        page.set_mode(number, MODE_ENTRY | MODE_RETURN | MODE_COUNT)
            .unwrap();
        assert_eq!(
            target.tell(&format!("method {} 3 8", page.method_address(number))),
            "called"
        );
        assert_eq!(
            (slot(&page, number).calls, slot(&page, number).marks),
            (8, 16)
        );
    }
    target.finish();
}

#[test]
fn every_slot_counts_its_own_function() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    let all: Vec<_> = (0..SLOTS as u64)
        .map(|index| target.redirect(index, MODE_RETURN))
        .collect();
    let slots = redirect(&page, &all).unwrap().all_slots();
    for (index, number) in slots.iter().enumerate().filter(|(index, _)| *index != 7) {
        target.tell(&format!("call {index} {}", index + 1));
        let levels = if index % 8 == 6 { 6 } else { 1 };
        assert_eq!(
            slot(&page, *number).calls,
            (index as u64 + 1) * levels,
            "function {index}"
        );
        assert_eq!(target.version(index as u64), 0);
    }
    let one_more = redirect(&page, &[target.redirect(0, MODE_RETURN)]).unwrap();
    assert!(
        one_more[0].unwrap().was_redirected,
        "redirecting again changes nothing"
    );
    let restored = restore_all(&page).unwrap();
    assert_eq!(
        (restored.restored, restored.already, restored.left),
        (SLOTS, 0, 0)
    );
    assert!((0..SLOTS as u64).all(|index| target.pointer(index) == target.original));
    assert_eq!(
        restore_all(&page).unwrap(),
        Restored::default(),
        "restoring again does nothing"
    );
    target.finish();
}

#[test]
fn what_is_not_as_expected_is_left_alone() {
    if !is_root() {
        return;
    }
    let target = Target::start();
    let page = target.page();
    let other = target.original + 1;
    // Somebody else's pointer.
    let foreign = SwapRequest {
        address: target.function(1) + 128,
        width: Width::Eight,
        expected: target.original,
        value: other,
    };
    assert_eq!(swap(&page, &[foreign]).unwrap(), [Outcome::Swapped]);
    let mut elsewhere = target.redirect(2, MODE_OFF);
    elsewhere.vectorcall_address += 1 << 20;
    let mut unmapped = target.redirect(3, MODE_OFF);
    (
        unmapped.function,
        unmapped.vectorcall_address,
        unmapped.version,
    ) = (4096, 4096 + 128, None);
    let mut unlike = target.redirect(4, MODE_OFF);
    unlike.expected = other;
    let results = redirect(
        &page,
        &[
            target.redirect(1, MODE_OFF),
            elsewhere,
            unmapped,
            unlike,
            target.redirect(0, MODE_OFF),
        ],
    );
    let results = results.unwrap();
    assert_eq!(results[0], Err(Refusal::OtherPointer { found: other }));
    assert_eq!(results[1], Err(Refusal::BadAddress));
    assert_eq!(results[2], Err(Refusal::Fault));
    assert_eq!(results[3], Err(Refusal::OtherOriginal { expected: other }));
    let number = results[4].unwrap().slot;
    assert_eq!(
        page.slots()
            .unwrap()
            .iter()
            .filter(|slot| slot.function != 0)
            .count(),
        1
    );
    // Between redirect and restore somebody else takes the function over.
    let takeover = SwapRequest {
        address: target.function(0) + 128,
        width: Width::Eight,
        expected: page.vectorcall_address(number),
        value: other,
    };
    assert_eq!(swap(&page, &[takeover]).unwrap(), [Outcome::Swapped]);
    assert_eq!(restore(&page, &[number]).unwrap().left, 1);
    assert_eq!(target.pointer(0), other);
    assert_eq!(slot(&page, number).function, 0);
}

#[test]
fn swaps_say_what_became_of_each_even_after_faults() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    let version = |index: u64, expected: u64| SwapRequest {
        address: target.function(index) + 8,
        width: Width::Four,
        expected,
        value: 0xffff_ffff_0000_0001,
    };
    let bad = SwapRequest {
        address: 64,
        width: Width::Eight,
        expected: 0,
        value: 1,
    };
    let code = SwapRequest {
        address: page.base() + 64,
        ..bad
    };
    let odd = SwapRequest {
        address: target.function(0) + 9,
        ..bad
    };
    let requests = [
        version(0, 1000),
        bad,
        version(1, 7),
        code,
        odd,
        version(2, 1002),
    ];
    let outcomes = swap(&page, &requests).unwrap();
    assert_eq!(
        outcomes,
        [
            Outcome::Swapped,
            Outcome::Fault,
            Outcome::Other(1001),
            Outcome::Fault,
            Outcome::Fault,
            Outcome::Swapped
        ]
    );
    assert_eq!(target.version(0), 1);
    let beyond: u32 = vm::read_value(target.pid(), target.function(0) + 12).unwrap();
    assert_eq!(beyond, 0, "four bytes only");
    let many: Vec<_> = (0..SWAPS as u64 + 20)
        .map(|index| version(3 + index % 50, 1003 + index % 50))
        .collect();
    let swapped = swap(&page, &many)
        .unwrap()
        .into_iter()
        .filter(|outcome| *outcome == Outcome::Swapped)
        .count();
    assert_eq!(swapped, 50, "the first of each");
    assert_eq!(target.tell("call 0 10"), "called");
    target.finish();
}

#[test]
fn a_page_of_another_build_is_restored_but_not_used() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    redirect(&page, &[target.redirect(0, MODE_RETURN)])
        .unwrap()
        .all_slots();
    let old = page.inode();
    drop(page);
    // A byte that is never executed makes it another build's.
    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{}/mem", target.pid()))
        .unwrap();
    let base = MarkerPage::find(target.pid()).unwrap().unwrap().base();
    std::os::unix::fs::FileExt::write_all_at(&memory, &[0x90], base + 4095).unwrap();
    let found = MarkerPage::find(target.pid()).unwrap().unwrap();
    assert!(!found.is_current());
    assert!(matches!(
        redirect(&found, &[target.redirect(1, MODE_RETURN)]),
        Err(Error::OtherBuild { .. })
    ));
    drop(found);
    let (page, undone) = MarkerPage::acquire(target.pid(), target.original, &[]).unwrap();
    assert_eq!(undone.restored, 1);
    assert_eq!(target.pointer(0), target.original);
    assert_ne!(page.inode(), old);
    assert_eq!(target.tell("call 0 10"), "called");
    target.finish();
}
