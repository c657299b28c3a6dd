//! Calls of tools, which are said piece by piece.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::dialects::Unstorable;
use crate::dialects::choices::{Rule, Rules, Type, add, says_nothing, within};

/// Members of a call beside its function.
const OF_CALL: &Rules = &[
    ("id", Rule::Agree(Type::Text)),
    ("type", Rule::Agree(Type::Text)),
    // Gemini's and LiteLLM's.
    ("extra_content", Rule::Once(Type::Object)),
    ("provider_specific_fields", Rule::Once(Type::Object)),
];
/// Members of a function, and of a custom tool.
const OF_FUNCTION: &Rules =
    &[("name", Rule::Once(Type::Text)), ("arguments", Rule::Text), ("input", Rule::Text)];

#[derive(Debug, Default)]
pub(super) struct StreamedToolCall(Map<String, Value>);

impl StreamedToolCall {
    pub(super) fn add(&mut self, call: Map<String, Value>) -> Result<(), Unstorable> {
        for (name, value) in call {
            match (name.as_str(), value) {
                ("function" | "custom", Value::Object(function)) => {
                    add_function(within(&mut self.0, name)?, function)?;
                }
                (_, value) => add(&mut self.0, OF_CALL, name, value)?,
            }
        }
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.get("function").is_none_or(is_whole)
    }

    pub(super) fn finish(self) -> Value {
        Value::Object(self.0)
    }
}

/// Adds to a function what a chunk says of it.
pub(super) fn add_function(
    known: &mut Map<String, Value>,
    function: Map<String, Value>,
) -> Result<(), Unstorable> {
    function.into_iter().try_for_each(|(name, value)| add(known, OF_FUNCTION, name, value))
}

/// Whether the arguments of a function are none or one JSON value.
pub(super) fn is_whole(function: &Value) -> bool {
    let arguments = function.get("arguments").filter(|arguments| !says_nothing(arguments));
    let text = arguments.and_then(Value::as_str).unwrap_or_default().trim();
    text.is_empty() || serde_json::from_str::<IgnoredAny>(text).is_ok()
}
