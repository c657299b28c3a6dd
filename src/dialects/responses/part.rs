//! A text within an item, and the events that it is sent in.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::raw_object::RawObject;

/// How a text is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartFormat {
    /// The `type` of the part; of the text of a call none, because its item has the text itself.
    part_type: Option<&'static str>,
    /// The member with the whole text, of the part and of the event at its end.
    pub(super) text: &'static str,
    /// What the names of its events begin with: `.delta` and `.done` follow.
    pub(super) events: &'static str,
    /// What the names of the events around it begin with: `.added` and `.done` follow.
    pub(super) around: &'static str,
    /// The member of its events with its place in the item.
    pub(super) index: &'static str,
}

pub(super) static CONTENT: [PartFormat; 2] = [
    PartFormat {
        part_type: Some("output_text"),
        text: "text",
        events: "response.output_text",
        around: "response.content_part",
        index: "content_index",
    },
    PartFormat {
        part_type: Some("refusal"),
        text: "refusal",
        events: "response.refusal",
        around: "response.content_part",
        index: "content_index",
    },
];
pub(super) static SUMMARY: [PartFormat; 1] = [PartFormat {
    part_type: Some("summary_text"),
    text: "text",
    events: "response.reasoning_summary_text",
    around: "response.reasoning_summary_part",
    index: "summary_index",
}];
pub(super) static REASONING: [PartFormat; 1] = [PartFormat {
    part_type: Some("reasoning_text"),
    text: "text",
    events: "response.reasoning_text",
    around: "response.content_part",
    index: "content_index",
}];
pub(super) static ARGUMENTS: PartFormat = PartFormat {
    part_type: None,
    text: "arguments",
    events: "response.function_call_arguments",
    around: "",
    index: "",
};
pub(super) static INPUT: PartFormat = PartFormat {
    part_type: None,
    text: "input",
    events: "response.custom_tool_call_input",
    around: "",
    index: "",
};
pub(super) static CODE: PartFormat = PartFormat {
    part_type: None,
    text: "code",
    events: "response.code_interpreter_call_code",
    around: "",
    index: "",
};
pub(super) static MCP_ARGUMENTS: PartFormat = PartFormat {
    part_type: None,
    text: "arguments",
    events: "response.mcp_call_arguments",
    around: "",
    index: "",
};

/// A text within an item.
#[derive(Debug)]
pub(super) struct OutputPart {
    pub(super) format: &'static PartFormat,
    /// Its place in the item's list of parts.
    pub(super) index: usize,
    pub(super) text: String,
    /// The complete part. `None` for the text of a call.
    pub(super) whole: Option<WholePart>,
    /// The name of the client's tool that is called, as JSON.
    pub(super) tool: Option<Box<str>>,
}

/// A part with everything beside its text.
#[derive(Debug)]
pub(super) struct WholePart {
    pub(super) json: Box<RawValue>,
    /// The part before its text has arrived.
    pub(super) opened: Vec<u8>,
    pub(super) annotations: Vec<Box<RawValue>>,
    /// Probabilities, as events have them.
    pub(super) logprobs: Vec<Value>,
}

impl OutputPart {
    /// The text of a call of the tool `name`.
    pub(super) fn of_call(format: &'static PartFormat, text: String, name: Option<&RawValue>) -> OutputPart {
        // Only the event at the end of these arguments repeats it.
        let tool = name.filter(|_| *format == ARGUMENTS).map(|name| name.get().into());
        OutputPart { format, index: 0, text, whole: None, tool }
    }

    /// Reads a part, the one at `index`. `None` if it is of no known type.
    pub(super) fn read(formats: &'static [PartFormat], index: usize, json: &RawValue) -> Option<OutputPart> {
        let members = RawObject::read(json.get().as_bytes())?;
        let part_type = text(members.get("type"))?;
        let format = formats.iter().find(|format| format.part_type == Some(part_type.as_str()))?;
        let text = text(members.get(format.text))?;
        let list = |name: &str| members.get(name).unwrap_or("null");
        let annotations: Option<Vec<Box<RawValue>>> = serde_json::from_str(list("annotations")).ok()?;
        let logprobs: Option<Vec<Value>> = serde_json::from_str(list("logprobs")).ok()?;
        let opened = members.write_with(|name, value| match name {
            _ if name == format.text => "\"\"",
            "annotations" | "logprobs" if value != "null" => "[]",
            _ => value,
        });
        let whole = WholePart {
            json: json.to_owned(),
            opened,
            annotations: annotations.unwrap_or_default(),
            logprobs: logprobs.unwrap_or_default().into_iter().map(without_bytes).collect(),
        };
        Some(OutputPart { format, index, text, whole: Some(whole), tool: None })
    }

    /// Whether it is a text of a message.
    pub(super) fn is_text(&self) -> bool {
        *self.format == CONTENT[0]
    }

    /// Whether it is for the client, and not reasoning.
    pub(super) fn is_for_client(&self) -> bool {
        [&ARGUMENTS, &INPUT].contains(&self.format) || CONTENT.contains(self.format)
    }

    pub(super) fn logprobs(&self) -> &[Value] {
        self.whole.as_ref().map_or(&[], |whole| &whole.logprobs)
    }

    pub(super) fn annotations(&self) -> &[Box<RawValue>] {
        self.whole.as_ref().map_or(&[], |whole| &whole.annotations)
    }
}

/// The format of the deltas of an event called `name`.
pub(super) fn format_of_delta(name: &str) -> Option<&'static PartFormat> {
    let events = name.strip_suffix(".delta")?;
    let all =
        CONTENT.iter().chain(&SUMMARY).chain(&REASONING).chain([&ARGUMENTS, &INPUT, &CODE, &MCP_ARGUMENTS]);
    all.into_iter().find(|format| format.events == events)
}

/// The text of a member. `None` if it is absent or no text.
pub(super) fn text(value: Option<&str>) -> Option<String> {
    serde_json::from_str(value?).ok()
}

/// Probabilities as events have them: without the bytes of their tokens.
pub(super) fn without_bytes(mut token: Value) -> Value {
    if let Some(members) = token.as_object_mut() {
        members.remove("bytes");
        if let Some(top) = members.get_mut("top_logprobs").and_then(Value::as_array_mut) {
            top.iter_mut().for_each(|token| *token = without_bytes(token.take()));
        }
    }
    token
}
