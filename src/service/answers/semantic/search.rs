//! Searches for stored questions in other words.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::acceptance::{Acceptance, ReportedWrong};
use super::operator_words::lexicon_with;
use super::options::{SemanticOptions, VerifierMode};
use super::question::{QuestionScopes, SemanticQuestion, SemanticRequest};
use super::question_index::{IndexLimits, NearQuestion, QuestionIndex, ScopeSnapshot};
use super::reasked::{ReaskedAgreement, Reasking};
use super::report::{SemanticOutcome, SemanticReport};
use super::verification::QuestionVerifier;
use crate::cache::{Namespaces, PairFeedback, QuestionPair};
use crate::domain::{Entry, InputType, Key, Principal, TenantId};
use crate::embed::Embedder;
use crate::error::{Error, Kind, Result};
use crate::matching::calibration::PairFeatures;
use crate::matching::guard::{Guard, QuestionFeatures};
use crate::service::Directives;
use crate::service::answers::lookup::{Lookup, Match};
use crate::service::answers::request::ResolvedRequest;
use crate::service::answers::stored_answer::StoredAnswer;
use crate::service::embeddings::{Embeddings, Request};

/// Candidates that the guard looks at.
pub(super) const CANDIDATES_MAX: usize = 4;
/// Candidates that the verifier reads.
pub(super) const VERIFIED_MAX: usize = 2;
/// Rows that are searched on the thread of a request: by their codes, some 0.2 ms; by their sketches, which takes as long as the codes do
/// at worst. More are searched on a thread that may block.
const ROWS_READ_AT_ONCE: usize = 8192;
const ROWS_SKETCHED_AT_ONCE: usize = 32_768;
/// Searches on threads that may block at the same time: each takes a core for some milliseconds.
const CONCURRENT_SCANS_MAX: usize = 4;
/// Confirmations and comparisons of answers at the same time, behind responses; others are left out.
const BACKGROUND_MAX: usize = 16;
/// Nearest questions that are read, since the answers of some may be gone.
const NEAREST: usize = 2 * CANDIDATES_MAX;

/// The search for questions in other words.
pub struct SemanticLookup {
    embeddings: Arc<Embeddings>,
    model: Arc<dyn Embedder>,
    pub(super) options: SemanticOptions,
    /// Those of the options by their own names.
    namespaces: Vec<Arc<str>>,
    /// None if the model has no threshold.
    pub(super) acceptance: Option<Acceptance>,
    pub(super) guard: Guard,
    pub(super) verifier: QuestionVerifier,
    pub(super) index: QuestionIndex,
    pub(super) feedback: Arc<PairFeedback>,
    pub(super) reasking: Reasking,
    scans: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

impl SemanticLookup {
    /// A search with the vectors of `model`.
    ///
    /// # Errors
    /// `Config` if namespaces are searched and the model has no threshold, or no verifier where one is required; about the
    /// words and the calibration of the operator.
    pub fn new(
        options: SemanticOptions,
        embeddings: Arc<Embeddings>,
        model: Arc<dyn Embedder>,
        namespaces: &Namespaces,
        feedback: Arc<PairFeedback>,
    ) -> Result<SemanticLookup> {
        let card = model.card();
        let acceptance = Acceptance::new(&options, &card.name)?;
        if acceptance.is_none() && !options.namespaces.is_empty() {
            let message = format!(
                "answers.semantic.similarity_min must be set: none is known for the model `{}`",
                card.name
            );
            return Err(Error::new(Kind::Config, message));
        }
        let is_verifier_missing =
            options.verifier == VerifierMode::Required && !options.namespaces.is_empty();
        if is_verifier_missing && model.verifier().is_none() {
            let message = format!(
                "answers.semantic.verifier must be where_possible or off: there is no verifier for the model `{}`",
                card.name
            );
            return Err(Error::new(Kind::Config, message));
        }
        let resolve = |name: &String| Ok(namespaces.resolve(&TenantId::default(), name)?.name);
        let names =
            options.namespaces.iter().map(resolve).collect::<Result<_>>().map_err(|error: Error| {
                Error::new(Kind::Config, format!("answers.semantic.namespaces: {}", error.message()))
            })?;
        let limits =
            IndexLimits { bytes_max: options.bytes_max, scope_rows_max: options.scope_questions_max };
        let index = QuestionIndex::new(card.dim, limits);
        Ok(SemanticLookup {
            embeddings,
            acceptance,
            guard: Guard::new(lexicon_with(options.words_dir.as_deref())?),
            verifier: QuestionVerifier::new(
                Arc::clone(&model),
                options.verifier,
                Duration::from_millis(options.verify_ms_max),
            ),
            index,
            feedback,
            model,
            reasking: Reasking::new(options.reask_share),
            scans: Arc::new(Semaphore::new(CONCURRENT_SCANS_MAX)),
            background: Arc::new(Semaphore::new(BACKGROUND_MAX)),
            options,
            namespaces: names,
        })
    }

