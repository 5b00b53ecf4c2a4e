//! The kubelet's read API: `GET /pods`.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Error, Named, bearer};

/// Bytes of an answer, at most: a node has some hundred pods, of some ten kilobytes each.
pub(super) const ANSWER: usize = 16 << 20;

/// Where the API is.
pub(super) struct Api {
    /// Its address, without a path.
    pub(super) url: String,
    /// File with the token that is sent.
    pub(super) token_file: Option<PathBuf>,
    /// Certificate authority, PEM, instead of those of the system.
    pub(super) ca_file: Option<PathBuf>,
}

/// What is used of a `PodList`.
#[derive(Deserialize)]
struct Pods {
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "containerStatuses")]
    containers: Vec<Container>,
    #[serde(rename = "initContainerStatuses")]
    init: Vec<Container>,
    #[serde(rename = "ephemeralContainerStatuses")]
    ephemeral: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    /// `containerd://<id>`; not there before it was started.
    #[serde(default, rename = "containerID")]
    id: String,
}

impl Api {
    fn client(&self) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("profilemate/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path).map_err(|source| crate::secret::Error::Read {
                path: path.clone(),
                source,
            })?;
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        Ok(builder.build()?)
    }

    /// What the kubelet knows of the container `id`, or of the pod `uid`.
    pub(super) async fn ask(&self, id: &str, uid: &str) -> Result<Option<Named>, Error> {
        // Its TLS asks for a provider of the whole process; another may have been chosen already.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let mut request = self
            .client()?
            .get(format!("{}/pods", self.url.trim_end_matches('/')));
        // Read each time: the token of a service account is renewed.
        if let Some(secret) = bearer(self.token_file.as_deref())? {
            request = request.bearer_auth(secret.reveal());
        }
        let mut answer = request.send().await?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(Error::Status(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > ANSWER {
                return Err(Error::Size(ANSWER));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(find(serde_json::from_slice(&body)?, id, uid))
    }
}

/// The names of a container, by its id, else those of its pod, by its uid.
fn find(pods: Pods, id: &str, uid: &str) -> Option<Named> {
    let is_it = |container: &Container| {
        let told = container.id.rsplit_once("//").map(|(_, told)| told);
        !id.is_empty() && told == Some(id)
    };
    let mut by_uid = None;
    for pod in pods.items {
        let status = &pod.status;
        let mut all = status
            .containers
            .iter()
            .chain(&status.init)
            .chain(&status.ephemeral);
        let container = all.find(|one| is_it(one)).map(|one| one.name.clone());
        let same = !uid.is_empty() && pod.metadata.uid == uid;
        if container.is_none() && !same {
            continue;
        }
        let found = Named {
            pod: pod.metadata.name,
            namespace: pod.metadata.namespace,
            container: container.clone().unwrap_or_default(),
        };
        if container.is_some() {
            return Some(found);
        }
        by_uid = Some(found);
    }
    by_uid
}
