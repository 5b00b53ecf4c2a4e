//! What is seen in one process of its methods, and of a helper that binds them.

use super::attachment;
use super::look::{self, Found, Runtime};
use super::sampling::Sampled;
use super::tracked::Tracked;
use super::tracker::Tracker;
use super::trouble::Trouble;
use crate::catalog::Method;
use crate::cli::args::Touch;
use crate::helper;
use crate::touch::Resident;

/// What was seen in a process.
pub(super) struct Sight {
    /// Its methods.
    pub found: Found,
    /// A helper inside binds methods for us.
    pub serves: bool,
    /// Functions that C callables stand in for.
    pub stand_ins: Option<Vec<u64>>,
}

impl Tracker {
    /// Looks for methods in a process, after its helper was asked to bind them, if it has one and needs it.
    pub(super) fn see(
        &self,
        tracked: &mut Tracked,
        runtime: &Runtime,
        wanted: &[Method],
        sampled: Option<&Sampled>,
    ) -> Result<Sight, Trouble> {
        let pid = tracked.seen.pid;
        let needed = self.needs_helper(runtime);
        let serves = needed && self.ask_helper(tracked, wanted, sampled)?;
        // Callables that a waiting helper left are its own, unless it serves us.
        let stand_ins = attachment::stand_ins(pid)
            .filter(|_| needed || !matches!(Resident::find(pid), Ok(Some(_))));
        let version = look::version(&self.catalog, &self.options, runtime);
        let found = look::look(
            &tracked.seen,
            runtime,
            wanted,
            version.as_ref(),
            stand_ins.as_deref(),
        );
        Ok(Sight {
            found,
            serves,
            stand_ins,
        })
    }

    /// Whether the helper is to be started in a process that was looked at: the user wants that, there is none, and
    /// there are methods that it could bind.
    pub(super) fn is_late(&self, sight: &Sight, first: bool) -> bool {
        let without = !sight.serves && sight.stand_ins.is_none();
        first && self.options.late && without && !sight.found.ready.is_empty()
    }

    /// Whether methods of such a process are bound by a helper inside only.
    pub(super) fn needs_helper(&self, runtime: &Runtime) -> bool {
        match self.options.touch {
            Touch::None => false,
            Touch::Probes => !runtime.layout.honours_vectorcall(),
            Touch::Helper => true,
        }
    }

    /// Has the helper that is resident in a process, if there is one, bind methods. Gives whether there is one.
    fn ask_helper(
        &self,
        tracked: &mut Tracked,
        wanted: &[Method],
        sampled: Option<&Sampled>,
    ) -> Result<bool, Trouble> {
        if self.options.moe_sample.is_some_and(|wish| wish.started) {
            return Ok(false);
        }
        if tracked.serving.is_some() {
            return Ok(true);
        }
        let pid = tracked.seen.pid;
        let Ok(Some(resident)) = Resident::find(pid) else {
            return Ok(false);
        };
        if self.is_attaching() {
            let sample = sampled.map(|(wish, sampling)| (wish.every, sampling));
            tracked.serving = Some(helper::bind(resident, wanted, sample)?);
            log::info!("process {pid}: the helper inside has bound the methods");
        }
        Ok(true)
    }
}
