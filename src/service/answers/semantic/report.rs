//! What became of the search for a question in other words.

use crate::labels::label_enum;
use crate::service::Directives;

label_enum! {
    /// What became of the search for a stored question in other words.
    pub enum SemanticOutcome {
        /// Its answer was served.
        Hit = "hit",
        /// No stored question of the scope is near enough.
        None = "none",
        /// Those that are near enough ask something else.
        Refused = "refused",
        /// The question is not one that may be answered in other words.
        ExactOnly = "exact_only",
        /// The question has no vector: there is no model, or it is busy, or has no threshold.
        Unavailable = "unavailable",
    }
}

/// Why a request is not answered in other words, apart from its question.
pub(in crate::service::answers) const REQUEST: &str = "request";
/// Why no question is: the server has no model.
const NO_MODEL: &str = "model";

/// What became of a search, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SemanticReport {
    /// What became of it.
    pub outcome: SemanticOutcome,
    /// The cosine similarity of the nearest stored question that was looked at.
    pub similarity: Option<f32>,
    /// Why it was refused, or is not searched for.
    pub because: Option<&'static str>,
}

impl SemanticReport {
    pub(in crate::service::answers) fn of(outcome: SemanticOutcome) -> SemanticReport {
        SemanticReport { outcome, similarity: None, because: None }
    }

    pub(in crate::service::answers) fn because(
        outcome: SemanticOutcome,
        because: &'static str,
    ) -> SemanticReport {
        SemanticReport { because: Some(because), ..SemanticReport::of(outcome) }
    }

    /// That of a request to a server without a model, if it asks for answers in other words.
    pub(in crate::service::answers) fn without_model(directives: &Directives) -> Option<SemanticReport> {
        let is_asked = directives.semantic == Some(true);
        is_asked.then(|| SemanticReport::because(SemanticOutcome::Unavailable, NO_MODEL))
    }
}
