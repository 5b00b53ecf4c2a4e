//! The touch room against a C target that checks the calling convention, its signals and its waits. Needs root.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "test code")]

mod touch_target;

use std::time::{Duration, Instant};

use profilemate::sys::vm;
use profilemate::touch::{
    Error, MarkerPage, Outcome, Refusal, Restored, SwapRequest, Width, redirect, restore,
    restore_all, swap,
};
use profilemate_common::page::{
    MODE_COUNT, MODE_ENTRY, MODE_OFF, MODE_RETURN, MODE_SKIP, SLOTS, SWAPS, Slot,
};
use touch_target::{Target, is_root};

fn slot(page: &MarkerPage, number: u8) -> Slot {
    page.slots().unwrap()[usize::from(number)]
}

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
    let slots = results.map_ok_slots();
    for (mode, marks_a_call) in [
        (MODE_OFF, 0),
        (MODE_COUNT, 0),
        (MODE_RETURN, 1),
        (MODE_ENTRY, 1),
        (MODE_ENTRY | MODE_RETURN, 2),
        (MODE_ENTRY | MODE_RETURN | MODE_COUNT, 2),
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

trait Slots {
    fn map_ok_slots(self) -> Vec<u8>;
}

impl Slots for Vec<Result<profilemate::touch::Redirected, Refusal>> {
    fn map_ok_slots(self) -> Vec<u8> {
        self.into_iter()
            .map(|result| result.unwrap().slot)
            .collect()
    }
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
        .map_ok_slots()[0];
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
    let slots = redirect(&page, &all).unwrap().map_ok_slots();
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
fn a_busy_target_does_not_notice_two_hundred_redirections() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    target.tell("busy");
    let first = target.page();
    let mut stood = vec![first.stood_ns().unwrap()];
    let all: Vec<_> = (0..SLOTS as u64)
        .filter(|index| *index != 7)
        .map(|index| {
            target.redirect(
                index,
                [MODE_OFF, MODE_COUNT, MODE_RETURN, MODE_ENTRY | MODE_RETURN][index as usize % 4],
            )
        })
        .collect();
    for round in 0..200_u64 {
        let slots = redirect(&first, &all).unwrap().map_ok_slots();
        if round % 4 == 0 {
            stood.extend(
                MarkerPage::create(target.pid(), target.original)
                    .unwrap()
                    .stood_ns(),
            );
        }
        assert_eq!(restore(&first, &slots).unwrap().restored, all.len());
    }
    stood.sort_unstable();
    println!(
        "mapping stood still for {} us (median), {} us (worst)",
        stood[stood.len() / 2] / 1000,
        stood[stood.len() - 1] / 1000
    );
    assert!((0..SLOTS as u64).all(|index| target.pointer(index) == target.original));
    assert!(
        first
            .slots()
            .unwrap()
            .iter()
            .map(|slot| slot.calls)
            .sum::<u64>()
            > 0,
        "calls went through the page"
    );
    target.finish();
}

#[test]
fn whatever_the_borrowed_thread_was_doing_goes_on_undisturbed() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    target.tell("busy");
    let page = target.page();
    let all: Vec<_> = (40..SLOTS as u64)
        .map(|index| target.redirect(index, MODE_COUNT | MODE_RETURN))
        .collect();
    // The main thread is the one that is borrowed first.
    for kind in ["sleep", "read", "futex", "epoll", "leaf", "calls"] {
        let command = format!("be {kind} 400");
        target.send(&command);
        let begin = Instant::now();
        let mut rounds = 0;
        while begin.elapsed() < Duration::from_millis(300) {
            let slots = redirect(&page, &all).unwrap().map_ok_slots();
            restore(&page, &slots).unwrap();
            if rounds % 10 == 0 {
                MarkerPage::create(target.pid(), target.original).unwrap();
            }
            rounds += 1;
        }
        println!("{kind}: {rounds} rounds");
        assert_eq!(target.reply(&command), "was");
    }
    target.finish();
}

#[test]
fn a_forked_child_has_its_own_counters_and_can_be_restored() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    let number = redirect(&page, &[target.redirect(0, MODE_RETURN)])
        .unwrap()
        .map_ok_slots()[0];
    target.tell("call 0 7");
    let reply = target.tell("fork 0 100");
    let child: u32 = reply.strip_prefix("child ").unwrap().parse().unwrap();
    let inherited = page
        .inherited_by(child)
        .unwrap()
        .expect("the child has the page");
    assert_eq!(
        (inherited.base(), inherited.inode()),
        (page.base(), page.inode())
    );
    assert_eq!(
        (slot(&page, number).calls, slot(&inherited, number).calls),
        (7, 107)
    );
    assert_eq!(
        MarkerPage::find(child).unwrap().unwrap().inode(),
        page.inode()
    );
    inherited.lock().expect("the lock is shared");
    let (_, undone) = MarkerPage::acquire(child, target.original, &[&page]).unwrap();
    assert_eq!(undone.restored, 1);
    let pointer: u64 = vm::read_value(child, target.function(0) + 128).unwrap();
    assert_eq!(pointer, target.original);
    assert_eq!(
        target.pointer(0),
        page.vectorcall_address(number),
        "the parent is still redirected"
    );
    assert_eq!(target.tell("reap"), format!("reaped {}", libc::SIGTERM));
    target.finish();
}

