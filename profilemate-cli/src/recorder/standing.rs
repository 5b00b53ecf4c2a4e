//! What the notes that have left the window still say: which processes there are, which method sits in which slot, how
//! a program's fields are read.

use std::collections::BTreeMap;

use crate::event::recorder::Shed;
use crate::event::{Method, NO_SLOT, Note, Process, Program};

/// Entries of each map, at most. Their number is the tracer's own; the bound is for a server that starts processes
/// over and over.
const CAPACITY: usize = 65_536;

/// The notes that hold at the beginning of the window.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    processes: BTreeMap<u32, Process>,
    methods: BTreeMap<(u32, u16, u8), Method>,
    programs: BTreeMap<(u16, u8, u32), Program>,
    walks: BTreeMap<u32, Note>,
    libraries: BTreeMap<u16, Note>,
    unbound: BTreeMap<(String, u32), Note>,
    doubts: BTreeMap<String, Note>,
    not_covered: BTreeMap<String, Note>,
    shed: BTreeMap<(u32, String), Shed>,
    costs: BTreeMap<u32, Note>,
}

impl Standing {
    /// A note has left the window.
    pub fn take(&mut self, note: Note) {
        match note {
            Note::Process(process) => put(&mut self.processes, process.pid, process),
            Note::Method(method) => {
                let key = (method.pid, method.page, method.slot);
                put(&mut self.methods, key, method);
            }
            Note::Program(program) => {
                // Of a slot the latest holds; those of frames stand beside one another.
                let id = if program.slot == NO_SLOT {
                    program.id
                } else {
                    0
                };
                put(
                    &mut self.programs,
                    (program.page, program.slot, id),
                    program,
                );
            }
            Note::Walk(ref walk) => put(&mut self.walks, walk.program, note),
            Note::Library(ref library) => put(&mut self.libraries, library.index, note),
            Note::Unbound {
                pid, ref method, ..
            } => put(&mut self.unbound, (method.clone(), pid), note),
            Note::Doubt { ref reason, .. } => put(&mut self.doubts, reason.clone(), note),
            Note::NotCovered { ref table, .. } => put(&mut self.not_covered, table.clone(), note),
            Note::ProcessEnded { pid, .. } => self.ended(pid),
            Note::Cost(ref cost) => put(&mut self.costs, cost.pid, note),
            Note::Shed(shed) => {
                let key = (shed.pid, shed.rung.clone());
                if shed.shed {
                    put(&mut self.shed, key, shed);
                } else {
                    self.shed.remove(&key);
                }
            }
            // The head of the session is written anew, and what these say stands in the checkpoint.
            Note::Session(_)
            | Note::Clock { .. }
            | Note::Counters(_)
            | Note::Ledger(_)
            | Note::Snapshot(_)
            | Note::Checkpoint(_)
            | Note::Ended { .. } => {}
        }
    }

    /// A process has ended before the window: nothing in the window is of it.
    fn ended(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.unbound.retain(|key, _| key.1 != pid);
        self.walks
            .retain(|_, note| !matches!(note, Note::Walk(walk) if walk.pid == pid));
        self.shed.retain(|key, _| key.0 != pid);
        self.costs.remove(&pid);
        let used = |page: u16| {
            self.processes
                .values()
                .any(|process| process.page == Some(page))
        };
        // A forked child that lives on has no methods of its own.
        self.methods.retain(|key, _| key.0 != pid || used(key.1));
        let walks = &self.walks;
        self.programs.retain(|key, _| {
            if key.1 == NO_SLOT {
                walks.contains_key(&key.2)
            } else {
                used(key.0)
            }
        });
    }

    /// The notes, in an order in which they can be read.
    pub fn notes(&self) -> Vec<Note> {
        let processes = self.processes.values().cloned().map(Note::Process);
        let programs = self.programs.values().cloned().map(Note::Program);
        let methods = self.methods.values().cloned().map(Note::Method);
        let shed = self.shed.values().cloned().map(Note::Shed);
        processes
            .chain(programs)
            .chain(methods)
            .chain(self.walks.values().cloned())
            .chain(self.libraries.values().cloned())
            .chain(self.unbound.values().cloned())
            .chain(self.doubts.values().cloned())
            .chain(self.not_covered.values().cloned())
            .chain(shed)
            .chain(self.costs.values().cloned())
            .collect()
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) {
    if map.len() < CAPACITY || map.contains_key(&key) {
        map.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, page: u16) -> Note {
        Note::Process(Process {
            pid,
            page: Some(page),
            ..Process::default()
        })
    }

    fn program(id: u32, page: u16, slot: u8) -> Note {
        Note::Program(Program {
            id,
            page,
            slot,
            ..Program::default()
        })
    }

    #[test]
    fn the_latest_of_each_kind_stands() {
        let mut standing = Standing::default();
        standing.take(process(1, 0));
        standing.take(program(1, 0, 3));
        standing.take(program(2, 0, 3));
        standing.take(program(3, 0, NO_SLOT));
        standing.take(program(4, 0, NO_SLOT));
        let ids: Vec<u32> = standing
            .notes()
            .iter()
            .filter_map(|note| match note {
                Note::Program(program) => Some(program.id),
                _ => None,
            })
            .collect();
        assert_eq!(ids, [2, 3, 4]);
        assert!(matches!(standing.notes()[0], Note::Process(_)));
    }

    #[test]
    fn what_has_ended_is_forgotten_but_not_a_page_that_a_fork_uses() {
        let mut standing = Standing::default();
        standing.take(process(1, 0));
        standing.take(process(2, 0));
        standing.take(program(1, 0, 3));
        let end = |pid| Note::ProcessEnded {
            pid,
            at_ns: 0,
            reason: String::new(),
        };
        standing.take(end(1));
        assert_eq!(standing.notes().len(), 2, "{:?}", standing.notes());
        standing.take(end(2));
        assert!(standing.notes().is_empty());
    }
}
