//! The blocks of a message's content that can be replayed exactly, and how a stream says each of them.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dialects::choices::says_something;
use crate::raw_object::RawObject;

/// Blocks that a message may have.
pub(super) const BLOCKS_MAX: usize = 1024;

/// A kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// Words, with their citations.
    Text,
    /// Reasoning, with the signature that later turns need.
    Thinking,
    /// Reasoning that only the upstream can read.
    RedactedThinking,
    /// A call of a tool of the client.
    ToolUse,
}

/// What the deltas of a block add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    /// The member that grows.
    pub(super) member: &'static str,
    /// The type of the deltas.
    pub(super) delta: &'static str,
    /// The member of the deltas.
    pub(super) of_delta: &'static str,
    /// What the member is at the start of the block, as JSON.
    pub(super) empty: &'static str,
}

impl BlockKind {
    /// The kind of a block. `None` for one that no exact replay is known of.
    pub(super) fn of(block: &RawObject<'_>) -> Option<BlockKind> {
        match text(block.value("type")?)?.as_str() {
            "text" => Some(BlockKind::Text),
            "thinking" => Some(BlockKind::Thinking),
            "redacted_thinking" => Some(BlockKind::RedactedThinking),
            "tool_use" => Some(BlockKind::ToolUse),
            _ => None,
        }
    }

    /// What its deltas add. `None` if it comes in one piece.
    pub(super) fn growth(self) -> Option<Growth> {
        let (member, delta, of_delta, empty) = match self {
            BlockKind::Text => ("text", "text_delta", "text", "\"\""),
            BlockKind::Thinking => ("thinking", "thinking_delta", "thinking", "\"\""),
            BlockKind::ToolUse => ("input", "input_json_delta", "partial_json", "{}"),
            BlockKind::RedactedThinking => return None,
        };
        Some(Growth { member, delta, of_delta, empty })
    }
}

/// Whether a block of a complete message is of a known shape.
pub(super) fn is_replayable(block: &RawObject<'_>) -> bool {
    let begins = |name: &str, marks: &[char]| block.get(name).is_some_and(|value| value.starts_with(marks));
    let may_be = |name: &str, marks: &[char]| {
        block.get(name).is_none_or(|value| value == "null" || value.starts_with(marks))
    };
    let has_shape = match BlockKind::of(block) {
        Some(BlockKind::Text) => begins("text", &['"']) && may_be("citations", &['[']),
        Some(BlockKind::Thinking) => begins("thinking", &['"']) && may_be("signature", &['"']),
        Some(BlockKind::RedactedThinking) => true,
        Some(BlockKind::ToolUse) => begins("input", &['{']),
        None => false,
    };
    has_shape && has_no_name_twice(block)
}

/// Whether a block says anything that a client could want; spaces are nothing.
pub(super) fn is_said(block: &RawObject<'_>) -> bool {
    match BlockKind::of(block) {
        Some(BlockKind::Text) => block.get("text").is_some_and(says_something),
        Some(BlockKind::Thinking | BlockKind::RedactedThinking | BlockKind::ToolUse) | None => true,
    }
}

/// Whether no name stands twice in an object: readers differ in which one they take.
pub(super) fn has_no_name_twice(object: &RawObject<'_>) -> bool {
    let mut seen = HashSet::with_capacity(object.0.len());
    object.0.iter().all(|(name, _)| seen.insert(name))
}

/// The text of a JSON string.
pub(super) fn text(value: &RawValue) -> Option<String> {
    String::deserialize(value).ok()
}
