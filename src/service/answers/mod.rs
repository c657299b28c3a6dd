//! Answers of language models: a question that was asked before, in the same words and the same scope, is answered from the cache.
//!
//! The flow of a request: identity → lookup in memory, then on disk → one generation per identity, which calls the upstream and
//! broadcasts the bytes of its reply to all waiters as they arrive → the answer, if it is complete and may be stored, goes to
//! memory, then to the waiters, then to disk. A reply that is no answer is passed on to all waiters as it is, and not stored.

mod broadcast;
mod coalesce;
mod direct;
mod generate;
mod inflight;
mod lookup;
mod metrics;
mod reason;
mod refresh_backoff;
mod replay_buffer;
mod response;
mod stored_answer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use broadcast::EventStream;
pub use direct::{LookupHit, Question};
pub use lookup::REPLAYED_BYTES;
pub use metrics::AnswerMetrics;
pub use reason::Reason;
pub use response::{AnswerResponse, Body, HitInfo, MatchKind, Outcome, Saved};
pub use stored_answer::StoredAnswer;

use self::generate::tags_of;
use self::inflight::{Caller, InflightTable, StorePolicy};
use self::refresh_backoff::RefreshBackoff;
use super::{Directives, check_tags};
use crate::byte_budget::ByteBudget;
use crate::cache::{Cache, Found, Namespace, Namespaces, Policy, StripedLocks, Verdict};
use crate::dialects::{Dialect, ParsedRequest};
use crate::domain::{Credential, Subject, Tag, Tenant, TokenUsage};
use crate::error::{Error, Kind, Result};
use crate::request_identity::{Identity, Normalization, Partition};
use crate::upstream::{self, Headers, Origin, Prices};

/// Which answers are stored, and which requests share them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Requests above this temperature expect another answer each time: they bypass the cache.
    pub temperature_max: f64,
    /// Whether answers that call tools are stored, and requests that offer tools are coalesced.
    pub cache_tool_calls: bool,
    /// Whether questions are normalized by closed lists of words: the capital of some first words, a missing question mark, the full
    /// stop of an order. Otherwise only Unicode composition and the whitespace around a question are.
    pub normalize_questions: bool,
    /// Whether requests with different credentials share answers.
    pub share_across_keys: bool,
    /// Whether a generation whose waiters have all left is completed and stored.
    pub finish_abandoned: bool,
    /// Concurrent refreshes of stale answers; further stale answers are refreshed by a later hit.
    pub concurrent_refreshes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            temperature_max: 1.0,
            cache_tool_calls: false,
            normalize_questions: false,
            share_across_keys: false,
            finish_abandoned: false,
            concurrent_refreshes_max: 64,
        }
    }
}

/// A request for an answer.
#[derive(Debug)]
pub struct AnswerRequest {
    /// The parsed request.
    pub parsed: Arc<ParsedRequest>,
    /// Its body.
    pub body: Bytes,
    /// The query string, which is forwarded and part of the identity.
    pub query: Option<String>,
    /// The tenant that sent it.
    pub tenant: Tenant,
    /// The credential of the client.
    pub credential: Option<Credential>,
    /// Headers that are forwarded and part of the identity.
    pub headers: Vec<(String, String)>,
    /// Headers that are forwarded only.
    pub traces: Headers,
    /// Its cache directives.
    pub directives: Directives,
    /// The tags of the answer.
    pub tags: Vec<Tag>,
}

/// A request with its namespace, identity and policy resolved.
#[derive(Debug, Clone)]
struct ResolvedRequest {
    identity: Identity,
    namespace: Namespace,
    model: Arc<str>,
    question: Option<Arc<str>>,
    store_policy: StorePolicy,
    caller: Caller,
    /// Generations that were completed before the lookup ([`InflightTable::completed`]).
    completed: u64,
}

/// The form that a client requests.
#[derive(Debug, Clone, Copy)]
struct ResponseForm {
    dialect: &'static dyn Dialect,
    streams: bool,
    wants_usage: bool,
}

/// The use case. Shared by `Arc`.
pub struct Answers {
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    origin: Arc<dyn Origin>,
    prices: Prices,
    inflight: Arc<InflightTable>,
    /// The byte budget of all requests in flight.
    budget: Arc<ByteBudget>,
    key_locks: StripedLocks,
    refreshes: Arc<Semaphore>,
    refresh_backoff: RefreshBackoff,
    options: Options,
    answer_bytes_max: usize,
    request_usage: bool,
    /// Whether upstreams see the credentials of clients.
    forwards_client_keys: bool,
    metrics: Arc<AnswerMetrics>,
}

