//! The machine: kernel, permissions, and what they allow.

use std::fs;

use super::{Line, Mark};
use crate::attach::{self, Capabilities, Nop5, OLDEST_KERNEL};
use crate::cli::Exit;
use crate::sys::status;
use crate::touch;

/// First kernel with one link for many uprobes.
const UPROBE_MULTI: (u32, u32) = (6, 6);
/// First kernel in which eBPF maps are not counted as locked memory.
const NO_MEMLOCK: (u32, u32) = (5, 11);
/// `PROC_PID_INIT_INO`: inode of the first pid namespace.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What the host says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Kernel, capabilities, uprobe events, lockdown.
    pub able: Capabilities,
    /// Whether the kernel's type information can be read.
    pub btf: bool,
    /// `kernel.perf_event_paranoid`.
    pub paranoid: Option<i32>,
    /// `kernel.yama.ptrace_scope`; `None` without Yama.
    pub yama: Option<u32>,
    /// Seccomp mode of this process: 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// Soft limit of locked memory; `None`: unlimited.
    pub memlock: Option<u64>,
    /// Whether tracefs is mounted where it belongs.
    pub tracefs: bool,
    /// Whether this process sees all processes of the machine; `None` if that cannot be told.
    pub initial_pid_namespace: Option<bool>,
}

/// What was tried out. Each `Err` holds the reason and what to do.
#[derive(Clone, Debug)]
pub struct Trials {
    /// The programs were loaded and a probe was put on memory of our own.
    pub attach: Result<(), (String, Option<String>)>,
    /// The five-byte probe site.
    pub nop5: Option<Nop5>,
}

impl Host {
    /// Looks.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
        Self {
            able: Capabilities::probe(),
            btf: fs::File::open("/sys/kernel/btf/vmlinux").is_ok(),
            paranoid: read("/proc/sys/kernel/perf_event_paranoid")
                .trim()
                .parse()
                .ok(),
            yama: read("/proc/sys/kernel/yama/ptrace_scope")
                .trim()
                .parse()
                .ok(),
            seccomp: status::field(&status, "Seccomp").and_then(|mode| mode.parse().ok()),
            memlock: limit.current,
            tracefs: [
                "/sys/kernel/tracing/events",
                "/sys/kernel/debug/tracing/events",
            ]
            .iter()
            .any(|path| fs::metadata(path).is_ok()),
            initial_pid_namespace: fs::read_link("/proc/self/ns/pid")
                .ok()
                .map(|link| link.as_os_str() == INITIAL_PID_NAMESPACE),
        }
    }
}

impl Trials {
    /// Tries out what an attach needs, on memory and a forked child of our own.
    pub fn make() -> Self {
        let failed = |error: &dyn std::error::Error, hint| (crate::session::chain(error), hint);
        let attach = match touch::page_code() {
            Ok(code) => attach::trial(code, touch::MARK_NOP1_OFFSET as u64)
                .map_err(|error| failed(&error, error.hint())),
            Err(error) => Err(failed(&error, None)),
        };
        // Where nothing can be attached, there is nothing to try.
        let nop5 = attach
            .as_ref()
            .ok()
            .and_then(|()| attach::probe_nop5().ok());
        Self { attach, nop5 }
    }
}

pub(super) fn lines(host: &Host, trials: &Trials) -> Vec<Line> {
    let mut lines = vec![kernel(host), architecture(), attach_line(trials)];
    lines.extend(kernel_features(host, trials));
    lines.extend(capabilities(host, trials.attach.is_ok()));
    lines.extend(policies(host, trials.attach.is_ok()));
    lines
}

