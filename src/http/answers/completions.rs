//! `/v1/completions`: the API before chat completions.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::Endpoint;
use super::chat::answer;
use crate::domain::Principal;
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::http::extract::directives::AnswerCacheObject;

/// The body of a completion, as far as it is read here. The upstream checks the other members.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
pub(super) struct CompletionRequest {
    /// The model to ask.
    model: String,
    /// The text to continue, a list of texts, or tokens.
    #[schema(value_type = Option<serde_json::Value>)]
    prompt: serde::de::IgnoredAny,
    /// Whether to answer with a stream of events.
    stream: Option<bool>,
    /// The cache directives; not forwarded to the upstream.
    cache: Option<AnswerCacheObject>,
}

/// Continues a text.
///
/// A request that was answered before, with the same prompt and the same settings, is answered from the cache; one that is being
/// answered is joined. As JSON or as a stream of events, whichever way it was answered first.
#[utoipa::path(
    post,
    path = "/v1/completions",
    operation_id = "create_completion",
    tag = "answers",
    params(
        ("x-cache-ttl" = Option<u32>, Header, description = "Lifetime in seconds"),
        ("x-cache-tags" = Option<String>, Header, description = "What the answer depends on, separated by commas"),
        ("cache-control" = Option<String>, Header,
            description = "no-cache, no-store, max-age, min-fresh, max-stale, only-if-cached, stale-if-error"),
    ),
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "OpenAI's answer; with `stream`, its events",
            content((Object = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = ErrorBody, description = "A field is wrong; `param` names it; nothing was sent"),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "No upstream is configured, or none answers the model"),
        (status = 413, body = ErrorBody),
        (status = 429, body = ErrorBody, description = "Too many requests wait, here or at the upstream"),
        (status = 502, body = ErrorBody, description = "The upstream cannot be reached or has broken off"),
        (status = 504, body = ErrorBody, description = "The upstream took too long; or not cached, with only-if-cached"),
    )
)]
pub(in crate::http) async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    received: Received,
) -> Result<Response, Problem> {
    answer(endpoint, principal, permit, received).await
}
