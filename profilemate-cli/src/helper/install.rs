//! Puts the Python helper into an environment, so that the servers started from it can be traced where that cannot
//! be done from outside. It waits there and touches nothing until a tracer comes.
//!
//! Two ways in are installed side by side, and lead to the same code: a `.pth` line, which every interpreter of the
//! environment runs at its start, and vLLM's own entry point `vllm.general_plugins`. Python's tools see it as the
//! package `profilemate-helper`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::demo::bundle;

/// Name of the folder of the Python package.
const PACKAGE: &str = "profilemate_helper";
/// The `.pth` file.
const PTH: &str = "profilemate_helper.pth";
/// Must be one line that begins with `import`, and never fail: every interpreter of the environment runs it.
const PTH_LINE: &str = "import sys; exec(\"try:\\n import profilemate_helper\\n profilemate_helper.start()\\nexcept \
                        Exception:\\n pass\")\n";
/// vLLM's plugin entry point.
const ENTRY_POINTS: &str = "[vllm.general_plugins]\nprofilemate = profilemate_helper:plugin\n";

/// Which ways in are installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// A `.pth` line: every Python of the environment, from its start.
    Pth,
    /// vLLM's entry point: vLLM's processes only, as far as `VLLM_PLUGINS` allows it.
    Plugin,
    /// Both.
    #[default]
    Both,
}

/// Why the helper was not installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is no environment.
    #[error("`{0}` is neither a virtual environment nor a `site-packages` folder")]
    NoEnvironment(PathBuf),
    /// It has no Python that the helper supports.
    #[error("`{0}` has no `lib/python3.*/site-packages` of CPython 3.10 to 3.14")]
    NoPython(PathBuf),
    /// The folder belongs to somebody else: as root we would follow whatever its owner puts there.
    #[error("`{folder}` belongs to user {owner}, not to the user who runs this ({own})")]
    Owner {
        /// The folder.
        folder: PathBuf,
        /// Its owner.
        owner: u32,
        /// Us.
        own: u32,
    },
    /// The helper is not installed there.
    #[error("the helper is not installed in `{0}`")]
    NotInstalled(PathBuf),
    /// A file could not be read or written.
    #[error("cannot change `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is installed in one `site-packages` folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The folder.
    pub folder: PathBuf,
    /// Version of the helper.
    pub version: String,
    /// Whether the `.pth` line is there.
    pub pth: bool,
    /// Whether vLLM's entry point is there.
    pub plugin: bool,
}

/// Version that this program installs.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// The `site-packages` folders of an environment: the folder itself, or those below a virtual environment.
pub fn sites(environment: &Path) -> Result<Vec<PathBuf>, Error> {
    let name = environment.file_name().and_then(|name| name.to_str());
    if matches!(name, Some("site-packages" | "dist-packages")) && environment.is_dir() {
        return Ok(vec![environment.to_owned()]);
    }
    let lib = environment.join("lib");
    if !environment.join("pyvenv.cfg").exists() && !lib.is_dir() {
        return Err(Error::NoEnvironment(environment.to_owned()));
    }
    let mut found = Vec::new();
    for minor in 10..=14 {
        let site = lib.join(format!("python3.{minor}")).join("site-packages");
        if site.is_dir() {
            found.push(site);
        }
    }
    if found.is_empty() {
        return Err(Error::NoPython(environment.to_owned()));
    }
    Ok(found)
}

/// Installs the helper into a `site-packages` folder; another version of it is replaced.
pub fn install(site: &Path, way: Way) -> Result<Installed, Error> {
    check_owner(site)?;
    if status(site)?.is_some() {
        remove(site)?;
    }
    let mut record = Vec::new();
    let mut put = |name: String, text: &str| -> Result<(), Error> {
        write_new(&site.join(&name), text)?;
        record.push(name);
        Ok(())
    };
    let info = info(version());
    make_folder(&site.join(PACKAGE))?;
    make_folder(&site.join(&info))?;
    for file in bundle::HELPER
        .iter()
        .filter(|file| file.path.starts_with(PACKAGE))
    {
        put(file.path.to_owned(), file.text)?;
    }
    if way != Way::Plugin {
        put(PTH.to_owned(), PTH_LINE)?;
    }
    if way != Way::Pth {
        put(format!("{info}/entry_points.txt"), ENTRY_POINTS)?;
    }
    let about = format!(
        "Metadata-Version: 2.1\nName: profilemate-helper\nVersion: {}\nSummary: Lets ProfileMate trace this \
         environment's vLLM servers\n",
        version()
    );
    put(format!("{info}/METADATA"), &about)?;
    put(format!("{info}/INSTALLER"), "profilemate\n")?;
    record.push(format!("{info}/RECORD"));
    let lines = record.join(",,\n") + ",,\n";
    write_new(&site.join(&info).join("RECORD"), &lines)?;
    Ok(Installed {
        folder: site.to_owned(),
        version: version().to_owned(),
        pth: way != Way::Plugin,
        plugin: way != Way::Pth,
    })
}

/// What is installed in a `site-packages` folder.
pub fn status(site: &Path) -> Result<Option<Installed>, Error> {
    let entries = fs::read_dir(site).map_err(io_at(site))?;
    let version = entries.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = name
            .strip_prefix("profilemate_helper-")?
            .strip_suffix(".dist-info")?;
        Some(version.to_owned())
    });
    Ok(version.map(|version| Installed {
        pth: site.join(PTH).exists(),
        plugin: site.join(info(&version)).join("entry_points.txt").exists(),
        folder: site.to_owned(),
        version,
    }))
}

