//! Why a question is answered in other words, or is not: what a search looks at, for people.

use super::acceptance::Acceptance;
use super::options::VerifierMode;
use super::question::SemanticQuestion;
use super::search::{CANDIDATES_MAX, SemanticLookup, VERIFIED_MAX, stored_question};
use crate::domain::Key;
use crate::matching::guard::{ConflictKind, Strength, Strictness};
use crate::service::Directives;
use crate::service::answers::lookup::{Lookup, Match};
use crate::service::answers::request::ResolvedRequest;

/// What a search looks at.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Why the question is answered in the same words only, or not searched for. `None` if it is searched for.
    pub not_searched_because: Option<&'static str>,
    /// The smallest similarity of a question in other words. `None` if the model has no threshold.
    pub similarity_min: Option<f32>,
    /// The smallest score that is served.
    pub score_min: Option<f64>,
    /// Which conflicts forbid an answer.
    pub guard: Strictness,
    /// How the verifier is used.
    pub verifier: VerifierMode,
    /// The nearest stored questions of its scopes, the nearest first.
    pub candidates: Vec<ExplainedCandidate>,
}

/// A stored question that is near.
#[derive(Debug, Clone)]
pub struct ExplainedCandidate {
    /// The id of its answer.
    pub id: Key,
    /// The question.
    pub question: String,
    /// Its cosine similarity.
    pub similarity: f32,
    /// Where the two conflict, the strongest conflict first.
    pub conflicts: Vec<ExplainedConflict>,
    /// The verifier's logit less the smallest one that agrees. `None` if it has not read the pair.
    pub verifier_margin: Option<f32>,
    /// The cosine similarity, or the score of the calibration. `None` if the verifier has not read the pair.
    pub score: Option<f64>,
    /// Why its answer is not served. `None` if it could be.
    pub refusal: Option<&'static str>,
}

/// A conflict between two questions.
#[derive(Debug, Clone)]
pub struct ExplainedConflict {
    /// In what they conflict.
    pub kind: ConflictKind,
    /// How sure it is.
    pub strength: Strength,
    /// The part of the question that is asked; empty if it says nothing.
    pub asked: String,
    /// The part of the stored question; empty if it says nothing.
    pub stored: String,
}

impl SemanticLookup {
    /// An explanation without candidates.
    pub(in crate::service::answers) fn unsearched(
        &self,
        not_searched_because: Option<&'static str>,
        question: &str,
    ) -> Explanation {
        let language = self.guard.features(question).language();
        Explanation {
            not_searched_because,
            similarity_min: self.acceptance.as_ref().map(|acceptance| acceptance.similarity_min(language)),
            score_min: self.acceptance.as_ref().map(Acceptance::score_min),
            guard: self.options.guard,
            verifier: self.options.verifier,
            candidates: Vec::new(),
        }
    }

    /// Explains the search for a question that has its vector. The nearest are shown also where they are not near enough; the verifier
    /// reads those that nothing else refuses, two at most.
    ///
    /// Cost: as [`SemanticLookup::find`].
    pub(in crate::service::answers) async fn explain(
        &self,
        lookup: &Lookup,
        resolved: &ResolvedRequest,
        directives: &Directives,
        question: &SemanticQuestion,
    ) -> Explanation {
        let mut explanation = self.unsearched(None, &question.text);
        let (Some(acceptance), Some(vector)) = (&self.acceptance, &question.vector) else {
            return explanation;
        };
        if !lookup.freshness().trust().is_held() {
            return self.unsearched(Some("unverified"), &question.text);
        }
        let (mut looked_at, mut verified) = (0, 0);
        for near in self.nearest(question, vector, None).await {
            if looked_at == CANDIDATES_MAX {
                break;
            }
            let Some(found) = self.candidate(lookup, resolved, question, &near).await else { continue };
            let is_served = lookup.is_new(&found, resolved, directives);
            looked_at += usize::from(is_served);
            let mut candidate = self.compared(&found, question, near.similarity);
            let [asked, stored] =
                [&question.text, stored_question(&found)].map(|text| self.guard.features(text).language());
            candidate.refusal = if near.similarity < acceptance.similarity_min_of_pair(asked, stored) {
                Some("similarity")
            } else if !is_served {
                Some("stale_or_other_tags")
            } else if let Some(refusal) = self.quarantine(question, &found) {
                Some(refusal)
            } else if let Some(conflict) =
                candidate.conflicts.first().filter(|conflict| self.options.guard.forbids(conflict.strength))
            {
                Some(conflict.kind.as_str())
            } else if verified == VERIFIED_MAX {
                Some("verifier_has_read_two")
            } else {
                verified += 1;
                let stored = stored_question(&found);
                let answer = self.verifier.verify(&self.guard, stored, &question.text).await;
                candidate.verifier_margin = answer.margin();
                let features = || self.pair_features(stored, &question.text);
                let score = acceptance.score(near.similarity, answer.margin(), features);
                candidate.score = Some(score);
                answer.refusal().or_else(|| (score < acceptance.score_min()).then_some("score"))
            };
            explanation.candidates.push(candidate);
        }
        explanation
    }

    /// A candidate with its conflicts.
    fn compared(&self, found: &Match, question: &SemanticQuestion, similarity: f32) -> ExplainedCandidate {
        let stored = stored_question(found);
        let [asked_features, stored_features] =
            [&question.text, stored].map(|question| self.guard.features(question));
        let conflicts = self.guard.conflicts(&asked_features, &stored_features);
        ExplainedCandidate {
            id: found.key,
            question: stored.to_owned(),
            similarity,
            conflicts: conflicts
                .into_iter()
                .map(|conflict| ExplainedConflict {
                    kind: conflict.kind,
                    strength: conflict.strength,
                    asked: conflict.first.to_owned(),
                    stored: conflict.second.to_owned(),
                })
                .collect(),
            verifier_margin: None,
            score: None,
            refusal: None,
        }
    }
}
