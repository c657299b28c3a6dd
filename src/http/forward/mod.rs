//! Other routes below `/v1`, as far as they may be: passed on to the upstream, and its reply passed back, uncached.

mod deletion;
mod group_invalidation;
pub(super) mod target;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;

use self::target::{ForwardTarget, model_of};
use crate::cache::Propagation;
use crate::dialects::parent_api;
use crate::domain::{KeyHeader, LookupOutcome, Principal, is_credential};
use crate::error::{Error, Kind};
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::Problem;
use crate::http::extract::credential::credential;
use crate::http::extract::model_name::check_model_name;
use crate::http::extract::{body, cache_control};
use crate::http::near_routes::NearRoutes;
use crate::http::response::cache_status;
use crate::http::response::headers::{CACHE_STATUS, REASON, append_all, describe_propagation};
use crate::http::routes::OwnSegments;
use crate::service::answers::{AnswerMetrics, Reason};
use crate::service::{Directives, Invalidation};
use crate::upstream::{Headers, Origin, UpstreamCall, is_hop_by_hop};

/// The pattern of forwarded paths, for metrics.
pub(super) const ROUTE: &str = "/v1/{*forwarded}";

/// Methods that are passed on: others are for this server, and `TRACE` would show the client our credential.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// The same, as a header lists them.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");

/// What a client is to speak that asked for a WebSocket (RFC 9110, section 15.5.22).
const PLAIN_HTTP: [(HeaderName, HeaderValue); 2] = [
    (header::CONNECTION, HeaderValue::from_static("upgrade")),
    (header::UPGRADE, HeaderValue::from_static("HTTP/1.1")),
];

