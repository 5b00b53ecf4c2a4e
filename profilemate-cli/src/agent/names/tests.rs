//! A runtime and a kubelet that tell names, hang, lie, send too much, or break off.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tonic::body::Body;
use tonic::codegen::{Service, http, tokio_stream};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::super::config::Duration as Limit;
use super::cri::{Container, ListContainersRequest, ListContainersResponse};
use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const UID: &str = "8a1b0f4e-11c2-4d5e-9a7b-0123456789ab";

/// A container runtime that knows some containers, and ignores the filter.
#[derive(Clone, Default)]
struct Runtime {
    containers: Vec<Container>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl tonic::server::UnaryService<ListContainersRequest> for Runtime {
    type Response = ListContainersResponse;
    type Future = std::future::Ready<Result<Response<ListContainersResponse>, Status>>;

    fn call(&mut self, request: Request<ListContainersRequest>) -> Self::Future {
        let id = request.into_inner().filter.unwrap_or_default().id;
        self.asked.lock().unwrap().push(id);
        let containers = self.containers.clone();
        std::future::ready(Ok(Response::new(ListContainersResponse { containers })))
    }
}

impl tonic::server::NamedService for Runtime {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl Service<http::Request<Body>> for Runtime {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            assert_eq!(
                request.uri().path(),
                "/runtime.v1.RuntimeService/ListContainers"
            );
            let codec: ProstCodec<ListContainersResponse, ListContainersRequest> =
                ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(own, request).await)
        })
    }
}

impl Runtime {
    fn serve(&self, path: &Path) {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(self.clone());
        tokio::spawn(server.serve_with_incoming(incoming));
    }
}

fn container(id: &str, pod: &str, namespace: &str, name: &str) -> Container {
    let labels = [
        ("io.kubernetes.pod.name", pod),
        ("io.kubernetes.pod.namespace", namespace),
        ("io.kubernetes.container.name", name),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Container {
        id: id.to_owned(),
        labels: HashMap::from(labels),
    }
}

fn identity() -> Identity {
    Identity {
        container_id: ID.to_owned(),
        pod_uid: UID.to_owned(),
        ..Identity::default()
    }
}

fn told(identity: &Identity) -> [&str; 3] {
    [&identity.pod, &identity.namespace, &identity.container]
}

fn asks(socket: Option<&Path>, kubelet: Option<String>) -> Names {
    Names::new(&config::Identity {
        cri_socket: socket.map(Path::to_owned),
        kubelet,
        timeout: Limit(Duration::from_millis(700)),
        ..config::Identity::default()
    })
}

async fn complete(names: &mut Names) -> Identity {
    let mut identity = identity();
    names.complete(&mut identity).await;
    identity
}

#[tokio::test]
async fn the_runtime_tells_the_names_of_the_container_that_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cri.sock");
    let runtime = Runtime {
        containers: vec![
            container(&ID.replace('0', "1"), "other", "other", "other"),
            container(ID, "vllm-7c9f-x2", "prod", "server"),
        ],
        ..Runtime::default()
    };
    runtime.serve(&socket);
    let mut names = asks(Some(&socket), None);
    let identity = complete(&mut names).await;
    assert_eq!(told(&identity), ["vllm-7c9f-x2", "prod", "server"]);
    assert_eq!(*runtime.asked.lock().unwrap(), [ID]);
    // A process in no container is nobody's.
    let mut bare = Identity::default();
    names.complete(&mut bare).await;
    assert_eq!(bare, Identity::default());
    assert_eq!(runtime.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_name_is_not_taken_and_an_answer_has_a_size() {
    let folder = tempfile::tempdir().unwrap();
    let long = "a".repeat(300);
    let huge = "a".repeat(2 * cri::ANSWER);
    for (file, containers, rests) in [
        ("lies", vec![container(ID, "a\nb", &long, "x y")], false),
        ("other", vec![container("0123", "pod", "ns", "name")], false),
        ("none", vec![], false),
        ("huge", vec![container(ID, "pod", "ns", &huge)], true),
    ] {
        let socket = folder.path().join(file);
        let runtime = Runtime {
            containers,
            ..Runtime::default()
        };
        runtime.serve(&socket);
        let mut names = asks(Some(&socket), None);
        assert_eq!(complete(&mut names).await, identity(), "{file}");
        let resting = names.runtime.as_ref().is_some_and(Source::rests);
        assert_eq!(resting, rests, "{file}");
    }
}

#[tokio::test]
async fn a_socket_that_hangs_is_waited_for_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cri.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    let mut names = asks(Some(&socket), None);
    for _ in 0..50 {
        assert_eq!(complete(&mut names).await, identity());
    }
    assert_eq!(taken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nobody_at_the_socket_and_one_who_speaks_otherwise_hurt_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut names = asks(Some(&folder.path().join("nobody")), None);
    assert_eq!(complete(&mut names).await, identity());
    let socket = folder.path().join("cri.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _gone = stream.write_all(&[0xff; 4_096]).await;
        }
    });
    let mut names = asks(Some(&socket), None);
    assert_eq!(complete(&mut names).await, identity());
}

