//! Replays a stored response as the events of a stream.
//!
//! The events are those that OpenAI documents, each of a type and a consecutive number. They are produced as they are read. A stream has
//! at most ten times the bytes of its response, and a few thousand bytes for each item and text: each text is sent in pieces, and whole
//! four times more, as the format requires.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize as _;
use serde_json::Value;

use super::output::{OutputItem, read_output};
use super::part::{OutputPart, WholePart};
use super::reply::as_json;
use crate::dialects::Replay;
use crate::dialects::choices::cut;
use crate::domain::UnixSeconds;
use crate::raw_object::{RawObject, write_member, write_string};

/// What some upstreams send behind the last event.
const DONE: &[u8] = b"data: [DONE]\n\n";
/// A piece of text has at least so many bytes.
const PIECE_BYTES_MIN: usize = 24;
/// An event of a piece beside the piece and the id of its item, at most.
const DELTA_BYTES: usize = 220;
/// An event of a piece has at most so many times the bytes of the piece; pieces are as long as that requires.
const TIMES_MAX: usize = 5;
/// The events of an item, and of a text, beside the item, its texts and their pieces, at most.
const AROUND_BYTES: usize = 2048;
/// How often a response has each of its texts, beside their pieces.
const COPIES: usize = 4;

/// A stored response as events.
#[derive(Debug)]
pub(super) struct EventReplay {
    /// The response before anything of it has arrived.
    opened: Vec<u8>,
    response: Vec<u8>,
    items: Vec<OutputItem>,
    steps: VecDeque<EventStep>,
    /// The number of the next event.
    sequence: u64,
    bytes_expected: usize,
}

/// One or more events. `item` and `part` are places in the output and in the item.
#[derive(Debug)]
enum EventStep {
    Created,
    InProgress,
    ItemAdded {
        item: usize,
    },
    Progress {
        item: usize,
        name: &'static str,
    },
    PartAdded {
        item: usize,
        part: usize,
    },
    Text {
        item: usize,
        part: usize,
        pieces: Pieces,
    },
    Annotations {
        item: usize,
        part: usize,
    },
    PartDone {
        item: usize,
        part: usize,
    },
    ItemDone {
        item: usize,
    },
    Completed,
    /// `[DONE]`. It is no event: it has no type and no number.
    Done,
}

/// How far a text was sent.
#[derive(Debug)]
struct Pieces {
    /// Where each token with probabilities ends in the text. Empty if pieces are cut between words.
    token_ends: Vec<usize>,
    /// Tokens that were sent.
    tokens: usize,
    /// Bytes of the text that were sent.
    at: usize,
}

impl EventReplay {
    /// A replay of an answer, with `[DONE]` at its end if the stream is to have it. `None` if events cannot represent it exactly.
    pub(super) fn new(answer: &[u8], created: UnixSeconds, ends_with_done: bool) -> Option<EventReplay> {
        let response = as_json(answer, created);
        let members = RawObject::read(&response)?;
        if members.get("status") != Some("\"completed\"") {
            return None;
        }
        let items = read_output(&members).ok()?;
        let opened = members.write_with(|name, value| match name {
            "status" => "\"in_progress\"",
            "output" => "[]",
            "usage" | "completed_at" => "null",
            _ => value,
        });
        let mut steps = steps_of(&items);
        steps.extend(ends_with_done.then_some(EventStep::Done));
        let around = AROUND_BYTES * items.iter().map(|item| 1 + item.parts.len()).sum::<usize>();
        let bytes_expected = (COPIES + TIMES_MAX) * response.len() + 2 * opened.len() + around;
        Some(EventReplay { opened, response, items, steps, sequence: 0, bytes_expected })
    }

    /// Writes an event of type `name` with the members that `write` adds.
    fn write(&mut self, out: &mut Vec<u8>, name: &str, write: impl FnOnce(&EventReplay, &mut Vec<u8>)) {
        let sequence = self.sequence;
        self.sequence += 1;
        out.extend_from_slice(
            format!("event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{sequence}").as_bytes(),
        );
        write(self, out);
        out.extend_from_slice(b"}\n\n");
    }

