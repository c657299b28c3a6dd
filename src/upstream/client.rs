//! Asks an upstream: as many attempts as it takes or as are allowed, all before the first byte of a reply.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::base_url;
use super::forwards::{Forwards, not_listed};
use super::loop_detection::LoopMark;
use super::metrics::UpstreamMetrics;
use super::options::{Options, config};
use super::query::without_credentials;
use super::refusal::looked_through;
use super::reply::{Headers, Origin, Reply, UpstreamCall, may_be_events};
use super::response_headers::{group_invalidation, passed_on};
use super::routes::{RouteCredential, UpstreamRoute, UpstreamRoutes};
use crate::byte_budget::ByteBudget;
use crate::domain::Credential;
use crate::error::{Error, Kind, Result};
use crate::pacing::{self, retry_after};

/// A client of all upstreams. Shared by `Arc`.
pub struct Upstream {
    http: reqwest::Client,
    routes: UpstreamRoutes,
    forwards: Forwards,
    loop_mark: LoopMark,
    places: Arc<Semaphore>,
    options: Options,
    budget: Arc<ByteBudget>,
    metrics: Arc<UpstreamMetrics>,
}

/// A reply that is being read.
struct ReplyBody {
    response: Response,
    deadline: Instant,
    /// How long the call may last, which makes the deadline.
    total_ms: u64,
    /// How long nothing may come, of a stream.
    idle_ms: Option<u64>,
    /// Held for as long as the call lasts.
    _place: OwnedSemaphorePermit,
}

impl Upstream {
    /// A client of the upstreams of the options.
    ///
    /// # Errors
    /// `Config` for values out of range, addresses that are none, and keys that are missing or cannot be sent.
    pub fn new(
        options: &Options,
        budget: Arc<ByteBudget>,
        metrics: Arc<UpstreamMetrics>,
    ) -> Result<Upstream> {
        options.validate()?;
        // Fails only if a provider was installed before, which is then the one in use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // A redirect would carry key and question to somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(options.connect_ms))
            .build()
            .map_err(|error| config("the client cannot be set up").source(error))?;
        Ok(Upstream {
            http,
            routes: UpstreamRoutes::new(options)?,
            forwards: Forwards::new(&options.forwards)?,
            loop_mark: LoopMark::new(),
            places: Arc::new(Semaphore::new(options.requests_max)),
            options: options.clone(),
            budget,
            metrics,
        })
    }

