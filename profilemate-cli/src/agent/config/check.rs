//! What does not fit together is refused before anything is done.

use super::{Config, Error};

fn refused(condition: bool, text: impl FnOnce() -> String) -> Result<(), Error> {
    if condition {
        return Err(Error::Refused(text()));
    }
    Ok(())
}

impl Config {
    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), Error> {
        self.check_listening()?;
        self.check_probes()?;
        self.check_otlp()
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
        let address = endpoint.parse::<axum::http::Uri>().ok();
        let host = address.as_ref().and_then(axum::http::Uri::host);
        let Some((host, scheme)) = host.zip(address.as_ref().and_then(axum::http::Uri::scheme_str))
        else {
            return Err(Error::Refused(format!(
                "`endpoint` in `[otlp]` must be an address such as `http://127.0.0.1:4317`, not `{endpoint}`"
            )));
        };
        refused(!matches!(scheme, "http" | "https"), || {
            format!("`endpoint` in `[otlp]` begins with `{scheme}`: it must be `http` or `https`")
        })?;
        refused(endpoint.contains('@'), || {
            "`endpoint` in `[otlp]` holds a user or password: put it into `headers_file`".to_owned()
        })?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let local = bare == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        refused(scheme == "http" && !local && !otlp.insecure, || {
            format!(
                "`endpoint` in `[otlp]` is plain `http` to `{host}`: use `https`, or allow it with `insecure = true`"
            )
        })
    }
}