impl Answers {
    /// A use case over `cache`, for the upstreams behind `origin`, which `upstream` configures.
    pub fn new(
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        origin: Arc<dyn Origin>,
        upstream: &upstream::Options,
        options: Options,
        budget: &Arc<ByteBudget>,
        metrics: Arc<AnswerMetrics>,
    ) -> Answers {
        Answers {
            cache,
            namespaces,
            origin,
            prices: Prices::new(&upstream.prices),
            inflight: InflightTable::new(Arc::clone(budget)),
            budget: Arc::clone(budget),
            key_locks: StripedLocks::new(),
            refreshes: Arc::new(Semaphore::new(options.concurrent_refreshes_max)),
            refresh_backoff: RefreshBackoff::default(),
            options,
            answer_bytes_max: upstream.answer_bytes_max,
            request_usage: upstream.request_usage,
            forwards_client_keys: upstream.forwards_any_client_key(),
            metrics,
        }
    }

    /// Which spellings of a question are one. Requests are to be read by it.
    pub fn normalization(&self) -> Normalization {
        if self.options.normalize_questions { Normalization::WordLists } else { Normalization::Minimal }
    }

    /// Generations in flight.
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// Waits until every stored answer is on the disk: its stripe is held until then.
    pub async fn close(&self) {
        self.key_locks.wait().await;
    }

    /// Answers a request: from the cache, by joining a generation in flight, or by calling the upstream.
    ///
    /// # Errors
    /// `InvalidInput` for a TTL past its limit and too many tags; `ModelNotFound` if no upstream serves the model; `NotCached` with
    /// `only_if_cached`; `Loop` for a request that this server has sent; `Upstream`, `Timeout`, `Overloaded` for failures of the
    /// upstream. A reply with an error status is a response here, not an error.
    ///
    /// Cancel safety: dropping this future does not affect other waiters. A generation without waiters is aborted.
    pub async fn ask(self: &Arc<Self>, request: AnswerRequest) -> Result<AnswerResponse> {
        let started = Instant::now();
        let (resolved, form) = (self.resolve(&request)?, ResponseForm::of(&request.parsed));
        let (response, missed) = match self.bypass(&request.parsed) {
            Some(reason) => {
                let response = self.call_upstream(&request, &resolved, form, reason, started).await;
                (
                    response.map(|response| AnswerResponse { reason: Some(reason), ..response }),
                    Outcome::Bypass,
                )
            }
            None => (self.look_up_or_generate(&request, resolved, form, started).await, Outcome::Miss),
        };
        self.metrics.count(response.as_ref().map_or(&missed, |response| &response.outcome));
        response
    }

    /// Calls the upstream without a lookup and stores nothing.
    async fn call_upstream(
        self: &Arc<Self>,
        request: &AnswerRequest,
        resolved: &ResolvedRequest,
        form: ResponseForm,
        reason: Reason,
        started: Instant,
    ) -> Result<AnswerResponse> {
        if request.directives.only_if_cached {
            return Err(not_cached());
        }
        let waiter = self.lead_unshared(request, resolved, Some(reason))?;
        Ok(self.await_result(waiter, form, resolved, Outcome::Bypass, started).await??)
    }

    async fn look_up_or_generate(
        self: &Arc<Self>,
        request: &AnswerRequest,
        mut resolved: ResolvedRequest,
        form: ResponseForm,
        started: Instant,
    ) -> Result<AnswerResponse> {
        resolved.completed = self.inflight.completed(&resolved.identity.key);
        let found = self.look(&resolved.namespace, &resolved.identity.key).await;
        if let Some(found) =
            found.as_ref().filter(|found| self.accepts(found, &resolved, &request.directives))
            && let Some(response) = self.hit(found, &resolved, form, started)
        {
            if found.verdict != Verdict::Fresh && !request.directives.only_if_cached {
                resolved.inherit(Some(found.clone()), &request.directives);
                self.refresh(request, &resolved);
            }
            return Ok(response);
        }
        if request.directives.only_if_cached {
            return Err(not_cached());
        }
        let looked = started.elapsed();
        let stands_in =
            found.as_ref().is_some_and(|found| self.may_stand_in(found, &resolved, &request.directives));
        // With a stale answer at hand there is no wait before a retry; another address may still be tried.
        resolved.caller.may_wait = !stands_in;
        resolved.inherit(found, &request.directives);
        // Boxed, so that the future of a hit stays small.
        let made = Box::pin(self.generate_or_join(request, &resolved, form, started)).await;
        let fails = stands_in && is_failure(&made);
        let stand_in =
            if fails { self.stand_in(request, &resolved, form, &made, started).await } else { None };
        let response = stand_in.map_or(made, Ok)?;
        Ok(AnswerResponse { lookup: looked, upstream: Some(started.elapsed() - looked), ..response })
    }

