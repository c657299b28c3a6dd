//! Coalesces requests: joins the generation of an answer or leads it, and turns its result into the requested form.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::broadcast::{GenerationState, Streamed, leader_died};
use super::generate::Generator;
use super::inflight::{GenerationRequest, Waiter};
use super::lookup::record_for;
use super::response::{AnswerResponse, Body, Outcome, Saved};
use super::{AnswerRequest, Answers, Reason, ResolvedRequest, ResponseForm};
use crate::cache::Stamp;
use crate::domain::{Subject, TokenUsage};
use crate::error::{Error, Kind, Result};
use crate::service::Directives;
use crate::upstream::{Call, Headers};

/// How many leaders a request waits for that died or left it no response.
pub(super) const LEADERS_MAX: usize = 3;

/// Why a waiter got no response of a generation.
pub(super) enum RetryReason {
    /// Its leader's task ended without a result.
    LeaderDied,
    /// The answer is in the cache.
    AlreadyStored,
    /// Its result is for callers that asked in another way.
    NotShareable,
}

impl Answers {
    /// Refreshes a stale answer in the background, unless it is in flight, too many refreshes run, or the last one just failed.
    pub(super) fn refresh(self: &Arc<Self>, request: &AnswerRequest, resolved: &ResolvedRequest) {
        let key = resolved.identity.key;
        if request.directives.no_store || self.refresh_backoff.is_active(&key, self.cache.freshness().now()) {
            return;
        }
        let Ok(place) = Arc::clone(&self.refreshes).try_acquire_owned() else { return };
        let generation_request = self.generation_request(resolved);
        let stamp = generation_request.stamp;
        let Some((waiter, generation)) = self.inflight.lead(generation_request, self.is_current(resolved))
        else {
            return;
        };
        let Ok(generator) = self.generator(request, resolved, stamp, None) else { return };
        // No client reads the events of a refresh; followers may.
        waiter.subscriber.skip_events();
        let answers = Arc::clone(self);
        tokio::spawn(async move {
            if !generator.run(generation, Some(waiter)).await {
                answers.refresh_backoff.record_failure(key, answers.cache.freshness().now());
            }
            drop(place);
        });
    }

    /// Joins the generation of the answer or leads one. A request whose result cannot be shared sends a call of its own.
    pub(super) async fn generate_or_join(
        self: &Arc<Self>,
        request: &AnswerRequest,
        resolved: &ResolvedRequest,
        form: ResponseForm,
        started: Instant,
    ) -> Result<AnswerResponse> {
        let mut retry_reason = RetryReason::LeaderDied;
        for _ in 0..LEADERS_MAX {
            let (waiter, outcome) = self.join_or_lead(request, resolved)?;
            retry_reason = match self.await_result(waiter, form, resolved, outcome, started).await? {
                Ok(response) => return Ok(Self::named(resolved, &request.directives, response)),
                Err(retry_reason) => retry_reason,
            };
            if matches!(retry_reason, RetryReason::AlreadyStored)
                && let Some(response) =
                    self.completed_meanwhile(resolved, form, &request.directives, started).await
            {
                return Ok(response);
            }
        }
        match retry_reason {
            RetryReason::LeaderDied => Err(leader_died()),
            RetryReason::AlreadyStored | RetryReason::NotShareable => {
                // The shared results do not fit this request.
                let waiter = self.lead_unshared(request, resolved, not_stored(&request.directives))?;
                let response = self.await_result(waiter, form, resolved, Outcome::Miss, started).await??;
                Ok(Self::named(resolved, &request.directives, response))
            }
        }
    }

    /// Joins the generation of the answer, leads it, or leads an unshared one; and the outcome if that succeeds.
    fn join_or_lead(
        self: &Arc<Self>,
        request: &AnswerRequest,
        resolved: &ResolvedRequest,
    ) -> Result<(Waiter, Outcome)> {
        let directives = &request.directives;
        let offers_tools = request.parsed.has_tools && !self.options.cache_tool_calls;
        if directives.no_cache || directives.no_store || offers_tools {
            let outcome = if directives.no_cache { Outcome::ForcedRefresh } else { Outcome::Miss };
            return Ok((self.lead_unshared(request, resolved, not_stored(directives))?, outcome));
        }
        let generation_request = self.generation_request(resolved);
        let stamp = generation_request.stamp;
        match self.inflight.join(generation_request, self.is_current(resolved)) {
            Some((waiter, None)) => Ok((waiter, Outcome::Coalesced)),
            None => Ok((self.lead_unshared(request, resolved, None)?, Outcome::Miss)),
            Some((waiter, Some(generation))) => {
                let generator = self.generator(request, resolved, stamp, None)?;
                let (form, directives) = (ResponseForm::of(&request.parsed), directives.clone());
                let may_have_completed =
                    self.inflight.completed(&resolved.identity.key) != resolved.completed;
                tokio::spawn(async move {
                    if may_have_completed
                        && generator.answers.has_completed(&generator.resolved, form, &directives).await
                    {
                        generation.end(GenerationState::AlreadyStored);
                    } else {
                        generator.run(generation, None).await;
                    }
                });
                Ok((waiter, Outcome::Miss))
            }
        }
    }

