//! The parts of the OpenAPI document that the routes of all dialects share.

use std::collections::BTreeMap;

use utoipa::openapi::header::Header;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, PartialSchema as _, ToSchema as _};

use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::{ErrorBody, MessagesErrorBody};

/// The headers with cache directives.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers in the OpenAPI document")]
pub(super) struct CacheHeaders {
    /// The lifetime of the stored answer in seconds
    #[param(rename = "x-cache-ttl")]
    ttl: Option<u32>,
    /// The tags of the answer, separated by commas
    #[param(rename = "x-cache-tags")]
    tags: Option<String>,
    /// The tags of the answer as RFC 9875 writes them: a list of strings
    #[param(rename = "cache-groups")]
    groups: Option<String>,
    /// A key of the client's own instead of the question and its scope: 1 to 256 visible ASCII characters
    #[param(rename = "x-cache-key")]
    key: Option<String>,
    /// Whether the question is answered in other words too: true or false. If absent, its namespace decides
    #[param(rename = "x-cache-semantic")]
    semantic: Option<bool>,
    /// no-cache, no-store, max-age, min-fresh, max-stale, only-if-cached, stale-if-error
    #[param(rename = "cache-control")]
    cache_control: Option<String>,
}

/// The responses of a dialect's route.
pub(super) struct DialectResponses;

/// Those of a dialect whose errors have Anthropic's shape.
pub(super) struct MessagesResponses;

/// The status codes of errors, with their descriptions.
const ERRORS: [(&str, &str); 6] = [
    ("400", "A field is invalid: `param`, or the message, names it. Nothing was sent to an upstream"),
    ("404", "No upstream is configured, or none has the model"),
    (
        "429",
        "The upstream refuses more requests, or this server is at a limit of requests or bytes in flight",
    ),
    ("502", "The upstream cannot be reached, or its connection broke"),
    ("503", "The upstream is not available"),
    (
        "504",
        "The upstream did not respond in time; or the answer is not cached, and the request sends `only-if-cached`",
    ),
];

/// The headers of a response that is an answer.
const HEADERS: [&str; 10] = [
    "age",
    "cache-groups",
    "cache-status",
    "server-timing",
    "x-likewise-answer-id",
    "x-likewise-cost-saved-usd",
    "x-likewise-differs",
    "x-likewise-reason",
    "x-likewise-semantic",
    "x-likewise-tokens-saved",
];

impl IntoResponses for DialectResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses_with(&ErrorBody::name())
    }
}

impl IntoResponses for MessagesResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses_with(&MessagesErrorBody::name())
    }
}

/// The responses of a route whose errors have the schema `error_schema`.
fn responses_with(error_schema: &str) -> BTreeMap<String, RefOr<Response>> {
    let events = ObjectBuilder::new().schema_type(Type::String);
    let answer = ResponseBuilder::new()
        .description(
            "The answer as the API of the upstream describes it; with `stream`, its server-sent events",
        )
        .content("application/json", Content::new(Some(JsonObject::schema())))
        .content("text/event-stream", Content::new(Some(events)));
    let answer = HEADERS.iter().fold(answer, |answer, name| answer.header(*name, Header::default()));
    let error = |description: &str| {
        let body = Content::new(Some(Ref::from_schema_name(error_schema)));
        ResponseBuilder::new().description(description).content("application/json", body)
    };
    let errors = ERRORS.map(|(status, description)| (status.to_owned(), error(description)));
    let all = std::iter::once(("200".to_owned(), answer)).chain(errors);
    all.map(|(status, response)| (status, RefOr::T(response.build()))).collect()
}
