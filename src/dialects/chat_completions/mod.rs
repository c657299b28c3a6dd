//! Chat completions (`POST /v1/chat/completions`), as OpenAI and the servers that follow it speak them.

mod completion;
#[cfg(test)]
mod identity_tests;
mod replay;
mod request;
mod stream;

use bytes::Bytes;

pub use completion::reply_in_words;
pub use request::request_in_words;

use super::choices::{self, ChunkReplay, ReplyFormat};
use super::{Answer, Assembler, Dialect, ErrorReply, IdentityHeader, ParsedRequest, Replay, StreamForm};
use crate::domain::{KeyHeader, UnixSeconds};
use crate::error::Result;
use crate::request_identity::{IdentityParts, IdentityRules};

/// The dialect.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChatCompletions;

/// Assembles the chunks of a stream.
pub type ChunkAssembler = choices::ChunkAssembler<ChatCompletions>;

/// Parses a request. `rules` say which requests are one.
///
/// # Errors
/// `InvalidInput`, naming the field, for what cannot be a request for a chat completion.
pub fn parse(body: &[u8], rules: &IdentityRules) -> Result<ParsedRequest> {
    request::parse(&ChatCompletions, body, rules)
}

/// The answer in the body of a reply. `None` for anything but a chat completion with at least one choice.
pub fn read_reply(body: &[u8]) -> Option<Answer> {
    choices::read_reply::<ChatCompletions>(body)
}

impl ReplyFormat for ChatCompletions {
    const REPLY_OBJECT: &'static str = "chat.completion";
    const CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    // None at all (Azure's first chunk), or as OpenAI and Perplexity call it.
    const CHUNK_OBJECTS: &'static [&'static str] =
        &["", "chat.completion.chunk", "chat.completion", "chat.completion.done"];
    const ID_PREFIX: &'static str = "chatcmpl-";

    type Reply<'a> = completion::MessageChoice<'a>;
    type Assembled = stream::StreamedChoice;
    type Replayed<'a> = replay::ReplayedMessage<'a>;
}

impl Dialect for ChatCompletions {
    fn record_code(&self) -> u8 {
        0
    }

    fn upstream_path(&self) -> &'static str {
        "/chat/completions"
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::BEARER
    }

    fn identity_headers(&self) -> &'static [IdentityHeader] {
        &[]
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

    fn upstream_body(&self, request: &ParsedRequest, body: &Bytes, requests_usage: bool) -> Result<Bytes> {
        choices::request::upstream_body(request, body, requests_usage)
    }

    fn read_reply(&self, body: &[u8]) -> Option<Answer> {
        read_reply(body)
    }

    fn text_of_answer(&self, answer: &[u8]) -> Option<String> {
        choices::text_of_answer::<ChatCompletions>(answer)
    }

    fn assembler(&self) -> Box<dyn Assembler> {
        Box::new(ChunkAssembler::default())
    }

    fn without_usage(&self, event: &Bytes) -> Option<Bytes> {
        choices::without_usage(event)
    }

    fn replay_json(&self, answer: &[u8], created: UnixSeconds) -> Vec<u8> {
        choices::as_json::<ChatCompletions>(answer, created)
    }

    fn replay_events(
        &self,
        answer: &[u8],
        created: UnixSeconds,
        form: StreamForm,
    ) -> Option<Box<dyn Replay>> {
        Some(Box::new(ChunkReplay::new::<ChatCompletions>(answer, created, form.wants_usage)?))
    }

    fn error_body(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        choices::error_body(error)
    }

    fn error_event(&self, error: &ErrorReply<'_>) -> Vec<u8> {
        choices::error_event(error)
    }
}
