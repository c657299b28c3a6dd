//! What every request passes: a name, a place among those being answered, a credential, a deadline, a count.

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
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;

use self::cors::Cors;
pub use self::keys::ApiKey;
use self::keys::{KEY_HEADERS, Keys};
use self::permit::InFlight;
use self::wrong_keys::Guesses;
pub(super) use self::{keys::read_keys, permit::Place};
use crate::byte_budget::ByteBudget;
use crate::domain::Tenant;
use crate::error::{Error, Kind, Result};
use crate::http::Options;
use crate::http::connections::Connection;
use crate::http::connections::request_body::{self, Arriving};
use crate::http::connections::response_body::Leaving;
use crate::http::content_coding::{self, Coding};
use crate::http::error_response::Problem;
use crate::http::metrics::{HttpMetrics, RequestLabels};
use crate::http::reservation::{BodyBytes, CountedBody, hold, is_held};
use crate::http::response::compression;
use crate::http::routes::{Access, Route};

/// No answer is anything but what its media type says (Fetch, section 3.5): what clients store must not run in a browser.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The gate. Shared by `Arc`.
pub(super) struct Gate {
    /// Finds the route of a path.
    routes: matchit::Router<Route>,
    /// Stands for a path that is no route.
    no_route: Route,
    keys: Keys,
    guesses: Guesses,
    cors: Cors,
    tenant: Tenant,
    places: Arc<Semaphore>,
    budget: Arc<ByteBudget>,
    body_bytes_max: usize,
    timeout: Duration,
    bytes_per_second_min: u64,
    metrics: Arc<HttpMetrics>,
    next_id: AtomicU64,
}

impl Gate {
    pub(super) fn new(
        options: &Options,
        keys: &[ApiKey],
        cors: Cors,
        routes: matchit::Router<Route>,
        budget: Arc<ByteBudget>,
        metrics: Arc<HttpMetrics>,
    ) -> Gate {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "request ids");
        Gate {
            routes,
            no_route: Route::none(),
            keys: Keys::new(keys),
            guesses: Guesses::default(),
            cors,
            tenant: Tenant::default(),
            places: Arc::new(Semaphore::new(options.requests_max)),
            budget,
            body_bytes_max: options.body_bytes_max,
            timeout: Duration::from_secs(options.request_timeout_seconds),
            bytes_per_second_min: options.bytes_per_second_min,
            metrics,
            next_id: AtomicU64::new(seed),
        }
    }

    /// The client's own name for the request, if it is short and plain, or a new one.
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
        mut request: Request<Arriving>,
        connection: &Connection,
        handlers: &Handlers,
    ) -> Result<Response> {
        host_header::check(request.version(), request.headers())?;
        if let Some(answered) = self.cors.preflight(&request) {
            connection.settle()?;
            return answered;
        }
        if route.access.needs_key() {
            let (headers, authority) = (request.headers(), request.uri().authority());
            if let Some(refused) = self.refuse(headers, authority, connection).await? {
                return Ok(refused);
            }
        }
        if route.access != Access::Probe {
            connection.settle()?;
            self.spare_budget(connection)?;
        }
        request.extensions_mut().insert(self.tenant.clone());
        let place = if route.access.needs_permit() {
            let full = |_| Error::new(Kind::Overloaded, "too many requests are being answered");
            Some(Arc::clone(&self.places).try_acquire_owned().map_err(full)?)
        } else {
            None
        };
        let place = Arc::new(Place(Mutex::new(place)));
        request.extensions_mut().insert(Arc::clone(&place));
        let coding = Gate::coding(route, &request)?;
        // Held until the answer has reserved what it needs.
        let bytes = BodyBytes::admit(&self.budget, request.headers(), self.body_bytes_max, coding.is_some())?;
        let request = self.decode(request, coding, &bytes);
        let (accepted, method) = (compression::accepted(request.headers()), request.method().clone());
        let late = |_| {
            let seconds = self.timeout.as_secs();
            Error::new(Kind::Timeout, format!("the request took longer than {seconds} s"))
        };
        let answered = within(self.timeout, handlers.call(request)).await.map_err(late)?;
        let answered = answered.unwrap_or_else(|never| match never {});
        hold(&self.budget, compression::compress(answered, &method, accepted).await?)
    }

    /// Refuses a request without a key of ours or, where there are none, one that a page of elsewhere may have made.
    async fn refuse(
        &self,
        headers: &HeaderMap,
        authority: Option<&Authority>,
        connection: &Connection,
    ) -> Result<Option<Response>> {
        if self.keys.is_empty() {
            let is_listed = self.cors.origin(headers).is_some();
            return browser_guard::refuse(headers, authority, is_listed).map(|()| None);
        }
        let Err(refusal) = self.keys.admit(headers) else {
            connection.show_key();
            return Ok(None);
        };
        let is_guess = |name: &HeaderName| headers.contains_key(name);
        if !is_guess(&header::AUTHORIZATION) && !KEY_HEADERS.iter().any(is_guess) {
            return Err(refusal);
        }
        self.metrics.wrong_keys.inc();
        let Some(slowed) = self.guesses.count(connection.peer(), Instant::now()) else { return Err(refusal) };
        tokio::time::sleep(slowed.delay).await;
        let Some(seconds) = slowed.retry_after_seconds else { return Err(refusal) };
        let message = "too many wrong API keys have come from this address";
        let mut refused = Problem(Error::new(Kind::Overloaded, message)).into_response();
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        Ok(Some(refused))
    }

    /// Refuses a connection that has shown no key once half of the budget is used: clients that do not read public pages leave the
    /// rest to those with a key.
    fn spare_budget(&self, connection: &Connection) -> Result<()> {
        if connection.has_shown_key() || self.budget.reserved() <= self.budget.limit() / 2 {
            return Ok(());
        }
        let message = "the requests in flight use half of the memory that they may (http.inflight_bytes_max), and the rest is \
            kept for clients with a key; retry later";
        Err(Error::new(Kind::Overloaded, message))
    }

    /// How a body is coded that handlers want in clear. The coding of an object is a part of what is stored.
    fn coding(route: &Route, request: &Request<Arriving>) -> Result<Option<Coding>> {
        let is_stored = route.stores_content_coding && request.method() == Method::PUT;
        if is_stored { Ok(None) } else { content_coding::of_body(request.headers()) }
    }

    /// The request as handlers get it: its body in clear, and counted.
    fn decode(&self, request: Request<Arriving>, coding: Option<Coding>, bytes: &BodyBytes) -> Request<Body> {
        let (mut head, body) = request.into_parts();
        let body = match coding {
            _ if body.is_end_stream() => Body::empty(),
            None => Body::new(CountedBody::new(body, bytes.clone())),
            Some(coding) => {
                head.headers.remove(header::CONTENT_ENCODING);
                head.headers.remove(header::CONTENT_LENGTH);
                let coded = Body::new(CountedBody::new(body, bytes.clone()));
                content_coding::decoded(coded, coding, self.body_bytes_max, bytes.clone())
            }
        };
        Request::from_parts(head, body)
    }
}

