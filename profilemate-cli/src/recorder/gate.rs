//! How many snapshots are made, and how fast: so that a trigger that flaps fills no disk. Pure.

use std::time::Duration;

use crate::event::recorder::Suppressed;

/// Bounds of what a recorder writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time between a snapshot and the next one that a trigger can make.
    pub cooldown: Duration,
    /// Folders that triggers can make. The last place is kept for the end of a process.
    pub folders: u32,
    /// Bytes of all folders.
    pub bytes: u64,
}

/// Who wants a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A condition or an event in the rows.
    Trigger,
    /// A traced process has ended.
    Death,
    /// A person or a script: no cool-down, and no bound but that of bytes.
    Asked,
}

/// Why no snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too soon.
    #[error("too soon after the one before")]
    Cooldown,
    /// Too many folders.
    #[error("as many folders as `--snapshots` allows have been written")]
    Folders,
    /// Too many bytes.
    #[error("as many bytes as `--snapshot-bytes` allows have been written")]
    Bytes,
}

/// Lets snapshots through.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    limits: Limits,
    /// When a trigger was let through last.
    last_ns: Option<u64>,
    folders: u32,
    bytes: u64,
    suppressed: Suppressed,
}

impl Gate {
    /// A gate that has let nothing through yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            last_ns: None,
            folders: 0,
            bytes: 0,
            suppressed: Suppressed::default(),
        }
    }

    /// Whether a snapshot of about `bytes` may be made now. What is refused is counted.
    pub fn admit(&mut self, who: Who, now_ns: u64, bytes: u64) -> Result<(), Refusal> {
        if self.bytes.saturating_add(bytes) > self.limits.bytes {
            self.suppressed.bytes += 1;
            return Err(Refusal::Bytes);
        }
        let places = match who {
            Who::Asked => return Ok(()),
            Who::Death => self.limits.folders,
            Who::Trigger => self.limits.folders.saturating_sub(1).max(1),
        };
        if self.folders >= places {
            self.suppressed.folders += 1;
            return Err(Refusal::Folders);
        }
        let cooldown = self.limits.cooldown.as_nanos() as u64;
        let cools = |last: u64| now_ns.saturating_sub(last) < cooldown;
        if who == Who::Trigger && self.last_ns.is_some_and(cools) {
            self.suppressed.cooldown += 1;
            return Err(Refusal::Cooldown);
        }
        self.last_ns = Some(now_ns);
        self.folders += 1;
        Ok(())
    }

    /// A folder of so many bytes was written.
    pub fn wrote(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A folder could not be written.
    pub fn failed(&mut self) {
        self.suppressed.failed += 1;
    }

    /// What made no snapshot.
    pub fn suppressed(&self) -> Suppressed {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn gate(folders: u32, bytes: u64) -> Gate {
        Gate::new(Limits {
            cooldown: Duration::from_secs(10),
            folders,
            bytes,
        })
    }

    #[test]
    fn a_trigger_that_flaps_is_let_through_seldom_and_the_rest_is_counted() {
        let mut gate = gate(100, 1 << 30);
        let admitted = (0..30)
            .filter(|second| gate.admit(Who::Trigger, second * SECOND, 0).is_ok())
            .count();
        assert_eq!(admitted, 3);
        assert_eq!(gate.suppressed().cooldown, 27);
        assert_eq!(gate.admit(Who::Asked, 30 * SECOND - 1, 0), Ok(()));
    }

    #[test]
    fn the_last_place_is_for_the_end_of_a_process() {
        let mut gate = gate(3, 1 << 30);
        let at = |number: u64| number * 100 * SECOND;
        assert!(
            gate.admit(Who::Trigger, at(1), 0).is_ok()
                && gate.admit(Who::Trigger, at(2), 0).is_ok()
        );
        assert_eq!(gate.admit(Who::Trigger, at(3), 0), Err(Refusal::Folders));
        assert_eq!(gate.admit(Who::Death, at(4), 0), Ok(()));
        assert_eq!(gate.admit(Who::Death, at(5), 0), Err(Refusal::Folders));
        assert_eq!(gate.admit(Who::Asked, at(6), 0), Ok(()));
        assert_eq!(gate.suppressed().folders, 2);
    }

    #[test]
    fn bytes_bound_everybody() {
        let mut gate = gate(100, 1_000);
        assert_eq!(gate.admit(Who::Asked, 0, 1_000), Ok(()));
        gate.wrote(1_000);
        for who in [Who::Asked, Who::Death, Who::Trigger] {
            assert_eq!(gate.admit(who, SECOND, 1), Err(Refusal::Bytes));
        }
    }

    proptest! {
        #[test]
        fn triggers_never_make_more_folders_than_allowed(
            times in proptest::collection::vec(0_u64..20 * SECOND, 0..200),
            deaths in proptest::collection::vec(any::<bool>(), 200),
            folders in 1_u32..8,
        ) {
            let mut gate = gate(folders, u64::MAX);
            let (mut now, mut made) = (0, 0);
            for (gap, death) in times.iter().zip(deaths) {
                now += gap;
                let who = if death { Who::Death } else { Who::Trigger };
                made += u32::from(gate.admit(who, now, 0).is_ok());
            }
            prop_assert!(made <= folders);
            prop_assert_eq!(u64::from(made) + gate.suppressed().total(), times.len() as u64);
        }
    }
}