fn kernel(host: &Host) -> Line {
    let needed = format!("{}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1);
    let line =
        |mark| Line::new("kernel", mark, format!("Linux {}", host.able.release)).needs(needed);
    match host.able.version {
        Some(version) if version >= OLDEST_KERNEL => line(Mark::Good),
        Some(_) => line(Mark::Bad(Exit::Forbidden)).todo("use a newer kernel"),
        None => line(Mark::Warn),
    }
}

fn architecture() -> Line {
    let arch = std::env::consts::ARCH;
    let line = |mark| Line::new("architecture", mark, arch).needs("x86_64");
    if arch == "x86_64" {
        line(Mark::Good)
    } else {
        line(Mark::Bad(Exit::Unsupported)).todo("nothing can be traced on this architecture yet")
    }
}

/// What decides: everything above and below only explains it.
fn attach_line(trials: &Trials) -> Line {
    let needed = "programs load, a uprobe holds";
    match &trials.attach {
        Ok(()) => {
            Line::new("trial attach", Mark::Good, "worked on memory of our own").needs(needed)
        }
        Err((reason, hint)) => {
            let line = Line::new("trial attach", Mark::Bad(Exit::Forbidden), reason).needs(needed);
            match hint {
                Some(hint) => line.todo(hint),
                None => line.todo("see docs/troubleshooting.md; `-vv` says more"),
            }
        }
    }
}

fn kernel_features(host: &Host, trials: &Trials) -> Vec<Line> {
    let uprobes = match host.able.uprobe_pmu {
        Some(_) => Line::new("uprobes", Mark::Good, "uprobe events are there"),
        None => Line::new("uprobes", Mark::Bad(Exit::Forbidden), "no uprobe events")
            .todo("use a kernel with CONFIG_UPROBE_EVENTS, and mount sysfs"),
    };
    let multi = host
        .able
        .version
        .is_some_and(|version| version >= UPROBE_MULTI);
    let multi = Line::new(
        "uprobe-multi",
        Mark::Fact,
        if multi {
            "in this kernel"
        } else {
            "no (from 6.6 on)"
        },
    )
    .needs("nothing: one uprobe per process is enough");
    let nop5 = match trials.nop5 {
        Some(Nop5::Safe) => Line::new(
            "five-byte nop",
            Mark::Good,
            "optimised; a forked child of our own survived it",
        ),
        Some(Nop5::Unsafe) => Line::new(
            "five-byte nop",
            Mark::Warn,
            "optimised, but a forked child of our own died at it (red-zone fault)",
        )
        .needs("nothing: the one-byte nop is used, at about 0.5 us more an event")
        .todo("a later kernel is cheaper"),
        Some(Nop5::NoGain) => {
            Line::new("five-byte nop", Mark::Fact, "not optimised by this kernel")
                .needs("nothing: the one-byte nop is used")
        }
        None => Line::new("five-byte nop", Mark::Fact, "could not be tried")
            .needs("nothing: the one-byte nop is used"),
    };
    let btf = Line::new(
        "BTF",
        Mark::Fact,
        if host.btf { "readable" } else { "none" },
    )
    .needs("nothing: no kernel structure is read");
    let tracefs = Line::new(
        "tracefs",
        Mark::Fact,
        if host.tracefs {
            "mounted"
        } else {
            "not mounted"
        },
    )
    .needs("nothing: perf events are used");
    vec![
        uprobes.needs("CONFIG_UPROBE_EVENTS"),
        multi,
        nop5,
        btf,
        tracefs,
    ]
}

/// A missing capability is bad only where the trial failed too: kernels differ in what they ask for.
fn capabilities(host: &Host, works: bool) -> Vec<Line> {
    let able = &host.able;
    let decisive = if works {
        Mark::Warn
    } else {
        Mark::Bad(Exit::Forbidden)
    };
    let sudo = "run with `sudo`";
    [
        ("CAP_BPF", able.bpf, "to load programs", decisive),
        ("CAP_PERFMON", able.perfmon, "to attach probes", decisive),
        (
            "CAP_SYS_ADMIN",
            able.admin,
            "for uprobes on some kernels (6.18), and to open the page",
            decisive,
        ),
        (
            "CAP_SYS_PTRACE",
            able.ptrace,
            "for servers of other users",
            Mark::Warn,
        ),
        (
            "CAP_DAC_READ_SEARCH",
            able.read_search,
            "for files of other users",
            Mark::Warn,
        ),
    ]
    .into_iter()
    .map(|(name, has, needed, without)| {
        if has {
            Line::new(name, Mark::Good, "yes").needs(needed)
        } else {
            Line::new(name, without, "no").needs(needed).todo(sudo)
        }
    })
    .collect()
}

fn policies(host: &Host, works: bool) -> Vec<Line> {
    let lockdown = host.able.lockdown.as_deref();
    let lockdown = match lockdown {
        Some("confidentiality") => Line::new(
            "lockdown",
            Mark::Bad(Exit::Forbidden),
            "confidentiality",
        )
        .todo(
            "boot with `lockdown=integrity` or without; programs may not read memory in this mode",
        ),
        Some(mode) => Line::new("lockdown", Mark::Good, mode),
        None => Line::new(
            "lockdown",
            Mark::Good,
            "not in this kernel, or not readable",
        ),
    };
    let paranoid = Line::new(
        "perf_event_paranoid",
        Mark::Fact,
        host.paranoid
            .map_or_else(|| "not readable".to_owned(), |value| value.to_string()),
    )
    .needs("any, with CAP_PERFMON or CAP_SYS_ADMIN");
    let yama = match host.yama {
        Some(3) => Line::new(
            "yama ptrace_scope",
            Mark::Bad(Exit::Forbidden),
            "3: ptrace is switched off",
        )
        .todo("only a reboot lowers it; until then nothing can be traced on this host"),
        Some(scope) => Line::new("yama ptrace_scope", Mark::Good, scope.to_string()),
        None => Line::new("yama ptrace_scope", Mark::Good, "no Yama in this kernel"),
    };
    let seccomp = match host.seccomp {
        Some(0) => Line::new("own seccomp", Mark::Good, "no filter"),
        Some(_) if works => Line::new("own seccomp", Mark::Good, "a filter, which lets bpf pass"),
        Some(_) => Line::new("own seccomp", Mark::Warn, "a filter is on this process")
            .todo("a container's filter may forbid bpf(2) and perf_event_open(2): run on the host, or privileged"),
        None => Line::new("own seccomp", Mark::Fact, "not readable"),
    };
    let old = host
        .able
        .version
        .is_some_and(|version| version < NO_MEMLOCK);
    let memlock = Line::new(
        "memlock",
        if old && host.memlock.is_some() {
            Mark::Warn
        } else {
            Mark::Fact
        },
        host.memlock.map_or_else(
            || "unlimited".to_owned(),
            |bytes| format!("{} KiB", bytes / 1024),
        ),
    )
    .needs("any, from Linux 5.11 on");
    let namespace = match host.initial_pid_namespace {
        Some(true) => Line::new("pid namespace", Mark::Good, "the host's"),
        Some(false) => Line::new(
            "pid namespace",
            Mark::Warn,
            "a container's: only its processes are seen",
        )
        .todo("to trace a server outside, run on the host or with the host's pid namespace"),
        None => Line::new("pid namespace", Mark::Fact, "not readable"),
    };
    vec![
        lockdown.needs("not confidentiality"),
        paranoid,
        yama.needs("0, 1 or 2, with CAP_SYS_PTRACE"),
        seccomp.needs("bpf(2) and perf_event_open(2) pass"),
        memlock,
        namespace.needs("one that holds the server"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Host {
        Host {
            able: Capabilities::good(),
            btf: true,
            paranoid: Some(2),
            yama: Some(1),
            seccomp: Some(0),
            memlock: Some(8 << 20),
            tracefs: false,
            initial_pid_namespace: Some(true),
        }
    }

    fn trials(works: bool) -> Trials {
        Trials {
            attach: if works {
                Ok(())
            } else {
                Err(("refused".into(), Some("run with `sudo`".into())))
            },
            nop5: works.then_some(Nop5::Unsafe),
        }
    }

    fn bad(host: &Host, works: bool) -> Vec<&'static str> {
        lines(host, &trials(works))
            .into_iter()
            .filter(|line| matches!(line.mark, Mark::Bad(_)))
            .map(|line| line.name)
            .collect()
    }

    #[test]
    fn a_good_host_has_no_bad_line_and_says_what_it_found() {
        assert_eq!(bad(&good(), true), Vec::<&str>::new());
        let lines = lines(&good(), &trials(true));
        let nop5 = lines.iter().find(|line| line.name == "five-byte nop");
        assert_eq!(nop5.map(|line| line.mark), Some(Mark::Warn));
        assert!(lines[0].found.contains("6.18.44") && lines[0].needed.contains("5.15"));
    }

    #[test]
    fn each_fault_has_its_line_with_something_to_do() {
        let change = |change: fn(&mut Host)| {
            let mut host = good();
            change(&mut host);
            host
        };
        let cases = [
            (change(|host| host.able.version = Some((5, 10))), "kernel"),
            (change(|host| host.able.uprobe_pmu = None), "uprobes"),
            (change(|host| host.able.admin = false), "CAP_SYS_ADMIN"),
            (change(|host| host.able.bpf = false), "CAP_BPF"),
            (change(|host| host.able.perfmon = false), "CAP_PERFMON"),
            (change(|host| host.yama = Some(3)), "yama ptrace_scope"),
            (
                change(|host| host.able.lockdown = Some("confidentiality".into())),
                "lockdown",
            ),
        ];
        for (host, name) in cases {
            let mut names = bad(&host, false);
            names.sort_unstable();
            let mut expected = vec!["trial attach", name];
            expected.sort_unstable();
            assert_eq!(names, expected);
            for line in lines(&host, &trials(false)) {
                if matches!(line.mark, Mark::Bad(_)) {
                    assert!(line.todo.is_some(), "{line:?}");
                }
            }
        }
    }

    #[test]
    fn a_capability_that_the_kernel_did_not_ask_for_is_only_a_warning() {
        let mut host = good();
        host.able.admin = false;
        assert_eq!(bad(&host, true), Vec::<&str>::new());
    }
}
