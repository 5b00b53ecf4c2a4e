//! TLS, with the certificate and key of the configuration.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::agent::config::Config;
use crate::secret;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key's file is refused.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// A file is no PEM, or lacks what it should hold.
    #[error("`{path}` cannot be used: {reason}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not fit.
    #[error("certificate and key do not fit together")]
    Pair(#[from] rustls::Error),
}

/// Makes TLS connections of plain ones. All copies have the certificate and key that were taken last.
#[derive(Clone)]
pub struct Acceptor(Arc<RwLock<TlsAcceptor>>);

impl Acceptor {
    /// With the files of `[tls]`; `None` if there are none.
    pub fn read(config: &Config) -> Result<Option<Self>, Error> {
        let (Some(certificate), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) else {
            return Ok(None);
        };
        let certificates = certificates(certificate)?;
        let text = secret::read(key)?;
        let private =
            PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| Error::Pem {
                path: key.clone(),
                reason: error.to_string(),
            })?;
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, private)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Some(Self(Arc::new(RwLock::new(acceptor)))))
    }

    fn latest(&self) -> TlsAcceptor {
        let latest = self.0.read().unwrap_or_else(PoisonError::into_inner);
        latest.clone()
    }

    /// Connections from now on have the certificate and key of another.
    pub fn take(&self, other: &Self) {
        let latest = other.latest();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = latest;
    }

    /// Shakes hands.
    pub(super) async fn accept(
        &self,
        stream: tokio::net::TcpStream,
    ) -> std::io::Result<tokio_rustls::server::TlsStream<tokio::net::TcpStream>> {
        self.latest().accept(stream).await
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |reason: String| Error::Pem {
        path: path.to_owned(),
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| failed(error.to_string()))?
        .collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    Ok(found)
}
