//! Finds a Python to run the demo server on.

use std::{
    env, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use thiserror::Error;

/// The oldest version that the server runs on.
const OLDEST: (u32, u32) = (3, 10);
/// How often an interpreter is given a moment more to say its version, and how long that is. Ten seconds in all, not
/// counting those in which this program was not running either.
const MOMENTS: u32 = 2500;
const MOMENT: Duration = Duration::from_millis(4);
/// Names looked for on `PATH`, in this order.
const NAMES: [&str; 6] = [
    "python3",
    "python3.12",
    "python3.13",
    "python3.10",
    "python3.14",
    "python3.11",
];
/// What it is asked. Behind a version manager's script, `sys.executable` is the real program.
const QUESTION: &str =
    "import sys; print(sys.version_info[0], sys.version_info[1], sys.executable)";

/// Why there is no interpreter.
#[derive(Debug, Error)]
pub enum Error {
    /// None of those found can be used.
    #[error("no Python of version 3.10 or newer was found (hint: set PROFILEMATE_PYTHON to one)")]
    NotFound,
    /// The one that was asked for cannot be used.
    #[error("`{}` cannot run the demo server: {reason}", path.display())]
    Unusable {
        /// The program.
        path: PathBuf,
        /// In plain words.
        reason: &'static str,
    },
}

/// An interpreter that can run the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The program.
    pub path: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
}

/// How methods are traced in an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Technique {
    /// By method probes, from outside.
    MethodProbes,
    /// Not known for this version.
    Unknown,
    /// By the helper, which has to be there when the server starts.
    Helper,
}

impl Interpreter {
    /// How methods are traced in it.
    pub fn technique(&self) -> Technique {
        match self.version {
            (3, 10 | 12 | 13) => Technique::MethodProbes,
            (3, 11) => Technique::Helper,
            _ => Technique::Unknown,
        }
    }
}

/// The interpreter that `PROFILEMATE_PYTHON` names; else the best on `PATH` and in `~/.pyenv`: one where method probes
/// work, if there is one.
pub fn find() -> Result<Interpreter, Error> {
    if let Some(path) = env::var_os("PROFILEMATE_PYTHON").filter(|path| !path.is_empty()) {
        return probe(Path::new(&path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let pyenv = env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let mut candidates = on_path(env::split_paths(&path));
    candidates.extend(pyenv.into_iter().flat_map(|root| in_pyenv(&root)));
    best(candidates.iter().filter_map(|path| probe(path).ok())).ok_or(Error::NotFound)
}

/// The best of some interpreters, the first of equals. Stops at the first one that could not be bettered.
fn best(interpreters: impl Iterator<Item = Interpreter>) -> Option<Interpreter> {
    let mut best: Option<Interpreter> = None;
    for found in interpreters {
        if best
            .as_ref()
            .is_none_or(|best| found.technique() < best.technique())
        {
            let perfect = found.technique() == Technique::MethodProbes;
            best = Some(found);
            if perfect {
                break;
            }
        }
    }
    best
}

fn on_path(folders: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    // Relative folders are passed over: what they mean depends on where one stands.
    let folders: Vec<PathBuf> = folders.filter(|folder| folder.is_absolute()).collect();
    let programs = NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    programs.filter(|program| program.is_file()).collect()
}

fn in_pyenv(root: &Path) -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir(root.join("versions")) else {
        return Vec::new();
    };
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin/python3")));
    let mut programs: Vec<PathBuf> = programs.filter(|program| program.is_file()).collect();
    programs.sort();
    programs
}

/// Asks a program what it is.
pub fn probe(path: &Path) -> Result<Interpreter, Error> {
    let unusable = |reason| Error::Unusable {
        path: path.to_owned(),
        reason,
    };
    let answer = ask(path).map_err(|error| {
        let late = error.kind() == io::ErrorKind::TimedOut;
        unusable(if late {
            "it did not answer in time"
        } else {
            "it could not be run"
        })
    })?;
    let mut words = answer.trim_end().splitn(3, ' ');
    let mut number = || words.next()?.parse::<u32>().ok();
    let version = number()
        .zip(number())
        .ok_or_else(|| unusable("it did not say its version"))?;
    let program = words.next().filter(|path| path.starts_with('/'));
    let program = program.ok_or_else(|| unusable("it did not say where it is"))?;
    if version < OLDEST {
        return Err(unusable("it is older than Python 3.10"));
    }
    Ok(Interpreter {
        path: program.into(),
        version,
    })
}

fn ask(path: &Path) -> io::Result<String> {
    let mut child = Command::new(path)
        .args(["-I", "-S", "-c", QUESTION])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut ended = child.try_wait()?;
    for _ in 0..MOMENTS {
        if ended.is_some() {
            break;
        }
        std::thread::sleep(MOMENT);
        ended = child.try_wait()?;
    }
    let Some(status) = ended else {
        child.kill()?;
        child.wait()?;
        return Err(io::ErrorKind::TimedOut.into());
    };
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(4096).read_to_string(&mut answer)?;
    }
    if status.success() {
        Ok(answer)
    } else {
        Err(io::ErrorKind::Other.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(minor: u32) -> Interpreter {
        Interpreter {
            path: format!("/usr/bin/python3.{minor}").into(),
            version: (3, minor),
        }
    }

    #[test]
    fn versions_with_method_probes_come_first_and_3_11_last() {
        let best = |minors: &[u32]| {
            best(minors.iter().copied().map(interpreter)).map(|found| found.version.1)
        };
        assert_eq!(best(&[11, 14, 13, 12]), Some(13));
        assert_eq!(best(&[11, 14]), Some(14));
        assert_eq!(best(&[11]), Some(11));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn what_is_no_python_is_refused() {
        for (path, expected) in [
            ("/bin/false", "run"),
            ("/bin/true", "version"),
            ("/nowhere/python3", "run"),
        ] {
            match probe(Path::new(path)) {
                Err(Error::Unusable { reason, .. }) => {
                    assert!(reason.contains(expected), "{path}: {reason}");
                }
                other => panic!("{path}: {other:?}"),
            }
        }
    }

    #[test]
    fn relative_folders_on_the_path_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("python3.12"), "").unwrap();
        let found = on_path([PathBuf::from("."), folder.path().to_owned()].into_iter());
        assert_eq!(found, [folder.path().join("python3.12")]);
    }
}
