//! A method bound to a slot, and what is done with its calls.

use profilemate_common::page::{MODE_COUNT, Mode};

use super::look::Ready;
use crate::budget::ladder;
use crate::catalog::Method;
use crate::event;

/// A method bound to a slot.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) slot: u8,
    pub(super) function: u64,
    /// Where its `vectorcall` pointer lies, if that was redirected; a callable of the helper's is not.
    pub(super) pointer: Option<u64>,
    /// Its entry in the catalogue.
    pub(super) method: Method,
    /// What was said of it last; its mode, unless it is shed.
    pub(super) said: event::Method,
    /// The modes while graphs can be captured and otherwise, where they differ.
    changing: Option<(Mode, Mode)>,
    /// Tables that it feeds.
    pub(super) tables: Vec<String>,
    /// Reads of its program.
    pub(super) reads: u32,
    /// Where it stands on the ladder of costs.
    pub(super) rung: Option<usize>,
    /// Its calls are counted only, because of what they cost.
    pub(super) shed: bool,
    /// Durations of its calls are summed in the page besides.
    pub(super) counted: bool,
}

impl Bound {
    /// `said` names slot and mode.
    pub(super) fn new(ready: &Ready, pointer: Option<u64>, said: event::Method) -> Self {
        let method = &ready.method;
        let reads = ready
            .fields
            .iter()
            .filter_map(|(_, _, compiled)| Some(compiled.as_ref().ok()?.ops.len() as u32))
            .sum();
        Self {
            slot: said.slot,
            function: ready.function.address,
            pointer,
            method: method.clone(),
            changing: method
                .events
                .steady_mode()
                .map(|steady| (said.mode, steady)),
            tables: method.tables.clone(),
            reads,
            rung: ladder::rung_of(&method.id, &method.tables),
            shed: false,
            counted: false,
            said,
        }
    }

    /// The mode that it is to have while its process serves, or does not, if that is not the one that it has.
    pub(super) fn mode_while(&self, serving: bool) -> Option<Mode> {
        let (capturing, steady) = self.changing?;
        let mode = if serving { steady } else { capturing };
        (mode != self.said.mode).then_some(mode)
    }

    /// What stands in the slot where the mode is to be `mode`.
    pub(super) fn effective(&self, mode: Mode) -> Mode {
        if self.shed {
            MODE_COUNT
        } else if self.counted {
            mode | MODE_COUNT
        } else {
            mode
        }
    }
}
