//! `/v1/answers/feedback`: whether the answer to a question in other words was right.

use std::sync::Arc;

use axum::Json as AxumJson;
use axum::extract::{Extension, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Endpoint;
use super::answer_id::parse_id;
use crate::cache::PairJudgement;
use crate::domain::Principal;
use crate::error::{Error, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::service::answers::{Feedback, FeedbackOn};

/// Feedback on an answer to a question in other words. Either `id` or `question` says whose answer it was.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FeedbackRequest {
    /// The question as it was asked.
    #[schema(min_length = 1)]
    prompt: String,
    /// Whether the answer was right. One that was wrong is never served again for this question, nor the other way round.
    correct: bool,
    /// The id of the answer, as `x-likewise-answer-id` or a lookup returns it.
    #[schema(pattern = "^ans_[0-9A-Fa-f]{64}$")]
    id: Option<String>,
    /// The stored question, for an answer that is gone already.
    #[schema(min_length = 1)]
    question: Option<String>,
}

/// What holds of two questions after feedback.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct FeedbackAnswer {
    /// Whether the two share no answer from now on: once one was wrong, it stays so.
    quarantined: bool,
}

/// Says whether the answer to a question in other words was right. Of a wrong one the two questions share no answer again, in either
/// direction, in no scope of the tenant, also after a restart. Nodes that share a Redis exchange it every second.
#[utoipa::path(
    post,
    path = "/v1/answers/feedback",
    operation_id = "giveFeedback",
    tag = "answers",
    request_body = FeedbackRequest,
    responses(
        (status = 200, body = FeedbackAnswer, description = "The feedback is recorded, on disk too"),
        (status = 400, body = ErrorBody, description = "A field or header of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no answer with this id"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: the feedback holds until the next start only. Or the server answers nothing in other words"),
    )
)]
pub(in crate::http) async fn give(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Received { body, .. }: Received,
) -> Result<AxumJson<FeedbackAnswer>, Problem> {
    let wire: FeedbackRequest = body.json().await?;
    let stored = match (&wire.id, &wire.question) {
        (Some(id), None) => FeedbackOn::Answer(parse_id(id)?),
        (None, Some(question)) => FeedbackOn::Question(question),
        (None, None) => return Err(Error::invalid("id", "id or question is required").into()),
        (Some(_), Some(_)) => {
            return Err(Error::invalid("question", "question must be absent where id is given").into());
        }
    };
    let feedback = Feedback {
        principal: &principal,
        prompt: &wire.prompt,
        stored,
        judgement: if wire.correct { PairJudgement::Right } else { PairJudgement::Wrong },
    };
    let judgement = endpoint.answers.give_feedback(&feedback).await?;
    Ok(AxumJson(FeedbackAnswer { quarantined: judgement == PairJudgement::Wrong }))
}