    fn resolve(&self, request: &AnswerRequest) -> Result<ResolvedRequest> {
        check_tags(&request.tags)?;
        self.origin.refuse_own(&request.traces)?;
        let upstream = self.origin.name(&request.parsed.model)?;
        let namespace =
            self.namespaces.of_answers(&request.tenant, request.directives.namespace.as_deref())?;
        let partition = Partition {
            tenant: &request.tenant,
            namespace: &namespace.name,
            credential: request
                .credential
                .as_ref()
                .filter(|_| !self.options.share_across_keys)
                .map(Credential::as_bytes),
            upstream: &upstream,
            query: request.query.as_deref(),
            headers: &request.headers,
        };
        let identity = request.parsed.identity(&partition);
        let tags = request.tags.iter().map(|tag| Subject::tag(&request.tenant, tag)).collect();
        // A JSON answer always reports usage; a stream does on request.
        let reports_usage = !request.parsed.streams || request.parsed.wants_usage || self.request_usage;
        Ok(ResolvedRequest {
            identity,
            caller: Caller {
                credential: request.credential.clone().filter(|_| self.forwards_client_keys),
                streams: request.parsed.streams,
                requests_usage: reports_usage,
                may_wait: true,
            },
            model: Arc::clone(&request.parsed.model),
            question: request.parsed.question.clone(),
            store_policy: StorePolicy {
                tags,
                reports_usage,
                ttl_seconds: super::ttl_seconds(&namespace.policy, request.directives.ttl_seconds)?,
                is_ttl_requested: request.directives.ttl_seconds.is_some(),
                inherits_ttl: false,
            },
            completed: 0,
            namespace,
        })
    }

    /// Why a request has no place in the cache.
    fn bypass(&self, request: &ParsedRequest) -> Option<Reason> {
        if request.temperature.is_some_and(|temperature| temperature > self.options.temperature_max) {
            Some(Reason::Temperature)
        } else if !request.is_exact {
            Some(Reason::Number)
        } else {
            None
        }
    }

    fn price(&self, model: &str, usage: TokenUsage) -> Saved {
        let tokens = u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens);
        Saved { tokens, usd: self.prices.cost_usd(model, usage) }
    }

    /// Counts the cost that a cached answer has saved.
    fn saved(&self, model: &str, usage: TokenUsage) -> Saved {
        let saved = self.price(model, usage);
        self.metrics.saved_tokens.inc_by(saved.tokens);
        self.metrics.saved_usd.inc_by(saved.usd.unwrap_or_default());
        saved
    }

    /// Counts the cost of an answer.
    fn spent(&self, model: &str, usage: TokenUsage) {
        let spent = self.price(model, usage);
        self.metrics.spent_tokens.inc_by(spent.tokens);
        self.metrics.spent_usd.inc_by(spent.usd.unwrap_or_default());
    }
}

impl ResolvedRequest {
    /// A replacement inherits the tags of the answer it replaces, and its requested TTL unless this request sets one.
    fn inherit(&mut self, before: Option<Found>, directives: &Directives) {
        let Some(before) = before else { return };
        self.store_policy.depend_on(tags_of(&before.entry));
        let was_requested =
            StoredAnswer::decode(&before.entry.value).is_some_and(|record| record.is_ttl_requested);
        if directives.ttl_seconds.is_none() && was_requested {
            let meta = &before.entry.meta;
            self.store_policy.ttl_seconds = meta.expires.since(meta.created).max(1);
            self.store_policy.is_ttl_requested = true;
            self.store_policy.inherits_ttl = true;
        }
    }
}

impl ResponseForm {
    fn of(request: &ParsedRequest) -> ResponseForm {
        ResponseForm { dialect: request.dialect, streams: request.streams, wants_usage: request.wants_usage }
    }
}

fn not_cached() -> Error {
    Error::new(Kind::NotCached, "the answer is not in the cache")
}

/// Whether the upstream failed in a way that may be temporary.
fn is_failure(made: &Result<AnswerResponse>) -> bool {
    match made {
        Ok(response) => {
            response.status >= 500
                || response.status == 429
                || response.reason.is_some_and(Reason::is_no_answer)
        }
        Err(error) => {
            matches!(error.kind(), Kind::Upstream | Kind::Timeout | Kind::Overloaded | Kind::Internal)
        }
    }
}

fn check_size(bytes: usize, policy: &Policy) -> Result<()> {
    if bytes <= policy.value_bytes_max {
        return Ok(());
    }
    let max = policy.value_bytes_max;
    Err(Error::new(Kind::TooLarge, format!("the answer has {bytes} bytes, at most {max} are allowed")))
}
