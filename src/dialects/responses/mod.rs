//! Responses (`POST /v1/responses`), OpenAI's API after chat completions, as OpenAI and the servers that follow it speak it.
//!
//! The one idea: a stream ends with the complete response, so that is what is stored, if the events before it said the same; its replay
//! writes these events again.

mod assembler;
mod error;
mod hosted;
#[cfg(test)]
mod hosted_tests;
#[cfg(test)]
mod identity_tests;
mod item_format;
mod output;
mod part;
mod replay;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::choices;
use super::{Answer, Assembler, Dialect, ErrorReply, IdentityHeader, ParsedRequest, Replay, StreamForm};
use crate::domain::{KeyHeader, UnixSeconds};
use crate::error::Result;
use crate::request_identity::{IdentityParts, IdentityRules};

/// The dialect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Responses;

impl Dialect for Responses {
    fn record_code(&self) -> u8 {
        2
    }

    fn upstream_path(&self) -> &'static str {
        "/responses"
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::BEARER
    }

    fn identity_headers(&self) -> &'static [IdentityHeader] {
        &[]
    }

    fn parse(&self, body: &[u8], rules: &IdentityRules) -> Result<ParsedRequest> {
        request::parse(&Responses, body, rules)
    }

    fn identity_parts<'a>(&self, body: &'a [u8], rules: &IdentityRules) -> Result<IdentityParts<'a>> {
        request::identity_parts(body, rules)
    }

    /// Answers are bound to one credential, and what a previous response said is not known here.
    fn is_rewordable(&self, _: &[u8]) -> bool {
        false
    }

    fn upstream_body(&self, request: &ParsedRequest, body: &Bytes, requests_usage: bool) -> Result<Bytes> {
        choices::request::upstream_body(request, body, requests_usage)
    }

    fn has_hosted_features(&self) -> bool {
        true
    }

    fn read_reply(&self, body: &[u8]) -> Option<Answer> {
        reply::read_reply(body)
    }

    fn kept_id(&self, answer: &[u8]) -> Option<String> {
        reply::kept_id(answer)
    }

    fn text_of_answer(&self, answer: &[u8]) -> Option<String> {
        reply::text_of_answer(answer)
    }

    fn assembler(&self) -> Box<dyn Assembler> {
        Box::new(assembler::EventAssembler::default())
    }

    /// A stream reports its usage in the complete response, which every client gets.
    fn without_usage(&self, _: &Bytes) -> Option<Bytes> {
        None
    }

    fn replay_json(&self, answer: &[u8], created: UnixSeconds) -> Vec<u8> {
        reply::as_json(answer, created)
    }

    /// OpenAI sends no `[DONE]` behind the last event, others that speak its API do.
    fn replay_events(
        &self,
        answer: &[u8],
        created: UnixSeconds,
        form: StreamForm,
    ) -> Option<Box<dyn Replay>> {
        Some(Box::new(replay::EventReplay::new(answer, created, form.ends_with_done)?))
    }

    fn error_body(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        choices::error_body(error)
    }

    fn error_event(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        error::error_event(error)
    }
}
