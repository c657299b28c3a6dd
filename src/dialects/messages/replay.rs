//! Replays a stored message in either form, as a new delivery.
//!
//! A stream is produced piece by piece as it is read, and has at most ten times as many bytes as the message.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::block::{BlockKind, Growth, text};
use super::reply::CompleteMessage;
use crate::dialects::Replay;
use crate::dialects::choices::{Step, Text};
use crate::dialects::delivery_id::new_id;
use crate::raw_object::{RawObject, write_member};

const ID_PREFIX: &str = "msg_";

/// A piece of text has at least so many bytes.
const PIECE_BYTES_MIN: usize = 24;
/// A stream has at most so many times the bytes of its message; pieces grow until it does.
const TIMES_MAX: usize = 10;
/// An event with a piece, beside the piece.
const DELTA_BYTES: usize = 140;
/// All texts together take at most so many times the bytes of the message: an input is JSON within JSON.
const ESCAPED_TIMES: usize = 2;

/// Members that `message_delta` says at the end, within its `delta`; at the start they are null.
const OF_DELTA: [&str; 4] = ["container", "stop_details", "stop_reason", "stop_sequence"];
/// The member that it says beside them.
const BESIDE_DELTA: &str = "context_management";
/// What it says of usage; `message_start` has all of it.
const USAGE_OF_DELTA: [&str; 5] = [
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "input_tokens",
    "output_tokens",
    "server_tool_use",
];
const OUTPUT_TOKENS: &str = "output_tokens";

/// The message as one JSON text.
pub(super) fn as_json(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 32);
    out.extend_from_slice(format!("{{\"id\":\"{}\"", new_id(ID_PREFIX)).as_bytes());
    let rest = json.get(1..).unwrap_or_default();
    if rest != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    out
}

/// A stored message as the events of a stream.
#[derive(Debug)]
pub(super) struct MessageReplay {
    steps: VecDeque<Step>,
    piece_bytes: usize,
    /// What the steps hold of the message.
    source_bytes: usize,
    bytes_expected: usize,
    is_over: bool,
}

impl MessageReplay {
    /// A replay of a message. `None` if a stream cannot represent it exactly.
    pub(super) fn new(json: &[u8]) -> Option<MessageReplay> {
        let message = CompleteMessage::read(json).filter(CompleteMessage::is_replayable)?;
        let mut steps = steps_of(&message, add_block)?;
        let piece_bytes = match piece_bytes(&steps, json.len()) {
            Some(bytes) => bytes,
            // Where the events of the deltas outweigh what they carry, each block comes at once.
            None => {
                steps = steps_of(&message, add_whole_block)?;
                PIECE_BYTES_MIN
            }
        };
        let (fixed, texts) = bytes_of(&steps);
        Some(MessageReplay {
            steps,
            piece_bytes,
            source_bytes: json.len().saturating_mul(2),
            bytes_expected: fixed + texts + (texts / piece_bytes + 4) * DELTA_BYTES,
            is_over: false,
        })
    }
}

impl Replay for MessageReplay {
    fn next_bytes(&mut self, bytes: usize) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let mut out = Vec::with_capacity(self.bytes_expected.min(bytes) + 1024);
        while out.len() < bytes {
            match self.steps.front_mut() {
                Some(Step::Entries(events)) => {
                    out.append(events);
                    self.steps.pop_front();
                }
                Some(Step::Text(text)) => match text.next_entry(self.piece_bytes) {
                    Some(event) => out.extend_from_slice(event),
                    None => _ = self.steps.pop_front(),
                },
                None => break,
            }
        }
        self.is_over = self.steps.is_empty();
        Some(out.into())
    }

    fn bytes_held_and_expected(&self) -> (usize, usize) {
        (self.source_bytes, self.bytes_expected)
    }

    fn is_over(&self) -> bool {
        self.is_over
    }
}

