//! Any route that gives equal answers to equal bodies, such as `/v1/moderations`: of a request every byte counts, and of a reply nothing is
//! read but whether it is JSON. What is stored, and what is not, is in [ADR 57](../../docs/adr/0057-any-route-by-its-exact-body.md).

use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::choices;
use super::paths::is_within;
use super::responses::Responses;
use super::{
    Answer, Assembler, Dialect, ErrorReply, HostedFeatures, IdentityHeader, Note, ParsedRequest, Replay,
    StreamForm, Unstorable, parent_api,
};
use crate::domain::{KeyHasher, KeyHeader, TokenUsage, UnixSeconds};
use crate::error::{Error, Kind, Result};
use crate::raw_object::RawObject;
use crate::request_identity::{IdentityParts, IdentityRules};
use crate::sse::Event;

/// Says how the bytes of a body are read, with the boundary of a form.
const CONTENT_TYPE: IdentityHeader = IdentityHeader { name: "content-type", is_set: false };

/// The dialect of one path.
#[derive(Debug)]
pub struct ExactBody {
    /// Below the upstream's base URL.
    path: Box<str>,
    /// The API that the path lies below, if its keys and errors are not OpenAI's.
    parent: Option<&'static dyn Dialect>,
    identity_headers: Vec<IdentityHeader>,
    /// Whether its answers have ids or secrets of one credential.
    is_credential_bound: bool,
}

impl ExactBody {
    /// The dialect of `path`, which is below an upstream's base URL.
    pub fn new(path: &str) -> ExactBody {
        let parent = parent_api(path);
        let of_parent = parent.map_or(&[][..], |api| api.identity_headers());
        let identity_headers = of_parent.iter().copied().chain([CONTENT_TYPE]).collect();
        let is_credential_bound = is_within(path, &Responses);
        ExactBody { path: path.into(), parent, identity_headers, is_credential_bound }
    }

    /// A request with this body for `model`, if it names one. Cost: one hash of the body.
    pub fn request(&'static self, model: Option<String>, body: &[u8]) -> ParsedRequest {
        let scope =
            KeyHasher::new("likewise/request/exact-body/v1").field(self.path.as_bytes()).field(body).finish();
        ParsedRequest {
            dialect: self,
            model: Arc::from(model.unwrap_or_default()),
            // Only the reply says whether it is a stream.
            streams: true,
            wants_usage: false,
            temperature: None,
            has_tools: false,
            hosted: HostedFeatures::default(),
            is_credential_bound: self.is_credential_bound,
            has_directives: false,
            is_exact: true,
            question: None,
            form: None,
            scope,
            scope_domain: "likewise/scope/exact-body/v1",
        }
    }
}

impl Dialect for ExactBody {
    fn record_code(&self) -> u8 {
        4
    }

    fn upstream_path(&self) -> &str {
        &self.path
    }

    fn key_header(&self) -> KeyHeader {
        self.parent.map_or(KeyHeader::BEARER, |api| api.key_header())
    }

    fn identity_headers(&self) -> &[IdentityHeader] {
        &self.identity_headers
    }

    /// The model is wherever the media type puts it: only a caller that knows that can name it ([`ExactBody::request`]).
    fn parse(&'static self, body: &[u8], _: &IdentityRules) -> Result<ParsedRequest> {
        Ok(self.request(None, body))
    }

    fn identity_parts<'a>(&self, _: &'a [u8], _: &IdentityRules) -> Result<IdentityParts<'a>> {
        Err(Error::new(Kind::InvalidInput, "nothing is known of the members of the body"))
    }

    fn is_rewordable(&self, _: &[u8]) -> bool {
        false
    }

    fn upstream_body(&self, _: &ParsedRequest, body: &Bytes, _: bool) -> Result<Bytes> {
        Ok(body.clone())
    }

    /// Replays have the status 200 and this media type.
    fn may_be_answer(&self, status: u16, content_type: Option<&str>) -> bool {
        let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        status == 200 && media_type.eq_ignore_ascii_case("application/json")
    }

    fn replays_whole_only(&self) -> bool {
        true
    }

    fn read_reply(&self, body: &[u8]) -> Option<Answer> {
        let json = std::str::from_utf8(body).ok()?;
        serde_json::from_str::<IgnoredAny>(json).ok()?;
        let members = RawObject::read(body);
        let error = members.as_ref().and_then(|members| members.get("error"));
        Some(Answer {
            json: Bytes::copy_from_slice(body),
            usage: None,
            unstorable: error.filter(|error| *error != "null").map(|_| Unstorable::Error),
            hosted: HostedFeatures::default(),
            calls_tools: false,
            is_truncated: false,
            ends_with_done: false,
        })
    }

    fn text_of_answer(&self, _: &[u8]) -> Option<String> {
        None
    }

    fn assembler(&self) -> Box<dyn Assembler> {
        Box::new(PassedOnStream::default())
    }

    fn without_usage(&self, _: &Bytes) -> Option<Bytes> {
        None
    }

    fn replay_json(&self, answer: &[u8], _: UnixSeconds) -> Vec<u8> {
        answer.to_vec()
    }

    fn replay_events(&self, _: &[u8], _: UnixSeconds, _: StreamForm) -> Option<Box<dyn Replay>> {
        None
    }

    fn error_body(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        self.parent.map_or_else(|| choices::error_body(error), |api| api.error_body(error))
    }

    fn error_event(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        self.parent.map_or_else(|| choices::error_event(error), |api| api.error_event(error))
    }
}