type Handlers = TowerToHyperService<Router>;

/// The routes behind the gate, as the connection loop calls them. Cheap to clone.
#[derive(Clone)]
pub struct Gated {
    gate: Arc<Gate>,
    handlers: Handlers,
}

impl Gated {
    pub(super) fn new(gate: Gate, handlers: Router) -> Gated {
        Gated { gate: Arc::new(gate), handlers: TowerToHyperService::new(handlers) }
    }

    /// Whether requests need a key.
    pub(super) fn has_keys(&self) -> bool {
        !self.gate.keys.is_empty()
    }

    /// What all requests in flight may hold.
    pub(super) fn budget(&self) -> Arc<ByteBudget> {
        Arc::clone(&self.gate.budget)
    }

    pub(super) fn metrics(&self) -> Arc<HttpMetrics> {
        Arc::clone(&self.gate.metrics)
    }

    /// Counts an answer to what is no request, and names it.
    pub(super) fn count_refusal(&self, status: StatusCode) -> HeaderValue {
        let labels =
            RequestLabels { route: Arc::clone(&self.gate.no_route.pattern), status: status.as_u16() };
        self.gate.metrics.requests.get_or_create(&labels).inc();
        self.gate.new_request_id()
    }

    /// Answers a request; a fault is an answer too.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Response<Leaving> {
        let started = Instant::now();
        let gate = &*self.gate;
        let _in_flight = InFlight::new(&gate.metrics);
        let is_taken = connection.begin(started, request.version() == Version::HTTP_11);
        let arrive = |body| Arriving::new(body, gate.bytes_per_second_min, Arc::clone(&connection));
        let request = request.map(arrive);
        let route = gate.routes.at(request.uri().path()).map_or(&gate.no_route, |found| found.value);
        let id = gate.request_id(request.headers());
        let expects = request.headers().contains_key(header::EXPECT);
        let allowed = gate.cors.allowed(request.headers());
        let answered = if is_taken {
            gate.admit(route, request, &connection, &self.handlers).await
        } else {
            Err(Error::new(Kind::Unavailable, "the connection was idle and has made room for another"))
        };
        let mut response = answered.unwrap_or_else(|error| Problem(error).into_response());
        connection.answer(is_held(response.extensions()));
        gate.cors.describe(allowed, response.headers_mut());
        let is_last = !is_taken || connection.is_reserve();
        if is_last || !end_body(&connection, expects).await || connection.is_stopping() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers.insert(REQUEST_ID, id);
        let labels = RequestLabels { route: Arc::clone(&route.pattern), status: response.status().as_u16() };
        gate.metrics.requests.get_or_create(&labels).inc();
        gate.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
        response.map(|body| Leaving::new(body, connection))
    }
}

/// The result of work that ends in time. Most work is done when it is first looked at, and needs no timer.
async fn within<T>(time: Duration, work: impl Future<Output = T>) -> std::result::Result<T, Elapsed> {
    let mut work = std::pin::pin!(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => tokio::time::timeout(time, work).await,
    }
}

/// Ends a body that no handler has read; whether the connection can go on. A client that waits for leave to send it
/// (`expect: 100-continue`) takes the answer for that leave's refusal, and may send the body or not.
async fn end_body(connection: &Connection, expects: bool) -> bool {
    let Some(rest) = connection.take_rest() else { return true };
    let has_ended = !expects && request_body::discard(rest, connection).await;
    if has_ended {
        connection.forget_rest();
    }
    has_ended
}