    /// A place for work behind a response, if there is one.
    pub(in crate::service::answers) fn begin_background(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.background).try_acquire_owned().ok()
    }

    /// Whether a request is to be answered in other words too.
    pub(in crate::service::answers) fn is_wanted(&self, directives: &Directives, namespace: &str) -> bool {
        directives.semantic.unwrap_or_else(|| self.namespaces.iter().any(|name| **name == *namespace))
    }

    /// Bytes of memory for the vectors of stored questions.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
    }

    /// What clients have said of answers to questions in other words.
    pub fn feedback(&self) -> &PairFeedback {
        &self.feedback
    }

    /// Counts an answer that a client calls wrong.
    pub(in crate::service::answers) fn report_wrong(&self, pair: QuestionPair<'_>) {
        self.acceptance.iter().for_each(|acceptance| acceptance.report_wrong(pair.key()));
    }

    /// The wrong answers that clients have reported. `None` if nothing is answered in other words.
    pub fn reported_wrong(&self) -> Option<ReportedWrong> {
        self.acceptance.as_ref().map(Acceptance::reported)
    }

    /// The hits whose question was sent to the upstream too.
    pub fn reasked(&self) -> ReaskedAgreement {
        self.reasking.agreement()
    }

    /// The question, if it may be answered in other words; or why it may not. Without its vector.
    pub(in crate::service::answers) fn question(
        &self,
        asked: &SemanticRequest<'_>,
    ) -> Result<SemanticQuestion, SemanticReport> {
        if self.acceptance.is_none() {
            return Err(SemanticReport::because(SemanticOutcome::Unavailable, "similarity_min"));
        }
        if let Some(reason) = self.guard.exact_only(asked.text) {
            return Err(SemanticReport::because(SemanticOutcome::ExactOnly, reason.as_str()));
        }
        let scopes = QuestionScopes::of(asked, self.options.across_keys);
        let principal = Arc::clone(asked.principal);
        Ok(SemanticQuestion { scopes, principal, text: asked.text.into(), vector: None })
    }

    /// Gives a question its vector, which is embedded unless it is cached; or says why it has none. With `no_store` the vector is not cached.
    pub(in crate::service::answers) async fn embed_question(
        &self,
        question: &mut SemanticQuestion,
        no_store: bool,
    ) -> Result<(), SemanticReport> {
        let unavailable = |because| SemanticReport::because(SemanticOutcome::Unavailable, because);
        if !self.verifier.is_usable().await {
            return Err(unavailable("verifier"));
        }
        let directives = Directives { no_store, ..Directives::default() };
        let principal = Arc::clone(&question.principal);
        let embedding = self.embed(principal, vec![question.text.to_string()], directives);
        let limit = Duration::from_millis(self.options.embed_ms_max);
        let embedded = tokio::time::timeout(limit, embedding).await.map_err(|_| unavailable("timeout"))?;
        let mut vectors = embedded.map_err(|error| unavailable(error.kind().as_str()))?;
        // The model has not read a question that was truncated to its end.
        question.vector = vectors.pop().flatten();
        if question.vector.is_none() {
            return Err(SemanticReport::because(SemanticOutcome::ExactOnly, "truncated"));
        }
        Ok(())
    }

    /// The vectors of texts, in their order; none for a text that was truncated.
    pub(super) async fn embed(
        &self,
        principal: Arc<Principal>,
        texts: Vec<String>,
        directives: Directives,
    ) -> Result<Vec<Option<Arc<[f32]>>>> {
        let request = Request {
            model: Arc::clone(&self.model),
            texts,
            input_type: Some(InputType::Query),
            truncate: true,
            principal,
            directives,
            is_background: false,
        };
        let response = self.embeddings.embed(&request).await?;
        let number = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        let vector = |entry: &Arc<Entry>| {
            (!entry.meta.is_truncated).then(|| entry.value.chunks_exact(4).map(number).collect())
        };
        Ok(response.entries.iter().map(vector).collect())
    }

    /// Whether questions can be searched for at all.
    pub(super) fn has_threshold(&self) -> bool {
        self.acceptance.is_some()
    }

    /// Whether the rules of now let the question of a stored answer be answered in other words.
    pub(super) fn may_be_reworded(&self, text: &str) -> bool {
        self.guard.exact_only(text).is_none()
    }

    /// The answer to a stored question in other words that `fits` the request, if there is one.
    pub(in crate::service::answers) async fn find(
        &self,
        lookup: &Lookup,
        resolved: &ResolvedRequest,
        directives: &Directives,
        question: &SemanticQuestion,
        fits: impl Fn(&Match) -> bool,
    ) -> (Option<Match>, SemanticReport) {
        let (Some(acceptance), Some(vector)) = (&self.acceptance, &question.vector) else {
            return (None, SemanticReport::of(SemanticOutcome::Unavailable));
        };
        if !lookup.freshness().trust().is_held() {
            // Each candidate would wait for what other nodes have changed, and none would be fresh.
            return (None, SemanticReport::because(SemanticOutcome::Unavailable, "unverified"));
        }
        acceptance.count_search();
        let may_serve = |found: &Match| lookup.is_new(found, resolved, directives) && fits(found);
        let mut report = SemanticReport::of(SemanticOutcome::None);
        let features = self.guard.features(&question.text);
        let (mut looked_at, mut verified) = (0, 0);
        let similarity_min = acceptance.similarity_min(features.language());
        for near in self.nearest(question, vector, Some(similarity_min)).await {
            if near.similarity < similarity_min || looked_at == CANDIDATES_MAX || verified == VERIFIED_MAX {
                report.similarity.get_or_insert(near.similarity);
                break;
            }
            let candidate = self.candidate(lookup, resolved, question, &near).await;
            let Some(candidate) = candidate.filter(may_serve) else { continue };
            looked_at += 1;
            let similarity = Some(near.similarity);
            let stored = self.guard.features(stored_question(&candidate));
            let pair_min = acceptance.similarity_min_of_pair(features.language(), stored.language());
            let by_rules = (near.similarity < pair_min)
                .then_some("similarity")
                .or_else(|| self.quarantine(question, &candidate))
                .or_else(|| self.conflict(&features, &stored));
            let judged = match by_rules {
                Some(refusal) => Err(refusal),
                None => {
                    verified += 1;
                    self.verified_score(acceptance, question, &candidate, near.similarity).await
                }
            };
            if let Ok(score) = judged {
                // It may have been removed or replaced while the verifier read it.
                let current = self.candidate(lookup, resolved, question, &near).await.filter(may_serve);
                let is_same = |current: &Match| stored_question(current) == stored_question(&candidate);
                if let Some(current) = current.filter(is_same) {
                    acceptance.remember_hit(pair_of(question, &current).key(), score);
                    let outcome = SemanticOutcome::Hit;
                    return (Some(current), SemanticReport { outcome, similarity, because: None });
                }
            } else if report.because.is_none() {
                // The reason against the nearest one is reported.
                let outcome = SemanticOutcome::Refused;
                report = SemanticReport { outcome, similarity, because: judged.err() };
            }
        }
        (None, report)
    }

    /// The nearest questions of the scopes of a question, the nearest first. With `similarity_min` those below it may be missing.
    pub(super) async fn nearest(
        &self,
        question: &SemanticQuestion,
        vector: &[f32],
        similarity_min: Option<f32>,
    ) -> Vec<NearQuestion> {
        let Some(vector) = self.index.prepared(vector) else { return Vec::new() };
        let QuestionScopes { own, confirmed, .. } = question.scopes;
        let scopes = [Some(own), confirmed].map(|scope| scope.map(|scope| self.index.snapshot(scope)));
        let rows: usize = scopes.iter().flatten().map(ScopeSnapshot::rows).sum();
        let search = move || {
            let mut near: Vec<NearQuestion> = Vec::new();
            let nearest = |scope: &ScopeSnapshot| scope.nearest(&vector, NEAREST, similarity_min);
            for found in scopes.iter().flatten().flat_map(nearest) {
                if near.iter().all(|known| known.key != found.key) {
                    near.push(found);
                }
            }
            near.sort_by(|one, other| other.similarity.total_cmp(&one.similarity));
            near.truncate(NEAREST);
            near
        };
        let rows_at_once = if similarity_min.is_some() { ROWS_SKETCHED_AT_ONCE } else { ROWS_READ_AT_ONCE };
        if rows <= rows_at_once {
            return search();
        }
        let Ok(scan) = Arc::clone(&self.scans).acquire_owned().await else { return Vec::new() };
        let search = move || {
            let _scan = scan;
            search()
        };
        let found = tokio::task::spawn_blocking(search).await;
        found
            .inspect_err(|error| tracing::error!(%error, "cannot search stored questions"))
            .unwrap_or_default()
    }

    /// The score of a candidate that the verifier and the threshold let pass, or why they do not.
    async fn verified_score(
        &self,
        acceptance: &Acceptance,
        question: &SemanticQuestion,
        candidate: &Match,
        similarity: f32,
    ) -> Result<f64, &'static str> {
        let stored = stored_question(candidate);
        let answer = self.verifier.verify(&self.guard, stored, &question.text).await;
        let score =
            acceptance.score(similarity, answer.margin(), || self.pair_features(stored, &question.text));
        match answer.refusal() {
            Some(refusal) => Err(refusal),
            None if score < acceptance.score_min() => Err("score"),
            None => Ok(score),
        }
    }

    /// What two questions look like beside each other.
    pub(super) fn pair_features(&self, stored: &str, asked: &str) -> PairFeatures {
        let [of_asked, of_stored] = [asked, stored].map(|question| self.guard.features(question));
        let [asked, stored] = [asked, stored].map(|question| self.guard.canonical(question));
        PairFeatures::of(&asked, &stored, &self.guard.conflicts(&of_asked, &of_stored))
    }

    /// The stored answer of a row, if its question may be answered in other words. A row whose answer is gone is removed.
    pub(super) async fn candidate(
        &self,
        lookup: &Lookup,
        resolved: &ResolvedRequest,
        question: &SemanticQuestion,
        near: &NearQuestion,
    ) -> Option<Match> {
        let found = lookup.find_by_key(&resolved.namespace, near.key).await;
        let is_of_scope = |found: &Match| {
            StoredAnswer::decode(&found.found.entry.value).is_some_and(|stored| {
                question.scopes.has_row(near.scope, &stored) && self.may_be_reworded(stored.question)
            })
        };
        let candidate = found.filter(is_of_scope);
        if candidate.is_none() {
            self.forget(lookup, resolved, question, near).await;
        }
        candidate
    }

    /// The refusal of a stored question of which a client has said that its answer is wrong for this one.
    pub(super) fn quarantine(&self, asked: &SemanticQuestion, candidate: &Match) -> Option<&'static str> {
        self.feedback.is_wrong(pair_of(asked, candidate)).then_some("feedback")
    }

    /// What forbids by the rules that two questions share an answer.
    fn conflict(&self, asked: &QuestionFeatures, stored: &QuestionFeatures) -> Option<&'static str> {
        let conflict = self.guard.veto(self.options.guard, asked, stored);
        conflict.map(|conflict| conflict.kind.as_str())
    }

    /// Removes the row of an answer that is gone. A task that stores an answer holds its stripe until the row is there.
    async fn forget(
        &self,
        lookup: &Lookup,
        resolved: &ResolvedRequest,
        question: &SemanticQuestion,
        near: &NearQuestion,
    ) {
        let _held = lookup.lock(&near.key).await;
        let found = lookup.cache().find(&resolved.namespace, &near.key).await;
        let stored = found.as_ref().and_then(|found| StoredAnswer::decode(&found.entry.value));
        if !stored.is_some_and(|stored| question.scopes.has_row(near.scope, &stored)) {
            self.index.remove(&near.scope, &near.key);
        }
    }

    /// Adds a question whose answer is stored. Returns whether it has a vector, without which it has no row.
    pub(in crate::service::answers) fn add(&self, key: Key, question: &SemanticQuestion) -> bool {
        let QuestionScopes { own, owner, .. } = question.scopes;
        question.vector.iter().for_each(|vector| self.index.add(own, owner, key, vector));
        question.vector.is_some()
    }
}

fn pair_of<'a>(asked: &'a SemanticQuestion, candidate: &'a Match) -> QuestionPair<'a> {
    QuestionPair { tenant: &asked.principal.tenant, asked: &asked.text, stored: stored_question(candidate) }
}

/// The question of a stored answer.
pub(super) fn stored_question(found: &Match) -> &str {
    StoredAnswer::decode(&found.found.entry.value).map_or("", |stored| stored.question)
}
