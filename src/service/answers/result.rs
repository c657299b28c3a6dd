//! Waits for a generation, and turns its result into the requested form.

use std::sync::Arc;

use super::broadcast::{GenerationState, Streamed, leader_died};
use super::flow::Flow;
use super::inflight::Waiter;
use super::response::{AnswerResponse, Body, Outcome, Saved};
use crate::domain::TokenUsage;
use crate::error::{Error, Kind, Result};
use crate::upstream::Headers;

/// What a waiter got of a generation.
pub(super) enum Awaited {
    /// A response.
    Response(AnswerResponse),
    /// None, for a reason that may be gone with another generation.
    Retry(RetryReason),
    /// The error of the generation.
    Failed(Error),
}

/// Why a waiter got no response of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryReason {
    /// Its leader's task ended without a result.
    LeaderDied,
    /// The answer is in the cache.
    AlreadyStored,
    /// Its result is for callers that asked in another way.
    NotShareable,
}

impl Awaited {
    /// The response of a generation that no other one follows.
    ///
    /// # Errors
    /// The error of the generation, or why it has no response for this request.
    pub(super) fn into_response(self) -> Result<AnswerResponse> {
        match self {
            Awaited::Response(response) => Ok(response),
            Awaited::Retry(retry_reason) => Err(retry_reason.into()),
            Awaited::Failed(error) => Err(error),
        }
    }
}

impl Flow<'_> {
    /// Waits for the result of a generation and returns it in the requested form.
    pub(super) async fn await_result(&self, waiter: Waiter, outcome: Outcome) -> Awaited {
        let (form, resolved) = (self.form, &self.resolved);
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
            usage.filter(|_| joined).map(|usage| self.answers.costs.saved(&resolved.model, usage))
        };
        let response = match state {
            GenerationState::Streaming(upstream) => {
                let live = subscriber.into_events(form.dialect, form.wants_usage, self.meter(joined));
                AnswerResponse::new(200, headers(&upstream), Body::Live(live), outcome)
            }
            // The events of a stream that has ended are still held for its subscribers.
            GenerationState::Streamed(upstream, streamed, reason) if form.streams => {
                let price = |usage| self.answers.costs.price(&resolved.model, usage);
                let saved: Option<Saved> = streamed.usage().filter(|_| joined).map(price);
                let live = subscriber.into_events(form.dialect, form.wants_usage, self.meter(joined));
                AnswerResponse {
                    saved,
                    reason,
                    ..AnswerResponse::new(200, headers(&upstream), Body::Live(live), outcome)
                }
            }
            GenerationState::Streamed(upstream, Streamed::Answer(answer), reason) => {
                let Some(body) = self.replayed(&answer.json) else {
                    return Awaited::Retry(RetryReason::NotShareable);
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
                let events = answer.filter(|_| form.streams).and_then(|answer| self.replayed(&answer.json));
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
            GenerationState::Failed(error) if shares_failure_of(None) => return Awaited::Failed(error),
            GenerationState::Streamed(_, Streamed::Faulty(error), _) => return Awaited::Failed(error),
            GenerationState::PassedThrough(_)
            | GenerationState::Failed(_)
            | GenerationState::Streamed(_, Streamed::Uncertain(_), _) => {
                return Awaited::Retry(RetryReason::NotShareable);
            }
            GenerationState::AlreadyStored => return Awaited::Retry(RetryReason::AlreadyStored),
            GenerationState::Pending | GenerationState::LeaderDied => {
                return Awaited::Retry(RetryReason::LeaderDied);
            }
        };
        Awaited::Response(AnswerResponse { upstream: Some(self.started.elapsed()), ..response })
    }

    /// Records the tokens that a follower was saved, once it has read the whole stream.
    fn meter(&self, joined: bool) -> Option<Box<dyn FnOnce(TokenUsage) + Send + Sync>> {
        let (answers, model) = (Arc::clone(self.answers), Arc::clone(&self.resolved.model));
        joined.then(|| Box::new(move |usage| _ = answers.costs.saved(&model, usage)) as Box<_>)
    }
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
