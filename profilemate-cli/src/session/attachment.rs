//! One process that is attached: its marker page, and the methods bound to slots of it.

use std::collections::BTreeMap;

use profilemate_common::page::{self, MODE_OFF, Mode};

use super::bound::Bound;
use super::look::{Ready, Runtime};
use super::trouble::{Trouble, chain};
use crate::attach::{Kernel, Link};
use crate::catalog::Method;
use crate::cli::Exit;
use crate::event::{self, Counters, Note, SlotCounters};
use crate::target::python::{Layout, assemble};
use crate::touch::{
    MarkerPage, Redirect, VersionCache, VersionWrite, redirect, restore, restore_all,
};

use super::pump::Notes;

/// One attached process.
pub(super) struct Attachment {
    page: MarkerPage,
    index: u16,
    bound: Vec<Bound>,
    /// Counters of the page when it was attached: a page can have served an earlier session.
    before: BTreeMap<u8, SlotCounters>,
    layout: Layout,
    /// Calls without fields are told by the page's log.
    logs: bool,
    /// The page is that of a parent, which forked this process.
    inherited: bool,
}

/// What binding needs beside the process itself.
pub(super) struct Context<'c> {
    /// The loaded programs.
    pub kernel: &'c mut Kernel,
    /// The uprobes so far.
    pub links: &'c mut Vec<Link>,
    /// Where notes go.
    pub notes: &'c Notes,
    /// Next program id.
    pub next_program: &'c mut u32,
    /// Offset of the probed instruction in the page.
    pub site: u64,
}

impl Attachment {
    /// Maps (or finds) the page of a process and probes it. Nothing is redirected yet.
    pub(super) fn begin(
        pid: u32,
        runtime: &Runtime,
        index: u16,
        held: &[&MarkerPage],
        context: &mut Context<'_>,
    ) -> Result<Self, Trouble> {
        let original = runtime.layout.default_vectorcall;
        let (page, undone) = MarkerPage::acquire(pid, original, held)?;
        if undone.restored + undone.already + undone.left > 0 {
            log::info!(
                "process {pid}: put back {} functions that an earlier tracer left",
                undone.restored
            );
        }
        match page.stood_ns() {
            Some(ns) => log::info!(
                "process {pid}: marker page mapped, one thread stood for {} us",
                ns / 1000
            ),
            None => log::info!("process {pid}: marker page of an earlier session reused"),
        }
        context
            .kernel
            .set_layout(u32::from(index), &runtime.layout.kernel)?;
        context.links.push(
            context
                .kernel
                .attach_page(&page.uprobe_path(), context.site, index)?,
        );
        let before = counters_of(&page.slots()?);
        let log = page.log()?;
        let logs = log.is_some();
        match log {
            Some(log) => context.notes.read_log(index, pid, log),
            None => {
                log::info!("process {pid}: calls without fields are events; its page has no log");
            }
        }
        Ok(Self {
            page,
            index,
            bound: Vec::new(),
            before,
            layout: runtime.layout,
            logs,
            inherited: false,
        })
    }

    /// The attachment of a forked child: the page, its probe and the redirected pointers are its parent's, copied. And
    /// the methods that the parent was given only after the fork, which the child lacks.
    pub(super) fn inherited(&self, child: u32) -> Result<Option<(Self, Vec<Method>)>, Trouble> {
        let Some(page) = self.page.inherited_by(child)? else {
            return Ok(None);
        };
        let slots = page.slots()?;
        let has = |bound: &Bound| match bound.pointer {
            Some(pointer) => page.redirects(bound.slot, pointer),
            None => slots
                .get(usize::from(bound.slot))
                .is_some_and(|slot| slot.callee == bound.function),
        };
        let (bound, lacking): (Vec<Bound>, Vec<Bound>) = self.bound.iter().cloned().partition(has);
        for bound in &bound {
            // It may have been forked before its parent's slot was switched on.
            page.set_mode(bound.slot, bound.effective(bound.said.mode))?;
        }
        let attachment = Self {
            before: counters_of(&slots),
            page,
            index: self.index,
            bound,
            layout: self.layout,
            logs: self.logs,
            inherited: true,
        };
        let lacking = lacking.into_iter().map(|bound| bound.method).collect();
        Ok(Some((attachment, lacking)))
    }

