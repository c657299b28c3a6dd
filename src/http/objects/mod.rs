//! `/v1/cache/{namespace}/{key}`: bytes under a key.

mod batch;
mod conditions;
mod content;
mod endpoint;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, Request as HttpRequest, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Deserialize;
use utoipa_axum::routes;

pub(super) use self::batch::put_absent;
use self::content::{DEFAULT_CONTENT_TYPE, unknown_coding};
pub(super) use self::endpoint::Endpoint;
use crate::cache::{Lease, Verdict};
use crate::domain::{ContentCoding, LookupOutcome, Principal};
use crate::error::{Error, Kind, Result};
use crate::http::contract::schemas::Binary;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::http::extract::cache_control::PutLifetime;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::headers::{number, tags, text};
use crate::http::extract::path::path;
use crate::http::extract::{cache_control, cache_groups, other_caches};
use crate::http::response::cache_status;
use crate::http::response::headers::{CACHE_GROUPS, CACHE_STATUS, describe_propagation};
use crate::http::routes::{Access, Routes};
use crate::service::Directives;
use crate::service::objects::{Address, GetOptions, GetOutcome, GrantedLease, Object, ObjectDraft};

const LEASE: HeaderName = HeaderName::from_static("x-cache-lease");
const LEASE_SECONDS: HeaderName = HeaderName::from_static("x-cache-lease-seconds");
/// How long a request waits for another's lease by default.
const WAIT: Duration = Duration::from_secs(5);
/// Room for the headers of an answer, those that the gate and the connection add included.
const HEADERS: usize = 12;

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    let batch_as_key = axum::routing::get(get).put(put).delete(delete);
    Routes::new()
        .add(routes!(get, put, delete))
        .add(routes!(batch::batch))
        // `batch` is a key for all methods but POST.
        .add_undocumented(Access::Client, "/v1/cache/{namespace}/batch", batch_as_key)
        .add_undocumented(Access::Client, "/v1/cache/{namespace}/", any(no_key))
        .add_undocumented(Access::Client, "/v1/cache/{namespace}/{key}/", any(no_key))
        .add_undocumented(Access::Client, "/v1/cache/{namespace}/{key}/{*rest}", any(no_key))
        .storing_content_coding()
}

/// Fields of the use case in the headers of a request.
const FIELDS: FieldNames = FieldNames(&[
    ("lease_seconds", "x-cache-lease-seconds"),
    ("wait", "x-cache-wait-ms"),
    ("lease", "x-cache-lease"),
    ("ttl_seconds", "x-cache-ttl"),
    ("content_type", "content-type"),
]);

/// The namespace and the key of an object, in the path.
#[derive(Deserialize)]
pub(super) struct ObjectPath {
    namespace: String,
    /// The path of batches names none: with other methods than POST it is that of a key.
    #[serde(default = "batch_as_key")]
    key: String,
}

fn batch_as_key() -> String {
    "batch".to_owned()
}

impl<S: Sync> FromRequestParts<S> for ObjectPath {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<ObjectPath, Problem> {
        Ok(path(head, "key").await?)
    }
}

impl Endpoint {
    fn address(&self, principal: &Principal, path: &ObjectPath) -> Result<Address> {
        self.objects.address(principal, &path.namespace, &path.key)
    }
}

/// The answer to a path that has no key, or more than one segment behind the namespace.
pub(super) async fn no_key() -> Problem {
    let message =
        "the path is /v1/cache/{namespace}/{key}, and a key has 1 to 1024 bytes; write a slash in it as %2F";
    Problem(Error::invalid("key", message))
}

