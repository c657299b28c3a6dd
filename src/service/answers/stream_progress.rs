//! A stream as it is read: its events, and the answer that is assembled from them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::broadcast::Streamed;
use crate::dialects::{Answer, Assembler, Dialect, Unstorable};
use crate::error::{Error, Kind, Result};
use crate::sse::Events;
use crate::upstream::Reply;

/// How long the connection may take to end a stream after the event that ends its answer.
const END_WITHIN: Duration = Duration::from_millis(50);

/// Characters of an error in a stream that clients get.
const FAULT_CHARS_MAX: usize = 500;

/// A stream as it is read.
pub(super) struct StreamProgress {
    pub(super) events: Events,
    pub(super) dialect: &'static dyn Dialect,
    pub(super) assembler: Box<dyn Assembler>,
    /// The event that ends the answer, and `[DONE]` behind it, held back until the answer is stored.
    pub(super) last: Vec<Bytes>,
    /// Whether the last event so far is `[DONE]`.
    pub(super) ends_with_done: bool,
    /// The error that the stream reported.
    pub(super) fault: Option<String>,
    /// Until when a stream whose answer has ended is read.
    pub(super) end: Option<Instant>,
    /// Whether it is too long to be collected.
    pub(super) is_too_long: bool,
}

impl StreamProgress {
    pub(super) fn new(dialect: &'static dyn Dialect) -> StreamProgress {
        StreamProgress {
            events: Events::default(),
            dialect,
            assembler: dialect.assembler(),
            last: Vec::new(),
            ends_with_done: false,
            fault: None,
            end: None,
            is_too_long: false,
        }
    }

    /// The next bytes of a stream. After the end of the answer the stream is read to its own end, so that its connection can be
    /// used again, for [`END_WITHIN`] at most; errors of the connection are ignored then.
    pub(super) async fn next_of(&mut self, reply: &mut Reply) -> Result<Option<Bytes>> {
        if !self.assembler.is_done() {
            return reply.next().await;
        }
        let end = *self.end.get_or_insert_with(|| Instant::now() + END_WITHIN);
        Ok(tokio::time::timeout_at(end, reply.next()).await.ok().and_then(Result::ok).flatten())
    }

    /// The result of the stream, the reason if it is no answer, and the events that were held back.
    pub(super) fn finish(self) -> (Streamed, Option<Unstorable>, Vec<Bytes>) {
        let StreamProgress { dialect, mut assembler, last, ends_with_done, fault, .. } = self;
        let (usage, is_over) = (assembler.usage(), assembler.is_done() || assembler.has_ended());
        let faulty = |message: String| Streamed::Faulty(Error::new(Kind::Upstream, message));
        let answer =
            assembler.finish().and_then(|json| dialect.read_reply(&json).ok_or(Unstorable::Uncertain));
        let (streamed, unstorable) = match (fault, answer) {
            (Some(fault), _) => {
                let fault: String = fault.chars().take(FAULT_CHARS_MAX).collect();
                (faulty(format!("the upstream's stream ended in an error: {fault}")), Some(Unstorable::Error))
            }
            (None, Ok(answer)) => (Streamed::Answer(Arc::new(Answer { ends_with_done, ..answer })), None),
            (None, Err(unstorable)) if is_over => (Streamed::Uncertain(usage), Some(unstorable)),
            (None, Err(_)) => {
                let message = "the upstream's stream ended before its answer was complete";
                (faulty(message.into()), Some(Unstorable::Incomplete))
            }
        };
        (streamed, unstorable, last)
    }
}
