//! The members of requests that change no answer: they say how an upstream caches a prompt, or how fast and at which price it works.
//!
//! They are no part of the identity of a request, and are sent to the upstream byte for byte all the same. The one list holds for every
//! dialect. Sources: OpenAI's guide to prompt caching (`prompt_cache_*`, of the request and of its content parts), Anthropic's
//! (`cache_control`, at any depth), and both APIs' `service_tier`.

use crate::request_identity::Json;

/// Members of the request itself.
const OF_REQUESTS: [&str; 4] =
    ["prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier"];

/// Marks that end a prefix of the prompt that the upstream caches: of messages, of their parts, of tools, of the request.
const MARKS: [&str; 2] = ["cache_control", "prompt_cache_breakpoint"];
/// What a mark may say. Anything else by its name counts.
const OF_MARKS: [&str; 4] = ["mode", "scope", "ttl", "type"];

/// Members within which marks stand, from the request's own down: those with messages, their parts and blocks, tools. In all others, as in
/// schemas and arguments, a name is the client's own, and the model may read it.
const WITH_MARKS: [&str; 8] =
    ["content", "function", "input", "messages", "output", "source", "system", "tools"];

/// Removes the members of a request that change no answer.
pub(super) fn remove_ignored(request: &mut Json<'_>) {
    if let Json::Object(members) = request {
        members.retain(|(name, _)| !OF_REQUESTS.contains(&name.as_ref()));
    }
    remove_marks(request);
}

fn remove_marks(value: &mut Json<'_>) {
    match value {
        Json::Object(members) => {
            members.retain(|(name, value)| !(MARKS.contains(&name.as_ref()) && is_mark(value)));
            members
                .iter_mut()
                .filter(|(name, value)| has_marks(name, value))
                .for_each(|(_, value)| remove_marks(value));
        }
        Json::List(elements) => elements.iter_mut().for_each(remove_marks),
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) | Json::Text(_) => {}
    }
}

fn is_mark(value: &Json<'_>) -> bool {
    *value == Json::Null || value.has_only(&OF_MARKS)
}

/// The `input` of a call of a tool is an object, that of a request a text or a list; so is an `output`.
fn has_marks(name: &str, value: &Json<'_>) -> bool {
    let is_of_client = ["input", "output"].contains(&name) && matches!(value, Json::Object(_));
    WITH_MARKS.contains(&name) && !is_of_client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(request: &str) -> String {
        let mut json = Json::parse(request.as_bytes()).unwrap();
        remove_ignored(&mut json);
        String::from_utf8(json.canonical()).unwrap()
    }

    #[test]
    fn how_a_prompt_is_cached_and_what_it_costs_is_left_out() {
        for ignored in [
            r#""prompt_cache_key":"run-1""#,
            r#""prompt_cache_retention":"24h""#,
            r#""prompt_cache_options":{"mode":"explicit","ttl":"30m"}"#,
            r#""service_tier":"flex""#,
            r#""cache_control":{"type":"ephemeral"}"#,
            r#""cache_control":null"#,
            r#""prompt_cache_breakpoint":{"mode":"explicit"}"#,
        ] {
            assert_eq!(left(&format!(r#"{{{ignored},"model":"m"}}"#)), r#"{"model":"m"}"#);
        }
    }

    #[test]
    fn marks_are_left_out_at_any_depth() {
        let marked = r#"{"system":[{"text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}}],
            "input":[{"content":[{"text":"b","prompt_cache_breakpoint":{"mode":"explicit"}}]}],
            "tools":[{"name":"t","cache_control":{"type":"ephemeral"}}]}"#;
        assert_eq!(
            left(marked),
            r#"{"system":[{"text":"a"}],"input":[{"content":[{"text":"b"}]}],"tools":[{"name":"t"}]}"#
        );
    }

    #[test]
    fn names_that_the_model_reads_stay() {
        for kept in [
            r#"{"tools":[{"parameters":{"properties":{"cache_control":{"type":"string"}}}}]}"#,
            r#"{"tools":[{"input_schema":{"properties":{"cache_control":{"type":"string"}}}}]}"#,
            r#"{"guided_json":{"properties":{"cache_control":{"type":"string"}}}}"#,
            r#"{"content":[{"type":"tool_use","input":{"cache_control":{"type":"ephemeral"}}}]}"#,
            r#"{"guided_json":{"const":{"cache_control":{"type":"a"}}}}"#,
            r#"{"prompt":{"id":"p","variables":{"cache_control":{"type":"x"}}}}"#,
            r#"{"cache_control":"none"}"#,
            r#"{"cache_control":{"type":"ephemeral","x_unknown":1}}"#,
            r#"{"metadata":{"service_tier":"flex","prompt_cache_key":"a"}}"#,
            r#"{"user":"one"}"#,
        ] {
            assert_eq!(left(kept), kept);
        }
    }
}