    /// The response with the id under which its answer is stored, if it is stored.
    fn named(
        resolved: &ResolvedRequest,
        directives: &Directives,
        response: AnswerResponse,
    ) -> AnswerResponse {
        let may_keep =
            !directives.no_store && response.reason.is_none() && (200..300).contains(&response.status);
        AnswerResponse { id: may_keep.then_some(resolved.identity.key), ..response }
    }

    fn generation_request(&self, resolved: &ResolvedRequest) -> GenerationRequest {
        GenerationRequest {
            key: resolved.identity.key,
            stamp: self.stamp(),
            store_policy: resolved.store_policy.clone(),
            caller: resolved.caller.clone(),
        }
    }

    /// Whether an answer that was begun at a stamp, and has these tags, is still valid.
    fn is_current(&self, resolved: &ResolvedRequest) -> impl Fn(Stamp, &[Subject]) -> bool {
        let (versions, namespace) = (self.cache.freshness().versions(), resolved.namespace.subject);
        move |stamp, tags| versions.admit(stamp, namespace, tags).is_some()
    }

    /// A hit on an answer that was stored since the lookup.
    async fn completed_meanwhile(
        &self,
        resolved: &ResolvedRequest,
        form: ResponseForm,
        directives: &Directives,
        started: Instant,
    ) -> Option<AnswerResponse> {
        let found = self.look(&resolved.namespace, &resolved.identity.key).await?;
        if self.is_new(&found, resolved, directives) {
            self.hit(&found, resolved, form, started)
        } else {
            None
        }
    }

    async fn has_completed(
        &self,
        resolved: &ResolvedRequest,
        form: ResponseForm,
        directives: &Directives,
    ) -> bool {
        let found = self.look(&resolved.namespace, &resolved.identity.key).await;
        found.is_some_and(|found| {
            self.is_new(&found, resolved, directives) && record_for(&found, form).is_some()
        })
    }

    /// Generates the answer for this request alone. `not_stored` is the reason if it must not be stored.
    pub(super) fn lead_unshared(
        self: &Arc<Self>,
        request: &AnswerRequest,
        resolved: &ResolvedRequest,
        not_stored: Option<Reason>,
    ) -> Result<Waiter> {
        let generation_request = self.generation_request(resolved);
        let generator = self.generator(request, resolved, generation_request.stamp, not_stored)?;
        let (waiter, generation) = self.inflight.lead_unshared(generation_request);
        tokio::spawn(generator.run(generation, None));
        Ok(waiter)
    }

    fn generator(
        self: &Arc<Self>,
        request: &AnswerRequest,
        resolved: &ResolvedRequest,
        stamp: Stamp,
        not_stored: Option<Reason>,
    ) -> Result<Generator> {
        let parsed = &request.parsed;
        let body = parsed.dialect.upstream_body(parsed, &request.body, self.request_usage)?;
        let path = parsed.dialect.upstream_path();
        let own = request.headers.iter().map(|(name, value)| (name.clone(), Bytes::from(value.clone())));
        let json = |name: &str| (name.to_owned(), Bytes::from_static(b"application/json"));
        let call = Call {
            method: "POST".into(),
            path: match &request.query {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            },
            model: Some(parsed.model.to_string()),
            headers: own.chain(request.traces.iter().cloned()).chain([json("content-type")]).collect(),
            credential: request.credential.clone(),
            body,
            needs_clients_key: false,
            may_repeat: true,
            may_wait: resolved.caller.may_wait,
        };
        // A question that is never stored need not be held until its answer is whole.
        let question_bytes = resolved.question.as_ref().map_or(0, |question| question.len());
        let is_too_long = question_bytes > resolved.namespace.policy.value_bytes_max;
        Ok(Generator {
            answers: Arc::clone(self),
            resolved: if is_too_long {
                ResolvedRequest { question: None, ..resolved.clone() }
            } else {
                resolved.clone()
            },
            stamp,
            call: Some(call),
            dialect: parsed.dialect,
            streams: parsed.streams,
            not_stored: not_stored.or(is_too_long.then_some(Reason::TooLarge)),
        })
    }

