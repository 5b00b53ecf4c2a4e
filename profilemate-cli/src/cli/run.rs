//! The commands.

use std::collections::BTreeSet;
use std::process::{Child, Command};

use super::args::{Common, Demo, Detach, Replay, Touch, Trace};
use super::underway::Underway;
use super::{Exit, Failure, find, print};
use crate::catalog;
use crate::demo::DemoTarget;
use crate::helper::{self, Pythons};
use crate::session::{self, Finished, MoeSample, Options, PutBack, Wanted};
use crate::target::process;

/// `trace`.
pub(super) fn trace(trace: &Trace, quiet: bool) -> Result<Exit, Failure> {
    let methods = catalog::user_methods(&trace.method, &trace.field)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let assume = super::vllm_release(trace.assume_vllm.as_deref())?;
    let mut options = Options {
        roots: BTreeSet::new(),
        touch: trace.touch,
        late: trace.touch == Touch::Helper && !trace.pid.is_empty(),
        wanted: Wanted {
            only: trace.common.only.clone(),
            without: trace.common.without.clone(),
            no_kernel_counts: trace.common.no_kernel_counts,
        },
        methods,
        assume,
        ring_bytes: trace.common.ring_size,
        output: trace.common.place.output.clone(),
        duration: trace.common.duration,
        json: trace.common.json,
        quiet,
        graph_timeline: trace.common.graph_timeline,
        strict: trace.common.strict,
        recorder: None,
        budget: trace.budget,
        moe_sample: trace.moe_sample.map(|every| MoeSample {
            every,
            started: !trace.run.is_empty(),
        }),
    };
    options.recorder = super::recorder::options(
        &trace.recorder,
        &options.output,
        &options.wanted,
        options.touch,
        options.json,
    )?;
    if options.budget.is_some() && options.touch == Touch::None {
        let error =
            anyhow::anyhow!("`--budget` sheds methods, and with `--touch none` none is probed");
        return Err(Failure::new(Exit::Usage, error));
    }
    if options.moe_sample.is_some() && options.touch == Touch::None {
        let error = anyhow::anyhow!(
            "`--moe-sample` has code run in the target, which `--touch none` rules out"
        );
        return Err(Failure::new(Exit::Usage, error));
    }
    if !trace.run.is_empty() {
        if !trace.pid.is_empty() {
            return Err(Failure::new(
                Exit::Usage,
                anyhow::anyhow!("give --pid or a command, not both"),
            ));
        }
        if trace.dry_run {
            return Err(Failure::new(
                Exit::Usage,
                anyhow::anyhow!("a command that has not been started cannot be looked at"),
            )
            .hint("start it, and give its process id: `trace --dry-run --pid PID`"));
        }
        return started(options, &trace.run);
    }
    options.roots = if trace.pid.is_empty() {
        find::only_server()?
    } else {
        find::given(&trace.pid)?
    };
    if trace.dry_run {
        let underway = Underway::start("looking at the target".to_owned(), quiet);
        let plan = session::plan(&options)?;
        drop(underway);
        print::data(&planned(&plan, &options));
        return Ok(Exit::Done);
    }
    finished(&options, session::run(&options, false)?)
}

/// The plan, and with a budget what would be shed in which order.
fn planned(plan: &crate::plan::Plan, options: &Options) -> String {
    if options.json {
        let mut document = plan.json();
        if let Some(percent) = options.budget {
            document["budget"] = crate::budget::json(percent);
        }
        return format!("{document:#}");
    }
    let mut text = plan.text();
    if let Some(percent) = options.budget {
        text.push_str(&crate::budget::text(percent));
    }
    text
}

/// `trace -- CMD`.
fn started(mut options: Options, words: &[String]) -> Result<Exit, Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::new(
            Exit::Usage,
            anyhow::anyhow!("there is no command behind `--`"),
        ));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    // Kept until the session is over: the command's processes read it when they start.
    let pythons = match options.touch {
        Touch::None => None,
        Touch::Probes => Some(Pythons::Needed),
        Touch::Helper => Some(Pythons::All),
    };
    let _helper = pythons
        .map(|pythons| {
            helper::prepare(
                &mut command,
                &options.methods,
                pythons,
                options.moe_sample.is_some(),
            )
        })
        .transpose()
        .map_err(|error| {
            Failure::new(Exit::Output, error).hint("is the temporary folder writable?")
        })?;
    let child = command.spawn().map_err(|error| {
        Failure::new(
            Exit::NoTarget,
            anyhow::Error::new(error).context(format!("cannot start `{program}`")),
        )
    })?;
    let guard = Started(child);
    options.roots = BTreeSet::from([guard.0.id()]);
    let done = session::run(&options, true);
    drop(guard);
    finished(&options, done?)
}

/// The command that we started. It is asked to end when we do.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        if let Ok(pidfd) = crate::sys::process::PidFd::open(self.0.id()) {
            let _ended = pidfd.kill(rustix::process::Signal::TERM);
            let _late = pidfd.ends_within(std::time::Duration::from_secs(30));
        }
        let _collected = self.0.try_wait();
    }
}

