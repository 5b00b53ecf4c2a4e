//! The container runtime's socket (CRI): gRPC, `runtime.v1.RuntimeService/ListContainers` with the id of one container.
//!
//! Three messages with the six fields that are used stand here. `k8s-cri` generates the thousand others too, for a tonic
//! of its own.

use std::collections::HashMap;
use std::path::PathBuf;

use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::{Error, Named};

/// Bytes of an answer, at most.
pub(super) const ANSWER: usize = 1 << 20;
/// The method.
const LIST: &str = "/runtime.v1.RuntimeService/ListContainers";

/// Which containers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<ContainerFilter>,
}

/// Those with this id.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ContainerFilter {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

/// A container; the kubelet puts the names into its labels.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(map = "string, string", tag = "8")]
    pub(super) labels: HashMap<String, String>,
}

/// Containers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) containers: Vec<Container>,
}

/// The socket. A connection is made for each question: there are few, and a runtime may be restarted between them.
pub(super) struct Socket {
    path: PathBuf,
}

impl Socket {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the runtime knows of a container.
    pub(super) async fn ask(&self, id: &str) -> Result<Option<Named>, Error> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.path.display()))?;
        let channel: Channel = endpoint.connect().await?;
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(ANSWER);
        client.ready().await?;
        let request = ListContainersRequest {
            filter: Some(ContainerFilter { id: id.to_owned() }),
        };
        let codec: ProstCodec<ListContainersRequest, ListContainersResponse> =
            ProstCodec::default();
        let path = axum::http::uri::PathAndQuery::from_static(LIST);
        let answer = client
            .unary(tonic::Request::new(request), path, codec)
            .await?;
        // A filter is a prefix to some runtimes, and a runtime may ignore it.
        let containers = answer.into_inner().containers;
        let own = containers.into_iter().find(|container| container.id == id);
        Ok(own.map(|container| {
            let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
            Named {
                pod: label("io.kubernetes.pod.name"),
                namespace: label("io.kubernetes.pod.namespace"),
                container: label("io.kubernetes.container.name"),
            }
        }))
    }
}
