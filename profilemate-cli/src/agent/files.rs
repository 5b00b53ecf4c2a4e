//! The files that the configuration names: they are renewed while the agent runs, by who tells nobody (the kubelet for a
//! secret that is mounted, a client of an authority).

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::config::Config;

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(10);

/// What tells one content of a file from the next without reading it: place, mode, length, and when it was changed.
type Stamp = (u64, u64, u32, u64, i64, i64);

/// How the files were at one time; `None` for those that cannot be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Certificate, key and token of the server.
    serving: Vec<Option<Stamp>>,
    /// Headers and authority of the push.
    pushing: Vec<Option<Stamp>>,
}

impl Look {
    /// At the files of a configuration.
    pub(super) fn at(config: &Config) -> Self {
        let (tls, auth, otlp) = (&config.tls, &config.auth, &config.otlp);
        let serving = [&tls.cert_file, &tls.key_file, &auth.token_file];
        let pushing = [&otlp.headers_file, &otlp.ca_file];
        Self {
            serving: serving.map(|file| stamp(file.as_deref())).to_vec(),
            pushing: pushing.map(|file| stamp(file.as_deref())).to_vec(),
        }
    }
}

fn stamp(file: Option<&Path>) -> Option<Stamp> {
    let about = file?.metadata().ok()?;
    Some((
        about.dev(),
        about.ino(),
        about.mode(),
        about.len(),
        about.mtime(),
        about.mtime_nsec(),
    ))
}

/// The files as they were when they were last read.
pub(super) struct Files {
    read: Look,
    looked: Instant,
}

impl Files {
    /// Read as they were in `read`.
    pub(super) fn new(read: Look) -> Self {
        let looked = Instant::now();
        Self { read, looked }
    }

    /// Whether they are others than when they were read; `false` where that was asked just before.
    pub(super) fn have_changed(&mut self, config: &Config) -> bool {
        if self.looked.elapsed() < PAUSE {
            return false;
        }
        self.looked = Instant::now();
        Look::at(config) != self.read
    }

    /// They were read as they are in `now`; whether what is pushed with is another than before.
    pub(super) fn were_read(&mut self, now: Look) -> bool {
        let before = std::mem::replace(&mut self.read, now);
        self.read.pushing != before.pushing
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_renewed_in_place_or_behind_a_link_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut config = Config::default();
        let none = Look::at(&config);
        assert_eq!(none, Look::at(&config));
        config.auth.token_file = Some(file("token"));
        config.otlp.headers_file = Some(file("headers"));
        // Not there: as if none were named.
        assert_eq!(Look::at(&config), none);
        std::fs::write(file("token"), "one").unwrap();
        let one = Look::at(&config);
        assert_ne!(one, none);
        std::fs::write(file("token"), "other").unwrap();
        let other = Look::at(&config);
        assert_ne!(other, one);
        let mut files = Files::new(one);
        assert!(!files.were_read(other), "nothing is pushed with the token");
        // As the kubelet does: a folder of each version, and a link that is moved from one to the next.
        for version in ["1", "2"] {
            std::fs::create_dir(file(version)).unwrap();
            std::fs::write(file(version).join("headers"), "a: b").unwrap();
        }
        symlink("1", file("data")).unwrap();
        symlink("data/headers", file("headers")).unwrap();
        assert!(files.were_read(Look::at(&config)));
        assert!(!files.were_read(Look::at(&config)));
        symlink("2", file("next")).unwrap();
        std::fs::rename(file("next"), file("data")).unwrap();
        assert!(files.were_read(Look::at(&config)));
    }
}
