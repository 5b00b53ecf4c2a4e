//! Packed answers: the metrics of a node repeat names and labels in each line.

use std::io::Write as _;

use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes below which packing is not worth it.
const SMALL: usize = 1_024;

/// Whether a client takes gzip.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING);
    let accepted = accepted.and_then(|value| value.to_str().ok());
    accepted
        .unwrap_or_default()
        .split(',')
        .take(32)
        .any(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let is_gzip = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            is_gzip
                && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f64| weight > 0.0))
        })
}

/// A body as the client takes it, and whether it is packed. Packed at the fastest level: the node is there for its
/// servers.
pub(super) fn packed(headers: &HeaderMap, body: Vec<u8>) -> (Vec<u8>, bool) {
    if body.len() < SMALL || !takes_gzip(headers) {
        return (body, false);
    }
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = packer.write_all(&body).and_then(|()| packer.finish());
    // Writing to memory does not fail.
    packed.map_or((body, false), |packed| (packed, true))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(accepted: &'static str) -> HeaderMap {
        let value = HeaderValue::from_static(accepted);
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)])
    }

    #[test]
    fn only_who_takes_gzip_gets_it_and_only_where_it_saves() {
        let body = b"profilemate_steps_total 1\n".repeat(100);
        for accepted in ["gzip", "deflate, GZIP;q=0.5", "br;q=1.0, gzip;q=1.0"] {
            let (packed, is_packed) = packed(&headers(accepted), body.clone());
            assert!(is_packed && packed.len() < body.len() / 5, "{accepted}");
        }
        for accepted in ["", "identity", "gzip;q=0", "gzip;q=x", "xgzip"] {
            assert_eq!(
                packed(&headers(accepted), body.clone()),
                (body.clone(), false)
            );
        }
        assert!(!packed(&headers("gzip"), b"short".to_vec()).1);
    }
}