type AddBlock = fn(usize, BlockKind, &RawObject<'_>, &mut VecDeque<Step>) -> Option<()>;

fn steps_of(message: &CompleteMessage<'_>, add_block: AddBlock) -> Option<VecDeque<Step>> {
    let mut steps = VecDeque::from([Step::Entries(message_start(&message.members))]);
    for (index, block) in message.blocks.iter().enumerate() {
        add_block(index, BlockKind::of(block)?, block, &mut steps)?;
    }
    steps.push_back(Step::Entries(end(&message.members)));
    Some(steps)
}

/// Bytes of whole events, and of texts that are cut into pieces.
fn bytes_of(steps: &VecDeque<Step>) -> (usize, usize) {
    steps.iter().fold((0, 0), |(fixed, texts), step| match step {
        Step::Entries(events) => (fixed + events.len(), texts),
        Step::Text(text) => (fixed, texts + text.bytes()),
    })
}

/// How large pieces must be. `None` if even one for each text is too much.
fn piece_bytes(steps: &VecDeque<Step>, message_bytes: usize) -> Option<usize> {
    let (fixed, texts) = bytes_of(steps);
    let count = steps.iter().filter(|step| matches!(step, Step::Text(_))).count();
    // Each text may end with a piece that is short.
    let needed = fixed + count * DELTA_BYTES;
    let left = ((TIMES_MAX - ESCAPED_TIMES) * message_bytes).checked_sub(needed).filter(|left| *left > 0)?;
    Some(texts.saturating_mul(DELTA_BYTES).div_ceil(left).max(PIECE_BYTES_MIN))
}

/// The beginning of an event up to its members.
fn open(kind: &str) -> Vec<u8> {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\"").into_bytes()
}

/// The beginning of an event of a block.
fn open_of_block(kind: &str, index: usize) -> Vec<u8> {
    let mut event = open(kind);
    write_member(&mut event, "index", &index.to_string());
    event
}

fn message_start(members: &RawObject<'_>) -> Vec<u8> {
    let mut event = open("message_start");
    event.extend_from_slice(format!(",\"message\":{{\"id\":\"{}\"", new_id(ID_PREFIX)).as_bytes());
    for (name, value) in &members.0 {
        match name.as_str() {
            "content" => write_member(&mut event, name, "[]"),
            "usage" => write_member(&mut event, name, &usage_at_start(value)),
            ended if OF_DELTA.contains(&ended) || ended == BESIDE_DELTA => {
                write_member(&mut event, name, "null");
            }
            _ => write_member(&mut event, name, value.get()),
        }
    }
    event.extend_from_slice(b"}}\n\n");
    event
}

/// `message_delta` and `message_stop`.
fn end(members: &RawObject<'_>) -> Vec<u8> {
    let mut delta = Vec::new();
    for (name, value) in members.0.iter().filter(|(name, _)| OF_DELTA.contains(&name.as_str())) {
        write_member(&mut delta, name, value.get());
    }
    let mut events = open("message_delta");
    write_member(&mut events, "delta", &braced(&delta));
    let managed = members.get(BESIDE_DELTA);
    managed.into_iter().for_each(|managed| write_member(&mut events, BESIDE_DELTA, managed));
    if let Some(usage) = members.value("usage") {
        write_member(&mut events, "usage", &usage_at_end(usage));
    }
    events.extend_from_slice(b"}\n\n");
    events.append(&mut open("message_stop"));
    events.extend_from_slice(b"}\n\n");
    events
}

/// All of the usage, but for the tokens that are yet to come.
fn usage_at_start(usage: &RawValue) -> String {
    with_members(usage, |_| true, |name, value| if name == OUTPUT_TOKENS { "0" } else { value })
}

fn usage_at_end(usage: &RawValue) -> String {
    with_members(usage, |name| USAGE_OF_DELTA.contains(&name), |_, value| value)
}

/// An object with the members that `is_kept` names, each as `said`. What is no object stays as it is.
fn with_members<'a>(
    object: &'a RawValue,
    is_kept: impl Fn(&str) -> bool,
    said: impl Fn(&str, &'a str) -> &'a str,
) -> String {
    let Some(members) = RawObject::read(object.get().as_bytes()) else { return object.get().to_owned() };
    let mut out = Vec::new();
    for (name, value) in members.0.iter().filter(|(name, _)| is_kept(name)) {
        write_member(&mut out, name, said(name, value.get()));
    }
    braced(&out)
}

