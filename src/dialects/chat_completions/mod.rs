//! Chat completions (`POST /v1/chat/completions`), as OpenAI and the servers that follow it speak them.

mod assembler;
mod completion;
#[cfg(test)]
mod identity_tests;
mod replay;
mod request;
mod usage_member;

use bytes::Bytes;

pub use assembler::{ChunkAssembler, is_ping};
pub use completion::read_reply;
pub use replay::{ChunkReplay, as_json};
pub use request::parse;

use super::{Answer, Assembler, Dialect, ParsedRequest, Replay};
use crate::domain::UnixSeconds;
use crate::error::Result;
use crate::raw_object;
use crate::request_identity::Normalization;

/// The dialect.
#[derive(Debug, Clone, Copy)]
pub struct ChatCompletions;

impl Dialect for ChatCompletions {
    fn upstream_path(&self) -> &'static str {
        "/chat/completions"
    }

    fn parse(&self, body: &[u8], normalization: Normalization) -> Result<ParsedRequest> {
        request::parse(body, normalization)
    }

    fn upstream_body(&self, request: &ParsedRequest, body: &Bytes, requests_usage: bool) -> Result<Bytes> {
        let mut body = body.clone();
        if request.has_directives {
            body = raw_object::without(&body, request::DIRECTIVES)?;
        }
        if request.streams && requests_usage && !request.wants_usage {
            body = usage_member::with_usage(&body)?;
        }
        Ok(body)
    }

    fn read_reply(&self, body: &[u8]) -> Option<Answer> {
        completion::read_reply(body)
    }

    fn assembler(&self) -> Box<dyn Assembler> {
        Box::new(ChunkAssembler::default())
    }

    fn without_usage(&self, event: &Bytes) -> Option<Bytes> {
        usage_member::without_usage(event)
    }

    fn replay_json(&self, answer: &[u8], created: UnixSeconds) -> Vec<u8> {
        as_json(answer, created)
    }

    fn replay_events(
        &self,
        answer: &[u8],
        created: UnixSeconds,
        wants_usage: bool,
    ) -> Option<Box<dyn Replay>> {
        Some(Box::new(ChunkReplay::new(answer, created, wants_usage)?))
    }
}
