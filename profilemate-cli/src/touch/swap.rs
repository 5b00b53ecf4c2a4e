//! Compare-and-swap inside the target, done by the page's own code in one stopped thread.
//!
//! A pointer that other threads follow must change in one go, and only from the value that was checked. Neither holds
//! for `process_vm_writev` or `/proc/PID/mem`: they copy bytes, and what was read before may have changed since.
//! `lock cmpxchg` in the target's own address space has both, and the kernel checks the address like any of the
//! target's accesses. If no thread can be stopped nothing is written; there is no lesser way to fall back on.

use profilemate_common::page::{SWAPS, Swap};

use super::{Error, MarkerPage};

/// Size of a swapped value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 4 bytes.
    Four,
    /// 8 bytes.
    Eight,
}

impl Width {
    const fn bytes(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    const fn mask(self) -> u64 {
        match self {
            Self::Four => u32::MAX as u64,
            Self::Eight => u64::MAX,
        }
    }
}

/// One compare-and-swap to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwapRequest {
    /// Where; aligned to `width`.
    pub address: u64,
    /// How many bytes.
    pub width: Width,
    /// What must be there.
    pub expected: u64,
    /// What to put there.
    pub value: u64,
}

/// How one compare-and-swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value was stored.
    Swapped,
    /// Another value was there, and still is.
    Other(u64),
    /// The address is not mapped, not writable, or not aligned. Nothing was stored.
    Fault,
}

/// Does all `requests` in order, and tells how each ended. Stops one thread, once for each [`SWAPS`] requests.
pub fn swap(page: &MarkerPage, requests: &[SwapRequest]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::with_capacity(requests.len());
    let mut rest = requests;
    while let Some(first) = rest.first() {
        // An atomic access across two cache lines is no way to treat a running server; refuse it here.
        if !first.address.is_multiple_of(u64::from(first.width.bytes())) {
            outcomes.push(Outcome::Fault);
            rest = &rest[1..];
            continue;
        }
        let aligned = |request: &SwapRequest| {
            request
                .address
                .is_multiple_of(u64::from(request.width.bytes()))
        };
        let batch = rest
            .iter()
            .take(SWAPS)
            .take_while(|request| aligned(request))
            .count();
        let done = run_batch(page, &rest[..batch])?;
        rest = &rest[done.len()..];
        outcomes.extend(done);
    }
    Ok(outcomes)
}

/// Runs one batch as far as it goes: up to its end, or up to and including the first fault.
fn run_batch(page: &MarkerPage, batch: &[SwapRequest]) -> Result<Vec<Outcome>, Error> {
    let list: Vec<Swap> = batch
        .iter()
        .map(|request| Swap {
            address: request.address,
            width: request.width.bytes(),
            outcome: 0,
            expected: request.expected & request.width.mask(),
            value: request.value & request.width.mask(),
        })
        .collect();
    page.write_swaps(&list)?;
    let faulted = run_code(page)?;
    let found = page.read_swaps(list.len())?;
    let mut outcomes = Vec::with_capacity(batch.len());
    for entry in found {
        match entry.outcome {
            1 => outcomes.push(Outcome::Swapped),
            2 => outcomes.push(Outcome::Other(entry.value)),
            _ => {
                outcomes.push(Outcome::Fault);
                break;
            }
        }
    }
    // A list that neither ended nor faulted was not run by our code.
    if faulted || outcomes.last() != Some(&Outcome::Fault) {
        Ok(outcomes)
    } else {
        Err(Error::NotOurs {
            pid: page.pid(),
            what: "its swap code did nothing",
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn run_code(page: &MarkerPage) -> Result<bool, Error> {
    use super::stopped::Landing;

    let code = page.base() + super::code::SWAP_OFFSET_IN_CODE as u64;
    let (landing, stood_ns) =
        super::threads::with_stopped(page.pid(), |thread| thread.run_code(code))?;
    log::info!(
        "process {}: values swapped, one thread stood for {} us",
        page.pid(),
        stood_ns / 1000
    );
    Ok(matches!(landing, Landing::Fault))
}

#[cfg(not(target_arch = "x86_64"))]
fn run_code(_: &MarkerPage) -> Result<bool, Error> {
    Err(Error::Architecture {
        missing: "the swap code of the marker page",
    })
}