/// Removes the helper from a `site-packages` folder: the files that were installed, and what Python made of them.
pub fn remove(site: &Path) -> Result<(), Error> {
    check_owner(site)?;
    let installed = status(site)?.ok_or_else(|| Error::NotInstalled(site.to_owned()))?;
    let info = site.join(info(&installed.version));
    let record = info.join("RECORD");
    let text = fs::read_to_string(&record).map_err(io_at(&record))?;
    // The `.pth` line first: nothing may ask for what is not there any more.
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(',').next())
        .filter(|name| is_ours(name))
        .collect();
    names.sort_by_key(|name| (*name != PTH, name.ends_with("RECORD")));
    for name in names {
        let path = site.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_at(&path)(error));
            }
            _ => {}
        }
    }
    let cache = site.join(PACKAGE).join("__pycache__");
    for entry in fs::read_dir(&cache).into_iter().flatten().flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|suffix| suffix == "pyc")
        {
            fs::remove_file(entry.path()).map_err(io_at(&entry.path()))?;
        }
    }
    for folder in [cache, site.join(PACKAGE), info] {
        // What somebody else has put there stays, and its folder with it.
        let _kept = fs::remove_dir(&folder);
    }
    Ok(())
}

/// Lays the helper out in `folder`, for PYTHONPATH. What is there already and differs is replaced.
pub fn lay_out(folder: &Path) -> Result<(), Error> {
    make_folder(folder)?;
    check_owner(folder)?;
    for file in bundle::HELPER {
        let path = folder.join(file.path);
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        if fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        let fresh = path.with_extension("new");
        let _stale = fs::remove_file(&fresh);
        write_new(&fresh, file.text)?;
        fs::rename(&fresh, &path).map_err(io_at(&path))?;
    }
    Ok(())
}

/// Where [`lay_out`] puts it: for all users if we are root, else for this one.
pub fn shared_folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/usr/local/lib/profilemate/helper");
    }
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    data.unwrap_or_else(std::env::temp_dir)
        .join("profilemate/helper")
}

fn info(version: &str) -> String {
    format!("{PACKAGE}-{version}.dist-info")
}

/// A file that an installation can have made: two parts at most, the first one ours.
fn is_ours(name: &str) -> bool {
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or_default();
    let second = parts.next();
    let own_folder = first == PACKAGE
        || first.starts_with("profilemate_helper-") && first.ends_with(".dist-info");
    match second {
        None => first == PTH,
        Some(second) => own_folder && parts.next().is_none() && !matches!(second, "" | "." | ".."),
    }
}

/// In a folder of somebody else, names can be links to anywhere.
fn check_owner(folder: &Path) -> Result<(), Error> {
    let about = fs::metadata(folder).map_err(io_at(folder))?;
    let own = rustix::process::geteuid().as_raw();
    if about.uid() == own {
        return Ok(());
    }
    Err(Error::Owner {
        folder: folder.to_owned(),
        owner: about.uid(),
        own,
    })
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(io_at(path))
}

fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(io_at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("lib/python3.11/site-packages");
        fs::create_dir_all(&site).unwrap();
        fs::write(folder.path().join("pyvenv.cfg"), "").unwrap();
        (folder, site)
    }

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_installed_is_told_and_can_be_removed_without_a_trace() {
        let (folder, site) = environment();
        fs::write(site.join("other.py"), "").unwrap();
        assert_eq!(sites(folder.path()).unwrap(), std::slice::from_ref(&site));
        assert_eq!(status(&site).unwrap(), None);
        for way in [Way::Pth, Way::Plugin, Way::Both, Way::Both] {
            let installed = install(&site, way).unwrap();
            assert_eq!(status(&site).unwrap(), Some(installed.clone()));
            assert_eq!(
                (installed.pth, installed.plugin),
                (way != Way::Plugin, way != Way::Pth)
            );
        }
        remove(&site).unwrap();
        assert_eq!(listing(&site), ["other.py"]);
        assert!(matches!(remove(&site), Err(Error::NotInstalled(_))));
    }

    #[test]
    fn only_files_of_ours_are_removed_whatever_the_record_says() {
        let (_folder, site) = environment();
        install(&site, Way::Both).unwrap();
        fs::write(site.join("other.py"), "").unwrap();
        fs::write(site.parent().unwrap().join("outside.py"), "").unwrap();
        let record = site.join(info(version())).join("RECORD");
        let mut text = fs::read_to_string(&record).unwrap();
        text.push_str(
            "other.py,,\n../outside.py,,\nprofilemate_helper/../other.py,,\n/etc/hostname,,\n",
        );
        fs::write(&record, text).unwrap();
        remove(&site).unwrap();
        assert_eq!(listing(&site), ["other.py"]);
        assert!(site.parent().unwrap().join("outside.py").exists());
    }

    #[test]
    fn a_folder_that_is_no_environment_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(sites(folder.path()), Err(Error::NoEnvironment(_))));
        fs::create_dir(folder.path().join("lib")).unwrap();
        assert!(matches!(sites(folder.path()), Err(Error::NoPython(_))));
    }

    #[test]
    fn what_is_laid_out_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("helper");
        lay_out(&target).unwrap();
        fs::write(target.join("sitecustomize.py"), "old").unwrap();
        lay_out(&target).unwrap();
        for file in bundle::HELPER {
            assert_eq!(
                fs::read_to_string(target.join(file.path)).unwrap(),
                file.text
            );
        }
        assert_eq!(listing(&target), ["profilemate_helper", "sitecustomize.py"]);
    }
}
