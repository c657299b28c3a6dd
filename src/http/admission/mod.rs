//! Admission: each request gets an id and a deadline, is checked for its host, origin and key, gets a concurrency permit and a
//! reservation for its body, and is counted.

mod browser_guard;
pub(super) mod cors;
mod host_header;
mod keys;
mod permit;
mod wrong_keys;

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tracing::{Instrument as _, debug_span, field};

use self::cors::Cors;
use self::keys::{KEY_HEADERS, Keys};
use self::permit::InFlight;
use self::wrong_keys::WrongKeys;
pub(super) use self::{keys::read_keys, permit::ConcurrencyPermit};
use crate::byte_budget::ByteBudget;
use crate::domain::Principal;
use crate::error::{Error, Kind, Result};
use crate::http::Options;
use crate::http::api_key::ApiKey;
use crate::http::connections::Connection;
use crate::http::connections::request_body::{self, RequestBody};
use crate::http::connections::response_body::ResponseBody;
use crate::http::content_coding::{self, Coding};
use crate::http::error_response::{self, Problem};
use crate::http::metrics::{HttpMetrics, RequestLabels};
use crate::http::reservation::{BodyReservation, MeteredBody, has_reservation, reserve_response};
use crate::http::response::compression;
use crate::http::routes::{Access, Route};

/// A browser takes no response for another media type (Fetch, section 3.5): an object that a client stored must not run there.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The sender of a request, or the response that refuses it.
enum Authenticated {
    As(Arc<Principal>),
    Refused(Response),
}

/// Marks a request for a route with [`Access::OptionalKey`] whose sender may see what other routes show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authorized;

/// Marks a request that the server makes of itself: its work goes behind that of clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnRequest;

/// Admits requests. Shared by `Arc`.
pub(super) struct Admission {
    /// Finds the route of a path.
    routes: matchit::Router<Route>,
    /// Stands for a path that is no route.
    no_route: Route,
    keys: Keys,
    wrong_keys: WrongKeys,
    cors: Cors,
    /// The sender of a request that needs no key.
    anonymous: Arc<Principal>,
    permits: Arc<Semaphore>,
    budget: Arc<ByteBudget>,
    body_bytes_max: usize,
    timeout: Duration,
    bytes_per_second_min: u64,
    metrics: Arc<HttpMetrics>,
    next_id: AtomicU64,
}