    fn write_step(&mut self, step: &EventStep, out: &mut Vec<u8>) {
        match *step {
            EventStep::Created => self.write(out, "response.created", |replay, out| {
                write_json(out, "response", &replay.opened);
            }),
            EventStep::InProgress => self.write(out, "response.in_progress", |replay, out| {
                write_json(out, "response", &replay.opened);
            }),
            EventStep::ItemAdded { item } => self.write(out, "response.output_item.added", |replay, out| {
                write_place(out, "output_index", item);
                write_json(out, "item", &replay.items[item].opened);
            }),
            EventStep::Progress { item, name } => self.write(out, name, |replay, out| {
                write_member(out, "item_id", &replay.items[item].id);
                write_place(out, "output_index", item);
            }),
            EventStep::PartAdded { item, part } => self.write_part(out, item, part, ".added"),
            EventStep::Text { item, part, .. } => self.write_whole_text(out, item, part),
            EventStep::Annotations { item, part } => self.write_annotations(out, item, part),
            EventStep::PartDone { item, part } => self.write_part(out, item, part, ".done"),
            EventStep::ItemDone { item } => self.write(out, "response.output_item.done", |replay, out| {
                write_place(out, "output_index", item);
                write_member(out, "item", replay.items[item].json.get());
            }),
            EventStep::Completed => self.write(out, "response.completed", |replay, out| {
                write_json(out, "response", &replay.response);
            }),
            EventStep::Done => out.extend_from_slice(DONE),
        }
    }

    /// Writes the next piece of a text. Returns whether there was one.
    fn write_piece(&mut self, out: &mut Vec<u8>, item: usize, part: usize, pieces: &mut Pieces) -> bool {
        let (text, first, begin) = (&self.items[item].parts[part], pieces.tokens, pieces.at);
        if !pieces.take(text, piece_bytes(&self.items[item])) {
            return false;
        }
        let (tokens, end) = (pieces.tokens, pieces.at);
        let name = format!("{}.delta", text.format.events);
        self.write(out, &name, |replay, out| {
            let text = replay.write_text_place(out, item, part);
            out.extend_from_slice(b",\"delta\":");
            write_string(out, &text.text[begin..end]);
            if text.is_text() {
                write_values(out, "logprobs", &text.logprobs()[first..tokens]);
            }
        });
        true
    }

    /// Writes the event at the end of a text, which has all of it.
    fn write_whole_text(&mut self, out: &mut Vec<u8>, item: usize, part: usize) {
        let name = format!("{}.done", self.items[item].parts[part].format.events);
        self.write(out, &name, |replay, out| {
            let part = replay.write_text_place(out, item, part);
            part.tool.iter().for_each(|tool| write_member(out, "name", tool));
            out.extend_from_slice(format!(",\"{}\":", part.format.text).as_bytes());
            write_string(out, &part.text);
            if part.is_text() {
                write_values(out, "logprobs", part.logprobs());
            }
        });
    }

    /// Writes the event before a part's text, or behind it. The text of a call has none.
    fn write_part(&mut self, out: &mut Vec<u8>, item: usize, part: usize, end: &str) {
        let name = format!("{}{end}", self.items[item].parts[part].format.around);
        self.write(out, &name, |replay, out| {
            let part = replay.write_text_place(out, item, part);
            let Some(WholePart { json, opened, .. }) = &part.whole else { return };
            write_json(out, "part", if end == ".done" { json.get().as_bytes() } else { opened });
        });
    }

    fn write_annotations(&mut self, out: &mut Vec<u8>, item: usize, part: usize) {
        for place in 0..self.items[item].parts[part].annotations().len() {
            self.write(out, "response.output_text.annotation.added", |replay, out| {
                let part = replay.write_text_place(out, item, part);
                write_place(out, "annotation_index", place);
                write_member(out, "annotation", part.annotations()[place].get());
            });
        }
    }

    /// Writes where a text is, and returns it.
    fn write_text_place(&self, out: &mut Vec<u8>, item: usize, part: usize) -> &OutputPart {
        write_member(out, "item_id", &self.items[item].id);
        write_place(out, "output_index", item);
        let part = &self.items[item].parts[part];
        if !part.format.index.is_empty() {
            write_place(out, part.format.index, part.index);
        }
        part
    }
}