/// Answers each connection with what `answer` gives for the head of its request, and then sends `tail` over and over.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answer: impl Fn(&str) -> String,
    tail: &[u8],
) {
    let mut head = Vec::new();
    let mut buffer = [0; 1_024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&buffer[..count]),
        }
    }
    let answer = answer(&String::from_utf8_lossy(&head));
    if stream.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    while !tail.is_empty() && stream.write_all(tail).await.is_ok() {}
    let _gone = stream.shutdown().await;
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A kubelet on loopback, without TLS.
async fn kubelet(text: String, tail: &'static [u8]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let text = text.clone();
            tokio::spawn(answer(stream, move |_| text.clone(), tail));
        }
    });
    url
}

fn pods(name: &str, uid: &str, id: &str) -> String {
    format!(
        r#"{{"kind":"PodList","items":[
            {{"metadata":{{"name":"other","namespace":"kube-system","uid":"u"}}}},
            {{"metadata":{{"name":"{name}","namespace":"prod","uid":"{uid}","annotations":{{"a":"b"}}}},
              "spec":{{"nodeName":"n"}},
              "status":{{"containerStatuses":[{{"name":"sidecar","containerID":"containerd://ff"}},
                        {{"name":"server","containerID":"containerd://{id}","ready":true}}]}}}}]}}"#
    )
}

#[tokio::test]
async fn the_kubelet_tells_the_names_by_container_or_else_by_pod() {
    for (body, expected) in [
        (pods("vllm-0", "x", ID), ["vllm-0", "prod", "server"]),
        (pods("vllm-0", UID, "ff00"), ["vllm-0", "prod", ""]),
        (pods("vllm-0", "x", "ff00"), ["", "", ""]),
        (pods("No Name", UID, ID), ["", "prod", "server"]),
        (r#"{"items":[]}"#.to_owned(), ["", "", ""]),
    ] {
        let url = kubelet(ok(&body), b"").await;
        let identity = complete(&mut asks(None, Some(url))).await;
        assert_eq!(told(&identity), expected, "{body}");
    }
}

#[tokio::test]
async fn a_kubelet_that_refuses_redirects_lies_or_never_ends_is_left_alone() {
    let redirect =
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let endless = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let deep = format!("{{\"items\":{}", "[".repeat(100_000));
    for (text, tail) in [
        (
            "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            &b""[..],
        ),
        (redirect.to_owned(), b""),
        (ok("no json"), b""),
        (ok(&deep), b""),
        (endless.to_owned(), &[b' '; 1 << 13]),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n".to_owned(),
            b"",
        ),
    ] {
        let url = kubelet(text.clone(), tail).await;
        let mut names = asks(None, Some(url));
        assert_eq!(complete(&mut names).await, identity(), "{text:.60}");
        assert!(
            names.kubelet.as_ref().is_some_and(Source::rests),
            "{text:.60}"
        );
    }
}

#[tokio::test]
async fn the_kubelet_gets_the_token_by_tls_with_its_own_authority() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (authority, token) = (folder.path().join("ca"), folder.path().join("token"));
    std::fs::write(&authority, made.cert.pem()).unwrap();
    std::fs::write(&token, "kubelet-token\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let known = |head: &str| {
                let head = head.to_ascii_lowercase();
                let bears = head.contains("authorization: bearer kubelet-token\r\n");
                assert!(head.starts_with("get /pods http/1.1"), "{head}");
                if bears {
                    ok(&pods("vllm-0", UID, ID))
                } else {
                    "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
            };
            answer(stream, known, b"").await;
        }
    });
    for (with_authority, with_token, expected) in
        [(true, true, "vllm-0"), (true, false, ""), (false, true, "")]
    {
        let mut names = Names::new(&config::Identity {
            kubelet: Some(format!("https://localhost:{port}")),
            kubelet_token_file: with_token.then(|| token.clone()),
            kubelet_ca_file: with_authority.then(|| authority.clone()),
            timeout: Limit(Duration::from_secs(20)),
            ..config::Identity::default()
        });
        assert_eq!(complete(&mut names).await.pod, expected);
    }
}