/// Looks an object up.
///
/// With `x-cache-lease-seconds`, one of many clients that miss is to make the value: it gets `x-cache-lease`, which its PUT
/// carries. The others wait for that PUT, at most `x-cache-wait-ms`, or are served the stale object. The request's
/// `Cache-Control` is honoured (RFC 9111).
#[utoipa::path(
    get,
    path = "/v1/cache/{namespace}/{key}",
    operation_id = "getObject",
    tag = "objects",
    params(
        ("namespace" = String, Path, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]{1,128}$", description = "The namespace, or an alias of it"),
        ("key" = String, Path, description = "The key: 1 to 1024 bytes, percent-encoded", min_length = 1, max_length = 1024),
        ("x-cache-lease-seconds" = Option<u32>, Header, minimum = 1, maximum = 300, description = "Requests a lease of this length if no fresh object is cached, or by chance one that is soon stale (`objects.early_refresh_beta`)"),
        ("x-cache-wait-ms" = Option<u64>, Header, maximum = 30000, description = "How long to wait while another client holds the lease; 5000 by default"),
        ("if-match" = Option<String>, Header, pattern = r#"^[ \t,]*(\*[ \t,]*|(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*)?$"#, description = "Respond 412 if the object is none of these"),
        ("if-none-match" = Option<String>, Header, pattern = r#"^[ \t,]*(\*[ \t,]*|(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*)?$"#, description = "Respond 304 if the object is one of these"),
        ("cache-control" = Option<String>, Header,
            description = "no-cache, max-age, min-fresh, max-stale, stale-if-error, only-if-cached"),
    ),
    responses(
        (status = 200, content((inline(Binary) = "application/octet-stream"), (inline(Binary) = "*/*")), headers(("content-encoding"), ("etag"), ("cache-control"), ("x-cache-lease"), ("x-cache-lease-seconds"), ("age"), ("cache-groups"), ("cache-status")), description = "The bytes as they were stored, with their media type and content coding"),
        (status = 304, headers(("etag"), ("cache-control"), ("age"), ("cache-groups"), ("cache-status")), description = "The client holds the current object"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, headers(("cache-status"), ("cache-control"), ("x-cache-lease"), ("x-cache-lease-seconds"), ("retry-after")), description = "The object is not cached. With `x-cache-lease` the client holds the lease; with `retry-after` another client does"),
        (status = 412, body = ErrorBody, description = "The object is none of those in `if-match`"),
        (status = 429, body = ErrorBody, description = "Too many leases are held, or the server is at a limit of requests or bytes in flight"),
        (status = 504, body = ErrorBody, description = "The object is not cached, and the request sends `only-if-cached`"),
    )
)]
pub(super) async fn get(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    path: ObjectPath,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let address = endpoint.address(&principal, &path)?;
    let mut directives = Directives::default();
    cache_control::apply(headers, &mut directives)?;
    other_caches::apply(headers, &mut directives)?;
    let lookup = GetOptions {
        // What makes an object is its application's, and only that knows whether it has failed.
        directives: directives.after_failure(),
        lease_seconds: number(headers, "x-cache-lease-seconds")?,
        wait: number(headers, "x-cache-wait-ms")?.map_or(WAIT, Duration::from_millis),
    };
    let condition = conditions::read(headers)?;
    match endpoint.objects.get(&address, &lookup).await.map_err(|error| FIELDS.apply(error))? {
        GetOutcome::Hit(object) => {
            condition.check_match(Some(&object.found))?;
            let is_known = !condition.is_none_matched(Some(&object.found));
            let names = endpoint.objects.tag_names(&address, &object.found).await;
            let mut response = hit(*object, is_known);
            if let Some(groups) = cache_groups::of_names(names.iter().map(AsRef::as_ref)) {
                response.headers_mut().insert(CACHE_GROUPS, groups);
            }
            Ok(response)
        }
        GetOutcome::Miss { lease, is_held } => Ok(miss(lease, is_held)),
    }
}