impl Admission {
    pub(super) fn new(
        options: &Options,
        keys: &[ApiKey],
        cors: Cors,
        routes: matchit::Router<Route>,
        permits: Arc<Semaphore>,
        budget: Arc<ByteBudget>,
        metrics: Arc<HttpMetrics>,
    ) -> Admission {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "request ids");
        Admission {
            routes,
            no_route: Route::none(),
            keys: Keys::new(keys),
            wrong_keys: WrongKeys::default(),
            cors,
            anonymous: Arc::default(),
            permits,
            budget,
            body_bytes_max: options.body_bytes_max,
            timeout: Duration::from_secs(options.request_timeout_seconds),
            bytes_per_second_min: options.bytes_per_second_min,
            metrics,
            next_id: AtomicU64::new(seed),
        }
    }

    /// Serves a route of this server by its path with a slash at its end, which some clients add. A PUT, PATCH or DELETE keeps the
    /// slash: it may be all that is left of a path whose last part was empty, and the request would store or remove more than it
    /// names. A POST loses it, since no route whose path ends with a parameter takes a POST. A path that is a route with its slash is
    /// served as that route.
    fn drop_final_slash(&self, request: &mut Request<RequestBody>) {
        let path = request.uri().path();
        let Some(shorter) = path.strip_suffix('/').filter(|shorter| !shorter.is_empty()) else { return };
        let is_own = |path: &str| self.routes.at(path).is_ok_and(|found| !found.value.is_fallback);
        let may_drop_slash = matches!(*request.method(), Method::GET | Method::HEAD | Method::POST);
        if !may_drop_slash || is_own(path) || !is_own(shorter) {
            return;
        }
        let target = match request.uri().query() {
            Some(query) => format!("{shorter}?{query}"),
            None => shorter.to_owned(),
        };
        let mut parts = request.uri().clone().into_parts();
        if let Ok(target) = target.parse() {
            parts.path_and_query = Some(target);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }

    /// The client's own id of the request, if it is short and plain, or a new one.
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let own = headers
            .get(&REQUEST_ID)
            .filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
        own.cloned().unwrap_or_else(|| self.new_request_id())
    }

    fn new_request_id(&self) -> HeaderValue {
        let mut id = *b"req_0000000000000000";
        let mut rest = self.next_id.fetch_add(1, Ordering::Relaxed);
        for digit in id[4..].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(rest % 16) as usize];
            rest /= 16;
        }
        HeaderValue::from_bytes(&id).expect("hexadecimal digits are a valid header: this is a bug")
    }

    async fn admit(
        &self,
        route: &Route,
        mut request: Request<RequestBody>,
        request_id: &HeaderValue,
        connection: &Connection,
        handlers: &Handlers,
    ) -> Result<Response> {
        host_header::check(request.version(), request.headers())?;
        if let Some(answered) = self.cors.preflight(&request) {
            connection.settle()?;
            return answered;
        }
        let mut principal = Arc::clone(&self.anonymous);
        if route.access.needs_key() {
            let (headers, authority) = (request.headers(), request.uri().authority());
            match self.authenticate(headers, authority, connection).await? {
                Authenticated::As(sender) => principal = sender,
                Authenticated::Refused(refused) => {
                    return Ok(error_response::in_shape(refused, route.errors, request_id));
                }
            }
        }
        if route.access == Access::OptionalKey {
            let (headers, authority) = (request.headers(), request.uri().authority());
            let has_credential = has_credential(headers);
            match self.authenticate(headers, authority, connection).await {
                Ok(Authenticated::As(sender)) => {
                    principal = sender;
                    request.extensions_mut().insert(Authorized);
                }
                Ok(Authenticated::Refused(refused)) => return Ok(refused),
                Err(refusal) if has_credential => return Err(refusal),
                Err(_) => {}
            }
        }
        if route.access != Access::Probe {
            connection.settle()?;
            self.spare_budget(connection)?;
        }
        request.extensions_mut().insert(principal);
        let permit = if route.access.needs_permit() {
            let full = |_| Error::new(Kind::Overloaded, "too many requests are being answered");
            Some(Arc::clone(&self.permits).try_acquire_owned().map_err(full)?)
        } else {
            None
        };
        let permit = Arc::new(ConcurrencyPermit(Mutex::new(permit)));
        request.extensions_mut().insert(Arc::clone(&permit));
        let coding = Admission::coding(route, &request)?;
        // Held until the answer has reserved what it needs.
        let bytes =
            BodyReservation::admit(&self.budget, request.headers(), self.body_bytes_max, coding.is_some())?;
        if bytes.is_counted() {
            request.extensions_mut().insert(bytes.clone());
        }
        let request = self.decode(request, coding, &bytes);
        let (accepted, method) = (compression::accepted(request.headers()), request.method().clone());
        let late = |_| {
            let seconds = self.timeout.as_secs();
            Error::new(Kind::Timeout, format!("the request took longer than {seconds} s"))
        };
        let answered = within(self.timeout, handlers.call(request)).await.map_err(late)?;
        let answered = answered.unwrap_or_else(|never| match never {});
        let answered = error_response::in_shape(answered, route.errors, request_id);
        let answered = compression::compress(answered, &method, accepted).await?;
        if route.access.counts_answers() { reserve_response(&self.budget, answered) } else { Ok(answered) }
    }

    /// The principal of a request. Without a known key it is refused; where there are no keys, if a page of another site may
    /// have sent it.
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        authority: Option<&Authority>,
        connection: &Connection,
    ) -> Result<Authenticated> {
        if self.keys.is_empty() {
            let is_listed = self.cors.origin(headers).is_some();
            browser_guard::refuse(headers, authority, is_listed)?;
            return Ok(Authenticated::As(Arc::clone(&self.anonymous)));
        }
        let refusal = match self.keys.admit(headers) {
            Ok(principal) => {
                connection.show_key();
                return Ok(Authenticated::As(Arc::clone(principal)));
            }
            Err(refusal) => refusal,
        };
        if !has_credential(headers) {
            return Err(refusal);
        }
        self.metrics.wrong_keys.inc();
        let Some(slowed) = self.wrong_keys.count(connection.peer(), Instant::now()) else {
            return Err(refusal);
        };
        tokio::time::sleep(slowed.delay).await;
        let Some(seconds) = slowed.retry_after_seconds else { return Err(refusal) };
        let message = "too many wrong API keys have come from this address";
        let mut refused = Problem(Error::new(Kind::Overloaded, message)).into_response();
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        Ok(Authenticated::Refused(refused))
    }

    /// Refuses a connection that has shown no key once half of the budget is used: public pages that clients do not read leave the
    /// rest to clients with a key.
    fn spare_budget(&self, connection: &Connection) -> Result<()> {
        if connection.has_shown_key() || self.budget.reserved() <= self.budget.limit() / 2 {
            return Ok(());
        }
        let message = "the requests in flight use half of the memory that they may (http.inflight_bytes_max), and the rest is \
            kept for clients with a key; retry later";
        Err(Error::new(Kind::Overloaded, message))
    }

    /// The coding of a body that handlers need decoded. The coding of an object is stored with it.
    fn coding(route: &Route, request: &Request<RequestBody>) -> Result<Option<Coding>> {
        let is_stored = route.stores_content_coding && request.method() == Method::PUT;
        if is_stored { Ok(None) } else { content_coding::of_body(request.headers()) }
    }

    /// The request as handlers get it: its body in clear, and counted.
    fn decode(
        &self,
        request: Request<RequestBody>,
        coding: Option<Coding>,
        bytes: &BodyReservation,
    ) -> Request<Body> {
        let (mut head, body) = request.into_parts();
        let body = match coding {
            _ if body.is_end_stream() => Body::empty(),
            None => Body::new(MeteredBody::new(body, bytes.clone())),
            Some(coding) => {
                head.headers.remove(header::CONTENT_ENCODING);
                head.headers.remove(header::CONTENT_LENGTH);
                let coded = Body::new(MeteredBody::new(body, bytes.clone()));
                content_coding::decoded(coded, coding, self.body_bytes_max, bytes.clone())
            }
        };
        Request::from_parts(head, body)
    }
}