    /// All routes.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<UpstreamRoute>> {
        self.routes.all()
    }

    /// Whether requests that name no model go there.
    pub(super) fn is_of_none(&self, route: &Arc<UpstreamRoute>) -> bool {
        self.routes.of_none().is_some_and(|known| Arc::ptr_eq(known, route))
    }

    /// Counts a list of models that an upstream did not give.
    pub(super) fn count_failed_list(&self) {
        self.metrics.failed_model_lists.inc();
    }

    /// The route of a model.
    pub(super) fn route_of(&self, model: &str) -> Result<&Arc<UpstreamRoute>> {
        self.routes.of_model(model)
    }

    /// The route of a model, or that of requests which name none.
    fn route(&self, model: Option<&str>) -> Result<&Arc<UpstreamRoute>> {
        let missing = || Error::new(Kind::NotFound, "there is no upstream");
        match model {
            Some(model) => self.routes.of_model(model),
            None => self.routes.of_none().ok_or_else(missing),
        }
    }

    async fn call(&self, call: UpstreamCall) -> Result<Reply> {
        let route = self.route(call.model.as_deref())?;
        if call.needs_clients_key && !matches!(route.key, RouteCredential::Clients) {
            return Err(not_listed(&call.method, &call.path));
        }
        self.call_on(route, call).await
    }

    /// Asks one upstream.
    pub(super) async fn call_on(&self, route: &Arc<UpstreamRoute>, call: UpstreamCall) -> Result<Reply> {
        self.loop_mark.refuse_own(&call.headers)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Error::new(Kind::Overloaded, "too many requests wait for upstreams")
                .with("requests_max", self.options.requests_max)
        })?;
        let deadline = Instant::now() + Duration::from_millis(self.options.total_ms);
        let mut attempts = 0;
        let mut not_before = vec![Instant::now(); route.base_urls.len()];
        loop {
            let base_url = &route.base_urls[attempts as usize % route.base_urls.len()];
            let attempt = self.attempt(self.request(route, base_url, &call)?);
            let late = |_| Failed { may_have_arrived: true, error: late("total_ms", self.options.total_ms) };
            let outcome = tokio::time::timeout_at(deadline, attempt).await.map_err(late).flatten();
            attempts += 1;
            let next = match self.next_attempt(attempts, &outcome, &mut not_before, &call) {
                Some(next) if next < deadline => next,
                Some(_) | None => {
                    warn_of_failure(route, base_url, &outcome);
                    let reply = self.reply(outcome?, deadline, place);
                    let reply = looked_through(route, reply).await?;
                    return base_url::explained(base_url, &call.path, reply).await;
                }
            };
            self.metrics.retries.inc();
            tokio::time::sleep_until(next).await;
        }
    }

    fn request(&self, route: &UpstreamRoute, base_url: &str, call: &UpstreamCall) -> Result<Request> {
        let fault = |what: &str| Error::new(Kind::InvalidInput, format!("cannot forward {what}"));
        let method =
            Method::from_bytes(call.method.as_bytes()).map_err(|error| fault("the method").source(error))?;
        let mut headers = HeaderMap::with_capacity(call.headers.len() + 2);
        for (name, value) in &call.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        // What is compressed cannot be read along, and this server answers for clients of any kind.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (via, mark) = self.loop_mark.mark();
        headers.append(via, HeaderValue::from_str(mark).map_err(|error| fault("the mark").source(error))?);
        match (&route.key, &call.credential) {
            (RouteCredential::Operators(key), _) => {
                let header = route.key_header.unwrap_or(call.key_header);
                let mut value = HeaderValue::from_str(&format!("{}{key}", header.prefix))
                    .map_err(|error| fault("the key").source(error))?;
                value.set_sensitive(true);
                headers.insert(HeaderName::from_static(header.name), value);
            }
            (RouteCredential::Clients, Some(credential)) => show(credential, &mut headers),
            (RouteCredential::Clients, None) | (RouteCredential::None, _) => {}
        }
        let path = match &route.key {
            RouteCredential::Clients => Cow::Borrowed(call.path.as_str()),
            RouteCredential::Operators(_) | RouteCredential::None => without_credentials(&call.path),
        };
        let request = self.http.request(method, format!("{base_url}{path}"));
        let request = request.headers(headers).body(call.body.clone()).build();
        request.map_err(|error| fault("the request").source(error.without_url()))
    }

    async fn attempt(&self, request: Request) -> Result<Response, Failed> {
        let answered = self.http.execute(request).await;
        let status = answered.as_ref().map_or(0, |response| response.status().as_u16());
        self.metrics.count_reply(status);
        answered.map_err(|error| Failed {
            may_have_arrived: !error.is_connect(),
            error: Error::new(Kind::Upstream, "cannot reach the upstream").source(error.without_url()),
        })
    }

    /// When to make the next attempt; none if this one's outcome is to be passed on. `not_before` says when each address may
    /// be asked again: what one asks of us is not asked by another.
    fn next_attempt(
        &self,
        attempts: u32,
        outcome: &Result<Response, Failed>,
        not_before: &mut [Instant],
        call: &UpstreamCall,
    ) -> Option<Instant> {
        if attempts > self.options.retries_max {
            return None;
        }
        let is_elsewhere = (attempts as usize) < not_before.len();
        let asked = match outcome {
            Ok(response) if call.may_repeat && may_go_better(response, is_elsewhere) => {
                retry_after(|name| response.headers().get(name)?.to_str().ok())
            }
            Ok(_) => return None,
            Err(failed) if failed.may_have_arrived && !call.may_repeat => return None,
            Err(_) => None,
        };
        let longest = Duration::from_millis(self.options.backoff_ms_max);
        let first = Duration::from_millis(self.options.backoff_ms);
        let wait = asked.unwrap_or_else(|| pacing::backoff(attempts, first, longest));
        let now = Instant::now();
        let (this, next) = ((attempts as usize - 1) % not_before.len(), attempts as usize % not_before.len());
        // No call lasts longer than that.
        not_before[this] = now + wait.min(Duration::from_millis(self.options.total_ms));
        let wait = not_before[next].saturating_duration_since(now);
        let may_wait = wait.is_zero() || (call.may_wait && wait <= longest);
        may_wait.then(|| now + wait)
    }

    fn reply(&self, response: Response, deadline: Instant, place: OwnedSemaphorePermit) -> Reply {
        let (status, headers) = (response.status().as_u16(), passed_on(response.headers()));
        let group_invalidation = group_invalidation(response.headers());
        let idle_ms = may_be_events(&headers).then_some(self.options.idle_ms);
        let body = ReplyBody { response, deadline, total_ms: self.options.total_ms, idle_ms, _place: place };
        let pieces = stream::unfold(Some(body), |body| async move {
            let mut body = body?;
            match body.next().await.transpose()? {
                Ok(bytes) => Some((Ok(bytes), Some(body))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let reply = Reply::new(status, headers, Box::pin(pieces)).lasting_until(deadline).decoded();
        reply.invalidating(group_invalidation).counted(Arc::clone(&self.budget))
    }
}

impl Origin for Upstream {
    fn name(&self, model: Option<&str>) -> Result<Arc<str>> {
        self.route(model).map(|route| Arc::clone(&route.name))
    }

    fn ask(&self, call: UpstreamCall) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(self.call(call))
    }

    fn needs_clients_key(&self, method: &str, path: &str) -> Result<bool> {
        if self.forwards.lists(method, path) {
            return Ok(false);
        }
        let may_be_asked = self.routes().any(|route| matches!(route.key, RouteCredential::Clients));
        if may_be_asked { Ok(true) } else { Err(not_listed(method, path)) }
    }

    fn models(
        &self,
        credential: Option<Credential>,
        traces: Headers,
    ) -> BoxFuture<'_, Result<Vec<Box<RawValue>>>> {
        Box::pin(async move {
            self.refuse_own(&traces)?;
            Ok(self.list(credential.as_ref(), &traces).await)
        })
    }

    fn refuse_own(&self, headers: &Headers) -> Result<()> {
        self.loop_mark.refuse_own(headers)
    }

    fn share_under_way(&self) -> f64 {
        let places_max = self.options.requests_max;
        (places_max - self.places.available_permits()) as f64 / places_max as f64
    }
}

impl ReplyBody {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let idle = self.idle_ms.map(|idle_ms| (Instant::now() + Duration::from_millis(idle_ms), idle_ms));
        let (limit, option, limit_ms) = match idle {
            Some((idle, idle_ms)) if idle < self.deadline => (idle, "idle_ms", idle_ms),
            Some(_) | None => (self.deadline, "total_ms", self.total_ms),
        };
        let next = tokio::time::timeout_at(limit, self.response.chunk()).await;
        let next = next.map_err(|_| late(option, limit_ms))?;
        next.map_err(|error| {
            Error::new(Kind::Upstream, "cannot read the upstream's answer to its end")
                .source(error.without_url())
        })
    }
}