/// Stores an object.
///
/// Answered when it is as durable as its namespace promises. With the lease under which it was made, or without one;
/// then the holder of the lease has lost it.
#[utoipa::path(
    put,
    path = "/v1/cache/{namespace}/{key}",
    operation_id = "putObject",
    tag = "objects",
    params(
        ("namespace" = String, Path, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]{1,128}$", description = "The namespace, or an alias of it"),
        ("key" = String, Path, description = "The key: 1 to 1024 bytes, percent-encoded", min_length = 1, max_length = 1024),
        ("content-encoding" = Option<String>, Header,
            description = "gzip, deflate, br, zstd or compress; the server stores and returns the bytes with this coding, as they are"),
        ("x-cache-ttl" = Option<u32>, Header, minimum = 1, description = "Lifetime in seconds"),
        ("cache-control" = Option<String>, Header,
            description = "s-maxage, else max-age: the lifetime without x-cache-ttl, at most that of the namespace; no-store or max-age=0: the server checks the request and stores nothing"),
        ("x-cache-tags" = Option<String>, Header, description = "The tags of the object, separated by commas; at most 64"),
        ("cache-groups" = Option<String>, Header, description = "More tags of the object, as RFC 9875 writes them: a list of strings"),
        ("x-cache-lease" = Option<String>, Header, pattern = "^[0-9a-fA-F]{16}$", description = "The lease under which the client made the value"),
        ("if-match" = Option<String>, Header, pattern = r#"^[ \t,]*(\*[ \t,]*|(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*)?$"#, description = "Store only if the cached object is one of these; `*`: any"),
        ("if-none-match" = Option<String>, Header, pattern = r#"^[ \t,]*(\*[ \t,]*|(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*)?$"#, description = "Store only if the cached object is none of these; `*`: if none is cached. Conditions on dates have no effect"),
    ),
    request_body(content = inline(Binary), content_type = "application/octet-stream",
        description = "The bytes, with any `content-type`: the server stores and returns it with them"),
    responses(
        (status = 204, headers(("etag"), ("x-likewise-propagation")), description = "The object is stored; without an `etag` the request declined to store it"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "The namespace is not declared, and the server accepts declared ones only"),
        (status = 409, body = ErrorBody, description = "The lease has ended, or the key, a tag or the namespace was invalidated since the value was made"),
        (status = 412, body = ErrorBody, description = "The stored object does not meet `if-match` or `if-none-match`"),
        (status = 413, body = ErrorBody, description = "The body exceeds the limit of the server or of the namespace"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk, or Redis, which a condition or the lease of another node needs, is not reachable: the object is not cached"),
    )
)]
pub(super) async fn put(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    path: ObjectPath,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    // Before the first byte: what is invalidated while the body arrives was loaded before.
    let stamp = endpoint.objects.stamp();
    let address = endpoint.address(&principal, &path)?;
    let headers = &head.headers;
    let ttl_seconds = ttl_seconds(headers, &address)?;
    let draft = ObjectDraft {
        stamp,
        key: path.key,
        content_type: text(headers, "content-type")?.unwrap_or(DEFAULT_CONTENT_TYPE).to_owned(),
        content_coding: content_coding(headers)?,
        tags: tags(headers)?,
        ttl_seconds: ttl_seconds.flatten(),
        lease: lease(headers)?,
        condition: conditions::read(headers)?,
        value: body.read_at_most(address.value_bytes_max()).await?,
    };
    if ttl_seconds.is_none() {
        let declined = endpoint.objects.decline(&address, draft.lease, &draft.condition).await;
        declined.map_err(|error| FIELDS.apply(error))?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let stored = endpoint.objects.put(&address, draft).await.map_err(|error| FIELDS.apply(error))?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::ETAG, etag(stored.validator));
    describe_propagation(stored.propagation, response.headers_mut());
    Ok(response)
}

/// Removes an object; with `x-cache-lease`, gives that lease back instead.
#[utoipa::path(
    delete,
    path = "/v1/cache/{namespace}/{key}",
    operation_id = "deleteObject",
    tag = "objects",
    params(
        ("namespace" = String, Path, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]{1,128}$", description = "The namespace, or an alias of it"),
        ("key" = String, Path, description = "The key: 1 to 1024 bytes, percent-encoded", min_length = 1, max_length = 1024),
        ("x-cache-lease" = Option<String>, Header, pattern = "^[0-9a-fA-F]{16}$", description = "The lease to end; the object stays"),
        ("if-match" = Option<String>, Header, pattern = r#"^[ \t,]*(\*[ \t,]*|(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*)?$"#, description = "Remove only if the cached object is one of these"),
        ("if-none-match" = Option<String>, Header, pattern = r#"^[ \t,]*(\*[ \t,]*|(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*)?$"#, description = "Remove only if the cached object is none of these"),
    ),
    responses(
        (status = 204, headers(("x-likewise-propagation")), description = "No such object is cached any more; with `x-cache-lease`, the lease has ended"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "The namespace is not declared, and the server accepts declared ones only"),
        (status = 409, body = ErrorBody, description = "The lease had ended before"),
        (status = 412, body = ErrorBody, description = "The stored object does not meet `if-match` or `if-none-match`"),
        (status = 503, body = ErrorBody, description = "The disk refuses writes: the object is hidden until the next start only. Or Redis, which a condition or the lease of another node needs, is not reachable: the object is not removed"),
    )
)]
pub(super) async fn delete(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    path: ObjectPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let address = endpoint.address(&principal, &path)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    match lease(&headers)? {
        Some(lease) => {
            endpoint.objects.release(&address, lease).await.map_err(|error| FIELDS.apply(error))?
        }
        None => {
            let removed = endpoint.objects.delete(&address, conditions::read(&headers)?).await?;
            describe_propagation(removed.propagation, response.headers_mut());
        }
    }
    Ok(response)
}

fn hit(object: Object, is_known: bool) -> Response {
    let meta = &object.found.entry.meta;
    let body = if is_known { Body::empty() } else { Body::from(object.value) };
    let mut response = Response::new(body);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    if !is_known {
        if let Ok(content_type) = HeaderValue::from_str(&meta.content_type) {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        if meta.content_coding != ContentCoding::Identity {
            let coding = HeaderValue::from_static(meta.content_coding.as_str());
            headers.insert(header::CONTENT_ENCODING, coding);
        }
    }
    // A cache in between cannot know of invalidations: it asks each time, and is answered 304.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ETAG, etag(meta.validator));
    headers.insert(header::AGE, HeaderValue::from(object.age_seconds));
    let (mut status, hit) = (String::with_capacity(48), cache_status::of(LookupOutcome::Hit));
    let _ = write!(status, "{hit}; ttl={}; detail={}", object.fresh_seconds, object.found.tier);
    if object.found.verdict != Verdict::Fresh {
        let _ = write!(status, "-{}", LookupOutcome::Stale.as_str());
    }
    headers.insert(CACHE_STATUS, HeaderValue::try_from(status).expect("words and digits: this is a bug"));
    if let Some(granted) = object.lease {
        describe_lease(granted, headers);
    }
    response
}

/// A miss is 404, in the shape of every error.
fn miss(lease: Option<GrantedLease>, is_held: bool) -> Response {
    let message = match (lease, is_held) {
        (Some(_), _) => "the object is not cached; make it and put it with the lease",
        (None, true) => "the object is not cached; another client is still making it",
        (None, false) => "the object is not cached",
    };
    let mut response = Problem(Error::new(Kind::NotFound, message).param("key")).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status::of(LookupOutcome::Miss)));
    // Caches in between may store a 404 without this header (RFC 9110 section 15.1).
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(granted) = lease {
        describe_lease(granted, headers);
    }
    if is_held {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
    }
    response
}