fn has_credential(headers: &HeaderMap) -> bool {
    let has = |name: &HeaderName| headers.contains_key(name);
    has(&header::AUTHORIZATION) || KEY_HEADERS.iter().any(has)
}

type Handlers = TowerToHyperService<Router>;

/// The routes behind admission, as the connection loop calls them. Cheap to clone.
#[derive(Clone)]
pub struct HttpService {
    admission: Arc<Admission>,
    handlers: Handlers,
}

impl HttpService {
    pub(super) fn new(admission: Admission, handlers: Router) -> HttpService {
        HttpService { admission: Arc::new(admission), handlers: TowerToHyperService::new(handlers) }
    }

    /// Whether requests need a key.
    pub(super) fn has_keys(&self) -> bool {
        !self.admission.keys.is_empty()
    }

    /// What all requests in flight may hold.
    pub(super) fn budget(&self) -> Arc<ByteBudget> {
        Arc::clone(&self.admission.budget)
    }

    pub(super) fn metrics(&self) -> Arc<HttpMetrics> {
        Arc::clone(&self.admission.metrics)
    }

    /// Counts a response to a malformed request, and returns its request id.
    pub(super) fn count_refusal(&self, status: StatusCode) -> HeaderValue {
        let labels =
            RequestLabels { route: Arc::clone(&self.admission.no_route.pattern), status: status.as_u16() };
        self.admission.metrics.requests.get_or_create(&labels).inc();
        self.admission.new_request_id()
    }