/// Headers that are between the client and this server. Those at the end would have an upstream take a request for another
/// one than was allowed here.
const OURS: [&str; 15] = [
    "accept-encoding",
    "expect",
    "host",
    "x-cache-key",
    "x-cache-lease",
    "x-cache-semantic",
    "x-cache-tags",
    "x-cache-ttl",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// What the handler needs.
pub(super) struct Forward {
    /// None where no upstream is configured: then there is no such route.
    pub(super) origin: Option<Arc<dyn Origin>>,
    /// Below these segments nothing is passed on.
    pub(super) own_segments: OwnSegments,
    /// Names the route that an unknown path may have meant.
    pub(super) near_routes: NearRoutes,
    /// Hides what upstreams say that they have deleted or changed.
    pub(super) invalidation: Arc<Invalidation>,
    /// Whether `Cache-Group-Invalidation` of their replies is obeyed.
    pub(super) obeys_group_invalidation: bool,
    pub(super) body_bytes_max: usize,
    /// Counts what is not cached.
    pub(super) metrics: Arc<AnswerMetrics>,
}

impl Forward {
    fn not_found(&self, request: &HttpRequest) -> String {
        self.near_routes.not_found(request.method(), request.uri().path())
    }

    fn not_passed_on(&self, request: &HttpRequest, refusal: Error) -> Error {
        let (method, path) = (request.method(), request.uri().path());
        let message = self.near_routes.not_passed_on(method, path, refusal.message());
        Error::new(refusal.kind(), message)
    }
}

/// Passes a request on, if it is one for an upstream.
pub(super) async fn forward(
    State(forward): State<Arc<Forward>>,
    request: HttpRequest,
) -> Result<Response<Body>, Problem> {
    forward_request(&forward, request).await
}

/// Passes a request on whose method is not served here, if its path is one of upstreams too.
pub(super) async fn other_method(
    State(forward): State<Arc<Forward>>,
    request: HttpRequest,
) -> Result<Response<Body>, Problem> {
    let is_theirs = ForwardTarget::read(request.uri().path(), &forward.own_segments).is_some();
    if is_theirs && forward.origin.is_some() {
        let mut response = forward_request(&forward, request).await?;
        // Or the router would name its own methods.
        response.headers_mut().entry(header::ALLOW).or_insert(ALLOW);
        return Ok(response);
    }
    let message = forward.near_routes.other_method(request.method(), request.uri().path());
    Err(Error::new(Kind::MethodNotAllowed, message).into())
}

/// Passes a request on to the upstream of the model that its path or its body names.
pub(super) async fn forward_request(
    forward: &Forward,
    request: HttpRequest,
) -> Result<Response<Body>, Problem> {
    let Some(target) = ForwardTarget::read(request.uri().path(), &forward.own_segments) else {
        return Err(Error::new(Kind::NotFound, forward.not_found(&request)).into());
    };
    forward_to(forward, target, request).await
}

/// As [`forward_request`], to `target`.
pub(super) async fn forward_to(
    forward: &Forward,
    target: ForwardTarget,
    request: HttpRequest,
) -> Result<Response<Body>, Problem> {
    let Some(origin) = &forward.origin else {
        let message = forward.near_routes.needs_upstream(request.method(), request.uri().path());
        return Err(Error::new(Kind::NotFound, message).into());
    };
    if !METHODS.contains(request.method()) {
        let error = Error::new(Kind::MethodNotAllowed, "the method is not passed on to upstreams");
        return Ok(([(header::ALLOW, ALLOW)], Problem(error)).into_response());
    }
    if asks_for_websocket(request.headers()) {
        let message = "WebSocket connections are not passed on to upstreams: send plain HTTP, and request a \
            stream of events with `stream: true`";
        let error = Error::new(Kind::UpgradeRequired, message);
        return Ok((PLAIN_HTTP, Problem(error)).into_response());
    }
    let mut directives = Directives::default();
    cache_control::apply(request.headers(), &mut directives)?;
    if directives.only_if_cached {
        return Err(Error::new(Kind::NotCached, "nothing of this route is in the cache").into());
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("/{}{query}", target.path);
    // Before its body is read: what is refused in any case is not waited for.
    let needs_clients_key = origin
        .needs_clients_key(request.method().as_str(), &path)
        .map_err(|refusal| forward.not_passed_on(&request, refusal))?;
    let (named, answer_id) = (target.model, target.answer_id);
    let (head, body) = request.into_parts();
    let body = body::read(body, forward.body_bytes_max).await?;
    let model = match named {
        Some(named) => Some(named),
        None => model_of(&head.headers, &body).await?,
    };
    model.as_deref().map_or(Ok(()), check_model_name)?;
    let key_header = key_header(&path);
    let call = UpstreamCall {
        needs_clients_key,
        may_repeat: matches!(head.method, Method::GET | Method::HEAD),
        may_wait: true,
        method: head.method.as_str().to_owned(),
        path,
        model,
        headers: passed_on(&head.headers),
        key_header,
        credential: credential(&head.headers),
        body,
    };
    let is_of_client = call.credential.is_some();
    if let Some(permit) = head.extensions.get::<Arc<ConcurrencyPermit>>() {
        permit.release();
    }
    let invalidation = &forward.invalidation;
    let principal = head.extensions.get::<Arc<Principal>>();
    let deleted = answer_id.filter(|_| head.method == Method::DELETE).zip(principal);
    let (reply, mut propagation) = match deleted {
        Some((id, principal)) => {
            deletion::delete(origin, call, invalidation, Arc::clone(principal), id).await
        }
        None => (origin.ask(call).await, Propagation::Complete),
    };
    let reply = reply?;
    let (status, headers) = (reply.status, reply.headers.clone());
    let lines = reply.group_invalidation.clone();
    if let Some(principal) = principal.filter(|_| forward.obeys_group_invalidation) {
        let of_groups = group_invalidation::obey(invalidation, principal, &head.method, status, &lines);
        propagation = propagation.max(of_groups.await);
    }
    let mut response = Body::from_stream(reply.into_body()).into_response();
    // The upstream's status is valid HTTP; 502 if not.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().remove(header::CONTENT_TYPE);
    append_all(&headers, response.headers_mut());
    let headers = response.headers_mut();
    // Behind the entries of caches on the way (RFC 9211, section 2).
    headers.append(CACHE_STATUS, HeaderValue::from_static(cache_status::of(LookupOutcome::Bypass)));
    headers.insert(REASON, HeaderValue::from_static(Reason::Route.as_str()));
    forward.metrics.count_uncached_route();
    if is_of_client {
        // A cache in between knows `authorization`, and takes a response to another credential for a public one.
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    describe_propagation(propagation, headers);
    // A browser must not take an upstream's response for a page of this server.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let protocols = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    protocols.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case("websocket"))
}

/// The header in which an upstream expects the operator's key. `path` is that below the upstream's own.
fn key_header(path: &str) -> KeyHeader {
    parent_api(path).map_or(KeyHeader::BEARER, |api| api.key_header())
}

fn passed_on(headers: &HeaderMap) -> Headers {
    headers
        .iter()
        .filter(|(name, _)| !OURS.contains(&name.as_str()) && !is_credential(name.as_str()))
        .filter(|(name, _)| !is_hop_by_hop(name, headers))
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}
