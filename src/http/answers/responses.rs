//! `/v1/responses`.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::DialectEndpoint;
use super::contract::{CacheHeaders, DialectResponses};
use super::dialect_handler::answer;
use crate::domain::Principal;
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::extract::directives::AnswerCacheObject;

/// The body of a response, as far as it is read here. The upstream checks the other members.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
pub(super) struct ResponseRequest {
    /// The model to ask. Only a request that names a `prompt` may leave it out.
    model: Option<String>,
    /// A text, or a list of items; the last words of the user are the question. Only a request that names a `prompt`, a
    /// `previous_response_id` or a `conversation` may leave it out.
    #[schema(value_type = Option<serde_json::Value>)]
    input: serde::de::IgnoredAny,
    /// Whether to answer with a stream of events.
    stream: Option<bool>,
    /// Whether to answer later. Such a request bypasses the cache, unless `answers.cached_features` has `background`.
    background: Option<bool>,
    /// The tools of the model. With one that the upstream runs, the request bypasses the cache, unless `answers.cached_features` names it.
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    tools: serde::de::IgnoredAny,
    /// The cache directives; not forwarded to the upstream.
    cache: Option<AnswerCacheObject>,
}

/// Responds to an input.
///
/// A request that was answered before, with the same input and the same settings, is answered from the cache; one that is being
/// answered is joined. As JSON or as a stream of events, whichever way it was answered first. A response that the upstream stores keeps
/// its id, so that a later request can name it as `previous_response_id`. Other routes below this one are forwarded to the upstream.
#[utoipa::path(
    post,
    path = "/v1/responses",
    operation_id = "createResponse",
    tag = "answers",
    params(CacheHeaders),
    request_body = ResponseRequest,
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
