//! `/v1/chat/completions`, and what all routes of dialects share.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Endpoint;
use super::answer_id::format_id;
use crate::dialects::Replay;
use crate::domain::{LookupOutcome, Principal};
use crate::error::{Error, Kind, Result};
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::{self, ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::http::extract::credential::credential;
use crate::http::extract::directives::AnswerCacheObject;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::json::{object, parse};
use crate::http::extract::trace_headers::trace_headers;
use crate::http::extract::{cache_control, text_encoding};
use crate::http::offload::offload;
use crate::http::reservation;
use crate::http::response::cache_status;
use crate::http::response::chunked;
use crate::http::response::headers::{CACHE_STATUS, Millis, SERVER_TIMING, append_all};
use crate::service::answers::{
    AnswerRequest, AnswerResponse, Body, EventStream, HitInfo, MatchKind, Outcome, REPLAYED_BYTES,
};

const ANSWER_ID: HeaderName = HeaderName::from_static("x-likewise-answer-id");
const REASON: HeaderName = HeaderName::from_static("x-likewise-reason");
const TOKENS_SAVED: HeaderName = HeaderName::from_static("x-likewise-tokens-saved");
const COST_SAVED: HeaderName = HeaderName::from_static("x-likewise-cost-saved-usd");

/// Room for the headers of an answer, those that the gate and the connection add included.
const HEADERS: usize = 12;

/// Fields of the use case in the body of a request.
const FIELDS: FieldNames = FieldNames(&[("ttl_seconds", "cache.ttl"), ("namespace", "cache.namespace")]);

/// The body of a chat completion, as far as it is read here. Everything else is between the client and the model.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
pub(super) struct ChatRequest {
    /// The model to ask.
    model: String,
    /// The conversation; the last words of the user are the question.
    #[schema(value_type = Vec<Object>)]
    messages: serde::de::IgnoredAny,
    /// Whether to answer with a stream of events.
    stream: Option<bool>,
    /// The cache directives; not forwarded to the upstream.
    cache: Option<AnswerCacheObject>,
}

/// The member of a request with the cache directives.
#[derive(Deserialize)]
struct DirectivesMember {
    #[serde(default, deserialize_with = "object")]
    cache: Option<AnswerCacheObject>,
}

/// Answers a conversation.
///
/// A question that was answered before, within the same conversation and with the same settings, is answered from the
/// cache; one that is being answered is joined. As JSON or as a stream of events, whichever way it was answered first.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    operation_id = "create_chat_completion",
    tag = "answers",
    params(
        ("x-cache-ttl" = Option<u32>, Header, description = "Lifetime in seconds"),
        ("x-cache-tags" = Option<String>, Header, description = "What the answer depends on, separated by commas"),
        ("cache-control" = Option<String>, Header,
            description = "no-cache, no-store, max-age, min-fresh, max-stale, only-if-cached, stale-if-error"),
    ),
    request_body = ChatRequest,
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

/// Answers a request of the endpoint's dialect.
pub(super) async fn answer(
    endpoint: Arc<Endpoint>,
    principal: Arc<Principal>,
    permit: Arc<ConcurrencyPermit>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let body = text_encoding::without_mark(body.read().await?);
    let is_remembered = !cache_control::forbids_storing(&head.headers);
    let (own, text) = (Arc::clone(&endpoint), body.clone());
    let read = move || {
        let parsed =
            if is_remembered { own.parse_cache.read(&text) } else { own.parse_cache.read_once(&text) };
        parsed.map_err(|error| text_encoding::fault(&text).unwrap_or(error))
    };
    let parsed = offload(body.len(), read).await??;
    let object = if parsed.has_directives { parse::<DirectivesMember>(&body)?.cache } else { None };
    let (directives, tags) = object.unwrap_or_default().with_headers(&head.headers, "cache.tags")?;
    let takes_trailers = takes_trailers(&head.headers);
    let ask = AnswerRequest {
        parsed,
        body,
        query: head.uri.query().map(str::to_owned),
        principal,
        credential: credential(&head.headers),
        headers: forwarded(&head.headers, &endpoint.forwarded_headers)?,
        traces: trace_headers(&head.headers),
        directives,
        tags,
    };
    // Those who wait for a model must not keep out those whose answer is here.
    permit.release();
    let served = endpoint.answers.ask(ask).await.map_err(|error| FIELDS.apply(error))?;
    Ok(respond(served, takes_trailers))
}

/// The headers that are passed on, by name.
fn forwarded(headers: &HeaderMap, names: &[HeaderName]) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for name in names {
        for value in headers.get_all(name) {
            let fault = |_| Error::invalid(name.to_string(), format!("the header {name} is not ASCII"));
            found.push((name.as_str().to_owned(), value.to_str().map_err(fault)?.to_owned()));
        }
    }
    Ok(found)
}

