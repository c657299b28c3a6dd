//! The parts of the OpenAPI document that the routes of all dialects share.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, ToSchema as _};

use crate::http::error_response::ErrorBody;

/// The headers with cache directives.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers in the OpenAPI document")]
pub(super) struct CacheHeaders {
    /// Lifetime in seconds
    #[param(rename = "x-cache-ttl")]
    ttl: Option<u32>,
    /// What the answer depends on, separated by commas
    #[param(rename = "x-cache-tags")]
    tags: Option<String>,
    /// no-cache, no-store, max-age, min-fresh, max-stale, only-if-cached, stale-if-error
    #[param(rename = "cache-control")]
    cache_control: Option<String>,
}

/// The responses of a dialect's route.
pub(super) struct DialectResponses;

/// The status codes of errors, with their descriptions.
const ERRORS: [(&str, &str); 7] = [
    ("400", "A field is wrong; `param` names it; nothing was sent"),
    ("401", ""),
    ("404", "No upstream is configured, or none answers the model"),
    ("413", ""),
    ("429", "Too many requests wait, here or at the upstream"),
    ("502", "The upstream cannot be reached or has broken off"),
    ("504", "The upstream took too long; or not cached, with only-if-cached"),
];

impl IntoResponses for DialectResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let content = |kind| Content::new(Some(ObjectBuilder::new().schema_type(kind)));
        let answer = ResponseBuilder::new()
            .description("OpenAI's answer; with `stream`, its events")
            .content("application/json", content(Type::Object))
            .content("text/event-stream", content(Type::String));
        let error = |description: &str| {
            let body = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
            ResponseBuilder::new().description(description).content("application/json", body)
        };
        let errors = ERRORS.map(|(status, description)| (status.to_owned(), error(description)));
        let all = std::iter::once(("200".to_owned(), answer)).chain(errors);
        all.map(|(status, response)| (status, RefOr::T(response.build()))).collect()
    }
}
