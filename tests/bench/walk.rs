//! `walk`: what a walk of the Python stack adds to a driver call that is told (`--touch none`).

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use profilemate::attach::{DriverSite, Kernel, Options as Load, detach_drivers};
use profilemate::target::python::{
    Compiled, Compiler, Interned, ProcessMemory, Resolver, assemble, find_stack, identify, validate,
};
use profilemate_tests::{cuda, demo};

use crate::Options;
use crate::driver_probe::{self, Drain};
use crate::report;
use crate::stats::Summary;
use crate::target::{self, SCRIPTS, Target};

/// Calls of one repetition.
const CALLS: u64 = 1000;
/// The function that all cases call; its calls are told when they end.
const SYMBOL: &str = "cuGraphLaunch";

/// What is read of a graph's wrapper, and of `execute_model`, as the catalogue's frames say.
const WRAPPER: &[&str] = &[
    "self.runtime_mode._value_",
    "local.batch_descriptor.num_tokens",
    "local.batch_descriptor.num_reqs",
    "local.batch_descriptor.uniform:bool",
    "local.batch_descriptor.has_lora:bool",
    "local.batch_descriptor.num_active_loras",
];
const RUNNER: &[&str] = &[
    "scheduler_output.total_num_scheduled_tokens",
    "scheduler_output.num_scheduled_tokens:len",
    "scheduler_output:addr",
    "scheduler_output.scheduled_new_reqs:len",
    "scheduler_output.scheduled_cached_reqs.num_computed_tokens[list:0]",
];

/// One case: which process (see [`run`]), how many frames the call lies deeper than it must (it has three between itself
/// and `execute_model`), what it is.
struct Case(usize, u64, &'static str);

const CASES: [Case; 7] = [
    Case(0, 17, "not walked"),
    Case(1, 0, "nothing read, execute_model the 4th frame"),
    Case(1, 7, "nothing read, the 11th frame"),
    Case(1, 17, "nothing read, the 21st frame"),
    Case(1, 27, "nothing read, the 31st frame"),
    Case(2, 17, "5 values read, the 21st frame"),
    Case(
        3,
        17,
        "6 values of a wrapper, 5 of execute_model, 21 frames",
    ),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    let (library, plan) = driver_probe::planned()?;
    let site = plan.sites.iter().find(|site| site.symbol == SYMBOL);
    let site = site.with_context(|| format!("{SYMBOL} is not probed"))?;
    let site = DriverSite {
        offset: site.file_offset,
        cookie: site.cookie,
    };
    let mut kernel = Kernel::load(Load::default())?;
    let drain = Drain::start(kernel.ring()?);
    let mut links = Vec::new();
    let mut processes = Vec::new();
    let nothing: &[&str] = &[];
    let read: [&[(&str, &[&str])]; 4] = [
        &[],
        &[("Runner.execute_model", nothing)],
        &[("Runner.execute_model", RUNNER)],
        &[
            ("Wrapper.__call__", WRAPPER),
            ("Runner.execute_model", RUNNER),
        ],
    ];
    for (number, frames) in (0..).zip(read) {
        let process = start(&library.path)?;
        if !frames.is_empty() {
            walk(&mut kernel, number, process.pid(), frames)?;
        }
        links.push(kernel.attach_driver(&library.uprobe_path(), process.pid(), &[site])?);
        processes.push(process);
    }
    report::remark(&format!(
        "{}, {SYMBOL}, {CALLS} calls a repetition, net of the same call told and not walked",
        library.path
    ));
    let rounds: u32 = if options.quick { 15 } else { 61 };
    let mut random = fastrand::Rng::new();
    let mut order: Vec<usize> = (0..CASES.len()).collect();
    let mut lists = vec![Vec::new(); CASES.len()];
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for &index in &order {
            let Case(process, frames, _) = CASES[index];
            let answer = processes[process].ask(&format!("{frames} {CALLS}"))?;
            lists[index].push(target::number(&answer, "ns")?);
        }
    }
    detach_drivers(links);
    drain.finish();
    let plain = Summary::of(&lists[0]);
    report::line("the call, told when it ends", plain, "ns", None);
    for (case, list) in CASES.iter().zip(&lists).skip(1) {
        let net: Vec<f64> = list.iter().map(|ns| ns - plain.median).collect();
        report::line(case.2, Summary::of(&net), "ns", None);
    }
    let expected: u64 = CASES
        .iter()
        .map(|case| u64::from(rounds) * CALLS * read[case.0].len() as u64)
        .sum();
    let told = kernel.ledger()?;
    if (told.submitted, told.lost) != (expected, 0) {
        bail!("{expected} frames were on the stacks, and this was told: {told:?}");
    }
    Ok(())
}

fn start(library: &str) -> Result<Target> {
    let python = ["3.12", "3.13", "3.10"].into_iter().find_map(demo::python);
    let python = python.context("no Python 3.10, 3.12, 3.13 or 3.14 on this machine")?;
    let mut command = Command::new(python);
    command
        .args([
            "-B",
            "-c",
            "import profilemate_walk; profilemate_walk.main()",
        ])
        .arg(library)
        .arg(cuda::folder().join("repeat.so"))
        .env("PYTHONPATH", SCRIPTS);
    Target::spawn(command, "", Stdio::inherit())
}

/// Has `frames` of a process told, the last one as the outermost.
fn walk(kernel: &mut Kernel, number: u32, pid: u32, frames: &[(&str, &[&str])]) -> Result<()> {
    let memory = ProcessMemory { pid };
    let interpreter = identify(pid, &memory)?;
    let layout = validate(&interpreter, &memory)?;
    let mut stack = find_stack(&memory, &layout, false)?;
    stack.number = number;
    kernel.set_layout(number, &layout.kernel)?;
    let resolver = Resolver::new(&memory, &layout);
    let interned = Interned::new(&resolver);
    for (index, (name, paths)) in frames.iter().enumerate() {
        let function = resolver.resolve("profilemate_walk", name)?;
        let compiler = Compiler::for_frame(&interned, &function)?;
        let fields: Vec<Compiled> = paths
            .iter()
            .map(|path| compiler.compile(path).context((*path).to_owned()))
            .collect::<Result<_>>()?;
        let id = 10 * number + index as u32;
        let program = assemble(id, number, &fields).map_err(|error| anyhow!("{name}: {error}"))?;
        kernel.set_target(pid, function.innermost, &program, index + 1 == frames.len())?;
    }
    kernel.set_stack(pid, &stack)?;
    Ok(())
}
