//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::DialectEndpoint;
use super::contract::{CacheHeaders, DialectResponses};
use super::dialect_handler::answer;
use crate::domain::Principal;
use crate::http::admission::ConcurrencyPermit;
use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::extract::directives::AnswerCacheObject;

/// The body of a chat completion, as far as it is read here. Everything else is between the client and the model.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
pub(super) struct ChatRequest {
    /// The model to ask.
    #[schema(min_length = 1)]
    model: String,
    /// The conversation; the last words of the user are the question.
    #[schema(value_type = Vec<JsonObject>)]
    messages: serde::de::IgnoredAny,
    /// Whether to answer with a stream of events.
    stream: Option<bool>,
    /// The cache directives; not forwarded to the upstream.
    cache: Option<AnswerCacheObject>,
}

/// Answers a conversation.
///
/// A question that was answered before, within the same conversation and with the same settings, is answered from the
/// cache; one that is being answered is joined. As JSON or as a stream of events, whichever way it was answered first.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    operation_id = "createChatCompletion",
    tag = "answers",
    params(CacheHeaders),
    request_body = ChatRequest,
    responses(DialectResponses)
)]
pub(in crate::http) async fn create(
    State(endpoint): State<Arc<DialectEndpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    received: Received,
) -> Result<Response, Problem> {
    answer(endpoint, principal, permit, received).await
}