/// Members, each behind a comma, as an object.
fn braced(members: &[u8]) -> String {
    format!("{{{}}}", String::from_utf8_lossy(members.strip_prefix(b",").unwrap_or(members)))
}

/// A block whose text, reasoning or input goes out in pieces.
fn add_block(index: usize, kind: BlockKind, block: &RawObject<'_>, steps: &mut VecDeque<Step>) -> Option<()> {
    let Some(growth) = kind.growth() else { return add_whole_block(index, kind, block, steps) };
    let signature = block.value("signature").filter(|value| kind == BlockKind::Thinking && is_set(value));
    let citations = block.value("citations").filter(|value| kind == BlockKind::Text && is_set(value));
    let mut start = Vec::new();
    for (name, value) in &block.0 {
        let value = match name.as_str() {
            grown if grown == growth.member => growth.empty,
            "signature" if signature.is_some() => "\"\"",
            "citations" if citations.is_some() => "[]",
            _ => value.get(),
        };
        write_member(&mut start, name, value);
    }
    let mut event = open_of_block("content_block_start", index);
    write_member(&mut event, "content_block", &braced(&start));
    event.extend_from_slice(b"}\n\n");
    steps.push_back(Step::Entries(event));
    let grown = grown_text(kind, block.value(growth.member)?)?;
    if !grown.is_empty() {
        let [before, after] = around_pieces(index, growth);
        steps.push_back(Step::Text(Text::new(before, after, grown, None)));
    }
    let mut last = Vec::new();
    for citation in citations.map_or(Some(Vec::new()), |list| serde_json::from_str(list.get()).ok())? {
        write_delta(&mut last, index, "citations_delta", "citation", citation);
    }
    signature.into_iter().for_each(|value| {
        write_delta(&mut last, index, "signature_delta", "signature", value);
    });
    last.append(&mut open_of_block("content_block_stop", index));
    last.extend_from_slice(b"}\n\n");
    steps.push_back(Step::Entries(last));
    Some(())
}

/// A block that begins as what it is.
fn add_whole_block(
    index: usize,
    _: BlockKind,
    block: &RawObject<'_>,
    steps: &mut VecDeque<Step>,
) -> Option<()> {
    let mut events = open_of_block("content_block_start", index);
    write_member(&mut events, "content_block", std::str::from_utf8(&block.write_without(&[])).ok()?);
    events.extend_from_slice(b"}\n\n");
    events.append(&mut open_of_block("content_block_stop", index));
    events.extend_from_slice(b"}\n\n");
    steps.push_back(Step::Entries(events));
    Some(())
}

/// What the deltas of a block say together: its text, or its input as JSON, which is empty if that is what the block begins with.
fn grown_text(kind: BlockKind, value: &RawValue) -> Option<String> {
    match kind {
        BlockKind::ToolUse | BlockKind::HostedToolUse => {
            let is_empty = RawObject::read(value.get().as_bytes())?.0.is_empty();
            Some(if is_empty { String::new() } else { value.get().to_owned() })
        }
        BlockKind::Text | BlockKind::Thinking | BlockKind::RedactedThinking | BlockKind::HostedResult => {
            text(value)
        }
    }
}

/// What stands around each piece of a block.
fn around_pieces(index: usize, Growth { delta, of_delta, .. }: Growth) -> [Vec<u8>; 2] {
    let mut before = open_of_block("content_block_delta", index);
    before.extend_from_slice(format!(",\"delta\":{{\"type\":\"{delta}\",\"{of_delta}\":").as_bytes());
    [before, b"}}\n\n".to_vec()]
}

fn write_delta(events: &mut Vec<u8>, index: usize, kind: &str, member: &str, value: &RawValue) {
    let mut delta = Vec::new();
    write_member(&mut delta, "type", &format!("\"{kind}\""));
    write_member(&mut delta, member, value.get());
    events.append(&mut open_of_block("content_block_delta", index));
    write_member(events, "delta", &braced(&delta));
    events.extend_from_slice(b"}\n\n");
}

/// Whether a list or a text has anything.
fn is_set(value: &RawValue) -> bool {
    !["null", "\"\"", "[]"].contains(&value.get())
}
