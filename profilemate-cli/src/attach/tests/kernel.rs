//! Records, ledger, detaching, and the self-test, on the running kernel.

use super::mark::{MarkPage, Registers, SITE};
use super::root;
use crate::attach::{
    Capabilities, Error, Kernel, Link, Nop5, Options, Way, detach_all, probe_nop5,
};
use bytemuck::Zeroable as _;
use profilemate_common::path::Program;
use profilemate_common::record::{CLASS_BARE, MethodCalled, PHASE_ENTRY, PHASE_RETURN};

fn heads(ring: &mut crate::attach::Reader) -> Vec<MethodCalled> {
    let mut heads = Vec::new();
    ring.drain(|record| {
        heads.push(bytemuck::pod_read_unaligned(
            &record[..size_of::<MethodCalled>()],
        ));
    });
    heads
}

#[test]
fn a_call_without_a_program_makes_a_bare_record() {
    if !root() {
        return;
    }
    let page = MarkPage::new().unwrap();
    let mut kernel = Kernel::load(Options::default()).unwrap();
    let link = kernel.attach_page(&page.path(), SITE, 63).unwrap();
    assert_eq!(link.page, 63);
    let mut ring = kernel.ring().unwrap();
    let registers = Registers {
        callable: 0x11,
        args: 0x22,
        entry_cycles: 0x33,
        kwnames: 0,
        slot_nargs: 17 << 32 | 2,
        result: 0x66,
        return_cycles: 0x77,
        phase: 1,
    };
    page.pass(&registers);
    page.pass(&Registers {
        phase: 0,
        result: 0,
        return_cycles: 0,
        ..registers
    });
    // No slot of ours: no record, but counted.
    page.pass(&Registers {
        slot_nargs: 64 << 32,
        ..registers
    });
    let heads = heads(&mut ring);
    assert_eq!(heads.len(), 2);
    let first = heads[0];
    assert_eq!(
        (first.pid, first.page, first.slot, first.class),
        (std::process::id(), 63, 17, CLASS_BARE)
    );
    assert_eq!(
        (
            first.callable,
            first.entry_cycles,
            first.return_cycles,
            first.result
        ),
        (0x11, 0x33, 0x77, 0x66)
    );
    assert_eq!((first.phase, heads[1].phase), (PHASE_RETURN, PHASE_ENTRY));
    assert_eq!(
        (first.program, first.blob_len, first.field_count),
        (0, 0, 0)
    );
    assert!(heads[1].ts_ns > first.ts_ns);
    let ledger = kernel.ledger().unwrap();
    assert_eq!(
        (ledger.fired, ledger.submitted, ledger.lost, ledger.filtered),
        (3, 2, 0, 1)
    );
    detach_all(vec![link]);
    page.pass(&registers);
    assert_eq!(
        kernel.ledger().unwrap().fired,
        3,
        "a detached page makes no events"
    );
}

/// Calls of each thread in the test of loss.
const CALLS: u64 = 20_000;
/// Threads of that test.
const THREADS: u64 = 3;