impl Replay for EventReplay {
    fn next_bytes(&mut self, bytes: usize) -> Option<Bytes> {
        if self.is_over() {
            return None;
        }
        let mut out = Vec::with_capacity(self.bytes_expected.min(bytes) + 1024);
        while out.len() < bytes
            && let Some(mut step) = self.steps.pop_front()
        {
            if let EventStep::Text { item, part, pieces } = &mut step
                && self.write_piece(&mut out, *item, *part, pieces)
            {
                self.steps.push_front(step);
            } else {
                self.write_step(&step, &mut out);
            }
        }
        Some(out.into())
    }

    fn bytes_held_and_expected(&self) -> (usize, usize) {
        // The response, its items and its texts.
        (3 * self.response.len(), self.bytes_expected)
    }

    fn is_over(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Pieces {
    fn of(part: &OutputPart) -> Pieces {
        Pieces { token_ends: token_ends(part).unwrap_or_default(), tokens: 0, at: 0 }
    }

    /// Goes on by a piece of at least `bytes`, unless it is the last. Returns false at the end.
    fn take(&mut self, part: &OutputPart, bytes: usize) -> bool {
        let (begin, all) = (self.at, part.logprobs().len());
        if begin == part.text.len() && self.tokens == all {
            return false;
        }
        if all > 0 && self.token_ends.is_empty() {
            // Tokens that do not spell the text go out with all of it.
            (self.at, self.tokens) = (part.text.len(), all);
        } else if all > 0 {
            while self.tokens < all && self.at - begin < bytes {
                self.at = self.token_ends[self.tokens];
                self.tokens += 1;
            }
        } else {
            self.at = cut(&part.text, begin, bytes);
        }
        true
    }
}

/// All events of a response.
fn steps_of(items: &[OutputItem]) -> VecDeque<EventStep> {
    let mut steps = VecDeque::from([EventStep::Created, EventStep::InProgress]);
    for (item, all) in items.iter().enumerate() {
        steps.push_back(EventStep::ItemAdded { item });
        let [before, after] =
            all.format.progress.map(|names| names.iter().map(move |name| EventStep::Progress { item, name }));
        steps.extend(before);
        for (part, text) in all.parts.iter().enumerate() {
            let pieces = EventStep::Text { item, part, pieces: Pieces::of(text) };
            match &text.whole {
                None => steps.push_back(pieces),
                Some(_) => steps.extend([
                    EventStep::PartAdded { item, part },
                    pieces,
                    EventStep::Annotations { item, part },
                    EventStep::PartDone { item, part },
                ]),
            }
        }
        steps.extend(after);
        steps.push_back(EventStep::ItemDone { item });
    }
    steps.push_back(EventStep::Completed);
    steps
}

/// How long the pieces of an item's texts are at least.
fn piece_bytes(item: &OutputItem) -> usize {
    (DELTA_BYTES + item.id.len()).div_ceil(TIMES_MAX - 1).max(PIECE_BYTES_MIN)
}

/// Where each token of a text ends. `None` if the tokens do not spell the text, as where one holds half a letter.
fn token_ends(part: &OutputPart) -> Option<Vec<usize>> {
    let mut end = 0;
    let ends = part.logprobs().iter().map(|token| {
        let token = <&str>::deserialize(token.get("token")?).ok()?;
        part.text.get(end..)?.starts_with(token).then_some(())?;
        end += token.len();
        Some(end)
    });
    let ends = ends.collect::<Option<Vec<usize>>>()?;
    (ends.last() == Some(&part.text.len())).then_some(ends)
}

fn write_place(out: &mut Vec<u8>, name: &str, place: usize) {
    out.extend_from_slice(format!(",\"{name}\":{place}").as_bytes());
}

fn write_json(out: &mut Vec<u8>, name: &str, json: &[u8]) {
    out.extend_from_slice(format!(",\"{name}\":").as_bytes());
    out.extend_from_slice(json);
}

fn write_values(out: &mut Vec<u8>, name: &str, values: &[Value]) {
    out.extend_from_slice(format!(",\"{name}\":[").as_bytes());
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(value.to_string().as_bytes());
    }
    out.push(b']');
}
