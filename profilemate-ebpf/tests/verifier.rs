//! The running kernel accepts every program that the library loads. Needs root. (`fields_looped` needs type information
//! that the tracer adds; the tests of `attach` load it.)

use aya::programs::UProbe;
use aya::{EbpfLoader, VerifierLogLevel};
use profilemate_ebpf::{FIELDS_LOOPED, OBJECT, PROGRAM_NAMES};

#[test]
fn this_kernel_accepts_the_probe() {
    // SAFETY: no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(
            std::env::var_os("PROFILEMATE_REQUIRE_ROOT").is_none(),
            "PROFILEMATE_REQUIRE_ROOT is set, but this is not root"
        );
        println!("skipped: loading an eBPF program needs root");
        return;
    }
    // `PROFILEMATE_OBJECT` names another build, as the tracer reads it.
    let other = std::env::var_os("PROFILEMATE_OBJECT").map(|path| std::fs::read(path).unwrap());
    let bytes = other.as_deref().unwrap_or(OBJECT);
    let mut loader = EbpfLoader::new();
    let level = if std::env::var_os("VERBOSE").is_some() {
        VerifierLogLevel::VERBOSE
    } else {
        VerifierLogLevel::STATS
    };
    loader.verifier_log_level(level);
    let mut ebpf = loader.load(bytes).unwrap();
    for name in PROGRAM_NAMES
        .into_iter()
        .filter(|name| *name != FIELDS_LOOPED)
    {
        let probe: &mut UProbe = ebpf.program_mut(name).unwrap().try_into().unwrap();
        probe
            .load()
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        println!(
            "{name}: {:?} instructions verified",
            probe.info().unwrap().verified_instruction_count()
        );
    }
}
