//! The OTLP push of the agent: what the configuration says, and its beginning and end.

use std::path::Path;
use std::sync::Arc;

use super::config::{self, Otlp, Protocol};
use crate::metrics::otlp::{Push, Target};
use crate::metrics::registry::Registry;
use crate::secret;

/// The collector of a configuration; `None` if there is none.
pub(super) fn target(otlp: &Otlp) -> Result<Option<Target>, config::Error> {
    let Some(endpoint) = otlp.endpoint.clone() else {
        return Ok(None);
    };
    let headers = otlp.headers_file.as_deref().map(headers).transpose()?;
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| config::Error::Read {
            path: path.to_owned(),
            source,
        })
    };
    Ok(Some(Target {
        endpoint,
        http: otlp.protocol == Protocol::Http,
        interval: otlp.interval.0,
        timeout: otlp.timeout.0,
        headers: headers.unwrap_or_default(),
        authority: otlp.ca_file.as_deref().map(read).transpose()?,
        sample: otlp.sample,
    }))
}

/// The headers in a file, one `NAME: VALUE` a line.
fn headers(path: &Path) -> Result<Vec<(String, String)>, config::Error> {
    let text = secret::read(path)?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| {
                config::Error::Refused(format!(
                    "`{}` has a line that is not `NAME: VALUE`",
                    path.display()
                ))
            })?;
            Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

/// The push, if there is one.
#[derive(Default)]
pub(super) struct Pushing(Option<Push>);

/// Does what waits in a thread of its own: an async one must not.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    let handle = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _within = handle.enter();
            work()
        });
        thread.join().ok()
    })
}

impl Pushing {
    /// Begins. Without a push the agent goes on all the same.
    pub(super) fn begin(&mut self, target: Option<Target>, registry: &Arc<Registry>) {
        let Some(target) = target else {
            return;
        };
        match aside(|| Push::start(&target, registry)) {
            Some(Ok(push)) => self.0 = Some(push),
            Some(Err(error)) => log::error!("nothing is pushed: {}", crate::session::chain(&error)),
            None => log::error!("nothing is pushed: the thread that begins it has failed"),
        }
    }

    /// Ends, with what is there sent.
    pub(super) fn end(&mut self, registry: &Registry) {
        if let Some(push) = self.0.take() {
            let _failed = aside(|| push.end(registry));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn headers_are_read_from_a_file_that_only_its_owner_can_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# for the collector\nAuthorization: Bearer x:y\n\n";
        std::fs::write(file.path(), text).unwrap();
        let mode = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o600);
        let otlp = Otlp {
            endpoint: Some("https://collector:4317".into()),
            headers_file: Some(file.path().to_owned()),
            ..Otlp::default()
        };
        let found = target(&otlp).unwrap().unwrap();
        let expected = ("authorization".to_owned(), "Bearer x:y".to_owned());
        assert_eq!(found.headers, [expected]);
        mode(0o644);
        assert!(matches!(target(&otlp), Err(config::Error::Secret(_))));
        mode(0o600);
        std::fs::write(file.path(), "secret-without-a-name\n").unwrap();
        let error = target(&otlp).unwrap_err().to_string();
        assert!(!error.contains("secret-without"), "{error}");
        assert!(target(&Otlp::default()).unwrap().is_none());
    }
}