/// A stream whose events nothing is known of: it is passed on, and ends with its connection.
#[derive(Debug, Default)]
struct PassedOnStream {
    has_ended: bool,
}

impl Assembler for PassedOnStream {
    fn push(&mut self, _: &Event) -> Note {
        Note::default()
    }

    fn may_report_usage(&self, _: &Event) -> bool {
        false
    }

    fn end(&mut self) {
        self.has_ended = true;
    }

    fn is_done(&self) -> bool {
        self.has_ended
    }

    fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn usage(&self) -> Option<TokenUsage> {
        None
    }

    fn give_up(&mut self) {}

    fn finish(&mut self) -> Result<Vec<u8>, Unstorable> {
        Err(Unstorable::Stream)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::dialects::test_requests::partition;
    use crate::domain::TenantId;

    static MODERATIONS: LazyLock<ExactBody> = LazyLock::new(|| ExactBody::new("/moderations"));
    static COUNT_TOKENS: LazyLock<ExactBody> = LazyLock::new(|| ExactBody::new("/messages/count_tokens"));

    #[test]
    fn every_byte_of_a_body_and_the_path_count() {
        let tenant = TenantId::default();
        let partition = partition(&tenant);
        let key = |dialect: &'static ExactBody, body: &str| {
            dialect.request(None, body.as_bytes()).identity(&partition).key
        };
        let body = r#"{"input":"a"}"#;
        assert_eq!(key(&MODERATIONS, body), key(&MODERATIONS, body));
        for other in [r#"{"input": "a"}"#, r#"{"input":"a","cache":{}}"#, "", "\u{feff}{\"input\":\"a\"}"] {
            assert_ne!(key(&MODERATIONS, body), key(&MODERATIONS, other), "{other}");
        }
        assert_ne!(key(&MODERATIONS, body), key(&COUNT_TOKENS, body));
    }

    #[test]
    fn only_whole_json_without_an_error_is_stored() {
        let is_answer = |status, content_type| MODERATIONS.may_be_answer(status, content_type);
        assert!(
            is_answer(200, Some("application/json"))
                && is_answer(200, Some("Application/JSON; charset=utf-8"))
        );
        assert!(!is_answer(201, Some("application/json")) && !is_answer(200, Some("text/plain")));
        assert!(!is_answer(200, None) && !is_answer(200, Some("application/jsonl")));
        let read = |body: &str| MODERATIONS.read_reply(body.as_bytes()).map(|answer| answer.unstorable);
        for whole in [r#"{"results":[ ]}"#, "[1]", "7", r#"{"error":null}"#] {
            assert_eq!(read(whole), Some(None), "{whole}");
        }
        assert_eq!(read(r#"{"error":{"message":"no"}}"#), Some(Some(Unstorable::Error)));
        for part in ["", "{\"a\":", "{} {}", "hello"] {
            assert_eq!(read(part), None, "{part}");
        }
        assert!(MODERATIONS.read_reply(b"\"\xff\"").is_none());
    }

    #[test]
    fn keys_headers_and_errors_are_those_of_the_api_above() {
        let names = |dialect: &ExactBody| -> Vec<&str> {
            dialect.identity_headers().iter().map(|header| header.name).collect()
        };
        assert_eq!(names(&MODERATIONS), ["content-type"]);
        assert_eq!(MODERATIONS.key_header(), KeyHeader::BEARER);
        assert_eq!(names(&COUNT_TOKENS), ["anthropic-version", "anthropic-beta", "content-type"]);
        assert_eq!(COUNT_TOKENS.key_header(), KeyHeader::X_API_KEY);
        assert_eq!(ExactBody::new("/messages_of_mine").key_header(), KeyHeader::BEARER);
    }
}
