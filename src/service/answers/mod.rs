//! Answers of language models: a question that was asked before in the same scope is answered from the cache, in the same words or, where
//! the request asks for it, in other words.
//!
//! The flow of a request: identity → lookup in memory, then on disk → the search in other words → one generation per identity, which
//! calls the upstream and broadcasts the bytes of its reply to all waiters as they arrive → the answer, if it is complete and may be
//! stored, goes to memory, then to the waiters, then to disk. A reply that is no answer is passed on to all waiters as it is, and not stored.

mod broadcast;
mod cached_routes;
mod coalesce;
mod costs;
mod direct;
mod feedback;
mod flow;
mod generate;
mod inflight;
mod lookup;
mod metrics;
mod misses;
mod node_flight;
mod options;
mod reask;
mod reason;
mod recomputation;
mod refresh_backoff;
mod replay;
mod replay_buffer;
mod request;
mod resolve;
mod response;
mod result;
mod semantic;
mod state;
mod store;
mod stored_answer;
mod stored_kinds;
mod stream_progress;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::instrument;

pub(in crate::service) use self::stored_answer::CONTENT_TYPE as ANSWER_CONTENT_TYPE;
pub use broadcast::EventStream;
pub use cached_routes::{CachedRouteOptions, check_cached_routes};
pub use direct::{LookupHit, LookupResult, Question};
pub use feedback::{Feedback, FeedbackOn};
pub use metrics::AnswerMetrics;
pub use misses::SeparatedMisses;
pub use options::Options;
pub use reason::Reason;
pub use replay::REPLAYED_BYTES;
pub use request::AnswerRequest;
pub use response::{AnswerOutcome, AnswerResponse, Body, HitInfo, MatchKind, Saved};
pub use semantic::{
    AcrossKeys, ExplainedCandidate, ExplainedConflict, Explanation, ReaskedAgreement, ReportedWrong,
    SemanticLookup, SemanticOptions, SemanticOutcome, SemanticReport, Similarities, VerifierMode,
    lexicon_with,
};
pub use state::Answers;
pub use stored_answer::StoredAnswer;

use self::broadcast::leader_died;
use self::coalesce::not_stored;
use self::costs::Costs;
use self::flow::Flow;
use self::inflight::InflightTable;
use self::lookup::{Lookup, Match};
use self::misses::MissComparison;
use self::recomputation::Recomputation;
use self::refresh_backoff::RefreshBackoff;
use self::request::{ResolvedRequest, ResponseForm};
use self::result::{Awaited, RetryReason};
use self::semantic::SemanticQuestion;
use super::spans::record_outcome;
use crate::byte_budget::ByteBudget;
use crate::cache::{
    Cache, CounterId, KeyEvent, LookupCounters, Namespaces, PairJudgement, Propagation, Stamp,
};
use crate::dialects::{Dialect, of_path};
use crate::domain::{Key, LookupOutcome, Principal, TenantId};
use crate::error::{Error, Kind, Result};
use crate::request_identity::{IdentityRules, Normalization};
use crate::service::early_refresh::EarlyRefresh;
use crate::upstream::{self, Origin, Prices};

