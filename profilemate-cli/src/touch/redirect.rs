//! Redirecting functions through the page, and putting them back.
//!
//! The journal comes first: a slot says which function it belongs to, and where in it the pointer lies, before the
//! pointer is changed. Whoever finds the page can undo every redirection from the page alone. Calls in flight are at
//! ease throughout: the page is never unmapped, and a slot calls the original whatever its data says.

use profilemate_common::page::{MODE_OFF, Mode, Slot};

use super::swap::{Outcome, SwapRequest, Width, swap};
use super::{Error, MarkerPage};

/// A function to redirect: facts that were checked on the live object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The `PyFunctionObject`.
    pub function: u64,
    /// Address of its `vectorcall` pointer.
    pub vectorcall_address: u64,
    /// The pointer now: the interpreter's own function.
    pub expected: u64,
    /// The version to clear so that specialised callers look again.
    pub version: Option<VersionWrite>,
    /// The interpreter's cache entry for that version (3.13 and later).
    pub version_cache: Option<VersionCache>,
    /// What the slot does with calls.
    pub mode: Mode,
    /// With [`profilemate_common::page::MODE_SKIP`], the object.
    pub skip: u64,
}

/// A 4-byte `func_version` and the value that makes it invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionWrite {
    /// Where.
    pub address: u64,
    /// What to store; 0 on every version so far.
    pub value: u32,
}

/// A pointer in the interpreter's function version cache, cleared if it still is `expected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionCache {
    /// Where.
    pub address: u64,
    /// The function.
    pub expected: u64,
}

/// A function that passes the page now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirected {
    /// Its slot.
    pub slot: u8,
    /// It did so before; only mode and skip object were set.
    pub was_redirected: bool,
}

/// Why one function was not redirected. Nothing of it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its pointer is not the interpreter's own function.
    #[error("its vectorcall pointer is {found:#x}, not the interpreter's own function")]
    OtherPointer {
        /// The pointer found.
        found: u64,
    },
    /// The page calls another original than the function expects.
    #[error("its vectorcall function {expected:#x} is not the one that the page calls")]
    OtherOriginal {
        /// What the function expects.
        expected: u64,
    },
    /// The pointer does not lie in the function object, or not aligned.
    #[error("its vectorcall pointer does not lie in the function object")]
    BadAddress,
    /// The pointer cannot be written.
    #[error("its vectorcall pointer cannot be written")]
    Fault,
    /// All slots are taken.
    #[error("all slots of the marker page are taken")]
    NoFreeSlot,
}

/// What [`restore`] did, in functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Pointers put back.
    pub restored: usize,
    /// Pointers that were the original already.
    pub already: usize,
    /// Pointers that somebody else had changed meanwhile, or functions that are gone; left alone.
    pub left: usize,
}

impl Restored {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            restored: self.restored + other.restored,
            already: self.already + other.already,
            left: self.left + other.left,
        }
    }
}

/// A redirection on its way.
struct Pending {
    index: usize,
    slot: u8,
    redirect: Redirect,
}

/// Redirects functions, each into a slot of its own. The result has one entry for each request, in order.
///
/// The caller holds the page's lock. A function that is already redirected keeps its slot.
pub fn redirect(
    page: &MarkerPage,
    requests: &[Redirect],
) -> Result<Vec<Result<Redirected, Refusal>>, Error> {
    page.require_usable()?;
    let mut slots = page.slots()?;
    let original = page.original()?;
    let mut results = vec![Err(Refusal::NoFreeSlot); requests.len()];
    let mut pending = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let offset = match check(request, original) {
            Ok(offset) => offset,
            Err(refusal) => {
                results[index] = Err(refusal);
                continue;
            }
        };
        let Some((slot, was_redirected)) = slot_for(&slots, request) else {
            continue;
        };
        let entry = &mut slots[usize::from(slot)];
        // Counters go on from where they were: whoever shows them takes differences.
        entry.function = request.function;
        entry.pointer_offset = offset;
        entry.mode = request.mode;
        entry.skip = request.skip;
        page.set_mode(slot, MODE_OFF)?;
        page.set_skip(slot, request.skip)?;
        page.set_function(slot, request.function, offset)?;
        pending.push(Pending {
            index,
            slot,
            redirect: *request,
        });
        results[index] = Ok(Redirected {
            slot,
            was_redirected,
        });
    }
    redirect_pending(page, &pending, &mut results)?;
    Ok(results)
}

fn check(request: &Redirect, original: u64) -> Result<u32, Refusal> {
    /// No function object is larger.
    const LARGEST: u64 = 4096;
    if request.expected != original {
        return Err(Refusal::OtherOriginal {
            expected: request.expected,
        });
    }
    let offset = request.vectorcall_address.wrapping_sub(request.function);
    let aligned = request.vectorcall_address.is_multiple_of(8);
    if request.function == 0 || !aligned || offset >= LARGEST {
        return Err(Refusal::BadAddress);
    }
    Ok(offset as u32)
}

