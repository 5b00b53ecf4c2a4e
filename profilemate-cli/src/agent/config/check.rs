//! What does not fit together is refused before anything is done.

use super::{Config, Error};

fn refused(condition: bool, text: impl FnOnce() -> String) -> Result<(), Error> {
    if condition {
        return Err(Error::Refused(text()));
    }
    Ok(())
}

/// Scheme of an address that a key names, and whether it is on loopback.
fn address(key: &str, section: &str, text: &str) -> Result<(String, bool), Error> {
    let what = || format!("`{key}` in `[{section}]`");
    refused(text.contains('@'), || {
        format!("{} holds a user or password: put it into a file", what())
    })?;
    let uri = text.parse::<axum::http::Uri>().ok();
    let host = uri.as_ref().and_then(axum::http::Uri::host);
    let scheme = uri.as_ref().and_then(axum::http::Uri::scheme_str);
    let Some((host, scheme)) = host.zip(scheme) else {
        return Err(Error::Refused(format!(
            "{} must be an address such as `http://127.0.0.1:4317`, not `{text}`",
            what()
        )));
    };
    refused(!matches!(scheme, "http" | "https"), || {
        format!(
            "{} begins with `{scheme}`: it must be `http` or `https`",
            what()
        )
    })?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = bare == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    Ok((scheme.to_owned(), local))
}

impl Config {
    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), Error> {
        self.check_listening()?;
        self.check_probes()?;
        self.check_findings()?;
        self.check_identity()?;
        self.check_otlp()
    }

    fn check_identity(&self) -> Result<(), Error> {
        let identity = &self.identity;
        if let Some(socket) = &identity.cri_socket {
            let fits = socket.is_absolute() && socket.to_str().is_some();
            refused(!fits, || {
                "`cri_socket` in `[identity]` must be the path of a socket, from `/` on".to_owned()
            })?;
        }
        let (shortest, longest) = (
            std::time::Duration::from_millis(100),
            std::time::Duration::from_secs(5),
        );
        refused(!(shortest..=longest).contains(&identity.timeout.0), || {
            "`timeout` in `[identity]` must be from 100ms to 5s".to_owned()
        })?;
        let with = [&identity.kubelet_token_file, &identity.kubelet_ca_file];
        let named = with.iter().any(|file| file.is_some());
        let Some(kubelet) = &identity.kubelet else {
            return refused(named, || {
                "`[identity]` has a file for the kubelet, but no `kubelet`".to_owned()
            });
        };
        let (scheme, local) = address("kubelet", "identity", kubelet)?;
        let plain = scheme == "http";
        refused(
            plain && !(local && identity.kubelet_token_file.is_none()),
            || {
                "`kubelet` in `[identity]` is plain `http`: that must be on loopback, without a token".to_owned()
            },
        )
    }

    fn check_listening(&self) -> Result<(), Error> {
        let (listen, tls) = (self.agent.listen, &self.tls);
        refused(tls.cert_file.is_some() != tls.key_file.is_some(), || {
            "`[tls]` needs both `cert_file` and `key_file`".to_owned()
        })?;
        let guarded = tls.cert_file.is_some() && self.auth.token_file.is_some();
        refused(!listen.ip().is_loopback() && !guarded, || {
            format!(
                "`listen = \"{listen}\"` is not loopback: that needs `[tls]` with `cert_file` and `key_file`, and \
                 `[auth]` with `token_file`"
            )
        })?;
        refused(
            self.traces.enabled && self.auth.token_file.is_none(),
            || "`[traces]` with `enabled = true` needs `[auth]` with `token_file`".to_owned(),
        )?;
        let interval = self.agent.interval.0;
        refused(interval < std::time::Duration::from_millis(100), || {
            "`interval` in `[agent]` must be 100ms or more".to_owned()
        })
    }

    fn check_findings(&self) -> Result<(), Error> {
        let seconds = std::time::Duration::from_secs;
        let fits = (seconds(10)..=seconds(3_600)).contains(&self.findings.window.0);
        refused(!fits, || {
            "`window` in `[findings]` must be from 10s to 1h".to_owned()
        })
    }

    fn check_probes(&self) -> Result<(), Error> {
        for table in &self.probes.tables {
            refused(crate::table::index_of(table).is_none(), || {
                format!("`tables` in `[probes]` names `{table}`, and there is no such table")
            })?;
        }
        refused(self.probes.tables.is_empty(), || {
            "`tables` in `[probes]` is empty: there would be nothing to tell".to_owned()
        })?;
        let bytes = self.probes.ring_size.0;
        let fits = bytes.is_power_of_two() && (4_096..=1 << 30).contains(&bytes);
        refused(!fits, || {
            "`ring_size` in `[probes]` must be a power of two from 4K to 1024M".to_owned()
        })?;
        for entry in self
            .servers
            .with_environment
            .iter()
            .chain(&self.servers.without_environment)
        {
            refused(!entry.contains('='), || {
                format!("`{entry}` in `[servers]` must be of the form NAME=VALUE")
            })?;
        }
        Ok(())
    }

    fn check_otlp(&self) -> Result<(), Error> {
        let otlp = &self.otlp;
        refused(!(0.0..=1.0).contains(&otlp.sample), || {
            "`sample` in `[otlp]` must be from 0 to 1".to_owned()
        })?;
        let Some(endpoint) = &otlp.endpoint else {
            return Ok(());
        };
        let (scheme, local) = address("endpoint", "otlp", endpoint)?;
        refused(scheme == "http" && !local && !otlp.insecure, || {
            "`endpoint` in `[otlp]` is plain `http` to another host: use `https`, or allow it with `insecure = true`"
                .to_owned()
        })
    }
}
