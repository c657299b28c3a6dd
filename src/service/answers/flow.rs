//! One request on its way through the use case, and the responses that need no upstream.

use std::sync::Arc;

use tokio::time::Instant;

use super::Answers;
use super::lookup::Match;
use super::replay::{record_for, record_of_dialect, replayed};
use super::request::{AnswerRequest, ResolvedRequest, ResponseForm};
use super::response::{AnswerOutcome, AnswerResponse, Body, MatchKind};
use crate::error::Result;
use crate::upstream::Headers;

/// A request with everything that its steps need.
pub(super) struct Flow<'a> {
    pub(super) answers: &'a Arc<Answers>,
    pub(super) request: &'a AnswerRequest,
    pub(super) resolved: ResolvedRequest,
    pub(super) form: ResponseForm,
    pub(super) started: Instant,
}

impl Flow<'_> {
    /// A hit in the requested form. `None` if the answer cannot be replayed in that form.
    pub(super) fn hit(&self, found: &Match) -> Option<AnswerResponse> {
        let record = record_for(found, self.form)?;
        let body = self.replayed(record.answer)?;
        let hit = self.answers.lookup.hit_info(found);
        if hit.match_kind == MatchKind::Normalized {
            self.answers.metrics.normalized_hits.inc();
        }
        let saved = record.usage.map(|usage| self.answers.costs.saved(&self.resolved.model, usage));
        Some(AnswerResponse {
            id: Some(self.resolved.identity.key),
            saved,
            lookup: self.started.elapsed(),
            ..AnswerResponse::new(200, Headers::new(), body, AnswerOutcome::Hit(hit))
        })
    }

    /// Whether a found answer may be served and needs no refresh.
    pub(super) fn is_new(&self, found: &Match) -> bool {
        self.answers.lookup.is_new(found, &self.resolved, &self.request.directives)
    }

    /// Whether an expired answer may stand in for an upstream that fails.
    pub(super) fn may_stand_in(&self, found: &Match) -> bool {
        self.answers.lookup.may_stand_in(found, &self.resolved, &self.request.directives)
    }

    /// A hit on an answer that was stored since the lookup.
    pub(super) async fn completed_meanwhile(&self) -> Option<AnswerResponse> {
        let found = self.answers.lookup.find(&self.resolved).await?;
        if self.is_new(&found) { self.hit(&found) } else { None }
    }

    /// The stale answer in the place of a failure, if it was not removed meanwhile.
    pub(super) async fn stand_in(&self, failed: &Result<AnswerResponse>) -> Option<AnswerResponse> {
        let found = self.answers.lookup.find(&self.resolved).await?;
        if self.is_new(&found) {
            // Another request has stored a fresh answer meanwhile.
            return self.hit(&found);
        }
        let found = Some(found).filter(|found| self.may_stand_in(found))?;
        let body = self.replayed(record_of_dialect(&found, self.form)?.answer)?;
        let status = failed.as_ref().ok().map(|response| response.status);
        let outcome = AnswerOutcome::StaleIfError(self.answers.lookup.hit_info(&found), status);
        Some(AnswerResponse {
            id: Some(self.resolved.identity.key),
            ..AnswerResponse::new(200, Headers::new(), body, outcome)
        })
    }

    /// The response with the id under which its answer is stored, if it is stored.
    pub(super) fn named(&self, response: AnswerResponse) -> AnswerResponse {
        let is_stored = !self.request.directives.no_store
            && response.reason.is_none()
            && (200..300).contains(&response.status);
        AnswerResponse { id: is_stored.then_some(self.resolved.identity.key), ..response }
    }

    /// An answer as a new response in the requested form.
    pub(super) fn replayed(&self, json: &[u8]) -> Option<Body> {
        replayed(json, self.form, self.answers.lookup.freshness().now())
    }
}