/// How many leaders a request waits for that died or left it no response.
const LEADERS_MAX: usize = 3;

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
        let inflight = InflightTable::new(Arc::clone(budget));
        let changed = Arc::clone(&inflight);
        cache.on_key_event(move |key, event| match event {
            KeyEvent::Changed(number) => changed.supersede(key, number),
            KeyEvent::LeaseEnded => {}
        });
        Answers {
            lookup: Lookup::new(cache),
            semantic: None,
            namespaces,
            origin,
            costs: Costs { prices: Prices::new(&upstream.prices), metrics: Arc::clone(&metrics) },
            inflight,
            budget: Arc::clone(budget),
            refreshes: Arc::new(Semaphore::new(options.concurrent_refreshes_max)),
            refresh_backoff: RefreshBackoff::default(),
            early_refresh: EarlyRefresh::new(options.early_refresh_beta),
            recomputation: Recomputation::default(),
            misses: MissComparison::new(options.remembered_requests_bytes_max, options.identity_rules()),
            options,
            answer_bytes_max: upstream.answer_bytes_max,
            request_usage: upstream.request_usage,
            forwards_client_keys: upstream.forwards_any_client_key(),
            metrics,
            models: LookupCounters::default(),
        }
    }

    /// The same use case, which also answers questions in other words.
    pub fn with_semantic_lookup(self, semantic: SemanticLookup) -> Answers {
        Answers { semantic: Some(semantic), ..self }
    }

    /// Bytes of memory for the vectors of stored questions.
    pub fn question_bytes(&self) -> usize {
        self.semantic.as_ref().map_or(0, SemanticLookup::bytes)
    }

    /// Pairs of questions of which a client has said that one is not answered by the answer of the other.
    pub fn wrong_pairs(&self) -> usize {
        self.semantic.as_ref().map_or(0, |semantic| semantic.feedback().wrong_pairs())
    }

    /// The wrong answers in other words that clients have reported. `None` if none are served.
    pub fn reported_wrong(&self) -> Option<ReportedWrong> {
        self.semantic.as_ref().and_then(SemanticLookup::reported_wrong)
    }

    /// The hits in other words whose question was sent to the upstream too. `None` if none are served.
    pub fn reasked(&self) -> Option<ReaskedAgreement> {
        self.semantic.as_ref().map(SemanticLookup::reasked)
    }

    /// Which requests are one. They are to be parsed by it.
    pub fn identity_rules(&self) -> IdentityRules {
        self.options.identity_rules()
    }

    /// Which spellings of a question are one.
    pub fn normalization(&self) -> Normalization {
        self.options.identity_rules().normalization
    }

    /// The members of a tenant's requests that separated most misses from a stored request.
    pub fn separated_misses(&self, tenant: &TenantId) -> Vec<SeparatedMisses> {
        self.misses.as_ref().map_or_else(Vec::new, |misses| misses.most_separating(tenant))
    }

    /// What the configuration says of the route of a dialect.
    pub fn route_defaults(&self, dialect: &dyn Dialect) -> CachedRouteOptions {
        let is_its = |route: &&CachedRouteOptions| {
            of_path(&route.path).is_some_and(|other| other.record_code() == dialect.record_code())
        };
        self.options.routes.iter().find(is_its).cloned().unwrap_or_default()
    }

    /// The routes that the configuration lists.
    pub fn cached_routes(&self) -> &[CachedRouteOptions] {
        &self.options.routes
    }

    /// Answered requests by the model that they name.
    pub fn lookups_by_model(&self) -> &LookupCounters {
        &self.models
    }

    /// Generations in flight.
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// Waits until every stored answer is on the disk: its stripe is held until then.
    pub async fn close(&self) {
        self.lookup.wait_for_locks().await;
    }

    /// Answers a request: from the cache, by joining a generation in flight, or by calling the upstream.
    ///
    /// # Errors
    /// `InvalidInput` for a TTL past its limit and too many tags; `ModelNotFound` if no upstream serves the model; `NotCached` with
    /// `only_if_cached`; `Loop` for a request that this server has sent; `Upstream`, `Timeout`, `Overloaded` for failures of the
    /// upstream. A reply with an error status is a response here, not an error.
    ///
    /// Cancel safety: dropping this future does not affect other waiters. A generation without waiters is aborted.
    #[instrument(level = "debug", skip_all, fields(model = %request.parsed.model, outcome), err(level = "debug"))]
    pub async fn ask(self: &Arc<Self>, request: AnswerRequest) -> Result<AnswerResponse> {
        let started = Instant::now();
        let resolved = self.resolve(&request)?;
        let in_namespace = self.namespaces.lookups_in(&resolved.namespace);
        let form = ResponseForm::of(&request.parsed, resolved.kinds);
        let flow = Flow::new(self, &request, resolved, form, started);
        let (response, missed) = match self.bypass(&request.parsed, form.kinds) {
            Some(reason) => (self.call_upstream(&flow, reason).await, LookupOutcome::Bypass),
            None => (self.look_up_or_generate(flow).await, LookupOutcome::Miss),
        };
        let outcome = response.as_ref().map_or(missed, |response| response.outcome.lookup());
        self.metrics.count(outcome);
        in_namespace.add(outcome, 1);
        // A model is any name until an answer came back: wrong names must not take the places of the table.
        if response.as_ref().is_ok_and(is_answer)
            && let Some(model) = request.parsed.named_model()
        {
            self.models.of(CounterId::of_model(&request.principal.tenant, model), model).add(outcome, 1);
        }
        record_outcome(outcome);
        response
    }

    /// Calls the upstream without a lookup and stores nothing.
    async fn call_upstream(&self, flow: &Flow<'_>, reason: Reason) -> Result<AnswerResponse> {
        if flow.request.directives.only_if_cached {
            return Err(not_cached());
        }
        let waiter = flow.lead_unshared(Some(reason))?;
        let response = flow.await_result(waiter, AnswerOutcome::Bypass).await.into_response()?;
        Ok(AnswerResponse { reason: Some(reason), ..response })
    }

    /// Looks up the answer, else generates it; an expired one stands in for an upstream that fails.
    async fn look_up_or_generate(&self, mut flow: Flow<'_>) -> Result<AnswerResponse> {
        let request = flow.request;
        let directives = &request.directives;
        flow.resolved.completed = self.inflight.completed(&flow.resolved.identity.key);
        let found = self.lookup.find(&flow.resolved).await;
        if let Some(found) =
            found.as_ref().filter(|found| self.lookup.accepts(found, &flow.resolved, directives))
            && let Some(response) = flow.hit(found)
        {
            flow.confirm(found);
            if (found.is_due() || self.is_due_early(found)) && !directives.only_if_cached {
                flow.resolved.inherit(Some(found), directives);
                // The answer that replaces this one is found in other words as this one is.
                flow.note_semantic();
                flow.refresh();
            }
            return Ok(response);
        }
        // Boxed, so that the future of a hit stays small.
        if let Some(response) = Box::pin(flow.semantic_hit(found.as_ref())).await {
            return Ok(response);
        }
        if directives.only_if_cached {
            return Err(not_cached());
        }
        let looked_up = flow.started.elapsed();
        let stands_in = found.as_ref().is_some_and(|found| flow.may_stand_in(found));
        // With a stale answer at hand there is no wait before a retry; another address may still be tried.
        flow.resolved.caller.may_wait = !stands_in;
        flow.resolved.inherit(found.as_ref(), directives);
        drop(found);
        // Boxed, so that the future of a hit stays small.
        let generated = Box::pin(self.join_or_generate(&flow)).await;
        let fails = stands_in && is_failure(&generated);
        let stand_in = if fails { flow.stand_in(&generated).await } else { None };
        let response = stand_in.map_or(generated, Ok)?;
        Ok(AnswerResponse {
            lookup: looked_up,
            upstream: Some(flow.started.elapsed() - looked_up),
            semantic: flow.semantic,
            differences: flow.differences.into_inner().unwrap_or_default(),
            ..response
        })
    }

    /// Whether a fresh answer is to be refreshed by chance, before it is stale.
    fn is_due_early(&self, found: &Match) -> bool {
        let (meta, now) = (&found.found.entry.meta, self.lookup.freshness().now());
        found.is_fresh() && self.early_refresh.is_due(meta.cost_us, meta.soft_expires.since(now))
    }

    /// Joins the generation of the answer or leads one. A request whose result cannot be shared sends a call of its own.
    async fn join_or_generate(&self, flow: &Flow<'_>) -> Result<AnswerResponse> {
        let mut last_reason = RetryReason::LeaderDied;
        for _ in 0..LEADERS_MAX {
            let (waiter, outcome) = flow.join_or_lead()?;
            // The task that calls the upstream goes first: what follows is done while that works.
            tokio::task::yield_now().await;
            match outcome {
                AnswerOutcome::Miss => flow.compare_miss(),
                AnswerOutcome::ForcedRefresh => flow.remember(),
                AnswerOutcome::Hit(_)
                | AnswerOutcome::Coalesced
                | AnswerOutcome::Bypass
                | AnswerOutcome::StaleIfError(..) => {}
            }
            last_reason = match flow.await_result(waiter, outcome).await {
                Awaited::Response(response) => return Ok(flow.named(response)),
                Awaited::Failed(error) => return Err(error),
                Awaited::Retry(reason) => reason,
            };
            if last_reason == RetryReason::AlreadyStored
                && let Some(response) = flow.completed_meanwhile().await
            {
                return Ok(response);
            }
        }
        match last_reason {
            RetryReason::LeaderDied => Err(leader_died()),
            RetryReason::AlreadyStored | RetryReason::NotShareable => {
                // The shared results do not fit this request.
                let waiter = flow.lead_unshared(not_stored(&flow.request.directives))?;
                let response = flow.await_result(waiter, AnswerOutcome::Miss).await.into_response()?;
                Ok(flow.named(response))
            }
        }
    }

    /// The answer to a question is stored: it may be served to questions in other words, if its request has asked for that. Called under the
    /// stripe of the key.
    fn add_question(self: &Arc<Self>, resolved: &ResolvedRequest) {
        if let (Some(semantic), Some(question)) = (&self.semantic, &resolved.semantic)
            && !semantic.add(resolved.identity.key, question)
        {
            let answers = Arc::clone(self);
            let (key, question) = (resolved.identity.key, question.clone());
            tokio::spawn(async move { answers.embed_and_add_question(key, question).await });
        }
    }

    /// Adds a question that had no vector when its answer was stored: the model was busy, or the answer replaces another.
    async fn embed_and_add_question(&self, key: Key, mut question: SemanticQuestion) {
        let Some(semantic) = &self.semantic else { return };
        if semantic.embed_question(&mut question, false).await.is_ok() {
            semantic.add(key, &question);
        }
    }

    /// The present point in the order of invalidations: an answer is stored only if none of its tags was invalidated since.
    pub fn stamp(&self) -> Stamp {
        self.lookup.freshness().tokens().stamp()
    }

    /// Looks up the answer to a question in words.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long question; `NotFound` for an unknown namespace.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn lookup(&self, question: &Question<'_>) -> Result<LookupResult> {
        direct::lookup(self, question).await
    }

    /// Explains which stored questions are near a question, and why the answer of each is served or not. Nothing is counted.
    ///
    /// # Errors
    /// As [`Answers::lookup`].
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn explain(&self, question: &Question<'_>) -> Result<Explanation> {
        direct::explain(self, question).await
    }

    /// Records what a client says of an answer that was served to a question in other words: of a wrong one the two questions never share
    /// an answer again. Returns what holds of the pair now.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long question, and for two that are the same; `NotFound` for an unknown answer;
    /// `Overloaded` if there is feedback on too many pairs; `Io`, `DiskFull`, `Unavailable` if the disk did not take it.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn give_feedback(&self, feedback: &Feedback<'_>) -> Result<PairJudgement> {
        feedback::record(self, feedback).await
    }

    /// Stores an answer of the application and returns its id.
    ///
    /// # Errors
    /// As [`Answers::lookup`]; `InvalidInput` for a TTL past its limit and too many tags; `TooLarge`; `Conflict` if a tag was
    /// invalidated since `stamp`; `Io`, `DiskFull`, `Unavailable` if the disk did not take it.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn store(self: &Arc<Self>, question: &Question<'_>, answer: &str, stamp: Stamp) -> Result<Key> {
        direct::store(self, question, answer, stamp).await
    }

    /// Removes an answer of the sender's tenant, also one that is in flight. That of another tenant is left as it is.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable` if the disk did not take it: then it is hidden until the next start only.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn delete(&self, principal: &Principal, id: Key) -> Result<Propagation> {
        direct::delete(self, principal, id).await
    }
}

fn not_cached() -> Error {
    Error::new(Kind::NotCached, "the answer is not in the cache")
}

/// Whether the response answers the question.
fn is_answer(response: &AnswerResponse) -> bool {
    (200..300).contains(&response.status) && !response.reason.is_some_and(Reason::is_no_answer)
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
