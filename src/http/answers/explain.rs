//! `/v1/answers/explain`: why a question is answered in other words, or is not.

use std::sync::Arc;

use axum::Json as AxumJson;
use axum::extract::{Extension, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Endpoint;
use super::answer_id::format_id;
use super::contract::CacheHeaders;
use super::direct::{FIELDS, LookupRequest, QuestionOptions, check_sizes, rounded, scope};
use crate::domain::Principal;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::http::extract::directives::AnswerCacheObject;
use crate::service::answers::{ExplainedCandidate, ExplainedConflict, Explanation};

/// What the search for a question in other words looks at.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ExplainAnswer {
    /// Why the question is answered in the same words only, or could not be searched for; null if it is searched for.
    #[schema(required)]
    not_searched_because: Option<&'static str>,
    /// The smallest cosine similarity; null if the embedding model has none.
    #[schema(required)]
    similarity_min: Option<f64>,
    /// The smallest score that is served: the cosine similarity, or that of the calibration; null if there is none.
    #[schema(required)]
    score_min: Option<f64>,
    /// `answers.semantic.guard`: `normal` or `strict`.
    guard: &'static str,
    /// `answers.semantic.verifier`: `required`, `where_possible` or `off`.
    verifier: &'static str,
    /// The nearest stored questions of this scope that this caller may be answered from, at most 8, the nearest first. Those after the fourth that is fresh are not looked at.
    candidates: Vec<ExplainedQuestion>,
}

/// A stored question that is near.
#[derive(Debug, Serialize, ToSchema)]
struct ExplainedQuestion {
    /// The id of its answer.
    id: String,
    /// The question.
    question: String,
    /// The cosine similarity of the two.
    similarity: f64,
    /// Where the two conflict, the strongest conflict first.
    conflicts: Vec<ConflictAnswer>,
    /// How much the verifier agrees; negative if it refuses, null if it has not read them.
    #[schema(required)]
    verifier_margin: Option<f64>,
    /// The cosine similarity, or the score of the calibration; null if the verifier has not read them.
    #[schema(required)]
    score: Option<f64>,
    /// Whether its answer would be served.
    served: bool,
    /// Why it would not: `similarity`, `stale_or_other_tags`, `feedback`, the kind of a conflict, `verifier`, `verifier_cannot_read`, `verifier_busy`, `score`, or `verifier_has_read_two`.
    #[schema(required)]
    because: Option<&'static str>,
}

/// A conflict between two questions.
#[derive(Debug, Serialize, ToSchema)]
struct ConflictAnswer {
    /// In what they conflict, such as `number` or `negation`.
    kind: &'static str,
    /// How sure it is: `weak`, `strong` or `certain`.
    strength: &'static str,
    /// The part of the question that is asked; empty if it says nothing.
    asked: String,
    /// The part of the stored question; empty if it says nothing.
    stored: String,
}

/// Explains which stored questions are near a question, and why the answer of each would be served or not, whatever `semantic` says. Serves
/// and stores no answer.
#[utoipa::path(
    post,
    path = "/v1/answers/explain",
    operation_id = "explainAnswer",
    tag = "answers",
    params(CacheHeaders),
    request_body = LookupRequest,
    responses(
        (status = 200, body = ExplainAnswer, description = "The nearest stored questions with what speaks against each"),
        (status = 400, body = ErrorBody, description = "A field or header of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "The namespace is not declared, and the server accepts declared ones only"),
        (status = 503, body = ErrorBody, description = "The server answers nothing in other words"),
    )
)]
pub(in crate::http) async fn explain(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Received { head, body }: Received,
) -> Result<AxumJson<ExplainAnswer>, Problem> {
    let wire: LookupRequest = body.json().await?;
    check_sizes(&wire.prompt, wire.scope.as_deref())?;
    let object = AnswerCacheObject::of(wire.tags.unwrap_or_default().0, None, wire.namespace, None);
    let options = QuestionOptions::new(&head.headers, object)?;
    let scope = scope(wire.scope.as_deref())?;
    let explanation = endpoint.answers.explain(&options.question(&principal, &wire.prompt, &scope)).await;
    Ok(AxumJson(ExplainAnswer::of(explanation.map_err(|error| FIELDS.apply(error))?)))
}

impl ExplainAnswer {
    fn of(explanation: Explanation) -> ExplainAnswer {
        ExplainAnswer {
            not_searched_because: explanation.not_searched_because,
            similarity_min: explanation.similarity_min.map(rounded),
            score_min: explanation.score_min,
            guard: explanation.guard.as_str(),
            verifier: explanation.verifier.as_str(),
            candidates: explanation.candidates.into_iter().map(ExplainedQuestion::of).collect(),
        }
    }
}

impl ExplainedQuestion {
    fn of(candidate: ExplainedCandidate) -> ExplainedQuestion {
        let conflict = |conflict: ExplainedConflict| ConflictAnswer {
            kind: conflict.kind.as_str(),
            strength: conflict.strength.as_str(),
            asked: conflict.asked,
            stored: conflict.stored,
        };
        ExplainedQuestion {
            id: format_id(candidate.id),
            question: candidate.question,
            similarity: rounded(candidate.similarity),
            conflicts: candidate.conflicts.into_iter().map(conflict).collect(),
            verifier_margin: candidate.verifier_margin.map(rounded),
            score: candidate.score,
            served: candidate.refusal.is_none(),
            because: candidate.refusal,
        }
    }
}
