//! Completions (`POST /v1/completions`), the API before chat completions, as OpenAI, vLLM and llama.cpp speak it.

mod choice;
#[cfg(test)]
mod identity_tests;
mod replay;
mod request;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::choices::{self, ChunkAssembler, ChunkReplay, ReplyFormat};
use super::{Answer, Assembler, Dialect, ErrorReply, IdentityHeader, ParsedRequest, Replay, StreamForm};
use crate::domain::{KeyHeader, UnixSeconds};
use crate::error::Result;
use crate::request_identity::{IdentityParts, IdentityRules};

/// The dialect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Completions;

impl ReplyFormat for Completions {
    const REPLY_OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    // llama.cpp's and Together's chunks are called otherwise than OpenAI's.
    const CHUNK_OBJECTS: &'static [&'static str] =
        &["", "text_completion", "text_completion.chunk", "completion.chunk"];
    const ID_PREFIX: &'static str = "cmpl-";

    type Reply<'a> = choice::TextChoice<'a>;
    type Assembled = choice::StreamedTextChoice;
    type Replayed<'a> = replay::ReplayedText<'a>;
}

impl Dialect for Completions {
    fn record_code(&self) -> u8 {
        1
    }

    fn upstream_path(&self) -> &'static str {
        "/completions"
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::BEARER
    }

    fn identity_headers(&self) -> &'static [IdentityHeader] {
        &[]
    }

    fn parse(&self, body: &[u8], rules: &IdentityRules) -> Result<ParsedRequest> {
        request::parse(&Completions, body, rules)
    }

    fn identity_parts<'a>(&self, body: &'a [u8], rules: &IdentityRules) -> Result<IdentityParts<'a>> {
        request::identity_parts(body, rules)
    }

    /// A prompt is continued from its last letter on.
    fn is_rewordable(&self, _: &[u8]) -> bool {
        false
    }

    fn upstream_body(&self, request: &ParsedRequest, body: &Bytes, requests_usage: bool) -> Result<Bytes> {
        choices::request::upstream_body(request, body, requests_usage)
    }

    fn read_reply(&self, body: &[u8]) -> Option<Answer> {
        choices::read_reply::<Completions>(body)
    }

    fn text_of_answer(&self, answer: &[u8]) -> Option<String> {
        choices::text_of_answer::<Completions>(answer)
    }

    fn assembler(&self) -> Box<dyn Assembler> {
        Box::new(ChunkAssembler::<Completions>::default())
    }

    fn without_usage(&self, event: &Bytes) -> Option<Bytes> {
        choices::without_usage(event)
    }

    fn replay_json(&self, answer: &[u8], created: UnixSeconds) -> Vec<u8> {
        choices::as_json::<Completions>(answer, created)
    }

    fn replay_events(
        &self,
        answer: &[u8],
        created: UnixSeconds,
        form: StreamForm,
    ) -> Option<Box<dyn Replay>> {
        Some(Box::new(ChunkReplay::new::<Completions>(answer, created, form.wants_usage)?))
    }

    fn error_body(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        choices::error_body(error)
    }

    fn error_event(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        choices::error_event(error)
    }
}
