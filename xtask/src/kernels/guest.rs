//! The virtual machine: booted, listened to, ended.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Seconds after which a guest is ended. Emulated, a kernel boots in half a minute, and Python starts in ten.
const LIMIT_S: &str = "900";

/// What the guest told on its console; `init.sh` says it.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `uname -r`.
    pub(super) kernel: String,
    /// What `doctor` printed.
    pub(super) doctor: Vec<String>,
    /// Exit code of `demo`.
    pub(super) exit: Option<i32>,
    /// What `demo` said on stderr.
    pub(super) log: Vec<String>,
    /// Rows of each table.
    pub(super) rows: BTreeMap<String, u64>,
    /// `metadata.json`, in one line.
    pub(super) metadata: String,
    /// Tables of which `replay` made other bytes.
    pub(super) differing: Vec<String>,
    ended: bool,
    /// What the kernel said last, for a guest that never got that far.
    last: Vec<String>,
}

/// Boots `image` with the file system `initrd`, and listens until it is off.
pub(super) fn boot(image: &Path, initrd: &Path) -> Result<Told> {
    let accelerator = if usable_kvm() { "kvm" } else { "tcg" };
    let mut qemu = Command::new("timeout");
    qemu.arg(LIMIT_S)
        .arg("qemu-system-x86_64")
        .args([
            "-accel",
            accelerator,
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2G",
        ])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 panic=-1 loglevel=4"]);
    eprintln!("+ {}", shell::words(&qemu));
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let console = child.stdout.take().context("qemu has no output")?;
    let mut told = Told::default();
    for line in BufReader::new(console).split(b'\n') {
        told.hear(String::from_utf8_lossy(&line?).trim_end());
    }
    let status = child.wait()?;
    if !told.ended {
        bail!(
            "the guest did not get to its end ({status}); it said last:\n{}",
            told.last.join("\n")
        );
    }
    Ok(told)
}

/// Nested virtualisation is often offered and rarely works: only a processor that has it is asked.
fn usable_kvm() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Path::new("/dev/kvm").exists()
        && flags
            .split_whitespace()
            .any(|it| it == "vmx" || it == "svm")
}

impl Told {
    fn hear(&mut self, line: &str) {
        let Some((word, rest)) = line
            .strip_prefix('@')
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
        else {
            if self.last.len() == 40 {
                self.last.remove(0);
            }
            self.last.push(line.to_owned());
            return;
        };
        match word {
            "kernel" => rest.clone_into(&mut self.kernel),
            "doctor" => self.doctor.push(rest.to_owned()),
            "exit" => self.exit = rest.parse().ok(),
            "log" => self.log.push(rest.to_owned()),
            "rows" => {
                if let Some((table, count)) = rest.split_once(' ') {
                    self.rows
                        .insert(table.to_owned(), count.parse().unwrap_or(0));
                }
            }
            "metadata" => rest.clone_into(&mut self.metadata),
            "differs" => self.differing.push(rest.to_owned()),
            "end" => self.ended = true,
            _ => self.last.push(line.to_owned()),
        }
    }
}
