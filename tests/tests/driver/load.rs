//! Many calls: the counts stay exact, also where records are lost.

use std::process::Command;
use std::time::Duration;

use super::rig::Rig;
use profilemate::attach::detach_drivers;
use profilemate_common::driver::{Function, Totals};
use profilemate_tests::cuda::{self, Caller};
use profilemate_tests::{root, wait_for};

/// Threads, and calls of each.
const THREADS: u64 = 2;
const CALLS: u64 = 1_000_000;

#[test]
fn a_ring_made_too_small_loses_records_and_counts_them() {
    if !root() {
        return;
    }
    let mut caller = Caller::start(&cuda::library());
    let mut rig = Rig::new(4096);
    let (link, _) = rig.attach(&cuda::library(), caller.pid());
    caller.send(&format!("threads {THREADS} cuGraphLaunch {CALLS} 0 0"));
    let mut answered = false;
    std::thread::scope(|scope| {
        let caller = &mut caller;
        let waiter = scope.spawn(move || caller.answer());
        while !waiter.is_finished() {
            rig.drain();
            std::thread::sleep(Duration::from_millis(5));
        }
        answered = waiter.join().is_ok_and(|answer| answer.starts_with("400 "));
    });
    assert!(answered);
    caller.call("cuLaunchKernel 1000 7");
    detach_drivers(vec![link]);
    rig.drain();
    rig.assert_exact();
    let driver = rig.kernel.ledger().unwrap().driver;
    assert_eq!(caller.counted()["cuGraphLaunch"], THREADS * CALLS);
    assert_eq!(driver.fired, THREADS * CALLS + 1000);
    assert_eq!((driver.counted, driver.filtered), (1000, 0));
    assert!(driver.lost > 0, "the ring was meant to be too small");
    assert_eq!(rig.records.len() as u64, driver.submitted);
    // What was lost is in the totals all the same.
    let threads = rig.kernel.driver_threads();
    let launches: u64 = threads
        .iter()
        .map(|(_, thread)| thread.totals.graph_launches)
        .sum();
    assert_eq!(launches, THREADS * CALLS);
    for (tid, thread) in &threads {
        let kernels = if *tid == caller.pid() { 1000 } else { 0 };
        assert_eq!(thread.totals.kernels, kernels);
        assert_eq!(thread.depth, 0);
    }
}

#[test]
fn threads_have_totals_of_their_own() {
    if !root() {
        return;
    }
    let mut caller = Caller::start(&cuda::library());
    let mut rig = Rig::new(1 << 16);
    let (link, _) = rig.attach(&cuda::library(), caller.pid());
    caller.ask("threads 16 cuMemcpyDtoDAsync_v2 100 0 0 64 0");
    detach_drivers(vec![link]);
    let threads = rig.kernel.driver_threads();
    assert_eq!(threads.len(), 16);
    for (_, thread) in threads {
        let expected = Totals {
            copies: 100,
            copied_bytes: 6400,
            ..Totals::default()
        };
        assert_eq!((thread.pid, thread.totals), (caller.pid(), expected));
    }
    rig.assert_exact();
}

#[test]
fn a_call_under_way_is_neither_told_nor_lost() {
    if !root() {
        return;
    }
    let mut caller =
        Caller::run(Command::new(cuda::folder().join("caller")).env("FAKE_CUDA_SYNC_US", "600000"));
    caller.open(&cuda::library());
    let mut rig = Rig::new(1 << 16);
    let (link, _) = rig.attach(&cuda::library(), caller.pid());
    caller.send("call cuStreamSynchronize 2 1");
    let unfinished = |rig: &Rig| rig.kernel.ledger().unwrap().driver.unfinished;
    wait_for("the call to begin", Duration::from_secs(20), || {
        unfinished(&rig) == 1
    });
    rig.assert_exact();
    caller.answer();
    assert_eq!(unfinished(&rig), 0);
    let syncs = rig.told(Function::StreamSynchronize);
    assert_eq!(syncs.len(), 2);
    for sync in syncs {
        assert!(sync.ts_ns - sync.entry_ns >= 600_000_000, "{sync:?}");
    }
    caller.send("call cuStreamSynchronize 1 1");
    wait_for("the call to begin", Duration::from_secs(20), || {
        unfinished(&rig) == 1
    });
    detach_drivers(vec![link]);
    caller.answer();
    rig.assert_exact();
    assert_eq!(unfinished(&rig), 1, "its end was not seen");
}
