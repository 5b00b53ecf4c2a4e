//! The agent's HTTP server: `/metrics`, `/healthz`, `/sessions`, `/sessions/ID.tar`, and `POST /trace`.

mod answer;
mod download;
mod pack;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::config::Config;
use super::shared::Shared;

use download::Patience;

pub use answer::router;
pub use tls::{Acceptor, Error as TlsError};

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Time for a client to send the head of its request, and for the handshake.
const HEAD: Duration = Duration::from_secs(10);
/// Time for a whole connection: a client that reads slowly does not hold it for ever.
const WHOLE: Duration = Duration::from_secs(120);
/// The same where a session is sent.
const SENDING: Duration = Duration::from_secs(1_800);

/// A bound server.
pub struct Server {
    listener: TcpListener,
    acceptor: Option<Acceptor>,
}

impl Server {
    /// Binds the configured address.
    pub async fn bind(config: &Config, acceptor: Option<Acceptor>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(config.agent.listen).await?;
        Ok(Self { listener, acceptor })
    }

    /// The address that it is bound to.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, shared: Arc<Shared>) {
        let router = router(shared);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No file descriptor is free, perhaps: that passes.
                    log::debug!("a connection was not taken: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (router, acceptor) = (router.clone(), self.acceptor.clone());
            tokio::spawn(async move {
                let patience = Patience::default();
                let router = router.layer(axum::Extension(patience.clone()));
                let serving = std::pin::pin!(serve_one(stream, acceptor, router));
                if !in_time(serving, &patience).await {
                    log::debug!("a connection took too long");
                }
                drop(permit);
            });
        }
    }
}

/// Serves a connection; whether it ended in time.
async fn in_time(mut serving: impl Future<Output = ()> + Unpin, patience: &Patience) -> bool {
    let served = tokio::time::timeout(WHOLE, &mut serving).await;
    if served.is_ok() || !patience.is_asked() {
        return served.is_ok();
    }
    let served = tokio::time::timeout(SENDING.saturating_sub(WHOLE), serving).await;
    served.is_ok()
}

async fn serve_one(stream: TcpStream, acceptor: Option<Acceptor>, router: axum::Router) {
    match acceptor {
        None => answer_on(stream, router).await,
        Some(acceptor) => {
            let shaken = tokio::time::timeout(HEAD, acceptor.accept(stream)).await;
            match shaken {
                Ok(Ok(stream)) => answer_on(stream, router).await,
                Ok(Err(error)) => log::debug!("no TLS connection came about: {error}"),
                Err(_) => log::debug!("a TLS handshake took too long"),
            }
        }
    }
}

async fn answer_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: axum::Router,
) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        log::debug!("a connection ended: {error}");
    }
}
