//! Replays a stored answer in either form, as a new response.
//!
//! A stream is produced piece by piece as it is read, and has at most ten times as many bytes as the answer: the size of the
//! pieces depends on how many bytes each chunk repeats.

use bytes::Bytes;

use super::ReplyFormat;
use super::plan::Plan;
use super::step::Step;
use crate::dialects::Replay;
use crate::dialects::delivery_id::new_id;
use crate::domain::UnixSeconds;

const DONE: &[u8] = b"data: [DONE]\n\n";

/// The answer as one JSON text.
pub fn as_json<F: ReplyFormat>(json: &[u8], created: UnixSeconds) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 80);
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(new_id(F::ID_PREFIX).as_bytes());
    out.extend_from_slice(format!("\",\"created\":{created}").as_bytes());
    let rest = json.get(1..).unwrap_or_default();
    if rest != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    out
}

/// A stored answer as the chunks of a stream.
#[derive(Debug)]
pub struct ChunkReplay {
    plan: Plan,
    /// What the plan holds of the answer.
    source_bytes: usize,
    is_over: bool,
}

impl ChunkReplay {
    /// A replay of an answer. `None` if a stream cannot represent it exactly.
    pub fn new<F: ReplyFormat>(json: &[u8], created: UnixSeconds, wants_usage: bool) -> Option<ChunkReplay> {
        let plan = Plan::read::<F>(json, &new_id(F::ID_PREFIX), created, wants_usage)?;
        // Texts and their tokens are copies of parts of it.
        Some(ChunkReplay { plan, source_bytes: json.len().saturating_mul(2), is_over: false })
    }
}

impl Replay for ChunkReplay {
    fn next_bytes(&mut self, bytes: usize) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let mut out = Vec::with_capacity(self.plan.bytes_expected.min(bytes) + 1024);
        while out.len() < bytes {
            match self.plan.steps.front_mut() {
                Some(Step::Entries(entries)) => {
                    self.plan.frame.write(entries, &mut out);
                    self.plan.steps.pop_front();
                }
                Some(Step::Text(text)) => match text.next_entry(self.plan.piece_bytes) {
                    Some(entry) => self.plan.frame.write(entry, &mut out),
                    None => _ = self.plan.steps.pop_front(),
                },
                None => {
                    self.plan.frame.write_usage(&mut out);
                    out.extend_from_slice(DONE);
                    self.is_over = true;
                    break;
                }
            }
        }
        Some(out.into())
    }

    fn bytes_held_and_expected(&self) -> (usize, usize) {
        (self.source_bytes, self.plan.bytes_expected)
    }

    fn is_over(&self) -> bool {
        self.is_over
    }
}
