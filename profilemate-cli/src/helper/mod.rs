//! The Python helper, loaded into a command that `trace -- CMD` starts.
//!
//! It is needed where method probes cannot work from outside (CPython 3.11), and does nothing in other interpreters
//! unless `--touch helper` asks for it.

pub mod install;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use profilemate_common::page;
use serde_json::json;

use crate::catalog::{self, Catalog, Method, Sampling};
use crate::demo::bundle;
use crate::target::python::Entry;
use crate::touch;

/// In which Pythons the helper binds methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pythons {
    /// Those in which functions cannot be redirected from outside.
    Needed,
    /// All that it supports.
    All,
}

impl Pythons {
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Needed => &["3.11"],
            Self::All => &["3.10", "3.11", "3.12", "3.13", "3.14"],
        }
    }
}

/// Why the helper could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be written.
    #[error("could not lay out the Python helper in `{path}`")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no page code for this machine.
    #[error(transparent)]
    Page(#[from] touch::Error),
}

/// The helper's files, removed when dropped.
#[derive(Debug)]
pub struct Helper {
    folder: tempfile::TempDir,
}

impl Helper {
    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Lays the helper out and sets the command's environment so that its interpreters load it. With `sampling` it also
/// waits in all of them to be told to sample routers.
pub fn prepare(
    command: &mut Command,
    methods: &[Method],
    pythons: Pythons,
    sampling: bool,
) -> Result<Helper, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let folder = bundle::private_folder().map_err(failed(&std::env::temp_dir()))?;
    let path = folder.path().to_owned();
    bundle::unpack(bundle::HELPER, &path).map_err(failed(&path))?;
    let plan = path.join("plan.json");
    let catalog = Catalog::vllm();
    let tell = sampling.then(|| catalog::sampling(None).tell);
    let all = catalog.methods.iter().chain(methods).chain(&tell);
    let mut text = plan_json(all, Some(pythons))?;
    text["resident"] = sampling.into();
    fs::write(&plan, text.to_string()).map_err(failed(&plan))?;
    let mut python_path = path.into_os_string();
    if let Some(before) = python_path_of(command).filter(|before| !before.is_empty()) {
        python_path.push(":");
        python_path.push(before);
    }
    command
        .env("PYTHONPATH", python_path)
        .env("PROFILEMATE_PAGE", plan);
    if !methods.is_empty() && std::env::var_os("VLLM_ENABLE_PROFILING").is_none() {
        // The user's own methods are wanted in whatever program it is, not only where vLLM is imported.
        command.env("VLLM_ENABLE_PROFILING", "1");
    }
    Ok(Helper { folder })
}

/// The `PYTHONPATH` that the command has: its own, else ours.
fn python_path_of(command: &Command) -> Option<OsString> {
    let own = command.get_envs().find(|(name, _)| *name == "PYTHONPATH");
    match own {
        Some((_, value)) => value.map(OsStr::to_owned),
        None => std::env::var_os("PYTHONPATH"),
    }
}

/// What the helper reads: the page's code and shape, and the methods to bind.
fn plan_json<'m>(
    methods: impl Iterator<Item = &'m Method>,
    pythons: Option<Pythons>,
) -> Result<serde_json::Value, touch::Error> {
    let methods: Vec<_> = methods
        .map(|method| json!({ "module": method.module, "qualname": method.qualname }))
        .collect();
    Ok(json!({
        "code": BASE64_STANDARD.encode(touch::page_code()?),
        "arch": std::env::consts::ARCH,
        "magic": page::MAGIC,
        "version": page::VERSION,
        "code_size": page::CODE_SIZE,
        "data_size": page::DATA_SIZE,
        "slot_offset": page::SLOT_OFFSET,
        "slot_stride": page::SLOT_STRIDE,
        "slots": page::SLOTS,
        "helper_stub_offset": touch::method_stub(0),
        "stub_stride": touch::method_stub(1) - touch::method_stub(0),
        "methods": methods,
        "pythons": pythons.map(Pythons::versions),
    }))
}

/// Starts the helper in process `pid`, which runs already: it waits there as one that was there from the start.
pub fn load(pid: u32, entry: &Entry) -> Result<touch::Resident, touch::Error> {
    let (resident, stood_ns) = touch::load(pid, entry, &late_code())?;
    log::info!(
        "process {pid}: the helper was started in it; its main thread stood for {} us",
        stood_ns / 1000
    );
    Ok(resident)
}

/// What the process runs for that: a few lines for its main thread, which start another for the rest. Signal handlers
/// of the program run in the main thread only, so none can be caught up in it.
fn late_code() -> String {
    let files: serde_json::Map<String, serde_json::Value> = bundle::HELPER
        .iter()
        .filter_map(|file| {
            let name = file.path.strip_prefix("profilemate_helper/")?;
            Some((name.strip_suffix(".py")?.to_owned(), file.text.into()))
        })
        .collect();
    // JSON of texts is Python, too.
    let source = format!("{}\nbegin({})\n", bundle::LATE, json!(files));
    format!(
        "try:\n    __import__(\"_thread\").start_new_thread(exec, ({}, {{\"__name__\": \"profilemate_late\"}}))\nexcept \
         BaseException:\n    pass\n",
        json!(source)
    )
}

/// Has the helper that is resident in a process bind `methods`, and sample routers, every so many calls.
pub fn bind(
    resident: touch::Resident,
    methods: &[Method],
    sample: Option<(u32, &Sampling)>,
) -> Result<touch::Serving, touch::Error> {
    let mut plan = plan_json(methods.iter(), None)?;
    if let Some((every, sampling)) = sample {
        plan["sample"] = json!({ "every": every, "routers": sampling.routers });
    }
    resident.bind(&plan.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_in_a_running_process_is_plain_text_that_python_reads() {
        let code = late_code();
        assert!(code.is_ascii() && !code.contains('\0'));
        for part in ["begin({", "def settle", "class Binder", "def import_from"] {
            assert!(code.contains(part), "{part}");
        }
        assert_eq!(code.lines().count(), 4);
    }

    #[test]
    fn the_command_gets_the_helper_and_keeps_its_own_path() {
        let mut command = Command::new("true");
        command.env("PYTHONPATH", "/own");
        let helper = prepare(&mut command, &[], Pythons::Needed, false).unwrap();
        let folder = helper.folder().to_owned();
        assert!(folder.join("sitecustomize.py").exists());
        let plan: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("plan.json")).unwrap()).unwrap();
        assert!(
            plan["methods"]
                .as_array()
                .is_some_and(|methods| methods.len() > 20)
        );
        let code = plan["code"].as_str().unwrap();
        assert_eq!(BASE64_STANDARD.decode(code).unwrap().len(), page::CODE_SIZE);
        let path = command
            .get_envs()
            .find(|(name, _)| *name == "PYTHONPATH")
            .and_then(|(_, value)| value)
            .unwrap();
        assert!(path.to_string_lossy().starts_with(folder.to_str().unwrap()));
    }
}