/// The slot that the function has, or the free one whose counters say that it was used least: a call that is still in
/// flight through a freed slot would be counted there.
fn slot_for(slots: &[Slot], request: &Redirect) -> Option<(u8, bool)> {
    if let Some(at) = slots
        .iter()
        .position(|slot| slot.function == request.function)
    {
        return Some((at as u8, true));
    }
    let free = slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| slot.function == 0);
    free.min_by_key(|(_, slot)| slot.calls)
        .map(|(at, _)| (at as u8, false))
}

fn redirect_pending(
    page: &MarkerPage,
    pending: &[Pending],
    results: &mut [Result<Redirected, Refusal>],
) -> Result<(), Error> {
    let pointers: Vec<_> = pending
        .iter()
        .map(|Pending { slot, redirect, .. }| SwapRequest {
            address: redirect.vectorcall_address,
            width: Width::Eight,
            expected: redirect.expected,
            value: page.vectorcall_address(*slot),
        })
        .collect();
    let outcomes = swap(page, &pointers)?;
    let mut redirected = Vec::new();
    for (
        Pending {
            index,
            slot,
            redirect,
        },
        outcome,
    ) in pending.iter().zip(outcomes)
    {
        let refusal = match outcome {
            Outcome::Swapped => None,
            Outcome::Other(found) if found == page.vectorcall_address(*slot) => None,
            Outcome::Other(found) => Some(Refusal::OtherPointer { found }),
            Outcome::Fault => Some(Refusal::Fault),
        };
        if let Some(refusal) = refusal {
            page.free(*slot)?;
            results[*index] = Err(refusal);
        } else {
            page.set_mode(*slot, redirect.mode)?;
            redirected.push(*redirect);
        }
    }
    forget_versions(page, &redirected)
}

/// What `PyFunction_SetVectorcall` does besides storing the pointer. The pointer is there already, so a caller that
/// specialises in between already sees it; callers specialised before it look again once their version is gone.
fn forget_versions(page: &MarkerPage, redirects: &[Redirect]) -> Result<(), Error> {
    /// The interpreter may give a new version meanwhile; not this often.
    const ROUNDS: usize = 3;
    let mut versions: Vec<VersionWrite> = redirects
        .iter()
        .filter_map(|redirect| redirect.version)
        .collect();
    let mut caches: Vec<VersionCache> = redirects
        .iter()
        .filter_map(|redirect| redirect.version_cache)
        .collect();
    for _ in 0..ROUNDS {
        let mut requests = Vec::new();
        for version in &versions {
            let now = page.read_target::<u32>(version.address)?;
            requests.push(SwapRequest {
                address: version.address,
                width: Width::Four,
                expected: u64::from(now),
                value: u64::from(version.value),
            });
        }
        requests.extend(caches.drain(..).map(|cache| SwapRequest {
            address: cache.address,
            width: Width::Eight,
            expected: cache.expected,
            value: 0,
        }));
        if requests.is_empty() {
            return Ok(());
        }
        let outcomes = swap(page, &requests)?;
        let mut outcomes = outcomes.into_iter();
        versions.retain(|_| matches!(outcomes.next(), Some(Outcome::Other(_))));
    }
    Ok(())
}

/// Puts back the functions of some slots, and frees those slots. Does nothing for a free slot.
pub fn restore(page: &MarkerPage, slots: &[u8]) -> Result<Restored, Error> {
    let journal = page.slots()?;
    let original = page.original()?;
    let mut taken = Vec::new();
    for slot in slots {
        let entry = journal
            .get(usize::from(*slot))
            .ok_or(Error::NoSuchSlot { slot: *slot })?;
        if entry.function == 0 {
            continue;
        }
        page.set_mode(*slot, MODE_OFF)?;
        // A slot with a callee belongs to the helper's C callable: no pointer of the function was changed, and the
        // callable passes through the slot for as long as the process lives.
        if entry.callee == 0 {
            taken.push((
                *slot,
                entry.function.wrapping_add(u64::from(entry.pointer_offset)),
            ));
        }
    }
    let requests: Vec<_> = taken
        .iter()
        .map(|(slot, address)| SwapRequest {
            address: *address,
            width: Width::Eight,
            expected: page.vectorcall_address(*slot),
            value: original,
        })
        .collect();
    // The swap code of another build's page is not known to be what it should be.
    let outcomes = if requests.is_empty() {
        Vec::new()
    } else if page.is_current() {
        swap(page, &requests)?
    } else {
        swap(&MarkerPage::create(page.pid(), original)?, &requests)?
    };
    let mut result = Restored::default();
    for ((slot, _), outcome) in taken.iter().zip(outcomes) {
        match outcome {
            Outcome::Swapped => result.restored += 1,
            Outcome::Other(found) if found == original => result.already += 1,
            Outcome::Other(_) | Outcome::Fault => result.left += 1,
        }
        page.free(*slot)?;
    }
    Ok(result)
}

/// Puts back everything that the page's journal names, whoever wrote it.
pub fn restore_all(page: &MarkerPage) -> Result<Restored, Error> {
    let taken: Vec<u8> = (0_u8..)
        .zip(page.slots()?)
        .filter(|(_, slot)| slot.function != 0)
        .map(|(slot, _)| slot)
        .collect();
    restore(page, &taken)
}
