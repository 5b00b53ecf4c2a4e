//! Nothing of a probe is in any process but the one that it was meant for.

use super::rig::{Rig, plan};
use profilemate::attach::{Way, detach_drivers};
use profilemate::target::cuda::Library;
use profilemate_common::driver::Function;
use profilemate_tests::cuda::{self, Caller};
use profilemate_tests::root;

/// The breakpoint.
const INT3: u8 = 0xcc;

/// The byte at the probed instruction of `cuGraphLaunch` in the memory of a process.
fn site_byte(pid: u32) -> u8 {
    let library = Library::open(&cuda::library()).unwrap().unwrap();
    let plan = plan(&library);
    let site = plan
        .sites
        .iter()
        .find(|site| site.symbol == "cuGraphLaunch")
        .unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let address = maps
        .lines()
        .filter(|line| line.contains(cuda::library().to_str().unwrap()))
        .find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (start, end) = fields[0].split_once('-')?;
            let hex = |text| u64::from_str_radix(text, 16).ok();
            let (start, end, offset) = (hex(start)?, hex(end)?, hex(fields[2])?);
            let within = site.file_offset.checked_sub(offset)?;
            (within < end - start && fields[1].contains('x')).then_some(start + within)
        })
        .unwrap();
    let mut byte = [0];
    profilemate::sys::vm::read(pid, address, &mut byte).unwrap();
    byte[0]
}

#[test]
fn another_process_that_maps_the_library_has_no_breakpoint() {
    if !root() {
        return;
    }
    for way in Way::ALL {
        let (mut target, mut other) = (
            Caller::start(&cuda::library()),
            Caller::start(&cuda::library()),
        );
        let plain = site_byte(target.pid());
        assert_ne!(plain, INT3);
        let mut rig = Rig::with(1 << 16, way);
        let (link, _) = rig.attach_some(&cuda::library(), target.pid(), |site| {
            site.symbol == "cuGraphLaunch"
        });
        assert_eq!(site_byte(target.pid()), INT3, "{way:?}");
        assert_eq!(site_byte(other.pid()), plain, "{way:?}");
        let mut late = Caller::start(&cuda::library());
        assert_eq!(site_byte(late.pid()), plain, "{way:?}");
        for caller in [&mut target, &mut other, &mut late] {
            caller.call("cuGraphLaunch 100 0 0");
        }
        assert_eq!(rig.calls()[&Function::GraphLaunch], 100);
        detach_drivers(vec![link]);
        assert_eq!(site_byte(target.pid()), plain);
        rig.assert_exact();
    }
}

#[test]
fn a_forked_child_runs_on_and_its_parent_is_counted() {
    if !root() {
        return;
    }
    let mut caller = Caller::start(&cuda::library());
    let before = caller.ask("fork cuGraphLaunch 50 0 0");
    assert!(before.starts_with("0 "), "{before}");
    let mut rig = Rig::new(1 << 16);
    let (link, _) = rig.attach(&cuda::library(), caller.pid());
    for _ in 0..5 {
        // The child is another process: it is counted when it is attached itself.
        let during = caller.ask("fork cuGraphLaunch 50 0 0");
        assert!(during.starts_with("0 "), "{during}");
        caller.call("cuGraphLaunch 20 0 0");
    }
    assert_eq!(rig.calls()[&Function::GraphLaunch], 100);
    detach_drivers(vec![link]);
    let after = caller.ask("fork cuGraphLaunch 50 0 0");
    assert!(after.starts_with("0 "), "{after}");
    rig.assert_exact();
}

#[test]
fn two_library_files_at_once() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let other_file = folder.path().join("libcuda.so.2");
    cuda::variant(&other_file, &["-DODD_LAUNCH"]);
    let (mut one, mut two) = (Caller::start(&cuda::library()), Caller::start(&other_file));
    let mut rig = Rig::new(1 << 16);
    let (first, _) = rig.attach(&cuda::library(), one.pid());
    let (second, odd) = rig.attach(&other_file, two.pid());
    let refused: Vec<&str> = odd
        .refused
        .iter()
        .map(|(symbol, _)| symbol.as_str())
        .collect();
    assert_eq!(refused, ["cuGraphLaunch", "cuGraphLaunch_ptsz"]);
    assert!(odd.refused[0].1.contains("stack pointer"), "{odd:?}");
    for caller in [&mut one, &mut two] {
        caller.call("cuGraphLaunch 10 0 0");
        caller.call("cuStreamSynchronize 10 1");
    }
    assert_eq!(rig.calls()[&Function::GraphLaunch], 10);
    assert_eq!(rig.calls()[&Function::StreamSynchronize], 20);
    detach_drivers(vec![first, second]);
    rig.assert_exact();
}
