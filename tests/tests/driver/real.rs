//! NVIDIA's own libraries, without a GPU: every site is cheap, and fires as often as its function is called.

use std::collections::BTreeMap;

use super::rig::{Rig, plan};
use profilemate::attach::detach_drivers;
use profilemate::plan::site::Cost;
use profilemate::target::cuda::{DRIVER, Library, RUNTIME};
use profilemate_common::driver::{Function, Told};
use profilemate_tests::cuda::{self, Caller};
use profilemate_tests::root;

const DRIVERS: [&str; 2] = ["libcuda-535", "libcuda-550"];
const RUNTIMES: [&str; 2] = ["libcudart-12", "libcudart-13"];

#[test]
fn no_site_of_the_real_libraries_is_single_stepped() {
    for name in DRIVERS.into_iter().chain(RUNTIMES) {
        let Some(path) = cuda::real(name) else {
            continue;
        };
        let library = Library::open(&path).unwrap().unwrap();
        let plan = plan(&library);
        println!(
            "{name}: {} sites, build id {}",
            plan.sites.len(),
            plan.build_id
        );
        assert!(plan.refused.is_empty(), "{name}: {:?}", plan.refused);
        for site in &plan.sites {
            assert!(
                matches!(site.cost, Cost::Emulated | Cost::Nop),
                "{name}: {site:?}"
            );
            let expected = if name.starts_with("libcuda-") { 10 } else { 0 };
            assert_eq!(site.offset, expected, "{name}: {site:?}");
        }
        let declared = if name.starts_with("libcuda-") {
            DRIVER
        } else {
            RUNTIME
        };
        for declared in declared {
            assert!(
                plan.functions().contains(&declared.function),
                "{name} has no {:?}",
                declared.function
            );
        }
    }
}

/// Calls of each symbol.
const CALLS: u64 = 25;

#[test]
fn every_probe_fires_as_often_as_the_real_function_is_called() {
    if !root() {
        return;
    }
    for name in DRIVERS.into_iter().chain(RUNTIMES) {
        let Some(path) = cuda::real(name) else {
            continue;
        };
        let mut caller = Caller::start(&path);
        let mut rig = Rig::new(1 << 20);
        let (link, plan) = rig.attach(&path, caller.pid());
        let mut expected: BTreeMap<Function, u64> = BTreeMap::new();
        let mut told = 0;
        for site in &plan.sites {
            // There is no device, so each call fails before it looks at its arguments.
            let (result, _) = caller.call(&format!("{} {CALLS} @1 @2 @3 @4 @5 @6", site.symbol));
            assert_ne!(result, 0, "{name}: {} without a device", site.symbol);
            *expected.entry(site.cookie.function).or_default() += CALLS;
            told += if site.cookie.told == Told::Counted {
                0
            } else {
                CALLS
            };
        }
        detach_drivers(vec![link]);
        assert_eq!(rig.calls(), expected, "{name}");
        rig.drain();
        assert_eq!(rig.records.len() as u64, told, "{name}");
        let driver = rig.kernel.ledger().unwrap().driver;
        assert_eq!(
            (driver.lost, driver.filtered, driver.unfinished),
            (0, 0, 0),
            "{name}"
        );
        for record in &rig.records {
            assert_eq!(record.out, 0, "nothing was made: {record:?}");
        }
        rig.assert_exact();
    }
}

#[test]
fn the_driver_gives_out_the_functions_that_are_probed() {
    for name in DRIVERS {
        let Some(path) = cuda::real(name) else {
            continue;
        };
        let mut caller = Caller::start(&path);
        let library = Library::open(&path).unwrap().unwrap();
        let symbols: Vec<String> = plan(&library)
            .sites
            .into_iter()
            .flat_map(|site| [vec![site.symbol], site.aliases].concat())
            .collect();
        // libcudart calls the driver through such pointers.
        for base in [
            "cuGraphLaunch",
            "cuGraphInstantiate",
            "cuGraphInstantiateWithFlags",
            "cuStreamBeginCapture",
            "cuStreamEndCapture",
            "cuStreamSynchronize",
            "cuLaunchKernel",
            "cuLaunchKernelEx",
            "cuMemcpyHtoDAsync",
            "cuMemcpyAsync",
        ] {
            let found = caller.ask(&format!("find {base} cuGetProcAddress_v2"));
            assert!(
                symbols.contains(&found),
                "{name}: {base} leads to `{found}`"
            );
        }
    }
}
