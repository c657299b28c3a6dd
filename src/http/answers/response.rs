//! Writes the response to a request for an answer.

use std::fmt::Write as _;

use axum::body::Body as HttpBody;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::answer_id::format_id;
use crate::dialects::{Dialect, Replay};
use crate::domain::LookupOutcome;
use crate::error::{Error, Kind, Result};
use crate::http::error_response;
use crate::http::reservation;
use crate::http::response::cache_status;
use crate::http::response::chunked;
use crate::http::response::headers::{CACHE_STATUS, Millis, REASON, SERVER_TIMING, append_all};
use crate::request_identity::MemberDifference;
use crate::service::answers::{
    AnswerOutcome, AnswerResponse, Body, EventStream, HitInfo, MatchKind, REPLAYED_BYTES, SemanticReport,
};

const ANSWER_ID: HeaderName = HeaderName::from_static("x-likewise-answer-id");
const DIFFERS: HeaderName = HeaderName::from_static("x-likewise-differs");
const SEMANTIC: HeaderName = HeaderName::from_static("x-likewise-semantic");
const TOKENS_SAVED: HeaderName = HeaderName::from_static("x-likewise-tokens-saved");
const COST_SAVED: HeaderName = HeaderName::from_static("x-likewise-cost-saved-usd");

/// Capacity for the headers of a response, with those that admission and the connection add.
const HEADERS: usize = 12;

/// Writes a response with the headers that describe its outcome. Whether a stream is stored is known at its end only, so its reason
/// is in the trailer.
pub(super) fn respond(
    served: AnswerResponse,
    dialect: &'static dyn Dialect,
    takes_trailers: bool,
) -> Response {
    let timing = server_timing(&served);
    let (status, id, saved, reason) = (served.status, served.id, served.saved, served.reason);
    let (semantic, differences) = (served.semantic, served.differences);
    let is_events = matches!(served.body, Body::Live(_) | Body::Events(_) | Body::Replay(..));
    let held = match &served.body {
        Body::Replay(_, replay) => Some(replay.bytes_held_and_expected()),
        Body::Whole(_) | Body::Events(_) | Body::Live(_) => None,
    };
    let has_trailer = takes_trailers && matches!(served.body, Body::Live(_)) && reason.is_none();
    let mut response = Response::new(match served.body {
        Body::Whole(bytes) | Body::Events(bytes) => HttpBody::from(bytes),
        Body::Replay(first, replay) => chunked::body(pieces_of(first, replay)),
        Body::Live(live) => HttpBody::new(StreamBody::new(frames_of(live, dialect, has_trailer))),
    });
    if let Some((source_bytes, bytes_expected)) = held {
        reservation::expect_bytes(response.extensions_mut(), source_bytes, bytes_expected);
    }
    // The upstream's status is valid HTTP; 502 if not.
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
    if let Some(report) = semantic {
        headers.insert(SEMANTIC, value(semantic_item(report)));
    }
    if !differences.is_empty() {
        headers.insert(DIFFERS, value(list_of(&differences)));
    }
    if let Some(reason) = reason {
        headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    }
    if has_trailer {
        headers.insert(header::TRAILER, HeaderValue::from_static("x-likewise-reason"));
    }
    response
}

/// The rest of a stream.
enum Rest {
    Live(EventStream),
    Broken(Error),
}

/// A stored stream, written as it is read.
fn pieces_of(first: Bytes, mut replay: Box<dyn Replay>) -> impl Iterator<Item = Bytes> {
    let rest = std::iter::from_fn(move || replay.next_bytes(REPLAYED_BYTES));
    std::iter::once(first).chain(rest)
}

/// A failure ends the connection, so that no client takes a part for the whole. One of this server is reported as an event before.
fn frames_of(
    live: EventStream,
    dialect: &'static dyn Dialect,
    has_trailer: bool,
) -> impl stream::Stream<Item = Result<Frame<Bytes>>> {
    stream::unfold(Some(Rest::Live(live)), move |rest| async move {
        let mut live = match rest? {
            Rest::Live(live) => live,
            Rest::Broken(error) => {
                // The event is sent before the connection ends.
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
                let event = if is_ours { error_response::event(&error, dialect) } else { Bytes::new() };
                Some((Ok(Frame::data(event)), Some(Rest::Broken(error))))
            }
        }
    })
}