fn describe_lease(granted: GrantedLease, headers: &mut HeaderMap) {
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
    lease.ok_or_else(|| {
        Error::invalid("x-cache-lease", "x-cache-lease must be the value of x-cache-lease of a response")
    })
}

/// The lifetime that a put asks for: the inner none is that of the namespace, the outer one says that nothing is to be
/// stored. `x-cache-ttl` is our own and must fit; a lifetime for HTTP caches is shortened to what is allowed, as any
/// cache may.
fn ttl_seconds(headers: &HeaderMap, address: &Address) -> Result<Option<Option<u32>>> {
    let asked: Option<u32> = number(headers, "x-cache-ttl")?;
    let mut other = Directives::default();
    other_caches::apply(headers, &mut other)?;
    let shortest = |seconds: u32| other.lenient_ttl_seconds.map_or(seconds, |other| other.min(seconds));
    let max = address.ttl_seconds_max();
    Ok(match (cache_control::of_put(headers)?, asked) {
        _ if other.no_store => None,
        (PutLifetime::NoStore, _) | (PutLifetime::Seconds(0), None) => None,
        (PutLifetime::Default | PutLifetime::Seconds(_), Some(seconds)) => Some(Some(shortest(seconds))),
        (PutLifetime::Seconds(seconds), None) => Some(Some(shortest(seconds).min(max))),
        (PutLifetime::Default, None) => Some(other.lenient_ttl_seconds.map(|seconds| seconds.min(max))),
    })
}

/// How the body of a put is encoded.
fn content_coding(headers: &HeaderMap) -> Result<ContentCoding> {
    const NAME: &str = "content-encoding";
    let Some(name) = text(headers, NAME)? else { return Ok(ContentCoding::Identity) };
    ContentCoding::named(name).ok_or_else(|| unknown_coding(NAME, name))
}