    /// Whether the page is a parent's.
    pub(super) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// The page.
    pub(super) fn page(&self) -> &MarkerPage {
        &self.page
    }

    /// Index of the page.
    pub(super) fn index(&self) -> u16 {
        self.index
    }

    /// Redirects methods into slots of the page, each with its program. Gives those that were not, and why.
    pub(super) fn bind(
        &mut self,
        ready: &[Ready],
        context: &mut Context<'_>,
    ) -> Result<Vec<(String, String)>, Trouble> {
        let mut refused = Vec::new();
        let mut requests = Vec::new();
        let mut chosen = Vec::new();
        for ready in ready {
            match self.request(ready) {
                Ok(request) => {
                    requests.push(request);
                    chosen.push(ready);
                }
                Err(reason) => refused.push((ready.method.id.clone(), reason)),
            }
        }
        let outcomes = redirect(&self.page, &requests)?;
        for ((ready, request), outcome) in chosen.into_iter().zip(&requests).zip(outcomes) {
            match outcome {
                Ok(redirected) => {
                    let mode = self.mode(ready);
                    let said = self.describe(ready, redirected.slot, mode, context)?;
                    self.page.set_mode(redirected.slot, mode)?;
                    self.hold(Bound::new(ready, Some(request.vectorcall_address), said));
                }
                Err(refusal) => refused.push((ready.method.id.clone(), refusal.to_string())),
            }
        }
        Ok(refused)
    }

    /// Switches on the slots through which the helper's C callables already pass. Nothing is redirected.
    pub(super) fn bind_stand_ins(
        &mut self,
        ready: &[Ready],
        context: &mut Context<'_>,
    ) -> Result<Vec<(String, String)>, Trouble> {
        let slots = self.page.slots()?;
        let mut refused = Vec::new();
        for ready in ready {
            let callee = ready.function.address;
            let Some(slot) = (0_u8..)
                .zip(&slots)
                .find(|(_, slot)| slot.callee == callee)
                .map(|(slot, _)| slot)
            else {
                refused.push((
                    ready.method.id.clone(),
                    "the helper has no slot for it".to_owned(),
                ));
                continue;
            };
            let mode = self.mode(ready);
            let said = self.describe(ready, slot, mode, context)?;
            self.page.set_skip(slot, self.layout.kernel.false_)?;
            self.page.set_mode(slot, mode)?;
            self.hold(Bound::new(ready, None, said));
        }
        Ok(refused)
    }

    /// What a slot for the method does with calls.
    fn mode(&self, ready: &Ready) -> Mode {
        let events = if self.logs {
            ready.events
        } else {
            ready.events.trapped()
        };
        events.mode()
    }

    fn request(&self, ready: &Ready) -> Result<Redirect, String> {
        let function = &ready.function;
        if self
            .bound
            .iter()
            .any(|bound| bound.function == function.address)
        {
            return Err("the same function is bound already".to_owned());
        }
        let ours = (0..page::SLOTS as u8)
            .any(|slot| self.page.vectorcall_address(slot) == function.vectorcall_value);
        if !function.is_default(&self.layout) && !ours {
            return Err(format!(
                "another tool has changed its vectorcall pointer (to {:#x}); it is left alone",
                function.vectorcall_value
            ));
        }
        Ok(Redirect {
            function: function.address,
            vectorcall_address: function.vectorcall_address,
            expected: self.layout.default_vectorcall,
            version: function
                .version_address
                .map(|address| VersionWrite { address, value: 0 }),
            version_cache: function.version_cache_slot.map(|address| VersionCache {
                address,
                expected: function.address,
            }),
            // Switched on once the slot's program is there.
            mode: MODE_OFF,
            skip: self.layout.kernel.false_,
        })
    }

