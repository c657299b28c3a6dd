//! Messages (`POST /v1/messages`), as Anthropic and the servers that follow it speak them.
//!
//! A message is a list of typed blocks, and its stream says each of them by events of their own types. What identifies a request, and
//! what is stored of a reply, is in [ADR 55](../../../docs/adr/0055-messages.md).

mod block;
mod error;
mod hosted;
#[cfg(test)]
mod identity_tests;
mod members;
mod replay;
#[cfg(test)]
mod replay_tests;
mod reply;
mod request;
mod stream;

use bytes::Bytes;

use super::choices;
use super::{Answer, Assembler, Dialect, ErrorReply, IdentityHeader, ParsedRequest, Replay, StreamForm};
use crate::domain::{KeyHeader, UnixSeconds};
use crate::error::Result;
use crate::request_identity::{IdentityParts, IdentityRules};

/// The dialect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Messages;

/// The version decides the shape of the answer, and each beta may change it.
const IDENTITY_HEADERS: [IdentityHeader; 2] = [
    IdentityHeader { name: "anthropic-version", is_set: false },
    IdentityHeader { name: "anthropic-beta", is_set: true },
];

/// Parses a request. `rules` say which requests are one.
///
/// # Errors
/// `InvalidInput`, naming the field, for what cannot be a request for a message.
pub fn parse(body: &[u8], rules: &IdentityRules) -> Result<ParsedRequest> {
    request::parse(&Messages, body, rules)
}

impl Dialect for Messages {
    fn record_code(&self) -> u8 {
        3
    }

    fn upstream_path(&self) -> &'static str {
        "/messages"
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::X_API_KEY
    }

    fn identity_headers(&self) -> &'static [IdentityHeader] {
        &IDENTITY_HEADERS
    }

    fn parse(&self, body: &[u8], rules: &IdentityRules) -> Result<ParsedRequest> {
        parse(body, rules)
    }

    fn identity_parts<'a>(&self, body: &'a [u8], rules: &IdentityRules) -> Result<IdentityParts<'a>> {
        request::identity_parts(body, rules)
    }

    fn is_rewordable(&self, body: &[u8]) -> bool {
        request::is_rewordable(body)
    }

    /// Every reply reports usage, so none is requested.
    fn upstream_body(&self, request: &ParsedRequest, body: &Bytes, _: bool) -> Result<Bytes> {
        choices::request::upstream_body(request, body, false)
    }

    fn has_hosted_features(&self) -> bool {
        true
    }

    fn read_reply(&self, body: &[u8]) -> Option<Answer> {
        reply::read_reply(body)
    }

    fn text_of_answer(&self, answer: &[u8]) -> Option<String> {
        reply::text_of_answer(answer)
    }

    fn assembler(&self) -> Box<dyn Assembler> {
        Box::new(stream::MessageAssembler::default())
    }

    /// Usage is part of every message.
    fn without_usage(&self, _: &Bytes) -> Option<Bytes> {
        None
    }

    fn replay_json(&self, answer: &[u8], _: UnixSeconds) -> Vec<u8> {
        replay::as_json(answer)
    }

    fn replay_events(&self, answer: &[u8], _: UnixSeconds, _: StreamForm) -> Option<Box<dyn Replay>> {
        Some(Box::new(replay::MessageReplay::new(answer)?))
    }

    fn error_body(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        error::error_body(error)
    }

    fn error_event(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        error::error_event(error)
    }
}
