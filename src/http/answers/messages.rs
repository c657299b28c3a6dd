//! `/v1/messages`: Anthropic's API.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use utoipa::{IntoParams, ToSchema};

use super::DialectEndpoint;
use super::contract::{CacheHeaders, MessagesResponses};
use super::dialect_handler::answer;
use crate::domain::Principal;
use crate::http::admission::ConcurrencyPermit;
use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::extract::directives::AnswerCacheObject;

/// The body of a request for a message, as far as it is read here. The upstream checks the other members.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
pub(super) struct MessageRequest {
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

/// The headers that are part of what is asked.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers in the OpenAPI document")]
pub(super) struct AnthropicHeaders {
    /// The version of the API; forwarded
    #[param(rename = "anthropic-version")]
    version: Option<String>,
    /// Names of betas, separated by commas, in any order; forwarded
    #[param(rename = "anthropic-beta")]
    betas: Option<String>,
}

/// Answers a conversation in Anthropic's API.
///
/// A question that was answered before, within the same conversation and with the same settings, is answered from the
/// cache; one that is being answered is joined. As JSON or as a stream of events, whichever way it was answered first.
/// `anthropic-version` and `anthropic-beta` are part of what is asked.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "createMessage",
    tag = "answers",
    params(CacheHeaders, AnthropicHeaders),
    request_body = MessageRequest,
    responses(MessagesResponses)
)]
pub(in crate::http) async fn create(
    State(endpoint): State<Arc<DialectEndpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    received: Received,
) -> Result<Response, Problem> {
    answer(endpoint, principal, permit, received).await
}