/// Writes `cache-status` (RFC 9211) and `age`.
fn describe(outcome: &AnswerOutcome, headers: &mut HeaderMap) {
    let mut status = String::with_capacity(64);
    status.push_str(match outcome {
        AnswerOutcome::Hit(_) => cache_status::of(LookupOutcome::Hit),
        AnswerOutcome::StaleIfError(..) => cache_status::STALE_IF_ERROR,
        AnswerOutcome::ForcedRefresh => cache_status::FORCED_REFRESH,
        AnswerOutcome::Miss => cache_status::of(LookupOutcome::Miss),
        AnswerOutcome::Coalesced => cache_status::of(LookupOutcome::Coalesced),
        AnswerOutcome::Bypass => cache_status::of(LookupOutcome::Bypass),
    });
    match outcome {
        AnswerOutcome::Hit(age) => {
            let _ = write!(status, "; ttl={}; detail={}", age.fresh_seconds, age.tier);
            describe_age(age, &mut status);
            headers.insert(header::AGE, HeaderValue::from(age.age_seconds));
        }
        AnswerOutcome::StaleIfError(age, failed) => {
            if let Some(failed) = failed {
                let _ = write!(status, "; fwd-status={failed}");
            }
            let _ = write!(status, "; ttl={}; detail=stale-if-error", age.fresh_seconds);
            headers.insert(header::AGE, HeaderValue::from(age.age_seconds));
        }
        AnswerOutcome::ForcedRefresh
        | AnswerOutcome::Miss
        | AnswerOutcome::Coalesced
        | AnswerOutcome::Bypass => {}
    }
    // Behind the entries of caches on the way (RFC 9211, section 2).
    headers.append(CACHE_STATUS, value(status));
}

fn describe_age(age: &HitInfo, status: &mut String) {
    if age.match_kind != MatchKind::Exact {
        let _ = write!(status, "-{}", age.match_kind.as_str());
    }
    if age.is_stale {
        let _ = write!(status, "-{}", LookupOutcome::Stale.as_str());
    }
}

/// The durations in milliseconds, in the form of the W3C's Server Timing.
fn server_timing(served: &AnswerResponse) -> String {
    let mut text = String::with_capacity(64);
    let _ = write!(text, "lookup;dur={}", Millis(served.lookup));
    if let Some(upstream) = served.upstream {
        let _ = write!(text, ", upstream;dur={}", Millis(upstream));
    }
    text
}

/// What became of the search for a question in other words, as an item with parameters (RFC 9651, section 3.3).
fn semantic_item(report: SemanticReport) -> String {
    let mut item = report.outcome.as_str().to_owned();
    if let Some(similarity) = report.similarity {
        let _ = write!(item, "; similarity={similarity:.3}");
    }
    if let Some(because) = report.because {
        let _ = write!(item, "; because={because}");
    }
    item
}

/// The members in which a request differs from a stored one, as `messages[0].content@118, metadata.trace_id`.
fn list_of(differences: &[MemberDifference]) -> String {
    let mut list = String::with_capacity(64);
    for difference in differences {
        let separator = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{separator}{difference}");
    }
    list
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
        let status = |outcome: AnswerOutcome| {
            let mut headers = HeaderMap::new();
            describe(&outcome, &mut headers);
            headers[CACHE_STATUS].to_str().unwrap().to_owned()
        };
        assert_eq!(
            status(AnswerOutcome::Hit(age(false, MatchKind::Exact))),
            "likewise; hit; ttl=-2; detail=memory"
        );
        assert_eq!(
            status(AnswerOutcome::Hit(age(true, MatchKind::Normalized))),
            "likewise; hit; ttl=-2; detail=memory-normalized-stale"
        );
        let failed = AnswerOutcome::StaleIfError(age(true, MatchKind::Exact), Some(503));
        assert_eq!(status(failed), "likewise; fwd=stale; fwd-status=503; ttl=-2; detail=stale-if-error");
        assert_eq!(
            status(AnswerOutcome::Hit(age(false, MatchKind::Semantic))),
            "likewise; hit; ttl=-2; detail=memory-semantic"
        );
        assert_eq!(status(AnswerOutcome::Coalesced), "likewise; fwd=miss; collapsed");
        assert_eq!(status(AnswerOutcome::Bypass), "likewise; fwd=bypass");
    }
}
