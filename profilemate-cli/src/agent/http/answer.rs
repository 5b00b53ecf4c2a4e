//! What is answered to which request, and to whom.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::download::download;
use super::pack::packed;
use crate::agent::keeper::Keeper;
use crate::agent::shared::Shared;
use crate::agent::trace::{Asked, Job};
use crate::metrics::exposition::{Format, expose};

/// Bytes of a request's body, at most.
const BODY: usize = 16 << 10;
/// Looks for servers that may be missed before the agent is not well.
const MISSED: f64 = 10.0;

/// All that is answered.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/sessions", get(sessions))
        .route("/sessions/{name}", get(download))
        .route("/trace", post(trace))
        .fallback(|| async {
            let hint = "there are /metrics, /healthz, /sessions, /sessions/ID.tar and POST /trace";
            refusal(StatusCode::NOT_FOUND, "there is no such page", hint)
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(shared)
}

pub(super) fn refusal(status: StatusCode, error: &str, hint: &str) -> Response {
    (status, Json(json!({ "error": error, "hint": hint }))).into_response()
}

/// Whether a request bears the token.
pub(super) fn bears_token(shared: &Shared, headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION);
    shared
        .token()
        .is_some_and(|token| token.is_in(value.map(HeaderValue::as_bytes)))
}

/// Off loopback everything needs the token, but for whether the agent is well.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let open = shared.config().agent.listen.ip().is_loopback();
    if open || request.uri().path() == "/healthz" || bears_token(&shared, request.headers()) {
        return next.run(request).await;
    }
    unauthorized()
}

pub(super) fn unauthorized() -> Response {
    let hint = "send `Authorization: Bearer TOKEN` with the token of `token_file`";
    let mut response = refusal(StatusCode::UNAUTHORIZED, "a token is needed", hint);
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let format = Format::accepted(accept);
    match expose(&shared.registry, format) {
        Ok(body) => {
            let kind = [(header::CONTENT_TYPE, format.content_type())];
            match packed(&headers, body) {
                (body, true) => {
                    let packed = [(header::CONTENT_ENCODING, "gzip")];
                    (kind, packed, body).into_response()
                }
                (body, false) => (kind, body).into_response(),
            }
        }
        Err(error) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            &error.to_string(),
            "please report it",
        ),
    }
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let config = shared.config();
    let ago = shared.looked_sec_ago();
    let well = ago <= MISSED * config.agent.interval.0.as_secs_f64().max(1.0);
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if well { "ok" } else { "stuck" },
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_sec": shared.uptime_sec(),
        "looked_sec_ago": ago,
        "servers": shared.keepers().len(),
        // What is wrong with the file may name paths: it is told where it was not taken, and in the log.
        "configuration": if shared.refused().is_some() { "refused" } else { "taken" },
    });
    (status, Json(body)).into_response()
}

async fn sessions(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let servers: Vec<Value> = shared
        .keepers()
        .iter()
        .map(|keeper| shown(keeper))
        .collect();
    Json(json!({
        "servers": servers,
        "traces": shared.traces(),
        "configuration_refused": shared.refused(),
    }))
}

fn shown(keeper: &Keeper) -> Value {
    let found = &keeper.found;
    let about = &found.about;
    let attached: Vec<u32> = keeper.attached().into_iter().map(|key| key.pid).collect();
    let mut value = json!(keeper.standing());
    value["server"] = json!(found.name);
    value["pid"] = json!(found.key.pid);
    value["attached"] = json!(attached);
    for (name, text) in [
        ("model", &about.model),
        ("pod", &about.pod),
        ("namespace", &about.namespace),
        ("container", &about.container),
    ] {
        value[name] = if text.is_empty() {
            Value::Null
        } else {
            json!(text)
        };
    }
    value
}

async fn trace(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    if !shared.config().traces.enabled {
        let hint = "`enabled = true` in `[traces]` of the agent's configuration allows it";
        return refusal(StatusCode::FORBIDDEN, "traces are not allowed", hint);
    }
    if !bears_token(&shared, &headers) {
        return unauthorized();
    }
    let example = "send JSON such as {\"server\": \"vllm/8000\", \"duration\": \"30s\"}";
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string(), example),
    };
    match begin(&shared, &asked) {
        Ok((id, server)) => {
            let body = json!({ "trace": id, "server": server, "progress": "GET /sessions" });
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Err((status, error, hint)) => refusal(status, &error, &hint),
    }
}

/// Takes a trace on.
fn begin(shared: &Shared, asked: &Asked) -> Result<(u64, String), (StatusCode, String, String)> {
    let bad = |error: String, hint: &str| (StatusCode::BAD_REQUEST, error, hint.to_owned());
    let longest = shared.config().traces.max_duration.0;
    let duration = crate::cli::args::duration(&asked.duration)
        .map_err(|error| bad(error, "a duration such as `30s`"))?;
    if duration > longest {
        let error = format!("a trace may take {} s at most", longest.as_secs_f64());
        return Err(bad(error, "`max_duration` in `[traces]` is the limit"));
    }
    for table in &asked.tables {
        if crate::table::index_of(table).is_none() {
            let error = format!("there is no table `{table}`");
            return Err(bad(error, "docs/tables.md has all tables"));
        }
    }
    let keepers = shared.keepers();
    let keeper = match &asked.server {
        Some(name) => keepers.iter().find(|keeper| keeper.found.name == *name),
        None => keepers.first().filter(|_| keepers.len() == 1),
    };
    let Some(keeper) = keeper else {
        let names: Vec<&str> = keepers
            .iter()
            .map(|keeper| keeper.found.name.as_str())
            .collect();
        let hint = format!("there are: {}", names.join(", "));
        return Err((
            StatusCode::NOT_FOUND,
            "there is no such server".to_owned(),
            hint,
        ));
    };
    let server = keeper.found.name.clone();
    let id = shared.new_trace(&server);
    let job = Job {
        id,
        duration,
        tables: asked.tables.clone(),
        graph_timeline: asked.graph_timeline,
    };
    if keeper.trace(job).is_err() {
        shared.drop_trace(id);
        return Err((
            StatusCode::CONFLICT,
            format!("a trace of `{server}` is taken already"),
            "wait for its end: `GET /sessions` shows it".to_owned(),
        ));
    }
    Ok((id, server))
}
