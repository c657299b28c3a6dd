//! One request on its way through the use case, and the responses that need no upstream.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::Answers;
use super::lookup::Match;
use super::misses::PendingRequest;
use super::replay::{record_for, record_of_dialect, replayed};
use super::request::{AnswerRequest, ResolvedRequest, ResponseForm};
use super::response::{AnswerOutcome, AnswerResponse, Body, MatchKind};
use super::semantic::{REQUEST, SemanticLookup, SemanticOutcome, SemanticReport, SemanticRequest};
use super::stored_answer::StoredAnswer;
use crate::error::Result;
use crate::request_identity::MemberDifference;
use crate::upstream::Headers;

/// A request with everything that its steps need.
pub(super) struct Flow<'a> {
    pub(super) answers: &'a Arc<Answers>,
    pub(super) request: &'a AnswerRequest,
    pub(super) resolved: ResolvedRequest,
    pub(super) form: ResponseForm,
    pub(super) started: Instant,
    /// What became of the search for a question in other words.
    pub(super) semantic: Option<SemanticReport>,
    /// The request as it is remembered, for a comparison with others that miss. `None` if it is not.
    pub(super) pending: Option<Arc<PendingRequest>>,
    /// The members in which it differs from a stored one, once it was compared.
    pub(super) differences: OnceLock<Vec<MemberDifference>>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(
        answers: &'a Arc<Answers>,
        request: &'a AnswerRequest,
        resolved: ResolvedRequest,
        form: ResponseForm,
        started: Instant,
    ) -> Flow<'a> {
        let is_remembered = answers.misses.is_some()
            && !request.directives.no_store
            && request.directives.cache_key.is_none();
        let pending = is_remembered.then(Arc::default);
        Flow {
            answers,
            request,
            resolved,
            form,
            started,
            semantic: None,
            pending,
            differences: OnceLock::new(),
        }
    }

    /// Compares a request that missed with the nearest stored one, unless its identity is a key of its client's own.
    pub(super) fn compare_miss(&self) {
        let is_of_own_key = self.request.directives.cache_key.is_some();
        let Some(misses) = self.answers.misses.as_ref().filter(|_| !is_of_own_key) else { return };
        let (namespace, freshness) = (&self.resolved.namespace.name, self.answers.lookup.freshness());
        self.differences
            .get_or_init(|| misses.compare(self.request, namespace, self.pending.as_deref(), freshness));
    }

    /// Remembers a request that demands a new answer, for a comparison with later ones.
    pub(super) fn remember(&self) {
        if let (Some(misses), Some(pending)) = (&self.answers.misses, &self.pending) {
            misses.remember(self.request, &self.resolved.namespace.name, pending);
        }
    }

    /// A hit in the requested form. `None` if the answer cannot be replayed in that form.
    pub(super) fn hit(&self, found: &Match) -> Option<AnswerResponse> {
        let record = record_for(found, self.form)?;
        let body = self.replayed(record.answer, record.ends_with_done)?;
        let hit = self.answers.lookup.hit_info(found);
        if hit.match_kind == MatchKind::Normalized {
            self.answers.metrics.normalized_hits.inc();
        }
        let saved = record.usage.map(|usage| self.answers.costs.saved(&self.resolved.model, usage));
        Some(AnswerResponse {
            id: Some(found.key),
            saved,
            semantic: self.semantic,
            lookup: self.started.elapsed(),
            ..AnswerResponse::new(200, Headers::new(), body, AnswerOutcome::Hit(hit))
        })
    }

    /// A hit on the answer to a question in other words, if the request asks for such answers. That to the question itself has `expired`.
    pub(super) async fn semantic_hit(&mut self, expired: Option<&Match>) -> Option<AnswerResponse> {
        if self.answers.semantic.is_none() {
            self.semantic = SemanticReport::without_model(&self.request.directives);
            return None;
        }
        let semantic = self.wanted_semantic()?;
        let (found, report) = match self.note_semantic() {
            Some(report) => (None, Some(report)),
            None => self.find_semantic_match(semantic).await,
        };
        self.semantic = report;
        let response = found.as_ref().and_then(|found| self.hit(found));
        if let (Some(found), Some(_)) = (&found, &response) {
            self.reask(found, expired);
        }
        if let Some(report) = &mut self.semantic {
            if report.outcome == SemanticOutcome::Hit && response.is_none() {
                // It cannot be replayed in the requested form.
                *report = SemanticReport::of(SemanticOutcome::None);
            }
            self.answers.metrics.semantic.with(report.outcome).inc();
        }
        response
    }

    fn wanted_semantic(&self) -> Option<&'a SemanticLookup> {
        let semantic = self.answers.semantic.as_ref()?;
        semantic.is_wanted(&self.request.directives, &self.resolved.namespace.name).then_some(semantic)
    }

    /// A request was answered in the same words: with another API key than that of the stored question, it confirms it.
    pub(super) fn confirm(&mut self, found: &Match) {
        if !self.answers.options.share_across_keys || self.request.directives.no_store {
            return;
        }
        let (Some(semantic), Some(text)) = (self.wanted_semantic(), &self.resolved.question) else { return };
        let stored = StoredAnswer::decode(&found.found.entry.value);
        let asked = self.semantic_request(text);
        if !stored.is_some_and(|stored| semantic.is_confirmed_by(&asked, &found.key, &stored)) {
            return;
        }
        let Some(place) = semantic.begin_background() else { return };
        self.note_semantic();
        if let Some(question) = self.resolved.semantic.clone() {
            let (answers, key) = (Arc::clone(self.answers), found.key);
            tokio::spawn(async move {
                if let Some(semantic) = &answers.semantic {
                    semantic.confirm(key, question).await;
                }
                drop(place);
            });
        }
    }

    fn semantic_request<'b>(&'b self, text: &'b str) -> SemanticRequest<'b> {
        SemanticRequest {
            principal: &self.request.principal,
            credential: self.request.credential.as_ref(),
            scope: &self.resolved.identity.scope,
            text,
        }
    }

    /// Notes that the answer may be served to questions in other words, if the request asks for that, or returns why it may not.
    pub(super) fn note_semantic(&mut self) -> Option<SemanticReport> {
        let (semantic, request) = (self.wanted_semantic()?, self.request);
        let of_request = SemanticReport::because(SemanticOutcome::ExactOnly, REQUEST);
        let Some(text) = &self.resolved.question else { return Some(of_request) };
        match semantic.question(&self.semantic_request(text)) {
            Err(report) => Some(report),
            // Last, because the body is read once more for it.
            Ok(_) if !request.parsed.dialect.is_rewordable(&request.body) => Some(of_request),
            Ok(question) => {
                self.resolved.semantic = Some(question);
                None
            }
        }
    }

    /// Embeds the noted question, and looks for stored ones in other words unless the request demands a call of the upstream.
    async fn find_semantic_match(
        &mut self,
        semantic: &SemanticLookup,
    ) -> (Option<Match>, Option<SemanticReport>) {
        let (answers, request, form) = (self.answers, self.request, self.form);
        let directives = &request.directives;
        let Some(question) = self.resolved.semantic.as_mut() else { return (None, None) };
        if directives.no_cache && directives.no_store {
            return (None, None);
        }
        let embedded = semantic.embed_question(question, directives.no_store).await;
        if let Err(report) = embedded {
            return (None, Some(report));
        }
        let Some(question) = self.resolved.semantic.as_ref().filter(|_| !directives.no_cache) else {
            return (None, None);
        };
        let fits = |found: &Match| record_for(found, form).is_some();
        let (found, report) =
            semantic.find(&answers.lookup, &self.resolved, directives, question, fits).await;
        (found, Some(report))
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
        let record = record_of_dialect(&found, self.form)?;
        let body = self.replayed(record.answer, record.ends_with_done)?;
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
    pub(super) fn replayed(&self, json: &[u8], ends_with_done: bool) -> Option<Body> {
        replayed(json, ends_with_done, self.form, self.answers.lookup.freshness().now())
    }
}
