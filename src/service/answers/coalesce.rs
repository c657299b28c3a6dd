//! Coalesces requests: joins the generation of an answer, or leads it.

use std::sync::Arc;

use bytes::Bytes;
use tracing::Instrument as _;

use super::broadcast::GenerationState;
use super::flow::Flow;
use super::generate::Generator;
use super::inflight::{GenerationRequest, Waiter};
use super::reason::Reason;
use super::request::ResolvedRequest;
use super::response::AnswerOutcome;
use crate::cache::Stamp;
use crate::dialects::HostedFeature;
use crate::domain::InvalidationId;
use crate::error::Result;
use crate::service::Directives;
use crate::upstream::UpstreamCall;

/// A header that a request has only where its dialect counts it in.
const CONTENT_TYPE: &str = "content-type";

impl Flow<'_> {
    /// Refreshes a stale answer in the background, unless it is in flight, too many refreshes run, or the last one just failed.
    pub(super) fn refresh(&self) {
        self.refresh_then(|_| std::future::ready(()));
    }

    /// As [`Flow::refresh`]; calls `after` behind the refresh with whether it has failed. Returns whether there is a refresh.
    pub(super) fn refresh_then<F: Future<Output = ()> + Send>(
        &self,
        after: impl FnOnce(bool) -> F + Send + 'static,
    ) -> bool {
        let (answers, key) = (self.answers, self.resolved.identity.key);
        if self.request.directives.no_store
            || answers.refresh_backoff.is_active(&key, answers.lookup.freshness().now())
        {
            return false;
        }
        let Ok(place) = Arc::clone(&answers.refreshes).try_acquire_owned() else { return false };
        let generation_request = self.generation_request();
        let stamp = generation_request.stamp;
        let Some((waiter, generation)) = answers.inflight.lead(generation_request, self.is_current()) else {
            return false;
        };
        let Ok(generator) = self.generator(stamp, None) else { return false };
        // No client reads the events of a refresh; followers may.
        waiter.subscriber.skip_events();
        let answers = Arc::clone(answers);
        tokio::spawn(async move {
            let has_failed = generator.refresh_among_nodes(generation, waiter).await;
            if has_failed {
                answers.refresh_backoff.record_failure(key, answers.lookup.freshness().now());
            }
            drop(place);
            after(has_failed).await;
        });
        true
    }

    /// Joins the generation of the answer, leads it, or leads an unshared one; and the outcome if that succeeds.
    pub(super) fn join_or_lead(&self) -> Result<(Waiter, AnswerOutcome)> {
        let (answers, directives) = (self.answers, &self.request.directives);
        let parsed = &self.request.parsed;
        let offers_tools = parsed.has_tools && !self.resolved.kinds.tool_calls;
        // A client may cancel its response, or read it again from the upstream.
        let is_background = parsed.hosted.contains(HostedFeature::Background);
        if directives.no_cache || directives.no_store || offers_tools || is_background {
            let outcome =
                if directives.no_cache { AnswerOutcome::ForcedRefresh } else { AnswerOutcome::Miss };
            return Ok((self.lead_unshared(not_stored(directives))?, outcome));
        }
        let generation_request = self.generation_request();
        let stamp = generation_request.stamp;
        match answers.inflight.join(generation_request, self.is_current()) {
            Some((waiter, None)) => Ok((waiter, AnswerOutcome::Coalesced)),
            None => Ok((self.lead_unshared(None)?, AnswerOutcome::Miss)),
            Some((waiter, Some(generation))) => {
                let generator = self.generator(stamp, None)?;
                let (form, directives) = (self.form, directives.clone());
                let may_have_completed =
                    answers.inflight.completed(&self.resolved.identity.key) != self.resolved.completed;
                let generating = async move {
                    if may_have_completed && generator.has_completed(form, &directives).await {
                        generation.end(GenerationState::AlreadyStored);
                    } else {
                        generator.run_among_nodes(generation, form, &directives).await;
                    }
                };
                tokio::spawn(generating.in_current_span());
                Ok((waiter, AnswerOutcome::Miss))
            }
        }
    }

    /// Generates the answer for this request alone. `not_stored` is the reason if it must not be stored.
    pub(super) fn lead_unshared(&self, not_stored: Option<Reason>) -> Result<Waiter> {
        let generation_request = self.generation_request();
        let generator = self.generator(generation_request.stamp, not_stored)?;
        let (waiter, generation) = self.answers.inflight.lead_unshared(generation_request);
        tokio::spawn(generator.run(generation, None).in_current_span());
        Ok(waiter)
    }

    fn generator(&self, stamp: Stamp, not_stored: Option<Reason>) -> Result<Generator> {
        let (request, resolved) = (self.request, &self.resolved);
        let parsed = &request.parsed;
        let body = parsed.dialect.upstream_body(parsed, &request.body, self.answers.request_usage)?;
        let path = parsed.dialect.upstream_path();
        let own = request.headers.iter().map(|(name, value)| (name.clone(), Bytes::from(value.clone())));
        let has_type = request.headers.iter().any(|(name, _)| name == CONTENT_TYPE);
        let json = (!has_type).then(|| (CONTENT_TYPE.to_owned(), Bytes::from_static(b"application/json")));
        let call = UpstreamCall {
            method: "POST".into(),
            path: match &request.query {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            },
            model: parsed.named_model().map(str::to_owned),
            headers: own.chain(request.traces.iter().cloned()).chain(json).collect(),
            key_header: parsed.dialect.key_header(),
            credential: request.credential.clone(),
            body,
            needs_clients_key: false,
            // A tool runs, and a conversation grows, with each request that arrives.
            may_repeat: parsed.hosted.is_empty(),
            may_wait: resolved.caller.may_wait,
        };
        // A question that is never stored need not be held until its answer is whole.
        let question_bytes = resolved.question.as_ref().map_or(0, |question| question.len());
        let is_too_long = question_bytes > resolved.namespace.policy.value_bytes_max;
        Ok(Generator {
            answers: Arc::clone(self.answers),
            resolved: if is_too_long {
                ResolvedRequest { question: None, ..resolved.clone() }
            } else {
                resolved.clone()
            },
            stamp,
            lease: None,
            call: Some(call),
            pending: self.pending.clone(),
            dialect: parsed.dialect,
            streams: parsed.streams,
            not_stored: not_stored.or(is_too_long.then_some(Reason::TooLarge)),
        })
    }

    fn generation_request(&self) -> GenerationRequest {
        GenerationRequest {
            key: self.resolved.identity.key,
            tenant: self.resolved.namespace.id.tenant(),
            stamp: self.answers.stamp(),
            applied_event: self.answers.lookup.cache().applied_event(&self.resolved.identity.key),
            store_policy: self.resolved.store_policy.clone(),
            caller: self.resolved.caller.clone(),
        }
    }

    /// Whether an answer that was begun at a stamp, and has these tags, is still valid.
    fn is_current(&self) -> impl Fn(Stamp, &[InvalidationId]) -> bool {
        let (current, namespace) = (self.answers.lookup.freshness().tokens(), self.resolved.namespace.id);
        move |stamp, tags| current.admit(stamp, namespace, tags).is_some()
    }
}

/// Why the answer to a request with these directives must not be stored.
pub(super) fn not_stored(directives: &Directives) -> Option<Reason> {
    directives.no_store.then_some(Reason::NoStore)
}
