//! The helper for started programs: Python files that let methods pass a marker page where that cannot be arranged
//! from outside (Python 3.11).
//!
//! [`Helper::unpack`] lays them, the page's code and a plan into a folder. A program started with
//! [`Helper::environment`], and every Python program that it starts, maps the page itself once vLLM is imported. The
//! tracer recognises the page by its name and reads from its data which function sits in which slot.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use profilemate_common::page;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::bundle;

/// Versions of Python in which the helper does something. In the others methods are probed from outside.
const PYTHONS: [&str; 1] = ["3.11"];

/// The page's code, and where C callables enter it.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// [`page::CODE_SIZE`] bytes of position independent machine code.
    pub bytes: &'a [u8; page::CODE_SIZE],
    /// Offset of slot 0's entry for C callables (`METH_FASTCALL | METH_KEYWORDS`).
    pub stub_offset: usize,
    /// Bytes from one slot's entry to the next.
    pub stub_stride: usize,
}

/// A method to bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Method {
    /// Python module.
    pub module: String,
    /// Qualified name in the module.
    pub qualname: String,
}

/// What the helper tells of one method in one process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// Process, as it sees itself.
    pub pid: u32,
    /// Python module.
    pub module: String,
    /// Qualified name; `None` if the module as a whole could not be dealt with.
    pub qualname: Option<String>,
    /// Slot of the page, if it was bound.
    pub slot: Option<u8>,
    /// Why it was not, in plain words.
    pub reason: Option<String>,
}

/// What is written for the helper to read; see `python/profilemate_helper/profilemate_helper/plan.py`.
#[derive(Serialize)]
struct Plan<'a> {
    code: &'a str,
    arch: &'a str,
    magic: u64,
    version: u32,
    code_size: usize,
    data_size: usize,
    slot_offset: usize,
    slot_stride: usize,
    slots: usize,
    helper_stub_offset: usize,
    stub_stride: usize,
    pythons: &'a [&'a str],
    report: &'a Path,
    methods: &'a [Method],
}

/// The helper's files. Programs started with them import from the folder as long as they start others, so this has to
/// live as long as they do.
#[derive(Debug)]
pub struct Helper {
    folder: TempDir,
}

impl Helper {
    /// Writes the files. A slot is given to each method of the list that is found, in the order in which their modules
    /// are imported.
    pub fn unpack(code: Code<'_>, methods: &[Method]) -> io::Result<Self> {
        let folder = bundle::private_folder()?;
        bundle::unpack(bundle::HELPER, folder.path())?;
        let plan = Plan {
            code: "page.bin",
            arch: env::consts::ARCH,
            magic: page::MAGIC,
            version: page::VERSION,
            code_size: page::CODE_SIZE,
            data_size: page::DATA_SIZE,
            slot_offset: page::SLOT_OFFSET,
            slot_stride: page::SLOT_STRIDE,
            slots: page::SLOTS,
            helper_stub_offset: code.stub_offset,
            stub_stride: code.stub_stride,
            pythons: &PYTHONS,
            report: &folder.path().join("report"),
            methods,
        };
        write(&folder.path().join("page.bin"), code.bytes)?;
        write(&folder.path().join("plan.json"), &serde_json::to_vec_pretty(&plan)?)?;
        Ok(Self { folder })
    }

    /// Variables that make a program load the helper: its folder goes in front of `python_path`, the program's
    /// `PYTHONPATH` so far.
    pub fn environment(&self, python_path: Option<&OsStr>) -> io::Result<Vec<(OsString, OsString)>> {
        let mut folders = vec![self.folder.path().to_owned()];
        folders.extend(python_path.into_iter().filter(|path| !path.is_empty()).flat_map(env::split_paths));
        let joined = env::join_paths(folders).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let plan: PathBuf = self.folder.path().join("plan.json");
        Ok(vec![("PYTHONPATH".into(), joined), ("PROFILEMATE_PAGE".into(), plan.into())])
    }

    /// What the helper has told so far, from all processes. Lines that cannot be read are passed over: the processes
    /// that write them are not trusted.
    pub fn reports(&self) -> Vec<Report> {
        let text = fs::read(self.folder.path().join("report")).unwrap_or_default();
        text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code<'static> {
        Code { bytes: &[0xcc; page::CODE_SIZE], stub_offset: 1024, stub_stride: 16 }
    }

    #[test]
    fn the_helpers_folder_stands_before_what_was_on_the_path() {
        let helper = Helper::unpack(code(), &[]).unwrap();
        let value = |path: Option<&str>| {
            let found = helper.environment(path.map(OsStr::new)).unwrap();
            found.into_iter().find(|(name, _)| name == "PYTHONPATH").unwrap().1.into_string().unwrap()
        };
        let folder = helper.folder.path().to_str().unwrap();
        assert_eq!(value(None), folder);
        assert_eq!(value(Some("")), folder);
        assert_eq!(value(Some("/a:/b")), format!("{folder}:/a:/b"));
    }

    #[test]
    fn lines_of_the_report_that_make_no_sense_are_passed_over() {
        let helper = Helper::unpack(code(), &[]).unwrap();
        assert_eq!(helper.reports(), []);
        let text = concat!(
            r#"{"module": "m", "qualname": "C.f", "slot": 3, "reason": null, "pid": 7}"#,
            "\nnonsense\n{\"pid\": -1}\n\u{0}\n",
            r#"{"module": "m", "qualname": null, "slot": null, "reason": "why", "pid": 7}"#,
        );
        fs::write(helper.folder.path().join("report"), text).unwrap();
        let found = helper.reports();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].slot, found[0].qualname.as_deref()), (Some(3), Some("C.f")));
        assert_eq!(found[1].reason.as_deref(), Some("why"));
    }

    #[test]
    fn python_reads_the_plan_that_is_written() {
        let Ok(python) = super::super::interpreter::find() else {
            println!("skipped: no Python");
            return;
        };
        let methods = [Method { module: "m".into(), qualname: "C.f".into() }];
        let helper = Helper::unpack(code(), &methods).unwrap();
        let program = "import os; from profilemate_helper import plan; p = plan.read(os.environ['PROFILEMATE_PAGE']); \
                       print(p.methods, p.slots, p.helper_stub_offset, len(open(p.code, 'rb').read()))";
        let output = std::process::Command::new(python.path)
            .args(["-B", "-c", program])
            .envs(helper.environment(None).unwrap())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "{'m': ['C.f']} 64 1024 4096\n");
    }
}
