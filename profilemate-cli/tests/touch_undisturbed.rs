//! What the target must not notice: signals, waits, stops, forks, ended threads and killed tracers. Needs root.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "test code")]

mod touch_target;

use std::time::{Duration, Instant};

use profilemate::sys::vm;
use profilemate::touch::{Error, MarkerPage, redirect, restore};
use profilemate_common::page::{MODE_COUNT, MODE_ENTRY, MODE_LOG, MODE_OFF, MODE_RETURN, SLOTS};
use touch_target::{Slots, Target, is_root, slot};

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
        let slots = redirect(&first, &all).unwrap().all_slots();
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
    for kind in ["sleep", "read", "futex", "epoll", "leaf", "wide", "calls"] {
        let command = format!("be {kind} 400");
        target.send(&command);
        let begin = Instant::now();
        let mut rounds = 0;
        while begin.elapsed() < Duration::from_millis(300) {
            let slots = redirect(&page, &all).unwrap().all_slots();
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
        .all_slots()[0];
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
fn a_forked_child_writes_its_own_name_into_the_log_which_outlives_it() {
    if !is_root() {
        return;
    }
    let mut target = Target::start();
    let page = target.page();
    let mut log = page.log().unwrap().unwrap();
    redirect(&page, &[target.redirect(0, MODE_LOG)]).unwrap();
    target.tell("call 0 7");
    let reply = target.tell("fork 0 100");
    let child: u32 = reply.strip_prefix("child ").unwrap().parse().unwrap();
    target.tell("call 0 1");
    assert_eq!(target.tell("reap"), format!("reaped {}", libc::SIGTERM));
    let pid = target.pid();
    target.finish();
    let mut calls = std::collections::BTreeMap::new();
    log.drain(u64::MAX, |entry| {
        *calls.entry(entry.who).or_insert(0) += 1;
    })
    .unwrap();
    let who = |pid: u32| u64::from(pid) << 32 | u64::from(pid);
    assert_eq!(calls, [(who(pid), 8), (who(child), 100)].into());
    assert_eq!((log.read(), log.lost()), (108, 0));
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
            .all_slots();
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
        .all_slots();
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
        .all_slots()[0];
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
        .all_slots();
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
            let slots = redirect(&page, &all).unwrap().all_slots();
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

const ROLE_KILLED: &str = "PROFILEMATE_TEST_KILLED_TRACER_OF";

/// Kills a tracer after `after` ptrace requests, in a target whose main thread is the first to be borrowed; whether it
/// made that many.
fn kill_after(after: u32, target: &Target) -> bool {
    let numbers = [target.pid().into(), target.original, target.function(0)];
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_tracer_killed_after_any_request_leaves_the_thread_on_its_way",
        ])
        .env(
            ROLE_KILLED,
            numbers.map(|number| number.to_string()).join(" "),
        )
        .env("PROFILEMATE_TEST_PERISH_AFTER", after.to_string())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
    assert!(killed || status.success(), "after {after}: {status}");
    killed
}

/// The tracer that is killed: it maps a page, or finds one, changes a pointer and puts it back.
fn map_and_swap(what: &str) {
    let numbers: Vec<u64> = what.split(' ').map(|word| word.parse().unwrap()).collect();
    let (page, _) = MarkerPage::acquire(numbers[0] as u32, numbers[1], &[]).unwrap();
    let request = profilemate::touch::Redirect {
        function: numbers[2],
        vectorcall_address: numbers[2] + 128,
        expected: numbers[1],
        version: None,
        version_cache: None,
        mode: MODE_RETURN,
        skip: 0,
    };
    let slots = redirect(&page, &[request]).unwrap().all_slots();
    restore(&page, &slots).unwrap();
}

#[test]
#[cfg(debug_assertions)]
fn a_tracer_killed_after_any_request_leaves_the_thread_on_its_way() {
    if let Ok(what) = std::env::var(ROLE_KILLED) {
        return map_and_swap(&what);
    }
    if !is_root() {
        return;
    }
    // It waits for a command; other threads are busy beside it; it computes with what lies
    // below its stack pointer and in vector registers; it reads from a pipe.
    for state in ["", "busy", "leaf", "wide", "read"] {
        let mut target = Target::start();
        let (does, held) = match state {
            "" => (String::new(), false),
            // A signal of a kind that is not blocked goes with a tracer that has just taken it.
            "busy" => ("busy faultless".to_owned(), false),
            _ => (format!("be {state} 5000"), true),
        };
        if state == "read" {
            target.tell("busy faultless");
        }
        if held {
            target.send(&does);
        } else if !does.is_empty() {
            target.tell(&does);
        }
        let mut after = 1;
        while kill_after(after, &target) {
            if !held {
                assert_eq!(target.tell("call 0 100"), "called", "{state}, {after}");
            }
            after += 1;
            assert!(after < 200, "it ends at some time");
        }
        assert!(after > 20, "mapping and swapping take more than {after}");
        if held {
            assert_eq!(target.reply(&does), "was");
        }
        assert_eq!(target.pointer(0), target.original);
        target.finish();
    }
}
