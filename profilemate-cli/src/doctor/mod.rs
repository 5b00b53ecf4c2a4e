//! Whether a trace would work here, line by line: what was found, what is needed, what to do. Reads only: nothing is
//! written into any process but this one and a forked child of its own.

mod host;
mod output;
mod target;
mod text;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::cli::Exit;
use crate::cli::args::Touch;
use crate::plan::Plan;
use crate::session;

pub use host::{Host, Trials};

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Good,
    /// Neither good nor bad: a fact.
    Fact,
    /// A trace works, with less.
    Warn,
    /// A trace does not work; it would end with this exit code.
    Bad(Exit),
}

impl Mark {
    /// In a word, for text and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Fact => "info",
            Self::Warn => "warn",
            Self::Bad(_) => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What.
    pub name: &'static str,
    /// Good or bad.
    pub mark: Mark,
    /// What was found.
    pub found: String,
    /// What is needed; empty if nothing is.
    pub needed: String,
    /// What to do.
    pub todo: Option<String>,
}

impl Line {
    fn new(name: &'static str, mark: Mark, found: impl Into<String>) -> Self {
        Self {
            name,
            mark,
            found: found.into(),
            needed: String::new(),
            todo: None,
        }
    }

    fn needs(mut self, needed: impl Into<String>) -> Self {
        self.needed = needed.into();
        self
    }

    fn todo(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }
}

/// What there is to say of one thing: the host, the output, a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// The process, if it is one.
    pub pid: Option<u32>,
    /// Whether the process would be traced; `None` for what is no process, and for one in which nothing is to be done.
    pub traced: Option<bool>,
    /// The lines.
    pub lines: Vec<Line>,
}

impl Section {
    fn worst(&self) -> Option<Exit> {
        self.lines.iter().find_map(|line| match line.mark {
            Mark::Bad(exit) => Some(exit),
            Mark::Good | Mark::Fact | Mark::Warn => None,
        })
    }
}

/// What is examined.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Root processes of the target; none: only the host.
    pub roots: BTreeSet<u32>,
    /// Folder in which sessions would be made.
    pub output: PathBuf,
    /// Lines on how the target was chosen.
    pub chosen: Vec<(Mark, String, Option<String>)>,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Host, output, then one per process.
    pub sections: Vec<Section>,
    /// What a trace would do.
    pub plan: Option<Plan>,
}

impl Report {
    /// The exit code that says whether a trace would work: 0; 3 if only a part of the processes would be traced; else
    /// the one with which `trace` would end.
    pub fn exit(&self) -> Exit {
        let (processes, rest): (Vec<&Section>, Vec<&Section>) = self
            .sections
            .iter()
            .partition(|section| section.pid.is_some());
        if let Some(exit) = rest.iter().find_map(|section| section.worst()) {
            return exit;
        }
        let any = |traced| {
            processes
                .iter()
                .any(|section| section.traced == Some(traced))
        };
        match (any(true), any(false)) {
            (true, false) => Exit::Done,
            (true, true) => Exit::Incomplete,
            _ if processes.is_empty() => Exit::Done,
            _ => processes
                .iter()
                .find_map(|section| section.worst())
                .unwrap_or(Exit::NoTarget),
        }
    }

    /// The verdict in a sentence.
    pub fn verdict(&self) -> String {
        let traced = |section: &&Section| section.traced == Some(true);
        let count = self.sections.iter().filter(traced).count();
        let processes = self.sections.iter().filter(|section| section.pid.is_some());
        match self.exit() {
            Exit::Done if processes.count() == 0 => {
                "this host can trace; no target was looked at".to_owned()
            }
            Exit::Done => format!("a trace would work: {count} processes would be traced"),
            Exit::Incomplete => {
                format!("a trace would work in part: {count} processes would be traced, not all")
            }
            exit => format!("a trace would not work (exit code {})", exit.code()),
        }
    }

    /// For people. `colour` uses the terminal's colours.
    pub fn text(&self, colour: bool) -> String {
        text::text(self, colour)
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        text::json(self)
    }
}

/// Looks at the host, at the output folder, and at the processes of the target.
pub fn examine(wanted: &Wanted) -> Report {
    let (host, trials) = (Host::look(), Trials::make());
    let mut sections = vec![
        Section {
            title: "host".to_owned(),
            pid: None,
            traced: None,
            lines: host::lines(&host, &trials),
        },
        Section {
            title: "output".to_owned(),
            pid: None,
            traced: None,
            lines: output::lines(&wanted.output),
        },
    ];
    let chosen = wanted.chosen.iter().map(|(mark, found, todo)| Line {
        todo: todo.clone(),
        ..Line::new("server", *mark, found)
    });
    let mut target = Section {
        title: "target".to_owned(),
        pid: None,
        traced: None,
        lines: chosen.collect(),
    };
    if wanted.roots.is_empty() {
        sections.push(target);
        return Report {
            sections,
            plan: None,
        };
    }
    match session::look(&options(wanted)) {
        Ok((plan, troubles)) => {
            if !target.lines.is_empty() {
                sections.push(target);
            }
            sections.extend(plan.processes.iter().map(|process| {
                let trouble = troubles.iter().find(|(pid, _)| *pid == process.pid);
                target::section(process, trouble.map(|(_, trouble)| trouble))
            }));
            Report {
                sections,
                plan: Some(plan),
            }
        }
        Err(failure) => {
            let line = Line::new(
                "processes",
                Mark::Bad(failure.exit),
                failure.error.to_string(),
            );
            target.lines.push(match failure.hint {
                Some(hint) => line.todo(hint),
                None => line,
            });
            sections.push(target);
            Report {
                sections,
                plan: None,
            }
        }
    }
}

/// What a trace would be started with.
fn options(wanted: &Wanted) -> session::Options {
    session::Options {
        roots: wanted.roots.clone(),
        touch: Touch::Probes,
        late: false,
        wanted: session::Wanted::default(),
        methods: Vec::new(),
        assume: None,
        ring_bytes: 4096,
        output: wanted.output.clone(),
        duration: None,
        graph_timeline: false,
        recorder: None,
        budget: None,
        moe_sample: None,
        json: false,
        quiet: true,
        strict: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(process: &[(Option<bool>, Option<Exit>)], host: Option<Exit>) -> Report {
        let lines = |exit: Option<Exit>| {
            let mark = exit.map_or(Mark::Good, Mark::Bad);
            vec![Line::new("x", Mark::Warn, "y"), Line::new("x", mark, "y")]
        };
        let section = |pid: Option<u32>, traced, exit| Section {
            title: "t".into(),
            pid,
            traced,
            lines: lines(exit),
        };
        let mut sections = vec![section(None, None, host)];
        sections.extend(
            process
                .iter()
                .map(|(traced, exit)| section(Some(7), *traced, *exit)),
        );
        Report {
            sections,
            plan: None,
        }
    }

    #[test]
    fn the_exit_code_is_the_one_of_the_trace() {
        let engine = (Some(true), None);
        let front = (None, None);
        let blocked = (Some(false), Some(Exit::Busy));
        assert_eq!(report(&[front, engine], None).exit(), Exit::Done);
        assert_eq!(report(&[engine, blocked], None).exit(), Exit::Incomplete);
        assert_eq!(report(&[front, blocked], None).exit(), Exit::Busy);
        assert_eq!(report(&[front], None).exit(), Exit::NoTarget);
        assert_eq!(report(&[], None).exit(), Exit::Done);
        assert_eq!(
            report(&[engine], Some(Exit::Forbidden)).exit(),
            Exit::Forbidden
        );
    }
}
