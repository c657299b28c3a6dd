//! The handler that the routes of all dialects share.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;

use super::DialectEndpoint;
use super::response::respond;
use crate::domain::Principal;
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::Problem;
use crate::http::extract::body::Received;
use crate::http::extract::credential::credential;
use crate::http::extract::directives::AnswerCacheObject;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::forwarded_headers::forwarded_headers;
use crate::http::extract::json::{object, parse};
use crate::http::extract::trace_headers::trace_headers;
use crate::http::extract::{cache_control, cache_groups, other_caches, text_encoding};
use crate::http::offload::offload;
use crate::http::reservation::BodyReservation;
use crate::http::response::headers::CACHE_GROUPS;
use crate::request_identity::parsed_bytes_max;
use crate::service::answers::AnswerRequest;

/// Fields of the use case in the body of a request.
const FIELDS: FieldNames = FieldNames(&[("ttl_seconds", "cache.ttl"), ("namespace", "cache.namespace")]);

/// The member of a request with the cache directives.
#[derive(Deserialize)]
struct DirectivesMember {
    #[serde(default, deserialize_with = "object")]
    cache: Option<AnswerCacheObject>,
}

/// Answers a request of the endpoint's dialect.
pub(super) async fn answer(
    endpoint: Arc<DialectEndpoint>,
    principal: Arc<Principal>,
    permit: Arc<ConcurrencyPermit>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let body = text_encoding::without_mark(body.read().await?);
    if let Some(reservation) = head.extensions.get::<BodyReservation>() {
        reservation.cover_parsed(&body, parsed_bytes_max)?;
    }
    let is_remembered =
        !cache_control::forbids_storing(&head.headers) && !other_caches::forbid_storing(&head.headers);
    let (own, sender, text) = (Arc::clone(&endpoint), Arc::clone(&principal), body.clone());
    let read = move || {
        let parsed = if is_remembered {
            own.parse_cache.read(&sender.tenant, &text)
        } else {
            own.parse_cache.read_once(&text)
        };
        parsed.map_err(|error| text_encoding::fault(&text).unwrap_or(error))
    };
    let parsed = offload(body.len(), read).await??;
    let object = if parsed.has_directives { parse::<DirectivesMember>(&body)?.cache } else { None };
    let (directives, tags) = object.unwrap_or_default().with_headers(&head.headers, "cache.tags")?;
    let takes_trailers = takes_trailers(&head.headers);
    let dialect = parsed.dialect;
    let request = AnswerRequest {
        parsed,
        body,
        query: head.uri.query().map(str::to_owned),
        principal,
        credential: credential(&head.headers),
        headers: forwarded_headers(&head.headers, &endpoint.forwarded_headers)?,
        traces: trace_headers(&head.headers),
        directives: endpoint.defaults.complete(directives),
        tags,
        default_ttl_seconds: endpoint.defaults.ttl_seconds,
        cached_features: endpoint.defaults.hosted_features(),
    };
    let groups = cache_groups::of_tags(&request.tags);
    // A request that waits for a model must not delay cache hits of other requests.
    permit.release();
    let response = endpoint.answers.ask(request).await.map_err(|error| FIELDS.apply(error))?;
    // The names of other tags of an answer are not stored; those of the request it has.
    let groups = groups.filter(|_| response.outcome.is_from_cache());
    let mut response = respond(response, dialect, takes_trailers);
    if let Some(groups) = groups {
        response.headers_mut().insert(CACHE_GROUPS, groups);
    }
    Ok(response)
}

/// Whether the client accepts trailers (RFC 9110, section 10.1.4).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case("trailers"))
}