    /// Waits for the result of a generation and returns it in the requested form.
    ///
    /// # Errors
    /// The error of the generation.
    pub(super) async fn await_result(
        self: &Arc<Self>,
        waiter: Waiter,
        form: ResponseForm,
        resolved: &ResolvedRequest,
        outcome: Outcome,
        started: Instant,
    ) -> Result<Result<AnswerResponse, RetryReason>> {
        let Waiter { leader, mut subscriber } = waiter;
        let mut state = subscriber.begun().await;
        if matches!(state, GenerationState::Streaming(_)) && !form.streams {
            // A client that requested JSON needs the complete answer.
            subscriber.skip_events();
            state = subscriber.ended().await;
        }
        let shares_failure_of = |status| resolved.caller.shares_failure_of(&leader, status);
        // Only callers with the leader's credential get the upstream's headers.
        let is_known = resolved.caller.credential == leader.credential;
        let headers = |headers: &Headers| if is_known { headers.clone() } else { Headers::new() };
        // A follower was saved the cost of the answer.
        let joined = outcome == Outcome::Coalesced;
        let saved = |usage: Option<TokenUsage>| {
            usage.filter(|_| joined).map(|usage| self.saved(&resolved.model, usage))
        };
        let response = match state {
            GenerationState::Streaming(upstream) => {
                let live =
                    subscriber.into_events(form.dialect, form.wants_usage, self.meter(resolved, joined));
                AnswerResponse::new(200, headers(&upstream), Body::Live(live), outcome)
            }
            // The events of a stream that has ended are still held for its subscribers.
            GenerationState::Streamed(upstream, streamed, reason) if form.streams => {
                let price = |usage| self.price(&resolved.model, usage);
                let saved: Option<Saved> = streamed.usage().filter(|_| joined).map(price);
                let live =
                    subscriber.into_events(form.dialect, form.wants_usage, self.meter(resolved, joined));
                AnswerResponse {
                    saved,
                    reason,
                    ..AnswerResponse::new(200, headers(&upstream), Body::Live(live), outcome)
                }
            }
            GenerationState::Streamed(upstream, Streamed::Answer(answer), reason) => {
                let Some(body) = self.replayed(&answer.json, form) else {
                    return Ok(Err(RetryReason::NotShareable));
                };
                let saved = saved(answer.usage);
                AnswerResponse {
                    saved,
                    reason,
                    ..AnswerResponse::new(200, headers(&upstream), body, outcome)
                }
            }
            GenerationState::Full(whole) => {
                let answer = whole.answer.as_ref();
                // An answer that cannot be replayed as events is returned as it arrived.
                let events =
                    answer.filter(|_| form.streams).and_then(|answer| self.replayed(&answer.json, form));
                let body = events.unwrap_or_else(|| Body::Whole(whole.body.clone()));
                let saved = saved(answer.and_then(|answer| answer.usage));
                let reason = whole.not_stored;
                AnswerResponse {
                    saved,
                    reason,
                    ..AnswerResponse::new(whole.status, headers(&whole.headers), body, outcome)
                }
            }
            GenerationState::PassedThrough(whole) if shares_failure_of(Some(whole.status)) => {
                let reason = whole.not_stored;
                let body = Body::Whole(whole.body.clone());
                AnswerResponse {
                    reason,
                    ..AnswerResponse::new(whole.status, headers(&whole.headers), body, outcome)
                }
            }
            GenerationState::Failed(error) if shares_failure_of(None) => return Err(error),
            GenerationState::Streamed(_, Streamed::Faulty(error), _) => return Err(error),
            GenerationState::PassedThrough(_)
            | GenerationState::Failed(_)
            | GenerationState::Streamed(_, Streamed::Uncertain(_), _) => {
                return Ok(Err(RetryReason::NotShareable));
            }
            GenerationState::AlreadyStored => return Ok(Err(RetryReason::AlreadyStored)),
            GenerationState::Pending | GenerationState::LeaderDied => {
                return Ok(Err(RetryReason::LeaderDied));
            }
        };
        Ok(Ok(AnswerResponse { upstream: Some(started.elapsed()), ..response }))
    }

    /// Records the tokens that a follower was saved, once it has read the whole stream.
    fn meter(
        self: &Arc<Self>,
        resolved: &ResolvedRequest,
        joined: bool,
    ) -> Option<Box<dyn FnOnce(TokenUsage) + Send + Sync>> {
        let (answers, model) = (Arc::clone(self), Arc::clone(&resolved.model));
        joined.then(|| Box::new(move |usage| _ = answers.saved(&model, usage)) as Box<_>)
    }
}

/// Why the answer to a request with these directives must not be stored.
fn not_stored(directives: &Directives) -> Option<Reason> {
    directives.no_store.then_some(Reason::NoStore)
}

impl From<RetryReason> for Error {
    fn from(retry_reason: RetryReason) -> Error {
        match retry_reason {
            RetryReason::LeaderDied | RetryReason::AlreadyStored => leader_died(),
            RetryReason::NotShareable => {
                let message = "the upstream's stream cannot be assembled into a complete answer; \
                    request it with `stream: true`";
                Error::new(Kind::Upstream, message)
            }
        }
    }
}
