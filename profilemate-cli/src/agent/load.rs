//! The configuration with the files that it names: read at the start, again with each SIGHUP, and the files also when they
//! have changed.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::{self, Config};
use super::files::{Files, Look};
use super::http::Acceptor;
use super::push::{self, Pushing};
use super::shared::Shared;
use crate::cli::print::note;
use crate::cli::{Exit, Failure};
use crate::metrics::otlp::Target;
use crate::secret::{Secret, Token};

/// Where the configuration is read from, again with each SIGHUP.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file; `None`: defaults.
    pub path: Option<PathBuf>,
    /// Address that was given on the command line.
    pub listen: Option<std::net::SocketAddr>,
}

/// A configuration with the secrets that it names.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Token of the clients.
    pub token: Option<Token>,
    /// TLS.
    pub acceptor: Option<Acceptor>,
    /// Collector.
    pub collector: Option<Target>,
    /// The files, as they were just before they were read.
    pub(super) look: Look,
}

fn failed(error: config::Error) -> Failure {
    let hint = error.hint();
    Failure::new(Exit::Usage, error).hint(hint)
}

impl Source {
    /// Reads everything.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let mut config = match &self.path {
            Some(path) => Config::read(path).map_err(failed)?,
            None => Config::default(),
        };
        if let Some(listen) = self.listen {
            config.agent.listen = listen;
        }
        config.check().map_err(failed)?;
        Loaded::of(config)
    }
}

impl Loaded {
    /// Reads the files that a configuration names.
    fn of(config: Config) -> Result<Self, Failure> {
        let look = Look::at(&config);
        let token = config.auth.token_file.as_deref().map(Token::read);
        let token = token.transpose().map_err(|error| failed(error.into()))?;
        let kubelet = config.identity.kubelet_token_file.as_deref();
        let kubelet = kubelet.map(Secret::read).transpose();
        kubelet.map_err(|error| failed(error.into()))?;
        let acceptor = Acceptor::read(&config).map_err(|error| {
            Failure::new(Exit::Usage, error).hint("`[tls]` needs a PEM certificate and its key")
        })?;
        let collector = push::target(&config.otlp).map_err(failed)?;
        Ok(Self {
            config,
            token,
            acceptor,
            collector,
            look,
        })
    }
}

/// What is replaced while the agent runs.
pub(super) struct Held {
    shared: Arc<Shared>,
    acceptor: Option<Acceptor>,
    files: Files,
    /// The push.
    pub(super) push: Pushing,
}

impl Held {
    /// What was read at the start, without the push.
    pub(super) fn new(shared: &Arc<Shared>, acceptor: Option<Acceptor>, look: Look) -> Self {
        Self {
            shared: Arc::clone(shared),
            acceptor,
            files: Files::new(look),
            push: Pushing::default(),
        }
    }

    /// Reads the configuration again. One that is refused changes nothing.
    pub(super) fn reload(&mut self, source: &Source) {
        let mut loaded = match source.load() {
            Ok(loaded) => loaded,
            Err(failure) => {
                log::error!("the configuration was refused and the one before holds: {failure}");
                self.shared.refuse(failure.to_string());
                return;
            }
        };
        let (config, before) = (&mut loaded.config, self.shared.config());
        let switched = loaded.acceptor.is_some() != self.acceptor.is_some();
        if config.agent.listen != before.agent.listen
            || config.agent.state_folder != before.agent.state_folder
            || switched
        {
            log::warn!(
                "`listen`, `state_folder`, and whether there is TLS, change with a restart only"
            );
            config.agent.listen = before.agent.listen;
            config
                .agent
                .state_folder
                .clone_from(&before.agent.state_folder);
            if switched {
                config.tls = before.tls.clone();
                loaded.acceptor = None;
            }
        }
        let renew = config.probes != before.probes || config.findings != before.findings;
        let push_anew = config.otlp != before.otlp;
        self.shared.take(loaded.config, loaded.token);
        self.take(
            loaded.acceptor.as_ref(),
            loaded.look,
            loaded.collector,
            push_anew,
        );
        if renew {
            for keeper in self.shared.keepers() {
                keeper.renew();
            }
        }
        note("the configuration was read again");
    }

    /// Reads the files that the configuration names again, if they have changed. As long as they cannot be used, those
    /// before hold.
    pub(super) fn renew(&mut self) {
        let config = self.shared.config();
        if !self.files.have_changed(&config) {
            return;
        }
        match Loaded::of((*config).clone()) {
            Ok(loaded) => {
                self.shared.take_token(loaded.token);
                self.take(
                    loaded.acceptor.as_ref(),
                    loaded.look,
                    loaded.collector,
                    false,
                );
                note("certificate and secrets were read again");
            }
            Err(failure) => {
                log::error!("renewed files are not taken, and those before hold: {failure}");
            }
        }
    }

    fn take(
        &mut self,
        acceptor: Option<&Acceptor>,
        look: Look,
        collector: Option<Target>,
        push_anew: bool,
    ) {
        if let (Some(held), Some(new)) = (&self.acceptor, acceptor) {
            held.take(new);
        }
        if self.files.were_read(look) || push_anew {
            self.push.end(&self.shared.registry);
            self.push.begin(collector, &self.shared.registry);
        }
    }
}
