//! Members of requests that say no more as `null` than by their absence.
//!
//! Clients that write every field of a class send `null` for those that were not set. Each API has a list of the members for which its reference
//! allows `null`, where that can mean nothing but that the member is not set. All others count as they came, such as the `max_tokens` of
//! completions: its default is 16, and servers differ in whether `null` is that or no limit. The upstream gets the client's bytes all the same.

use crate::request_identity::Json;

/// Removes the members that `names` lists from a request where they are `null`.
pub(super) fn drop_null(request: &mut Json<'_>, names: &[&str]) {
    if let Json::Object(members) = request {
        members.retain(|(name, value)| *value != Json::Null || !names.contains(&name.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::dialects::Dialect;
    use crate::dialects::chat_completions::ChatCompletions;
    use crate::dialects::completions::Completions;
    use crate::dialects::messages::Messages;
    use crate::dialects::responses::Responses;
    use crate::dialects::test_requests::key_of;

    #[test]
    fn null_counts_where_no_api_says_that_it_is_the_default() {
        let messages = json!([{ "role": "user", "content": "what?" }]);
        let cases: [(&'static dyn Dialect, Value, &[&str]); 4] = [
            (
                &ChatCompletions,
                json!({ "model": "m", "messages": messages }),
                &[
                    "function_call",
                    "parallel_tool_calls",
                    "response_format",
                    "tool_choice",
                    "tools",
                    "user",
                    "x_new",
                ],
            ),
            (&Completions, json!({ "model": "m", "prompt": "what?" }), &["max_tokens", "user", "x_new"]),
            (
                &Responses,
                json!({ "model": "m", "input": "what?" }),
                &["background", "parallel_tool_calls", "store", "truncation", "user", "x_new"],
            ),
            (
                &Messages,
                json!({ "model": "m", "max_tokens": 9, "messages": messages }),
                &["mcp_servers", "metadata", "stop_sequences", "system", "temperature", "tools", "x_new"],
            ),
        ];
        for (dialect, body, names) in cases {
            for name in names {
                let mut with_null = body.clone();
                with_null[name] = Value::Null;
                assert_ne!(key_of(dialect, &with_null), key_of(dialect, &body), "{dialect:?}: {name}");
            }
        }
    }

    #[test]
    fn null_within_a_member_counts() {
        let body = |reasoning: Value| json!({ "model": "m", "input": "what?", "reasoning": reasoning });
        assert_ne!(
            key_of(&Responses, &body(json!({ "effort": null }))),
            key_of(&Responses, &body(json!({})))
        );
    }
}