    /// Says in the stream what the slot holds, and loads what its events read.
    fn describe(
        &mut self,
        ready: &Ready,
        slot: u8,
        mode: Mode,
        context: &mut Context<'_>,
    ) -> Result<event::Method, Trouble> {
        let method = &ready.method;
        let said = event::Method {
            pid: self.page.pid(),
            page: self.index,
            slot,
            id: method.id.clone(),
            module: method.module.clone(),
            qualname: method.qualname.clone(),
            operation: method.operation.clone(),
            mode,
        };
        context.notes.send(Note::Method(said.clone()));
        if mode & page::MODE_TOLD == 0 {
            return Ok(said);
        }
        let (mut fields, mut compiled, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for (name, path, outcome) in &ready.fields {
            match outcome {
                Ok(ops) => {
                    fields.push(event::Field {
                        name: name.clone(),
                        path: path.clone(),
                        shape: ops.shape,
                    });
                    compiled.push(ops.clone());
                }
                Err(reason) => unread.push(event::Unread {
                    name: name.clone(),
                    path: path.clone(),
                    tables: method.tables.clone(),
                    reason: reason.clone(),
                }),
            }
        }
        *context.next_program += 1;
        let id = *context.next_program;
        let program = assemble(id, u32::from(self.index), &compiled).map_err(|error| {
            Trouble::lasting(Exit::Usage, format!("{}: {error}", method.qualname))
        })?;
        context.notes.send(Note::Program(event::Program {
            id,
            page: self.index,
            slot,
            none: self.layout.kernel.none,
            true_: self.layout.kernel.true_,
            false_: self.layout.kernel.false_,
            fields,
            unread,
        }));
        context.kernel.set_program(self.index, slot, &program)?;
        Ok(said)
    }

    /// Sets the modes that change with what the process does, and says so in the stream.
    pub(super) fn adapt(&mut self, serving: bool, notes: &Notes) {
        let page = &self.page;
        for bound in &mut self.bound {
            let Some(mode) = bound.mode_while(serving) else {
                continue;
            };
            if let Err(error) = page.set_mode(bound.slot, bound.effective(mode)) {
                log::debug!("process {}: {}", page.pid(), chain(&error));
                continue;
            }
            log::debug!(
                "process {}: calls of {} are {}",
                page.pid(),
                bound.said.qualname,
                if serving { "counted" } else { "recorded" }
            );
            bound.said.mode = mode;
            notes.send(Note::Method(event::Method {
                pid: page.pid(),
                ..bound.said.clone()
            }));
        }
    }

    /// Counters since the session attached.
    pub(super) fn counters(&self, at_ns: u64) -> Option<Counters> {
        let slots = self.page.slots().ok()?;
        let slots = self
            .bound
            .iter()
            .filter_map(|bound| {
                let now = counters(bound.slot, slots.get(usize::from(bound.slot))?);
                Some(match self.before.get(&bound.slot) {
                    Some(before) => now.since(before),
                    None => now,
                })
            })
            .collect();
        Some(Counters {
            pid: self.page.pid(),
            page: self.index,
            at_ns,
            slots,
        })
    }

    /// Takes a method that was bound. One of a rung that is shed is shed too.
    fn hold(&mut self, mut bound: Bound) {
        let is_shed = |other: &Bound| other.shed && other.rung == bound.rung;
        if self.bound.iter().any(is_shed) {
            bound.shed = true;
            let mode = bound.effective(bound.said.mode);
            if let Err(error) = self.page.set_mode(bound.slot, mode) {
                log::debug!("process {}: {}", self.page.pid(), chain(&error));
            }
        }
        self.bound.push(bound);
    }

    /// The methods and their slots.
    pub(super) fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Has calls of the methods on a rung of the ladder of costs counted from now on, or recorded again. Gives the
    /// methods, and the tables that they feed.
    pub(super) fn shed(&mut self, rung: usize, shed: bool) -> (Vec<String>, Vec<String>) {
        let (mut ids, mut tables) = (Vec::new(), Vec::new());
        for bound in self
            .bound
            .iter_mut()
            .filter(|bound| bound.rung == Some(rung))
        {
            bound.shed = shed;
            if let Err(error) = self
                .page
                .set_mode(bound.slot, bound.effective(bound.said.mode))
            {
                log::debug!("process {}: {}", self.page.pid(), chain(&error));
            }
            ids.push(bound.said.id.clone());
            tables.extend(bound.tables.iter().cloned());
        }
        for names in [&mut ids, &mut tables] {
            names.sort_unstable();
            names.dedup();
        }
        (ids, tables)
    }

    /// Has the durations of a method's calls summed in the page too, whatever else is done with them.
    pub(super) fn also_count(&mut self, id: &str) {
        for bound in self.bound.iter_mut().filter(|bound| bound.said.id == id) {
            if std::mem::replace(&mut bound.counted, true) {
                continue;
            }
            if let Err(error) = self
                .page
                .set_mode(bound.slot, bound.effective(bound.said.mode))
            {
                log::debug!("process {}: {}", self.page.pid(), chain(&error));
            }
        }
    }

    /// Stops events: calls pass through, and are only counted.
    pub(super) fn silence(&self) {
        for bound in &self.bound {
            if let Err(error) = self.page.set_mode(bound.slot, MODE_OFF) {
                log::debug!("process {}: {}", self.page.pid(), chain(&error));
            }
        }
    }

    /// Puts every pointer back. Tried again, so many `times` in all, if no thread could be stopped in time.
    pub(super) fn restore(&self, times: usize) -> Result<(), Trouble> {
        let slots: Vec<u8> = self.bound.iter().map(|bound| bound.slot).collect();
        let mut last = None;
        for _ in 0..times {
            match restore(&self.page, &slots) {
                Ok(restored) => {
                    log::info!(
                        "process {}: {} pointers put back, {} were already, {} left to others",
                        self.page.pid(),
                        restored.restored,
                        restored.already,
                        restored.left
                    );
                    return Ok(());
                }
                Err(crate::touch::Error::Gone { .. }) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(
            || Trouble::lasting(Exit::Failed, "not restored"),
            Trouble::from,
        ))
    }
}

/// The functions that C callables of the helper call, if the process has any.
pub(super) fn stand_ins(pid: u32) -> Option<Vec<u64>> {
    let page = MarkerPage::find(pid).ok()??;
    let slots = page.slots().ok()?;
    let callees: Vec<u64> = slots
        .iter()
        .map(|slot| slot.callee)
        .filter(|callee| *callee != 0)
        .collect();
    (!callees.is_empty()).then_some(callees)
}

/// What [`put_back`] found in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// No page, or nothing redirected.
    Nothing,
    /// So many pointers were put back.
    Restored(usize),
}

/// Puts back what a killed tracer left in process `pid`.
pub fn put_back(pid: u32) -> Result<PutBack, Trouble> {
    let mut restored = 0;
    for page in MarkerPage::find_all(pid)? {
        page.lock()?;
        restored += restore_all(&page)?.restored;
        page.unlock()?;
    }
    Ok(if restored == 0 {
        PutBack::Nothing
    } else {
        PutBack::Restored(restored)
    })
}

fn counters_of(slots: &[page::Slot]) -> BTreeMap<u8, SlotCounters> {
    slots
        .iter()
        .zip(0_u8..)
        .map(|(slot, number)| (number, counters(number, slot)))
        .collect()
}

fn counters(number: u8, slot: &page::Slot) -> SlotCounters {
    SlotCounters {
        slot: number,
        calls: slot.calls,
        marks: slot.marks,
        cycles: slot.cycles,
        histogram: (0_u8..)
            .zip(slot.histogram)
            .filter(|(_, calls)| *calls > 0)
            .collect(),
    }
}
