//! The blocks of a message's content that can be replayed exactly, and how a stream says each of them.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dialects::choices::says_something;
use crate::dialects::{HostedFeature, HostedFeatures};
use crate::raw_object::RawObject;

/// Blocks that a message may have.
pub(super) const BLOCKS_MAX: usize = 1024;

/// Results of tools that the upstream runs: they come in one piece. Source: Anthropic's reference of `POST /v1/messages`, `content`.
const RESULTS: [(&str, HostedFeature); 7] = [
    ("bash_code_execution_tool_result", HostedFeature::CodeExecution),
    ("code_execution_tool_result", HostedFeature::CodeExecution),
    ("container_upload", HostedFeature::CodeExecution),
    ("mcp_tool_result", HostedFeature::Mcp),
    ("text_editor_code_execution_tool_result", HostedFeature::CodeExecution),
    ("web_fetch_tool_result", HostedFeature::WebFetch),
    ("web_search_tool_result", HostedFeature::WebSearch),
];

/// Names of the tools that it runs.
const HOSTED_TOOLS: [(&str, HostedFeature); 5] = [
    ("bash_code_execution", HostedFeature::CodeExecution),
    ("code_execution", HostedFeature::CodeExecution),
    ("text_editor_code_execution", HostedFeature::CodeExecution),
    ("web_fetch", HostedFeature::WebFetch),
    ("web_search", HostedFeature::WebSearch),
];

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
    /// A call of a tool that the upstream runs.
    HostedToolUse,
    /// What a tool that the upstream runs has found or made.
    HostedResult,
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
            "server_tool_use" | "mcp_tool_use" => Some(BlockKind::HostedToolUse),
            result if RESULTS.iter().any(|(known, _)| *known == result) => Some(BlockKind::HostedResult),
            _ => None,
        }
    }

    /// What its deltas add. `None` if it comes in one piece.
    pub(super) fn growth(self) -> Option<Growth> {
        let (member, delta, of_delta, empty) = match self {
            BlockKind::Text => ("text", "text_delta", "text", "\"\""),
            BlockKind::Thinking => ("thinking", "thinking_delta", "thinking", "\"\""),
            BlockKind::ToolUse | BlockKind::HostedToolUse => {
                ("input", "input_json_delta", "partial_json", "{}")
            }
            BlockKind::RedactedThinking | BlockKind::HostedResult => return None,
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
        Some(BlockKind::RedactedThinking | BlockKind::HostedResult) => true,
        Some(BlockKind::ToolUse | BlockKind::HostedToolUse) => begins("input", &['{']),
        None => false,
    };
    has_shape && has_no_name_twice(block)
}

/// What the upstream ran for a block.
pub(super) fn hosted_features(block: &RawObject<'_>) -> HostedFeatures {
    let named = |name: &str| block.value(name).and_then(text).unwrap_or_default();
    let feature_in = |table: &[(&str, HostedFeature)], name: String| {
        let feature = table.iter().find(|(known, _)| *known == name).map(|(_, feature)| *feature);
        feature.map_or(HostedFeatures::UNKNOWN_TOOL, HostedFeatures::from)
    };
    match BlockKind::of(block) {
        Some(BlockKind::HostedToolUse) if named("type") == "mcp_tool_use" => HostedFeature::Mcp.into(),
        Some(BlockKind::HostedToolUse) => feature_in(&HOSTED_TOOLS, named("name")),
        Some(BlockKind::HostedResult) => feature_in(&RESULTS, named("type")),
        Some(BlockKind::Text | BlockKind::Thinking | BlockKind::RedactedThinking | BlockKind::ToolUse)
        | None => HostedFeatures::default(),
    }
}

/// Whether it is the result of a tool that has failed: it may work for the next request.
pub(super) fn is_failure(block: &RawObject<'_>) -> bool {
    let content = block.get("content").and_then(|content| RawObject::read(content.as_bytes()));
    let kind = content.as_ref().and_then(|content| content.value("type")).and_then(text);
    BlockKind::of(block) == Some(BlockKind::HostedResult)
        && (block.get("is_error") == Some("true") || kind.is_some_and(|kind| kind.ends_with("_error")))
}

/// Whether a block says anything that a client could want; spaces are nothing.
pub(super) fn is_said(block: &RawObject<'_>) -> bool {
    match BlockKind::of(block) {
        Some(BlockKind::Text) => block.get("text").is_some_and(says_something),
        Some(BlockKind::HostedToolUse | BlockKind::HostedResult) => false,
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
