//! Waits for a generation, and turns its result into the requested form.

use std::sync::Arc;

use super::broadcast::{FullReply, GenerationState, Streamed, Subscriber, leader_died};
use super::flow::Flow;
use super::inflight::Waiter;
use super::response::{AnswerOutcome, AnswerResponse, Body, Saved};
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
    pub(super) async fn await_result(&self, waiter: Waiter, outcome: AnswerOutcome) -> Awaited {
        let Waiter { leader, mut subscriber } = waiter;
        let mut state = subscriber.begun().await;
        if matches!(state, GenerationState::Streaming(_)) && !self.form.streams {
            // A client that requested JSON needs the complete answer.
            subscriber.skip_events();
            state = subscriber.ended().await;
        }
        let caller = &self.resolved.caller;
        // Only callers with the leader's credential get the upstream's headers.
        let sees_headers = caller.credential == leader.credential;
        let shares_failure_of = |status| caller.shares_failure_of(&leader, status);
        let result = SharedResult { flow: self, outcome, sees_headers };
        let response = match state {
            GenerationState::Streaming(headers) => result.live(subscriber, &headers),
            // The events of a stream that has ended are still held for its subscribers.
            GenerationState::Streamed(headers, streamed, reason) if self.form.streams => {
                let price = |usage| self.answers.costs.price(&self.resolved.model, usage);
                let saved: Option<Saved> = streamed.usage().filter(|_| result.is_follower()).map(price);
                AnswerResponse { saved, reason, ..result.live(subscriber, &headers) }
            }
            GenerationState::Streamed(headers, Streamed::Answer(answer), reason) => {
                match self.replayed(&answer.json, answer.ends_with_done) {
                    Some(body) => {
                        AnswerResponse { reason, ..result.complete(200, &headers, body, answer.usage) }
                    }
                    None => return Awaited::Retry(RetryReason::NotShareable),
                }
            }
            GenerationState::Full(reply) => result.full(&reply),
            GenerationState::PassedThrough(reply) if shares_failure_of(Some(reply.status)) => {
                let body = Body::Whole(reply.body.clone());
                let response = result.complete(reply.status, &reply.headers, body, None);
                AnswerResponse { reason: reply.not_stored, ..response }
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
}

/// The result of a generation, as one of its waiters gets it.
struct SharedResult<'a> {
    flow: &'a Flow<'a>,
    outcome: AnswerOutcome,
    sees_headers: bool,
}

impl SharedResult<'_> {
    fn is_follower(&self) -> bool {
        self.outcome == AnswerOutcome::Coalesced
    }

    fn headers(&self, headers: &Headers) -> Headers {
        if self.sees_headers { headers.clone() } else { Headers::new() }
    }

    /// The events as they arrive.
    fn live(&self, subscriber: Subscriber, headers: &Headers) -> AnswerResponse {
        let form = self.flow.form;
        let events = subscriber.into_events(form.dialect, form.wants_usage, self.meter());
        AnswerResponse::new(200, self.headers(headers), Body::Live(events), self.outcome.clone())
    }

    /// A complete body. A follower was saved the cost of its answer.
    fn complete(
        &self,
        status: u16,
        headers: &Headers,
        body: Body,
        usage: Option<TokenUsage>,
    ) -> AnswerResponse {
        let saved = |usage| self.flow.answers.costs.saved(&self.flow.resolved.model, usage);
        let saved = usage.filter(|_| self.is_follower()).map(saved);
        AnswerResponse {
            saved,
            ..AnswerResponse::new(status, self.headers(headers), body, self.outcome.clone())
        }
    }

    /// A complete reply, in the requested form. An answer that cannot be replayed as events is returned as it arrived.
    fn full(&self, reply: &FullReply) -> AnswerResponse {
        let answer = reply.answer.as_ref();
        let events = answer.filter(|_| self.flow.form.streams);
        let events = events.and_then(|answer| self.flow.replayed(&answer.json, answer.ends_with_done));
        let body = events.unwrap_or_else(|| Body::Whole(reply.body.clone()));
        let usage = answer.and_then(|answer| answer.usage);
        let response = self.complete(reply.status, &reply.headers, body, usage);
        AnswerResponse { reason: reply.not_stored, ..response }
    }

    /// Records the tokens that a follower was saved, once it has read the whole stream.
    fn meter(&self) -> Option<Box<dyn FnOnce(TokenUsage) + Send + Sync>> {
        let (answers, model) = (Arc::clone(self.flow.answers), Arc::clone(&self.flow.resolved.model));
        self.is_follower().then(|| Box::new(move |usage| _ = answers.costs.saved(&model, usage)) as Box<_>)
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
