//! `profilemate top`: the live view. [`state`] folds rows into numbers and reads no clock; [`keys`] says what a key
//! does; [`draw`] puts both on a screen; [`screen`] is the terminal itself.

pub mod draw;
pub mod keys;
mod panels;
pub mod screen;
pub mod state;
pub mod view;
mod window;

use std::sync::{Arc, Mutex, PoisonError};

use crate::sink::watch::{Pulse, Watcher};
use crate::table::AnyRow;

pub(crate) use state::STAGES;
use state::State;
use view::View;

/// The state, shared between the pipeline, which feeds it, and the screen, which looks at it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<State>>);

impl Shared {
    /// The numbers as they are now.
    pub fn view(&self) -> View {
        self.with(|state| state.view())
    }

    /// Counts anew from here on.
    pub fn reset(&self) {
        self.with(State::reset);
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watcher for Shared {
    fn row(&mut self, row: &AnyRow) {
        self.with(|state| state.row(row));
    }

    fn pulse(&mut self, pulse: &Pulse<'_>) {
        self.with(|state| state.pulse(pulse));
    }
}
