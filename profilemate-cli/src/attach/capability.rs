//! What this process and this kernel can do, as far as the kernel side needs it.

use std::fs;

use crate::sys::status;

/// Oldest kernel: attach cookies and perf links came with it.
pub const OLDEST_KERNEL: (u32, u32) = (5, 15);

// Numbers of capabilities, from `linux/capability.h`.
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What was found; see [`Capabilities::missing`] for the judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a capability that is there or not"
)]
pub struct Capabilities {
    /// Kernel release, `6.18.44`.
    pub release: String,
    /// Its first two numbers.
    pub version: Option<(u32, u32)>,
    /// Whether eBPF programs may be loaded: `CAP_BPF`, or `CAP_SYS_ADMIN`.
    pub bpf: bool,
    /// Whether probes may be attached: `CAP_PERFMON`, or `CAP_SYS_ADMIN`.
    pub perfmon: bool,
    /// Whether it is `CAP_SYS_ADMIN`, which some kernels (6.18 is one) want for a uprobe.
    pub admin: bool,
    /// Whether processes of other users may be read and stopped: `CAP_SYS_PTRACE`.
    pub ptrace: bool,
    /// Whether files of other users may be read: `CAP_DAC_READ_SEARCH`.
    pub read_search: bool,
    /// Type number of the kernel's uprobe events, if it has them.
    pub uprobe_pmu: Option<u32>,
    /// Lockdown mode: `none`, `integrity` or `confidentiality`; `None` if the kernel has no lockdown.
    pub lockdown: Option<String>,
}

impl Capabilities {
    /// Looks, and changes nothing.
    pub fn probe() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let effective = effective(&read("/proc/self/status"));
        let has = |number: u32| effective >> number & 1 == 1;
        Self {
            version: version(&release),
            release,
            bpf: has(CAP_BPF) || has(CAP_SYS_ADMIN),
            perfmon: has(CAP_PERFMON) || has(CAP_SYS_ADMIN),
            admin: has(CAP_SYS_ADMIN),
            ptrace: has(CAP_SYS_PTRACE),
            read_search: has(CAP_DAC_READ_SEARCH),
            uprobe_pmu: read("/sys/bus/event_source/devices/uprobe/type")
                .trim()
                .parse()
                .ok(),
            lockdown: lockdown(&read("/sys/kernel/security/lockdown")),
        }
    }

    /// What is missing, each as something to do; empty if all is there.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.bpf || !self.perfmon {
            let names: Vec<&str> = [(self.bpf, "CAP_BPF"), (self.perfmon, "CAP_PERFMON")]
                .into_iter()
                .filter_map(|(has, name)| (!has).then_some(name))
                .collect();
            missing.push(format!(
                "run with `sudo`; this process lacks {}",
                names.join(" and ")
            ));
        }
        if self.version.is_some_and(|version| version < OLDEST_KERNEL) {
            missing.push(format!(
                "use a kernel from Linux {}.{} on; this is {}",
                OLDEST_KERNEL.0, OLDEST_KERNEL.1, self.release
            ));
        }
        if self.uprobe_pmu.is_none() {
            missing.push("use a kernel with CONFIG_UPROBE_EVENTS, and mount sysfs; there are no uprobe events here".into());
        }
        if self.lockdown.as_deref() == Some("confidentiality") {
            missing.push(
                "leave lockdown's confidentiality mode, which forbids programs to read memory"
                    .into(),
            );
        }
        missing
    }
}

#[cfg(test)]
impl Capabilities {
    /// Those of a host on which everything works.
    pub(crate) fn good() -> Self {
        Self {
            release: "6.18.44".into(),
            version: Some((6, 18)),
            bpf: true,
            perfmon: true,
            admin: true,
            ptrace: true,
            read_search: true,
            uprobe_pmu: Some(9),
            lockdown: None,
        }
    }
}

/// The first two numbers of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The set of effective capabilities in a `/proc/PID/status`.
fn effective(status: &str) -> u64 {
    status::field(status, "CapEff")
        .and_then(|set| u64::from_str_radix(set, 16).ok())
        .unwrap_or(0)
}

/// The chosen word in `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (word, _) = rest.split_once(']')?;
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.15.0-1-amd64"), Some((5, 15)));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn the_chosen_lockdown_mode_is_in_brackets() {
        assert_eq!(
            lockdown("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        assert_eq!(lockdown(""), None);
    }

    #[test]
    fn effective_capabilities_are_read() {
        assert_eq!(
            effective("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            0x1ff_ffff_ffff
        );
        assert_eq!(effective("nothing"), 0);
    }

    #[test]
    fn each_missing_thing_is_named() {
        assert!(Capabilities::good().missing().is_empty());
        let poor = Capabilities {
            version: Some((5, 10)),
            perfmon: false,
            uprobe_pmu: None,
            lockdown: Some("confidentiality".into()),
            ..Capabilities::good()
        };
        let text = poor.missing().join("\n");
        for word in ["CAP_PERFMON", "5.15", "CONFIG_UPROBE_EVENTS", "lockdown"] {
            assert!(text.contains(word), "{word} is missing in {text}");
        }
        assert!(!text.contains("CAP_BPF"));
    }
}
