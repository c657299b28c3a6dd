//! `/v1/cache/{namespace}/{key}`: bytes under a key.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::headers::{CACHE_STATUS, number, tags, text};
use super::problem::{ErrorBody, Problem};
use super::{body, cache_control};
use crate::cache::{Lease, Verdict};
use crate::domain::Tenant;
use crate::error::{Error, Kind, Result};
use crate::service::objects::{Address, Answer, Condition, Draft, Granted, Lookup, Object};
use crate::service::{Directives, Objects};

const LEASE: HeaderName = HeaderName::from_static("x-cache-lease");
const LEASE_SECONDS: HeaderName = HeaderName::from_static("x-cache-lease-seconds");
/// How long a request waits for another's lease if it does not say.
const WAIT: Duration = Duration::from_secs(5);
/// Room for the headers of an answer, those that the gate and the connection add included.
const HEADERS: usize = 10;
pub(super) const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// What the handlers need.
pub(super) struct Endpoint {
    pub(super) objects: Arc<Objects>,
    pub(super) body_bytes_max: usize,
}

type Place = Result<Path<(String, String)>, PathRejection>;

impl Endpoint {
    fn address(&self, tenant: &Tenant, place: Place) -> Result<Address> {
        let Path((namespace, key)) = place.map_err(|rejection| {
            Error::invalid("key", format!("namespace and key are UTF-8, percent-encoded: {rejection}"))
        })?;
        self.objects.address(tenant, &namespace, &key)
    }
}

/// Looks an object up.
///
/// With `x-cache-lease-seconds`, one of many who miss is told to make the value: it gets `x-cache-lease`, which its PUT
/// carries. The others wait for that PUT, at most `x-cache-wait-ms`, or are served the stale object. The request's
/// `Cache-Control` is honoured (RFC 9111).
#[utoipa::path(
    get,
    path = "/v1/cache/{namespace}/{key}",
    tag = "objects",
    params(
        ("namespace" = String, Path, description = "A namespace or an alias of one"),
        ("key" = String, Path, description = "1 to 1024 bytes, percent-encoded"),
        ("x-cache-lease-seconds" = Option<u32>, Header, description = "Asks for a lease where there is nothing fresh"),
        ("x-cache-wait-ms" = Option<u64>, Header, description = "How long to wait for another's lease; 5000"),
        ("if-none-match" = Option<String>, Header, description = "Answer 304 if this is still it"),
        ("cache-control" = Option<String>, Header,
            description = "no-cache, max-age, min-fresh, max-stale, stale-if-error, only-if-cached"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "The bytes, with their media type, `ETag`, `Age` and `Cache-Status`"),
        (status = 304, description = "The client has it"),
        (status = 400, body = ErrorBody, description = "A header is wrong; `param` names it"),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "Not cached; perhaps with a lease"),
        (status = 429, body = ErrorBody, description = "Too many leases are held"),
        (status = 504, body = ErrorBody, description = "Not cached, with only-if-cached"),
    )
)]
pub(super) async fn get(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(tenant): Extension<Tenant>,
    place: Place,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let address = endpoint.address(&tenant, place)?;
    let mut directives = Directives::default();
    cache_control::apply(headers, &mut directives)?;
    let lookup = Lookup {
        // What makes an object is its application's, and only that knows whether it has failed.
        directives: directives.after_failure(),
        lease_seconds: number(headers, "x-cache-lease-seconds")?,
        wait: number(headers, "x-cache-wait-ms")?.map_or(WAIT, Duration::from_millis),
    };
    let known = validators(headers, header::IF_NONE_MATCH.as_str())?;
    match endpoint.objects.get(&address, &lookup).await? {
        Answer::Hit(object) => Ok(hit(*object, known.as_ref())),
        Answer::Miss { lease, is_held } => Ok(miss(lease, is_held)),
    }
}

/// Stores an object.
///
/// Answered when it is as durable as its namespace promises. With the lease under which it was made, or without one;
/// then whoever holds the lease has lost it.
#[utoipa::path(
    put,
    path = "/v1/cache/{namespace}/{key}",
    tag = "objects",
    params(
        ("namespace" = String, Path, description = "A namespace or an alias of one"),
        ("key" = String, Path, description = "1 to 1024 bytes, percent-encoded"),
        ("content-type" = Option<String>, Header, description = "Given back with the bytes"),
        ("x-cache-ttl" = Option<u32>, Header, description = "Lifetime in seconds"),
        ("x-cache-tags" = Option<String>, Header, description = "At most 64, separated by commas"),
        ("x-cache-lease" = Option<String>, Header, description = "The lease under which the value was made"),
        ("if-match" = Option<String>, Header, description = "Store only in the place of this one"),
        ("if-none-match" = Option<String>, Header, description = "`*`: store only if there is none"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 204, description = "Stored; `ETag` tells what"),
        (status = 400, body = ErrorBody, description = "A header is wrong; `param` names it"),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "The namespace is unknown, and namespaces are closed"),
        (status = 409, body = ErrorBody, description = "The lease has ended, or what the value was made from is no longer true"),
        (status = 412, body = ErrorBody, description = "The stored object is not as the request demands"),
        (status = 413, body = ErrorBody),
        (status = 503, body = ErrorBody, description = "The disk takes no more; the object is not cached"),
    )
)]
pub(super) async fn put(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(tenant): Extension<Tenant>,
    place: Place,
    request: HttpRequest,
) -> Result<Response, Problem> {
    // Before the first byte: what is invalidated while the body arrives was loaded before.
    let stamp = endpoint.objects.stamp();
    let (head, body) = request.into_parts();
    let address = endpoint.address(&tenant, place)?;
    let headers = &head.headers;
    let mut directives = Directives::default();
    cache_control::apply(headers, &mut directives)?;
    let draft = Draft {
        stamp,
        content_type: text(headers, "content-type")?.unwrap_or(DEFAULT_CONTENT_TYPE).to_owned(),
        tags: tags(headers)?,
        ttl_seconds: number(headers, "x-cache-ttl")?,
        lease: lease(headers)?,
        condition: condition(headers)?,
        value: body::read(body, address.value_bytes_max().min(endpoint.body_bytes_max)).await?,
    };
    if directives.no_store {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let validator = endpoint.objects.put(&address, draft).await?;
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, etag(validator))]).into_response())
}

