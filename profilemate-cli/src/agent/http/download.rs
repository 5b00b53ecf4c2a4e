//! `GET /sessions/ID.tar`: the folder of a trace that has ended, as an archive.

use std::io::BufWriter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::answer::{bears_token, refusal, unauthorized};
use crate::agent::shared::Shared;
use crate::agent::trace::Progress;
use crate::parcel::pack::{Error, Folder};
use crate::parcel::pipe::pipe;

/// Bytes that are read before they are sent.
const PIECE: usize = 64 << 10;

/// Whether a connection has an archive on its way, and may take longer.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// Whether it may.
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers. Of the request only the trace's number is used: the folder is the one that this agent made for it.
pub(super) async fn download(
    State(shared): State<Arc<Shared>>,
    patience: Option<Extension<Patience>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !bears_token(&shared, &headers) {
        return unauthorized();
    }
    let folder = match folder(&shared, &name) {
        Ok(folder) => folder,
        Err((status, error, hint)) => return refusal(status, &error, hint),
    };
    let Ok(permit) = Arc::clone(&shared.downloads).try_acquire_owned() else {
        let mut busy = refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "other sessions are being sent",
            "ask again in a moment",
        );
        let wait = header::HeaderValue::from_static("2");
        busy.headers_mut().insert(header::RETRY_AFTER, wait);
        return busy;
    };
    if let Some(Extension(patience)) = patience {
        patience.0.store(true, Ordering::Relaxed);
    }
    let (inlet, outlet) = pipe();
    // Ends with the last byte, or when the client is gone: then writing fails.
    tokio::task::spawn_blocking(move || {
        let to = BufWriter::with_capacity(PIECE, inlet.clone());
        match folder.pack(to) {
            Ok(()) => {}
            Err(Error::Sent(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                log::warn!("a session was not sent: {}", crate::session::chain(&error));
                inlet.fail(std::io::Error::other(error));
            }
        }
        drop(permit);
    });
    (
        [(header::CONTENT_TYPE, "application/x-tar")],
        Body::new(outlet),
    )
        .into_response()
}

/// The folder of a trace that has ended.
fn folder(shared: &Shared, name: &str) -> Result<Folder, (StatusCode, String, &'static str)> {
    let number = name.strip_suffix(".tar").and_then(|id| id.parse().ok());
    let id: u64 = number.ok_or_else(|| {
        let error = "that is no session's archive".to_owned();
        (StatusCode::NOT_FOUND, error, "ask for /sessions/ID.tar")
    })?;
    let list = "`GET /sessions` shows the traces that this agent remembers";
    match shared.trace(id) {
        None => Err((
            StatusCode::NOT_FOUND,
            format!("there is no trace {id}"),
            list,
        )),
        Some(Progress::Waiting | Progress::Running) => {
            let error = format!("trace {id} has not ended");
            Err((StatusCode::CONFLICT, error, "`GET /sessions` shows its end"))
        }
        Some(Progress::Failed { reason }) => {
            let error = format!("trace {id} has no session: {reason}");
            Err((StatusCode::NOT_FOUND, error, list))
        }
        Some(Progress::Done { folder, .. }) => Folder::open(&folder).map_err(|error| {
            log::info!("trace {id}: {}", crate::session::chain(&error));
            let error = format!("the session folder of trace {id} is gone");
            let hint = "`max_size` and `max_age` in `[traces]` say how long one is kept";
            (StatusCode::NOT_FOUND, error, hint)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::Config;

    fn refused(shared: &Shared, name: &str) -> (u16, String) {
        let (status, error, _hint) = folder(shared, name).unwrap_err();
        (status.as_u16(), error)
    }

    #[test]
    fn only_the_folder_of_a_trace_that_has_ended_is_sent() {
        let place = tempfile::tempdir().unwrap();
        let shared = Shared::new(Config::default(), None);
        let id = shared.new_trace("s");
        let name = format!("{id}.tar");
        for stranger in [
            "",
            "1",
            "x.tar",
            "../1.tar",
            "-1.tar",
            "1.tar.tar",
            "/etc.tar",
        ] {
            assert_eq!(refused(&shared, stranger).0, 404, "{stranger}");
        }
        assert_eq!(refused(&shared, "77.tar").0, 404);
        assert_eq!(refused(&shared, &name).0, 409);
        shared.tell_trace(id, Progress::Running);
        assert_eq!(refused(&shared, &name).0, 409);
        let reason = "no such process".to_owned();
        shared.tell_trace(id, Progress::Failed { reason });
        assert_eq!(
            refused(&shared, &name),
            (404, format!("trace {id} has no session: no such process"))
        );
        let session = place.path().join("session_a");
        let done = Progress::Done {
            reason: "duration reached".to_owned(),
            folder: session.clone(),
            events: 1,
            lost: 0,
        };
        shared.tell_trace(id, done);
        assert_eq!(refused(&shared, &name).0, 404);
        let elsewhere = place.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("metadata.json"), "{}").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &session).unwrap();
        assert_eq!(refused(&shared, &name).0, 404);
        std::fs::remove_file(&session).unwrap();
        std::fs::rename(&elsewhere, &session).unwrap();
        folder(&shared, &name).unwrap();
    }
}