#[test]
fn a_killed_tracer_leaves_calls_working_and_the_next_one_restores_them() {
    const ROLE: &str = "PROFILEMATE_TEST_TRACER_OF";
    if let Ok(what) = std::env::var(ROLE) {
        // The tracer that gets killed: this same test, run again as a child.
        let numbers: Vec<u64> = what.split(' ').map(|word| word.parse().unwrap()).collect();
        let page = MarkerPage::create(numbers[0] as u32, numbers[1]).unwrap();
        page.lock().unwrap();
        let request = |function| profilemate::touch::Redirect {
            function,
            vectorcall_address: function + 128,
            expected: numbers[1],
            version: None,
            version_cache: None,
            mode: MODE_RETURN,
            skip: 0,
        };
        redirect(&page, &[request(numbers[2]), request(numbers[3])])
            .unwrap()
            .map_ok_slots();
        // SAFETY: only numbers are passed.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_killed_tracer_leaves_calls_working_and_the_next_one_restores_them",
        ])
        .env(
            ROLE,
            format!(
                "{} {} {} {}",
                target.pid(),
                target.original,
                target.function(0),
                target.function(5)
            ),
        )
        .status()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGKILL)
    );
    assert_ne!(target.pointer(0), target.original);
    assert_eq!(target.tell("call 0 100"), "called");
    let (page, undone) = MarkerPage::acquire(target.pid(), target.original, &[]).unwrap();
    assert_eq!(page.stood_ns(), None, "the page was found, not made");
    assert_eq!((undone.restored, undone.left), (2, 0));
    assert_eq!(
        (target.pointer(0), target.pointer(5)),
        (target.original, target.original)
    );
    assert!(page.slots().unwrap().iter().any(|slot| slot.calls == 100));
    redirect(&page, &[target.redirect(0, MODE_COUNT)])
        .unwrap()
        .map_ok_slots();
    target.tell("call 0 10");
    target.finish();
}

#[test]
fn a_second_tracer_is_refused_while_the_first_is_there() {
    if !is_root() {
        return;
    }
    let target = Target::start();
    let page = target.page();
    let refused = MarkerPage::find(target.pid()).unwrap().unwrap().lock();
    assert!(
        matches!(refused, Err(Error::AnotherTracer { tracer, .. }) if tracer == std::process::id())
    );
    assert!(matches!(
        MarkerPage::acquire(target.pid(), target.original, &[]),
        Err(Error::AnotherTracer { .. })
    ));
    drop(page);
    MarkerPage::acquire(target.pid(), target.original, &[]).unwrap();
}

#[test]
fn a_thread_may_end_inside_a_call() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    let number = redirect(&page, &[target.redirect(7, MODE_ENTRY | MODE_RETURN)])
        .unwrap()
        .map_ok_slots()[0];
    for _ in 0..20 {
        assert_eq!(target.tell("exit 7"), "exited");
    }
    assert_eq!(
        (slot(&page, number).calls, slot(&page, number).marks),
        (0, 20),
        "entered, and never returned"
    );
    target.finish();
}

#[test]
fn a_seccomp_filter_is_asked_before_anything_is_tried() {
    if !is_root() {
        return;
    }
    for (action, passes) in [("allow", true), ("errno", false), ("kill", false)] {
        let mut target = Target::start();
        target.tell(&format!("deny {action}"));
        let result = MarkerPage::create(target.pid(), target.original);
        match result {
            Ok(_) => assert!(passes, "{action}"),
            Err(Error::Seccomp { .. }) => assert!(!passes, "{action}"),
            Err(other) => panic!("{action}: {other}"),
        }
        assert_eq!(target.tell("call 0 10"), "called", "{action}");
        target.finish();
    }
}

#[test]
fn a_stopped_target_stays_stopped() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    };
    let signal = |number| {
        // SAFETY: only numbers are passed.
        assert_eq!(unsafe { libc::kill(target.pid() as i32, number) }, 0);
    };
    let until = |wanted: char| {
        let begin = Instant::now();
        while state(target.pid()) != wanted {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "never became {wanted}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    signal(libc::SIGSTOP);
    until('T');
    let page = target.page();
    redirect(&page, &[target.redirect(0, MODE_RETURN)])
        .unwrap()
        .map_ok_slots();
    until('T');
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(state(target.pid()), 'T');
    signal(libc::SIGCONT);
    assert_eq!(target.tell("call 0 10"), "called");
    target.finish();
}

#[test]
fn stops_and_continuations_are_neither_lost_nor_made_up() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    target.tell("busy stopped");
    let page = target.page();
    let all: Vec<_> = (8..SLOTS as u64)
        .map(|index| target.redirect(index, MODE_COUNT))
        .collect();
    let pid = target.pid() as i32;
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut pause = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for signal in [libc::SIGSTOP, libc::SIGCONT] {
                    // SAFETY: only numbers are passed.
                    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
                    pause = (pause + 37) % 400;
                    std::thread::sleep(Duration::from_micros(pause));
                }
            }
        });
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(1500) {
            let slots = redirect(&page, &all).unwrap().map_ok_slots();
            MarkerPage::create(target.pid(), target.original).unwrap();
            assert_eq!(restore(&page, &slots).unwrap().restored, all.len());
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // The last signal was a SIGCONT: the target answers.
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
        .map_ok_slots();
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

#[test]
fn a_process_that_somebody_else_traces_is_refused() {
    if !is_root() {
        return;
    }
    let target = Target::start();
    profilemate::sys::ptrace::seize(target.pid()).unwrap();
    assert!(matches!(
        MarkerPage::create(target.pid(), target.original),
        Err(Error::Traced { tracer, .. }) if tracer == std::process::id()
    ));
}

#[test]
fn a_process_without_a_page_has_none_and_an_ended_one_is_gone() {
    if !is_root() {
        return;
    }
    let target = Target::start();
    assert!(MarkerPage::find(target.pid()).unwrap().is_none());
    let pid = target.pid();
    drop(target);
    assert!(matches!(MarkerPage::find(pid), Err(Error::Gone { .. })));
    assert!(matches!(
        MarkerPage::create(pid, 1),
        Err(Error::Gone { .. })
    ));
}
