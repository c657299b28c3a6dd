//! Every other route below `/v1`: passed on to the upstream, and its reply passed back, uncached.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Deserialize;

use super::body;
use super::chat::{copy, credential};
use super::gate::Place;
use super::headers::CACHE_STATUS;
use super::problem::Problem;
use crate::error::{Error, Kind, Result};
use crate::upstream::{Call, Headers, Origin, is_of_connection};

/// The pattern of forwarded paths, for metrics.
pub(super) const ROUTE: &str = "/v1/{*forwarded}";

/// First parts of paths that are this server's own: a slip in one of them must not carry its body elsewhere.
const OWN: [&str; 5] = ["answers", "cache", "collections", "invalidate", "stats"];

/// Headers that are between the client and this server.
const OURS: [&str; 7] =
    ["accept-encoding", "authorization", "cookie", "expect", "host", "x-cache-tags", "x-cache-ttl"];

/// What the handler needs.
pub(super) struct Forward {
    /// None where no upstream is configured: then there is no such route.
    pub(super) origin: Option<Arc<dyn Origin>>,
    pub(super) body_bytes_max: usize,
}

/// The part of a body that chooses the upstream.
#[derive(Deserialize)]
struct Named {
    model: Option<String>,
}

/// Passes a request on, if it is one for an upstream.
pub(super) async fn forward(
    State(forward): State<Arc<Forward>>,
    request: HttpRequest,
) -> Result<Response<Body>, Problem> {
    pass_on(&forward, request, None).await
}

/// Passes a request on whose method is not served here, if its path is one of upstreams too.
pub(super) async fn other_method(
    State(forward): State<Arc<Forward>>,
    request: HttpRequest,
) -> Result<Response<Body>, Problem> {
    let is_theirs = request.uri().path().strip_prefix("/v1/").is_some_and(|path| !is_own(path));
    if is_theirs && forward.origin.is_some() {
        return pass_on(&forward, request, None).await;
    }
    Err(Problem(Error::new(Kind::MethodNotAllowed, "the route does not take this method")))
}

/// Passes a request on to the upstream of `named`, or else of the model that its body names.
pub(super) async fn pass_on(
    forward: &Forward,
    request: HttpRequest,
    named: Option<String>,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path().strip_prefix("/v1/").filter(|path| is_plain(path) && !is_own(path));
    let fault = |message| Problem(Error::new(Kind::NotFound, message));
    let path = path.ok_or_else(|| fault("there is no such route"))?;
    let none = "there is no such route here, and no upstream to ask: name one with --upstream";
    let origin = forward.origin.as_ref().ok_or_else(|| fault(none))?;
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("/{path}{query}");
    let (head, body) = request.into_parts();
    let body = body::read(body, forward.body_bytes_max).await?;
    let call = Call {
        may_repeat: matches!(head.method, Method::GET | Method::HEAD),
        may_wait: true,
        method: head.method.as_str().to_owned(),
        path,
        model: named.or_else(|| model(&head.headers, &body)),
        headers: passed_on(&head.headers),
        credential: credential(&head.headers),
        body,
    };
    if let Some(place) = head.extensions.get::<Arc<Place>>() {
        place.leave();
    }
    let reply = origin.ask(call).await?;
    let (status, headers) = (reply.status, reply.headers.clone());
    let mut response = Body::from_stream(reply.into_body()).into_response();
    // Upstreams speak HTTP, so what they said can be said again.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().remove(header::CONTENT_TYPE);
    copy(&headers, response.headers_mut());
    response.headers_mut().insert(CACHE_STATUS, header::HeaderValue::from_static("likewise; fwd=bypass"));
    Ok(response)
}

fn is_own(path: &str) -> bool {
    path.split('/').next().is_some_and(|first| OWN.contains(&first))
}

/// Whether a path stays below the upstream's own: a segment of dots, spelled in any way, would climb out of it.
fn is_plain(path: &str) -> bool {
    let spelled_out = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    let climbs = |segment: &str| segment == "." || segment == "..";
    !path.is_empty() && !spelled_out.split(['/', '\\']).any(climbs)
}

/// The model that a JSON body names.
fn model(headers: &HeaderMap, body: &Bytes) -> Option<String> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let is_json = content_type.to_ascii_lowercase().starts_with("application/json");
    if is_json { serde_json::from_slice::<Named>(body).ok()?.model } else { None }
}

fn passed_on(headers: &HeaderMap) -> Headers {
    headers
        .iter()
        .filter(|(name, _)| !OURS.contains(&name.as_str()) && !is_of_connection(name, headers))
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_climbs_out_of_the_upstreams_own() {
        for path in ["models", "files/file-1/content", "a..b/c.d", "responses/x%2Fy"] {
            assert!(is_plain(path), "{path}");
        }
        for path in ["", "..", "a/../b", "a/%2e%2E/b", "./a", "a/.%2e", "a\\..\\b", "a%5C..", "x/..%2fy"] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