/// `demo`.
pub(super) fn demo(demo: &Demo, quiet: bool) -> Result<Exit, Failure> {
    let duration = demo
        .common
        .duration
        .unwrap_or(std::time::Duration::from_secs(8));
    let target = DemoTarget::start(&crate::demo::Options {
        duration: duration + std::time::Duration::from_secs(5),
        python: demo.python.clone(),
        ..crate::demo::Options::default()
    })
    .map_err(|error| {
        Failure::new(Exit::NoTarget, error)
            .hint("any Python from 3.10 to 3.13 will do; `--python PATH` names one")
    })?;
    if !quiet {
        print::note(&format!(
            "demo target: process {} (engine {}, worker {:?}) on {}",
            target.pid,
            target.engine_core,
            target.workers,
            target.interpreter.path.display()
        ));
    }
    let options = demo_options(&demo.common, target.pid, duration, quiet);
    let done = session::run(&options, false);
    drop(target);
    finished(&options, done?)
}

fn demo_options(common: &Common, pid: u32, duration: std::time::Duration, quiet: bool) -> Options {
    Options {
        roots: BTreeSet::from([pid]),
        touch: Touch::Probes,
        late: false,
        wanted: Wanted {
            only: common.only.clone(),
            without: common.without.clone(),
            no_kernel_counts: common.no_kernel_counts,
        },
        methods: Vec::new(),
        assume: None,
        ring_bytes: common.ring_size,
        output: common.place.output.clone(),
        duration: Some(duration),
        json: common.json,
        quiet,
        graph_timeline: common.graph_timeline,
        strict: common.strict,
        recorder: None,
        budget: None,
        moe_sample: None,
    }
}

/// How a session ended, as JSON.
fn summary(done: &Finished) -> serde_json::Value {
    let rows: std::collections::BTreeMap<_, _> = done.outcome.rows.iter().copied().collect();
    let troubles: Vec<_> = done
        .troubles
        .iter()
        .map(|(pid, trouble)| serde_json::json!({ "pid": pid, "reason": trouble.reason }))
        .collect();
    serde_json::json!({
        "session": done.folder, "end_reason": done.reason, "attached": done.attached, "rows": rows,
        "events": done.outcome.received, "lost": done.outcome.lost, "not_traced": troubles,
        "findings": done.outcome.explanation.findings,
    })
}

/// How many rows a table got, for people.
fn written(table: &str, rows: u64) -> String {
    let word = if rows == 1 { "row" } else { "rows" };
    format!("  {table:<24} {rows:>9} {word}")
}

/// Tells how a session ended: a summary on stderr, the folder (or JSON) on stdout.
fn finished(options: &Options, done: Finished) -> Result<Exit, Failure> {
    for (pid, trouble) in &done.troubles {
        print::note(&format!("process {pid} was not traced: {}", trouble.reason));
        if let Some(hint) = &trouble.hint {
            print::note(&format!("  hint: {hint}"));
        }
    }
    if !options.quiet {
        print::note(&format!(
            "{}; {} attached",
            done.reason,
            match done.attached {
                1 => "1 process was".to_owned(),
                many => format!("{many} processes were"),
            }
        ));
        for (table, rows) in &done.outcome.rows {
            print::note(&written(table, *rows));
        }
        print::note(&format!(
            "  {} events, {} lost",
            done.outcome.received, done.outcome.lost
        ));
        match &done.recorder {
            Some(report) => print::note(&super::recorder::report_text(report)),
            None => super::explain::short(&done),
        }
    }
    match &done.recorder {
        // The folders were told one by one.
        Some(report) if options.json => {
            print::data(&super::recorder::report_json(report).to_string());
        }
        Some(_) => {}
        None => print::data(&if options.json {
            summary(&done).to_string()
        } else {
            done.folder.display().to_string()
        }),
    }
    if let Some(trouble) = done.nothing {
        return Err(trouble.into());
    }
    let incomplete = done.outcome.lost > 0 || !done.troubles.is_empty();
    Ok(if options.strict && incomplete {
        Exit::Incomplete
    } else {
        Exit::Done
    })
}

/// `detach`.
pub(super) fn detach(detach: &Detach) -> Result<Exit, Failure> {
    let roots = find::given(&detach.pid)?;
    let tree = process::tree_now(&roots).map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut restored = 0;
    let mut worst = None;
    for seen in tree {
        match session::put_back(seen.pid) {
            Ok(PutBack::Nothing) => {}
            Ok(PutBack::Restored(pointers)) => {
                restored += pointers;
                print::note(&format!(
                    "process {}: {pointers} pointers put back",
                    seen.pid
                ));
            }
            Err(trouble) => {
                print::note(&format!("process {}: {}", seen.pid, trouble.reason));
                worst = Some(trouble);
            }
        }
    }
    if let Some(trouble) = worst {
        return Err(trouble.into());
    }
    if restored == 0 {
        print::note("nothing to put back");
    }
    Ok(Exit::Done)
}

/// `replay`.
pub(super) fn replay(replay: &Replay, quiet: bool) -> Result<Exit, Failure> {
    let recording = if replay.recording.is_dir() {
        replay
            .recording
            .join(crate::capture::pipeline::CAPTURE_FILE)
    } else {
        replay.recording.clone()
    };
    let (_, folder) = session::folder(&replay.place.output, "replay")?;
    let underway = Underway::start(format!("replaying {}", recording.display()), quiet);
    let outcome = crate::capture::replay(&recording, &folder).map_err(|error| {
        let exit = if matches!(error, crate::capture::Error::Sink(_)) {
            Exit::Output
        } else {
            Exit::Failed
        };
        Failure::new(exit, error).hint("give a session folder or its `events.pmrec`")
    })?;
    drop(underway);
    if !quiet {
        for (table, rows) in &outcome.rows {
            print::note(&written(table, *rows));
        }
    }
    let folder = outcome.folder.canonicalize().unwrap_or(outcome.folder);
    print::data(&folder.display().to_string());
    Ok(Exit::Done)
}