    /// Requests of clients that are under way.
    pub(super) fn requests_in_flight(&self) -> i64 {
        self.admission.metrics.requests_in_flight.get()
    }

    /// Answers a request that the server makes of itself, for the default tenant. It has no key, takes no permit, and is not counted among
    /// those of clients.
    ///
    /// # Errors
    /// `Timeout`. Any other error is a response.
    pub(super) async fn answer_own(&self, mut request: Request<Body>) -> Result<Response> {
        let extensions = request.extensions_mut();
        extensions.insert(Arc::clone(&self.admission.anonymous));
        extensions.insert(Arc::new(ConcurrencyPermit(Mutex::new(None))));
        extensions.insert(OwnRequest);
        let answered = within(self.admission.timeout, self.handlers.call(request)).await;
        let late = |_| Error::new(Kind::Timeout, "the request took longer than a request may");
        Ok(answered.map_err(late)?.unwrap_or_else(|never| match never {}))
    }

    /// Answers a request; an error is a response too.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Response<ResponseBody> {
        let started = Instant::now();
        let admission = &*self.admission;
        let _in_flight = InFlight::new(&admission.metrics);
        let is_taken = connection.begin(started, request.version() == Version::HTTP_11);
        let arrive = |body| RequestBody::new(body, admission.bytes_per_second_min, Arc::clone(&connection));
        let mut request = request.map(arrive);
        admission.drop_final_slash(&mut request);
        let route =
            admission.routes.at(request.uri().path()).map_or(&admission.no_route, |found| found.value);
        let id = admission.request_id(request.headers());
        let span = debug_span!("request", id = id.to_str().unwrap_or_default(), method = %request.method(),
            route = %route.pattern, status = field::Empty);
        let expects = request.headers().contains_key(header::EXPECT);
        let allowed = admission.cors.allowed(request.headers());
        let answered = if is_taken {
            let admitted = admission.admit(route, request, &id, &connection, &self.handlers);
            admitted.instrument(span.clone()).await
        } else {
            Err(Error::new(Kind::Unavailable, "the connection was idle and has made room for another"))
        };
        let refused = |error| error_response::in_shape(Problem(error).into_response(), route.errors, &id);
        let mut response = answered.unwrap_or_else(refused);
        connection.answer(has_reservation(response.extensions()));
        admission.cors.describe(allowed, response.headers_mut());
        let is_last = !is_taken || connection.is_reserve();
        if is_last || !end_body(&connection, expects).await || connection.is_stopping() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers.insert(REQUEST_ID, id);
        let labels = RequestLabels { route: Arc::clone(&route.pattern), status: response.status().as_u16() };
        span.record("status", labels.status);
        admission.metrics.requests.get_or_create(&labels).inc();
        admission.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
        response.map(|body| ResponseBody::new(body, connection))
    }
}

/// The result of work that ends in time. Most work is done at its first poll, and needs no timer.
async fn within<T>(time: Duration, work: impl Future<Output = T>) -> std::result::Result<T, Elapsed> {
    let mut work = std::pin::pin!(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => tokio::time::timeout(time, work).await,
    }
}

/// Ends a body that no handler has read; returns whether the connection can go on. A client that waits for permission to send it
/// (`expect: 100-continue`) takes the response for a refusal, and may send the body or not.
async fn end_body(connection: &Connection, expects: bool) -> bool {
    let Some(rest) = connection.take_rest() else { return true };
    let has_ended = !expects && request_body::discard(rest, connection).await;
    if has_ended {
        connection.forget_rest();
    }
    has_ended
}
