//! Probes on CUDA driver functions: what is told is what was called, call by call.
#![expect(clippy::unwrap_used, reason = "this is a test")]

mod isolation;
mod load;
mod real;
mod rig;

use std::collections::BTreeMap;

use profilemate::attach::{Way, detach_drivers};
use profilemate_common::driver::Function;
use profilemate_common::record::{PHASE_ENTRY, PHASE_RETURN};
use profilemate_tests::cuda::{self, Caller};
use profilemate_tests::root;
use rig::Rig;

/// The library that the demo target writes for itself.
#[test]
fn the_demo_targets_driver_is_probed_like_a_real_one() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libcuda.so.1");
    let script = "import sys; from profilemate_demo import driver; open(sys.argv[1], 'wb').write(driver.image())";
    let status = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .env("PYTHONPATH", profilemate_tests::demo::FOLDER)
        .status()
        .unwrap();
    assert!(status.success());
    let mut caller = Caller::start(&path);
    let mut rig = Rig::new(1 << 16);
    let (link, plan) = rig.attach(&path, caller.pid());
    assert!(plan.refused.is_empty() && plan.sites.len() > 8, "{plan:?}");
    for what in [
        "cuStreamBeginCapture_v2 1 0 1",
        "cuStreamEndCapture 1 0 @0",
        "cuGraphInstantiateWithFlags 1 @1 *0 0",
        "cuGraphLaunch 30 *1 0",
        "cuStreamSynchronize 2 0",
    ] {
        assert_eq!(caller.call(what).0, 0, "{what}");
    }
    detach_drivers(vec![link]);
    let made = rig.told(Function::GraphInstantiate)[0];
    let launches = rig.told(Function::GraphLaunch);
    assert_eq!(launches.len(), 30);
    assert!(made.out != 0 && launches.iter().all(|launch| launch.args[0] == made.out));
    assert_eq!(rig.calls()[&Function::StreamSynchronize], 2);
    rig.assert_exact();
}

/// Captures a graph of three nodes and launches it twelve times; the stand-in's places 0 and 1 hold graph and exec. Each
/// call with its result.
const STORY: [(&str, i32); 20] = [
    ("cuStreamBeginCapture_v2 1 1 0", 0),
    ("cuStreamIsCapturing 2 1 @5", 0),
    ("cuLaunchKernel 3 7 1 1 1 1 1", 0),
    ("cuStreamSynchronize 1 1", 900),
    ("cuStreamEndCapture 1 1 @0", 0),
    ("cuGraphInstantiateWithFlags 1 @1 *0 0", 0),
    ("cuGraphUpload 1 *1 1", 0),
    ("cuGraphLaunch 10 *1 1", 0),
    ("cuGraphLaunch_ptsz 2 *1 1", 0),
    ("cuGraphLaunch 1 4096 1", 400),
    ("cuEventCreate 1 @2 0", 0),
    ("cuEventRecord 2 *2 1", 0),
    ("cuEventSynchronize 1 *2", 0),
    ("cuCtxSynchronize 1", 0),
    ("cuMemcpyHtoDAsync_v2 2 0 0 1000 1", 0),
    ("cuMemcpyHtoDAsync 1 0 0 8589934602 1", 0),
    ("cuMemcpyPeerAsync 1 0 0 0 0 500 1", 0),
    ("cuMemcpy2DAsync_v2 1 @3 1", 0),
    ("cuGraphExecDestroy 1 *1", 0),
    ("cuStreamSynchronize 3 1", 0),
];

#[test]
fn every_call_of_the_stand_in_is_counted_and_told() {
    if !root() {
        return;
    }
    for way in Way::ALL {
        let mut caller = Caller::start(&cuda::library());
        // Width and height of the copy that place 3 describes.
        caller.ask("set 3 14 100");
        caller.ask("set 3 15 7");
        let mut rig = Rig::with(1 << 20, way);
        // One by one, the kernel takes 110 ms to detach each: only what the story calls.
        let (link, plan) = rig.attach_some(&cuda::library(), caller.pid(), |site| {
            way != Way::OneByOne
                || STORY
                    .iter()
                    .any(|(what, _)| what.split(' ').next() == Some(&site.symbol))
        });
        assert!(plan.refused.is_empty(), "{:?}", plan.refused);
        assert!(plan.sites.iter().all(|site| site.offset == 10));
        for (what, result) in STORY {
            assert_eq!(caller.call(what).0, result, "{what}");
        }
        detach_drivers(vec![link]);
        caller.call("cuGraphLaunch 5 *1 1");

        let expected = BTreeMap::from([
            (Function::StreamBeginCapture, 1),
            (Function::StreamEndCapture, 1),
            (Function::GraphInstantiate, 1),
            (Function::GraphUpload, 1),
            (Function::GraphLaunch, 13),
            (Function::StreamSynchronize, 4),
            (Function::EventSynchronize, 1),
            (Function::ContextSynchronize, 1),
            (Function::EventRecord, 2),
            (Function::KernelLaunch, 3),
            (Function::CopyAsync, 5),
            (Function::CaptureStatus, 2),
            (Function::GraphExecDestroy, 1),
        ]);
        assert_eq!(rig.calls(), expected, "{way:?}");
        assert_eq!(caller.counted()["cuGraphLaunch"], 16, "five of them unseen");
        check_records(&mut rig, caller.pid());
        rig.assert_exact();
    }
}

fn check_records(rig: &mut Rig, pid: u32) {
    let made = rig.told(Function::GraphInstantiate)[0];
    let ended = rig.told(Function::StreamEndCapture)[0];
    let launches = rig.told(Function::GraphLaunch);
    assert_eq!(launches.len(), 13);
    assert_eq!(made.args[1], ended.out, "the graph that was captured");
    assert!(made.out != 0 && ended.out != 0);
    for (index, launch) in launches.iter().enumerate() {
        let good = index < 12;
        assert_eq!(launch.args[0], if good { made.out } else { 4096 });
        assert_eq!(launch.result, if good { 0 } else { 400 });
        assert_eq!(launch.phase, PHASE_RETURN);
        assert_eq!(launch.totals.graph_launches, index as u64 + 1);
        assert_eq!((launch.pid, launch.totals.kernels), (pid, 3));
        assert!(launch.ts_ns > launch.entry_ns && launch.entry_ns > made.ts_ns);
    }
    let syncs = rig.told(Function::StreamSynchronize);
    assert_eq!((syncs[0].result, syncs[3].result), (900, 0));
    let recorded = rig.told(Function::EventRecord);
    assert_eq!((recorded[0].phase, recorded[0].args[1]), (PHASE_ENTRY, 1));
    assert!(rig.told(Function::KernelLaunch).is_empty());
    // 2 x 1000, 8589934602 mod 2^32, 500, 100 x 7.
    let totals = rig.thread(pid).totals;
    assert_eq!(
        (totals.copies, totals.copied_bytes),
        (5, 2000 + 10 + 500 + 700)
    );
    assert_eq!(rig.thread(pid).depth, 0);
}
