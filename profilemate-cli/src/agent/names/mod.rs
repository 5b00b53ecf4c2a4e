//! Pod, namespace and container of a process by those who know them: the container runtime and the kubelet. Nobody is
//! asked unless the configuration names them.
//!
//! Both are taken for what may hang, lie or send much: each answer has a time and a size, only names are taken of it,
//! and who has failed is left alone for a while, so that many new servers wait for it once.

mod cri;
mod kubelet;

use std::time::{Duration, Instant};

use super::config;
use super::identity::Identity;
use crate::secret::Secret;

/// Time for which one who has failed is not asked.
const REST: Duration = Duration::from_secs(60);

/// The names of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pod: String,
    namespace: String,
    container: String,
}

/// Why somebody gave no answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It took too long.
    #[error("no answer within {0:?}")]
    Time(Duration),
    /// The runtime refused or broke off.
    #[error(transparent)]
    Grpc(#[from] tonic::Status),
    /// The runtime's socket cannot be reached.
    #[error("the socket cannot be reached")]
    Socket(#[from] tonic::transport::Error),
    /// The kubelet cannot be reached, or broke off.
    #[error("the kubelet's API cannot be reached")]
    Http(#[from] reqwest::Error),
    /// The kubelet refused.
    #[error("the kubelet answered {0}")]
    Status(reqwest::StatusCode),
    /// There is too much of it.
    #[error("the answer is longer than {0} bytes")]
    Size(usize),
    /// It is not understood.
    #[error("the answer is not understood")]
    Json(#[from] serde_json::Error),
    /// The token file.
    #[error(transparent)]
    Secret(#[from] crate::secret::Error),
}

/// One who is asked, and when it last failed.
struct Source<T> {
    who: &'static str,
    how: T,
    failed: Option<Instant>,
}

impl<T> Source<T> {
    fn new(who: &'static str, how: T) -> Self {
        Self {
            who,
            how,
            failed: None,
        }
    }

    fn rests(&self) -> bool {
        self.failed.is_some_and(|since| since.elapsed() < REST)
    }

    /// What it knows, of an answer that came within `limit`.
    fn settle<A>(&mut self, answer: Result<A, Error>) -> Option<A> {
        match answer {
            Ok(answer) => {
                self.failed = None;
                Some(answer)
            }
            Err(error) => {
                let error = crate::session::chain(&error);
                log::warn!("{} is not asked for a minute: {error}", self.who);
                self.failed = Some(Instant::now());
                None
            }
        }
    }
}

/// Those who are asked.
pub(super) struct Names {
    config: config::Identity,
    runtime: Option<Source<cri::Socket>>,
    kubelet: Option<Source<kubelet::Api>>,
}

async fn within<A>(
    limit: Duration,
    asked: impl Future<Output = Result<A, Error>>,
) -> Result<A, Error> {
    let answer = tokio::time::timeout(limit, asked).await;
    answer.unwrap_or(Err(Error::Time(limit)))
}

impl Names {
    /// As the configuration says.
    pub(super) fn new(config: &config::Identity) -> Self {
        let socket = config.cri_socket.clone().map(cri::Socket::new);
        let api = config.kubelet.clone().map(|url| kubelet::Api {
            url,
            token_file: config.kubelet_token_file.clone(),
            ca_file: config.kubelet_ca_file.clone(),
        });
        Self {
            config: config.clone(),
            runtime: socket.map(|socket| Source::new("the container runtime", socket)),
            kubelet: api.map(|api| Source::new("the kubelet", api)),
        }
    }

    /// Whether they are those of this configuration.
    pub(super) fn fit(&self, config: &config::Identity) -> bool {
        self.config == *config
    }

    /// Completes what is known of a container by what others know of it.
    pub(super) async fn complete(&mut self, identity: &mut Identity) {
        let limit = self.config.timeout.0;
        let id = identity.container_id.clone();
        if let Some(runtime) = self.runtime.as_mut().filter(|one| !one.rests())
            && !id.is_empty()
        {
            let answer = within(limit, runtime.how.ask(&id)).await;
            take(identity, runtime.settle(answer).flatten());
        }
        let knows_all = !identity.pod.is_empty() && !identity.container.is_empty();
        let is_somewhere = !id.is_empty() || !identity.pod_uid.is_empty();
        if let Some(kubelet) = self.kubelet.as_mut().filter(|one| !one.rests())
            && is_somewhere
            && !knows_all
        {
            let uid = identity.pod_uid.clone();
            let answer = within(limit, kubelet.how.ask(&id, &uid)).await;
            take(identity, kubelet.settle(answer).flatten());
        }
    }
}

/// Takes what can be names.
fn take(identity: &mut Identity, named: Option<Named>) {
    let Some(named) = named else { return };
    for (own, told) in [
        (&mut identity.pod, named.pod),
        (&mut identity.namespace, named.namespace),
        (&mut identity.container, named.container),
    ] {
        if super::identity::is_name(&told) {
            *own = told;
        }
    }
}

/// A secret that is sent, if there is one.
fn bearer(path: Option<&std::path::Path>) -> Result<Option<Secret>, Error> {
    Ok(path.map(Secret::read).transpose()?)
}

#[cfg(test)]
mod tests;
