//! What the chunks of a replay say, and how much each of them carries.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use super::reply::{ENVELOPE_BYTES_MAX, OF_DELIVERY, OF_ENVELOPE};
use super::step::Step;
use super::{ReplayedChoice, ReplyFormat};
use crate::domain::UnixSeconds;
use crate::raw_object::{RawObject, write_member};

/// A piece of text has at least so many bytes.
const PIECE_BYTES_MIN: usize = 24;
/// A stream has at most so many times the bytes of its answer; pieces grow until it does.
const TIMES_MAX: usize = 10;
/// An entry of `choices` beside what it carries, at most: with the place of a call's arguments, or with probabilities.
const ENTRY_BYTES: usize = 128;

/// A replay that is yet to be written.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) frame: Frame,
    pub(super) steps: VecDeque<Step>,
    pub(super) piece_bytes: usize,
    /// About how many bytes it will have.
    pub(super) bytes_expected: usize,
}

/// What every chunk repeats.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its beginning.
    head: Vec<u8>,
    /// Members that only the first chunk has, each behind a comma.
    once: Vec<u8>,
    tail: &'static [u8],
    /// What was used, as the last chunk says it.
    usage: Option<Box<RawValue>>,
}

impl Plan {
    pub(super) fn read<'a, F: ReplyFormat>(
        json: &'a [u8],
        id: &str,
        created: UnixSeconds,
        wants_usage: bool,
    ) -> Option<Plan> {
        let members = RawObject::read(json)?;
        let list: Vec<RawObject<'a>> = serde_json::from_str(members.get("choices")?).ok()?;
        let choices = list.into_iter().enumerate().map(|(place, choice)| F::Replayed::read(place, choice));
        let choices = choices.collect::<Option<Vec<F::Replayed<'a>>>>()?;
        let frame = Frame::new::<F>(&members, id, created, wants_usage);
        let mut steps = VecDeque::new();
        choices.iter().for_each(|choice| choice.add_steps(&mut steps));
        let room = EventBudget::of(json.len(), &frame, &steps);
        let piece_bytes = match room.piece_bytes() {
            Some(bytes) => bytes,
            None => {
                steps = VecDeque::from([Step::Entries(all_at_once(&choices))]);
                PIECE_BYTES_MIN
            }
        };
        Some(Plan { frame, steps, piece_bytes, bytes_expected: room.bytes_expected(piece_bytes) })
    }
}

/// How much a stream may have beside what it carries.
struct EventBudget {
    /// Bytes for chunks that carry text, beside the text.
    for_texts: Option<usize>,
    chunk_bytes: usize,
    text_bytes: usize,
    answer_bytes: usize,
}

impl EventBudget {
    fn of(answer_bytes: usize, frame: &Frame, steps: &VecDeque<Step>) -> EventBudget {
        let chunk_bytes = frame.bytes() + ENTRY_BYTES;
        let text_bytes = |step: &Step| match step {
            Step::Text(text) => text.bytes(),
            Step::Entries(_) => 0,
        };
        // Each text may end with a piece that is short. The usage and the end are two more.
        let needed = (steps.len() + 2) * chunk_bytes;
        EventBudget {
            for_texts: ((TIMES_MAX - 1) * answer_bytes).checked_sub(needed).filter(|bytes| *bytes > 0),
            chunk_bytes,
            text_bytes: steps.iter().map(text_bytes).sum(),
            answer_bytes,
        }
    }

    /// How large pieces must be; none if even one for each text is too much.
    fn piece_bytes(&self) -> Option<usize> {
        let for_texts = self.for_texts?;
        let least = self.text_bytes.saturating_mul(self.chunk_bytes).div_ceil(for_texts);
        Some(least.max(PIECE_BYTES_MIN))
    }

    fn bytes_expected(&self, piece_bytes: usize) -> usize {
        self.answer_bytes + (self.text_bytes / piece_bytes + 4) * self.chunk_bytes
    }
}

impl Frame {
    fn new<F: ReplyFormat>(
        members: &RawObject<'_>,
        id: &str,
        created: UnixSeconds,
        wants_usage: bool,
    ) -> Frame {
        let object = F::CHUNK_OBJECT;
        let mut head =
            format!("data: {{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created}").into_bytes();
        let (mut once, mut usage) = (Vec::new(), None);
        for (name, value) in &members.0 {
            match name.as_str() {
                "choices" | "object" => {}
                known if OF_DELIVERY.contains(&known) => {}
                "usage" => usage = (wants_usage && value.get() != "null").then(|| (*value).to_owned()),
                known if OF_ENVELOPE.contains(&known) && value.get().len() <= ENVELOPE_BYTES_MAX => {
                    write_member(&mut head, name, value.get());
                }
                _ => write_member(&mut once, name, value.get()),
            }
        }
        let tail: &[u8] = if wants_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" };
        Frame { head, once, tail, usage }
    }

    /// Bytes of a chunk without its entries.
    fn bytes(&self) -> usize {
        self.head.len() + b",\"choices\":[".len() + self.tail.len()
    }

    /// Writes a chunk.
    pub(super) fn write(&mut self, entries: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.append(&mut self.once);
        out.extend_from_slice(b",\"choices\":[");
        out.extend_from_slice(entries);
        out.extend_from_slice(self.tail);
    }

    /// Writes the chunk that says what was used, if one does.
    pub(super) fn write_usage(&mut self, out: &mut Vec<u8>) {
        let Some(usage) = self.usage.take() else { return };
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[]");
        write_member(out, "usage", usage.get());
        out.extend_from_slice(b"}\n\n");
    }
}

/// Where each chunk's envelope outweighs what it could carry, there is one chunk.
fn all_at_once<'a>(choices: &[impl ReplayedChoice<'a>]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (place, choice) in choices.iter().enumerate() {
        if place > 0 {
            entries.push(b',');
        }
        choice.write_whole(&mut entries);
    }
    entries
}