#[test]
fn a_full_ring_counts_every_lost_record() {
    if !root() {
        return;
    }
    let page = MarkPage::new().unwrap();
    let mut kernel = Kernel::load(Options {
        ring_bytes: 4096,
        ..Options::default()
    })
    .unwrap();
    let _link = kernel.attach_page(&page.path(), SITE, 1).unwrap();
    let mut ring = kernel.ring().unwrap();
    let program = Program {
        id: 3,
        class: 1,
        field_count: 1,
        op_count: 0,
        ..Program::zeroed()
    };
    kernel.set_program(1, 1, &program).unwrap();
    let mut read = 0;
    std::thread::scope(|scope| {
        let page = &page;
        let threads: Vec<_> = (0..THREADS)
            .map(|slot| {
                scope.spawn(move || {
                    let registers = Registers {
                        slot_nargs: slot << 32,
                        ..Registers::default()
                    };
                    for _ in 0..CALLS {
                        page.pass(&registers);
                    }
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            read += ring.drain(|_| {}) as u64;
            std::thread::yield_now();
        }
    });
    read += ring.drain(|_| {}) as u64;
    let ledger = kernel.ledger().unwrap();
    assert_eq!(ledger.fired, CALLS * THREADS);
    assert_eq!(
        ledger.fired,
        ledger.submitted + ledger.lost + ledger.filtered
    );
    assert_eq!(ledger.submitted, read);
    assert!(ledger.lost > 0, "the ring was meant to be too small");
}

#[test]
fn slots_can_be_set_and_cleared_again_and_again() {
    if !root() {
        return;
    }
    let page = MarkPage::new().unwrap();
    let mut kernel = Kernel::load(Options::default()).unwrap();
    let _link = kernel.attach_page(&page.path(), SITE, 0).unwrap();
    let mut ring = kernel.ring().unwrap();
    let registers = Registers {
        slot_nargs: 4 << 32,
        ..Registers::default()
    };
    for id in 1..=100 {
        kernel
            .set_program(
                0,
                4,
                &Program {
                    id,
                    ..Program::zeroed()
                },
            )
            .unwrap();
        page.pass(&registers);
        kernel.clear_slot(0, 4).unwrap();
        page.pass(&registers);
    }
    let programs: Vec<u32> = heads(&mut ring).iter().map(|head| head.program).collect();
    let expected: Vec<u32> = (1..=100).flat_map(|id| [id, 0]).collect();
    assert_eq!(programs, expected);
    assert!(matches!(
        kernel.set_program(64, 0, &Program::zeroed()),
        Err(Error::OutOfRange { what: "page", .. })
    ));
    assert!(matches!(
        kernel.set_program(0, 64, &Program::zeroed()),
        Err(Error::OutOfRange { what: "slot", .. })
    ));
}

#[test]
fn many_pages_detach_at_once() {
    if !root() {
        return;
    }
    let mut kernel = Kernel::load(Options::default()).unwrap();
    let pages: Vec<MarkPage> = (0..6).map(|_| MarkPage::new().unwrap()).collect();
    let links: Vec<Link> = pages
        .iter()
        .enumerate()
        .map(|(index, page)| {
            kernel
                .attach_page(&page.path(), SITE, index as u16)
                .unwrap()
        })
        .collect();
    detach_all(links);
    for page in &pages {
        page.pass(&Registers::default());
    }
    assert_eq!(kernel.ledger().unwrap().fired, 0);
}

#[test]
fn the_five_byte_site_is_judged_only_where_it_gains() {
    if !root() {
        return;
    }
    let capabilities = Capabilities::probe();
    let verdict = probe_nop5().unwrap();
    println!("five-byte site on {}: {verdict:?}", capabilities.release);
    let gains = cfg!(target_arch = "x86_64") && capabilities.version.unwrap() >= (6, 18);
    assert_eq!(verdict != Nop5::NoGain, gains);
    assert_eq!(
        probe_nop5().unwrap(),
        verdict,
        "a second trial says the same"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    if !root() {
        return;
    }
    let mut kernel = Kernel::load(Options::default()).unwrap();
    let error = kernel
        .attach_page("/proc/self/fd/9999".as_ref(), 0, 0)
        .unwrap_err();
    assert!(error.to_string().contains("/proc/self/fd/9999"), "{error}");
}

#[test]
fn driver_probes_are_attached_in_the_best_way_that_is_allowed() {
    if !root() {
        return;
    }
    let version = Capabilities::probe().version.unwrap();
    for best in Way::ALL {
        let options = Options {
            ring_bytes: 4096,
            drivers: best,
        };
        let way = Kernel::load(options).unwrap().driver_way();
        let expected = match best {
            Way::Session if version < (6, 13) => Way::Many,
            best => best,
        };
        if version >= (6, 10) {
            assert_eq!(way, expected);
        } else {
            assert_ne!(way, Way::Session);
        }
    }
}