/// Whether the client reads fields behind a body (RFC 9110, section 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case("trailers"))
}

/// Writes an answer with the headers that tell how it came about. Of a stream it is known only at its end whether it is
/// stored.
fn respond(served: AnswerResponse, takes_trailers: bool) -> Response {
    let timing = server_timing(&served);
    let (status, id, saved, reason) = (served.status, served.id, served.saved, served.reason);
    let is_events = matches!(served.body, Body::Live(_) | Body::Events(_) | Body::Replay(..));
    let held = match &served.body {
        Body::Replay(_, replay) => Some(replay.bytes_held_and_expected()),
        Body::Whole(_) | Body::Events(_) | Body::Live(_) => None,
    };
    let has_trailer = takes_trailers && matches!(served.body, Body::Live(_)) && reason.is_none();
    let mut response = Response::new(match served.body {
        Body::Whole(bytes) | Body::Events(bytes) => HttpBody::from(bytes),
        Body::Replay(first, replay) => chunked::body(pieces_of(first, replay)),
        Body::Live(live) => HttpBody::new(StreamBody::new(frames_of(live, has_trailer))),
    });
    if let Some((source_bytes, bytes_expected)) = held {
        reservation::expect_bytes(response.extensions_mut(), source_bytes, bytes_expected);
    }
    // Upstreams speak HTTP, so what they said can be said again.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.reserve(HEADERS + served.headers.len());
    append_all(&served.headers, headers);
    if is_events {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    } else {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    describe(&served.outcome, headers);
    headers.insert(SERVER_TIMING, value(timing));
    if let Some(id) = id {
        headers.insert(ANSWER_ID, value(format_id(id)));
    }
    if let Some(saved) = saved {
        headers.insert(TOKENS_SAVED, HeaderValue::from(saved.tokens));
        if let Some(usd) = saved.usd {
            headers.insert(COST_SAVED, value(format!("{usd:.6}")));
        }
    }
    if let Some(reason) = reason {
        headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    }
    if has_trailer {
        headers.insert(header::TRAILER, HeaderValue::from_static("x-likewise-reason"));
    }
    response
}

/// What is left of a stream.
enum Rest {
    Live(EventStream),
    Broken(Error),
}

/// A kept stream, written as it is read.
fn pieces_of(first: Bytes, mut replay: Box<dyn Replay>) -> impl Iterator<Item = Bytes> {
    let rest = std::iter::from_fn(move || replay.next_bytes(REPLAYED_BYTES));
    std::iter::once(first).chain(rest)
}

/// A break ends the connection, so that no client takes the part for the whole. One that is due to this server is reported before.
fn frames_of(live: EventStream, has_trailer: bool) -> impl stream::Stream<Item = Result<Frame<Bytes>>> {
    stream::unfold(Some(Rest::Live(live)), move |rest| async move {
        let mut live = match rest? {
            Rest::Live(live) => live,
            Rest::Broken(error) => {
                // What has been said leaves before the connection ends.
                tokio::task::yield_now().await;
                return Some((Err(error), None));
            }
        };
        match live.next().await.transpose() {
            Some(Ok(bytes)) => Some((Ok(Frame::data(bytes)), Some(Rest::Live(live)))),
            None => {
                let reason = live.reason().filter(|_| has_trailer)?;
                let value = HeaderValue::from_static(reason.as_str());
                Some((Ok(Frame::trailers(HeaderMap::from_iter([(REASON, value)]))), None))
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a stream broke off");
                let is_ours = error.kind() != Kind::Upstream;
                let event = if is_ours { error_response::event(&error) } else { Bytes::new() };
                Some((Ok(Frame::data(event)), Some(Rest::Broken(error))))
            }
        }
    })
}

/// RFC 9211, and the age of what was kept.
fn describe(outcome: &Outcome, headers: &mut HeaderMap) {
    let mut status = String::with_capacity(64);
    status.push_str(match outcome {
        Outcome::Hit(_) => cache_status::of(LookupOutcome::Hit),
        Outcome::StaleIfError(..) => cache_status::STALE_IF_ERROR,
        Outcome::ForcedRefresh => cache_status::FORCED_REFRESH,
        Outcome::Miss => cache_status::of(LookupOutcome::Miss),
        Outcome::Coalesced => cache_status::of(LookupOutcome::Coalesced),
        Outcome::Bypass => cache_status::of(LookupOutcome::Bypass),
    });
    match outcome {
        Outcome::Hit(age) => {
            let _ = write!(status, "; ttl={}; detail={}", age.fresh_seconds, age.tier);
            describe_age(age, &mut status);
            headers.insert(header::AGE, HeaderValue::from(age.age_seconds));
        }
        Outcome::StaleIfError(age, failed) => {
            if let Some(failed) = failed {
                let _ = write!(status, "; fwd-status={failed}");
            }
            let _ = write!(status, "; ttl={}; detail=stale-if-error", age.fresh_seconds);
            headers.insert(header::AGE, HeaderValue::from(age.age_seconds));
        }
        Outcome::ForcedRefresh | Outcome::Miss | Outcome::Coalesced | Outcome::Bypass => {}
    }
    // Behind what caches on the way have said (RFC 9211, section 2).
    headers.append(CACHE_STATUS, value(status));
}

fn describe_age(age: &HitInfo, status: &mut String) {
    if age.match_kind == MatchKind::Normalized {
        let _ = write!(status, "-{}", age.match_kind.as_str());
    }
    if age.is_stale {
        let _ = write!(status, "-{}", LookupOutcome::Stale.as_str());
    }
}

/// Where the time went, in the form of the W3C's Server Timing: milliseconds.
fn server_timing(served: &AnswerResponse) -> String {
    let mut text = String::with_capacity(64);
    let _ = write!(text, "lookup;dur={}", Millis(served.lookup));
    if let Some(upstream) = served.upstream {
        let _ = write!(text, ", upstream;dur={}", Millis(upstream));
    }
    text
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("words and digits are a valid header: this is a bug")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TierName;

    #[test]
    fn outcomes_are_written_as_rfc_9211_says() {
        let age = |is_stale, match_kind| HitInfo {
            tier: TierName::Memory,
            is_stale,
            match_kind,
            age_seconds: 7,
            fresh_seconds: -2,
        };
        let status = |outcome: Outcome| {
            let mut headers = HeaderMap::new();
            describe(&outcome, &mut headers);
            headers[CACHE_STATUS].to_str().unwrap().to_owned()
        };
        assert_eq!(
            status(Outcome::Hit(age(false, MatchKind::Exact))),
            "likewise; hit; ttl=-2; detail=memory"
        );
        assert_eq!(
            status(Outcome::Hit(age(true, MatchKind::Normalized))),
            "likewise; hit; ttl=-2; detail=memory-normalized-stale"
        );
        let failed = Outcome::StaleIfError(age(true, MatchKind::Exact), Some(503));
        assert_eq!(status(failed), "likewise; fwd=stale; fwd-status=503; ttl=-2; detail=stale-if-error");
        assert_eq!(status(Outcome::Coalesced), "likewise; fwd=miss; collapsed");
        assert_eq!(status(Outcome::Bypass), "likewise; fwd=bypass");
    }
}