/// An attempt without a reply.
struct Failed {
    error: Error,
    /// Whether the upstream may have begun to work on it.
    may_have_arrived: bool,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        failed.error
    }
}

/// Tells the operator which upstream fails, at most once a second.
fn warn_of_failure(route: &UpstreamRoute, base_url: &str, outcome: &Result<Response, Failed>) {
    let failed = match outcome {
        Ok(response) if response.status().is_server_error() => response.status().to_string(),
        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => response.status().to_string(),
        Ok(_) => return,
        Err(failed) => failed.error.to_string(),
    };
    if route.may_warn() {
        tracing::warn!(upstream = base_url, failed, "an upstream fails");
    }
}

/// `option` is the limit that has passed.
fn late(option: &str, limit_ms: u64) -> Error {
    let message = format!("the upstream did not answer within {limit_ms} ms (upstream.{option})");
    Error::new(Kind::Timeout, message)
}

/// Whether a retry may succeed: as the upstream says, or else by its status. With `is_elsewhere` the retry goes to another
/// address, which may not have this one's fault.
fn may_go_better(response: &Response, is_elsewhere: bool) -> bool {
    let status = response.status();
    let transient = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    // A code of Anthropic's, for models that are overloaded.
    let is_transient = transient.contains(&status) || status.as_u16() == 529;
    match response.headers().get("x-should-retry").map(HeaderValue::as_bytes) {
        Some(b"true") => true,
        Some(b"false") => false,
        Some(_) | None => is_transient || (is_elsewhere && status.is_server_error()),
    }
}

/// Adds a client's credential, in the headers in which it came.
fn show(credential: &Credential, headers: &mut HeaderMap) {
    for (name, value) in credential.passed_on() {
        if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            value.set_sensitive(true);
            headers.append(name, value);
        }
    }
}
