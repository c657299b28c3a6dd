//! The types of items of which every event is known: how an item is sent before it is whole, and what it is of.
//!
//! Source: OpenAI's reference of the streaming events of `/v1/responses`.

use super::part::{ARGUMENTS, CODE, CONTENT, INPUT, MCP_ARGUMENTS, PartFormat, REASONING, SUMMARY};
use crate::dialects::HostedFeature;

/// A type of items.
#[derive(Debug)]
pub(super) struct ItemFormat {
    name: &'static str,
    /// The member with the text of a call, and how its text is sent.
    pub(super) text: Option<(&'static str, &'static PartFormat)>,
    /// Members with lists of parts, and the parts that each may have.
    pub(super) lists: &'static [(&'static str, &'static [PartFormat])],
    /// Other members that are known once the item is whole, and what they are before, as JSON.
    pub(super) results: &'static [(&'static str, &'static str)],
    /// Names of the events without content before its text, and behind it.
    pub(super) progress: [&'static [&'static str]; 2],
    /// What the upstream ran for it. `None` for an item of the model's own.
    pub(super) feature: Option<HostedFeature>,
    /// Whether the client is to act on it, before the model goes on.
    pub(super) calls_client: bool,
    /// Whether it has something for the client without any text.
    pub(super) is_result: bool,
}

/// An item of the model's own without any member that is known.
const PLAIN: ItemFormat = ItemFormat {
    name: "",
    text: None,
    lists: &[],
    results: &[],
    progress: [&[], &[]],
    feature: None,
    calls_client: false,
    is_result: false,
};

static FORMATS: [ItemFormat; 12] = [
    ItemFormat { name: "message", lists: &[("content", &CONTENT)], ..PLAIN },
    ItemFormat { name: "reasoning", lists: &[("summary", &SUMMARY), ("content", &REASONING)], ..PLAIN },
    ItemFormat { name: "function_call", text: Some(("arguments", &ARGUMENTS)), calls_client: true, ..PLAIN },
    ItemFormat { name: "custom_tool_call", text: Some(("input", &INPUT)), calls_client: true, ..PLAIN },
    ItemFormat {
        name: "web_search_call",
        progress: [
            &[
                "response.web_search_call.in_progress",
                "response.web_search_call.searching",
                "response.web_search_call.completed",
            ],
            &[],
        ],
        feature: Some(HostedFeature::WebSearch),
        ..PLAIN
    },
    ItemFormat {
        name: "file_search_call",
        results: &[("queries", "[]"), ("results", "null")],
        progress: [
            &[
                "response.file_search_call.in_progress",
                "response.file_search_call.searching",
                "response.file_search_call.completed",
            ],
            &[],
        ],
        feature: Some(HostedFeature::FileSearch),
        ..PLAIN
    },
    ItemFormat {
        name: "code_interpreter_call",
        text: Some(("code", &CODE)),
        results: &[("outputs", "null")],
        progress: [
            &["response.code_interpreter_call.in_progress"],
            &["response.code_interpreter_call.interpreting", "response.code_interpreter_call.completed"],
        ],
        feature: Some(HostedFeature::CodeInterpreter),
        ..PLAIN
    },
    ItemFormat {
        name: "image_generation_call",
        results: &[("result", "null")],
        progress: [
            &[
                "response.image_generation_call.in_progress",
                "response.image_generation_call.generating",
                "response.image_generation_call.completed",
            ],
            &[],
        ],
        feature: Some(HostedFeature::ImageGeneration),
        is_result: true,
        ..PLAIN
    },
    ItemFormat { name: "computer_call", feature: Some(HostedFeature::Computer), calls_client: true, ..PLAIN },
    ItemFormat {
        name: "mcp_list_tools",
        results: &[("tools", "[]")],
        progress: [&["response.mcp_list_tools.in_progress", "response.mcp_list_tools.completed"], &[]],
        feature: Some(HostedFeature::Mcp),
        ..PLAIN
    },
    ItemFormat {
        name: "mcp_call",
        text: Some(("arguments", &MCP_ARGUMENTS)),
        results: &[("output", "null")],
        progress: [&["response.mcp_call.in_progress"], &["response.mcp_call.completed"]],
        feature: Some(HostedFeature::Mcp),
        ..PLAIN
    },
    ItemFormat {
        name: "mcp_approval_request",
        feature: Some(HostedFeature::Mcp),
        calls_client: true,
        ..PLAIN
    },
];

impl ItemFormat {
    /// The format of items of the type `name`. `None` for a type of which no exact replay is known.
    pub(super) fn of(name: &str) -> Option<&'static ItemFormat> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// A member before the item is whole, as JSON. `None` if it is what it will be.
    pub(super) fn opened(&self, name: &str, value: &str) -> Option<&'static str> {
        let is_list = self.lists.iter().any(|(member, _)| *member == name);
        let result = self.results.iter().find(|(member, _)| *member == name);
        match name {
            "status" if value != "null" => Some("\"in_progress\""),
            _ if self.text.is_some_and(|(member, _)| member == name) => Some("\"\""),
            _ if is_list && value != "null" => Some("[]"),
            _ => result.map(|(_, before)| *before).filter(|_| value != "null"),
        }
    }
}

/// The event called `name`, if it says no more than how far an item is.
pub(super) fn progress_event(name: &str) -> Option<&'static str> {
    let mut events = FORMATS.iter().flat_map(|format| format.progress).flatten().copied();
    events.find(|event| *event == name)
}