/// Removes an object; with `x-cache-lease`, gives that lease back instead.
#[utoipa::path(
    delete,
    path = "/v1/cache/{namespace}/{key}",
    tag = "objects",
    params(
        ("namespace" = String, Path, description = "A namespace or an alias of one"),
        ("key" = String, Path, description = "1 to 1024 bytes, percent-encoded"),
        ("x-cache-lease" = Option<String>, Header, description = "The lease to give back; the object stays"),
        ("if-match" = Option<String>, Header, description = "Remove only this one"),
    ),
    responses(
        (status = 204, description = "There is none, or none any more"),
        (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The lease had ended"),
        (status = 412, body = ErrorBody),
        (status = 503, body = ErrorBody, description = "The disk takes no more; the object is hidden until the next start"),
    )
)]
pub(super) async fn delete(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(tenant): Extension<Tenant>,
    place: Place,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let address = endpoint.address(&tenant, place)?;
    match lease(&headers)? {
        Some(lease) => endpoint.objects.release(&address, lease)?,
        None => _ = endpoint.objects.delete(&address, condition(&headers)?).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

fn hit(object: Object, known: Option<&Vec<u128>>) -> Response {
    let meta = &object.found.entry.meta;
    let is_known = known.is_some_and(|known| known.is_empty() || known.contains(&meta.validator));
    let body = if is_known { Body::empty() } else { Body::from(object.value) };
    let mut response = Response::new(body);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    if !is_known && let Ok(content_type) = HeaderValue::from_str(&meta.content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers.insert(header::ETAG, etag(meta.validator));
    headers.insert(header::AGE, HeaderValue::from(object.age_seconds));
    let mut status = String::with_capacity(48);
    let _ = write!(status, "likewise; hit; ttl={}; detail={}", object.fresh_seconds, object.found.tier);
    if object.found.verdict != Verdict::Fresh {
        status.push_str("-stale");
    }
    headers.insert(CACHE_STATUS, HeaderValue::try_from(status).expect("words and digits: this is a bug"));
    if let Some(granted) = object.lease {
        describe_lease(granted, headers);
    }
    response
}

/// Not found is how HTTP says it; the shape is that of every error.
fn miss(lease: Option<Granted>, is_held: bool) -> Response {
    let message = match (lease, is_held) {
        (Some(_), _) => "the object is not cached; make it and put it with the lease",
        (None, true) => "the object is not cached; somebody is still making it",
        (None, false) => "the object is not cached",
    };
    let mut response = Problem(Error::new(Kind::NotFound, message).param("key")).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, HeaderValue::from_static("likewise; fwd=miss"));
    if let Some(granted) = lease {
        describe_lease(granted, headers);
    }
    if is_held {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
    }
    response
}

fn describe_lease(granted: Granted, headers: &mut HeaderMap) {
    let text = format!("{:016x}", granted.lease.0);
    headers.insert(LEASE, HeaderValue::try_from(text).expect("digits: this is a bug"));
    headers.insert(LEASE_SECONDS, HeaderValue::from(granted.seconds));
}

fn etag(validator: u128) -> HeaderValue {
    HeaderValue::try_from(format!("\"{validator:032x}\"")).expect("digits in quotes: this is a bug")
}

fn lease(headers: &HeaderMap) -> Result<Option<Lease>> {
    let Some(text) = text(headers, "x-cache-lease")? else { return Ok(None) };
    let number = if text.len() == 16 { u64::from_str_radix(text, 16).ok() } else { None };
    let lease = number.map(|number| Some(Lease(number)));
    lease.ok_or_else(|| Error::invalid("x-cache-lease", "a lease is what x-cache-lease of an answer said"))
}

fn condition(headers: &HeaderMap) -> Result<Condition> {
    let is_match = validators(headers, header::IF_MATCH.as_str())?;
    let none_match = validators(headers, header::IF_NONE_MATCH.as_str())?;
    match (is_match, none_match) {
        (None, None) => Ok(Condition::None),
        (Some(validators), None) => Ok(Condition::Match(validators)),
        (None, Some(validators)) => Ok(Condition::NoneMatch(validators)),
        (Some(_), Some(_)) => Err(Error::invalid("if-match", "give if-match or if-none-match, not both")),
    }
}

/// The validators of a conditional header; an empty list stands for `*`. One that is not of our making matches nothing.
fn validators(headers: &HeaderMap, name: &'static str) -> Result<Option<Vec<u128>>> {
    let Some(list) = text(headers, name)? else { return Ok(None) };
    if list == "*" {
        return Ok(Some(Vec::new()));
    }
    let read = |tag: &str| {
        // Weak and strong compare alike here: equal validators are equal bytes.
        let opaque = tag.trim().trim_start_matches("W/");
        let digits = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        digits.map(|digits| u128::from_str_radix(digits, 16).unwrap_or(0))
    };
    let read: Option<Vec<u128>> = list.split(',').map(read).collect();
    let fault =
        || Error::invalid(name, format!("the header {name} is `*` or a list of entity tags in quotes"));
    read.map(Some).ok_or_else(fault)
}
