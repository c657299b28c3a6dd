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
    use crate::domain::{Key, TenantId};
    use crate::request_identity::{IdentityRules, Partition};

    struct Case {
        dialect: &'static dyn Dialect,
        body: Value,
        /// Members that are as null what they are if absent.
        same: &'static [&'static str],
        other: &'static [&'static str],
    }

    fn key(dialect: &'static dyn Dialect, body: &Value) -> Key {
        let parsed =
            dialect.parse(body.to_string().as_bytes(), &IdentityRules::default()).expect("a request");
        let partition = Partition {
            tenant: &TenantId::default(),
            namespace: "llm_responses",
            credential: None,
            upstream: "http://one/v1",
            query: None,
            headers: &[],
        };
        parsed.identity(&partition).key
    }

    fn with(mut body: Value, member: &str, value: Value) -> Value {
        body[member] = value;
        body
    }

    #[test]
    fn null_and_absent_are_one_where_the_api_says_so_and_nowhere_else() {
        let messages = json!([{ "role": "user", "content": "what?" }]);
        let cases = [
            Case {
                dialect: &ChatCompletions,
                body: json!({ "model": "m", "messages": messages }),
                same: &["logit_bias", "max_tokens", "metadata", "n", "seed", "stop", "temperature", "top_p"],
                other: &[
                    "function_call",
                    "parallel_tool_calls",
                    "response_format",
                    "tool_choice",
                    "tools",
                    "user",
                    "x_new",
                ],
            },
            Case {
                dialect: &Completions,
                body: json!({ "model": "m", "prompt": "what?" }),
                same: &["best_of", "echo", "logprobs", "n", "seed", "stop", "suffix", "temperature"],
                other: &["max_tokens", "user", "x_new"],
            },
            Case {
                dialect: &Responses,
                body: json!({ "model": "m", "input": "what?" }),
                same: &[
                    "conversation",
                    "include",
                    "instructions",
                    "previous_response_id",
                    "prompt",
                    "reasoning",
                    "text",
                    "tool_choice",
                    "tools",
                ],
                other: &["background", "parallel_tool_calls", "store", "truncation", "user", "x_new"],
            },
            Case {
                dialect: &Messages,
                body: json!({ "model": "m", "max_tokens": 9, "messages": messages }),
                same: &["container", "context_management", "inference_geo", "output_format"],
                other: &[
                    "mcp_servers",
                    "metadata",
                    "stop_sequences",
                    "system",
                    "temperature",
                    "tools",
                    "x_new",
                ],
            },
        ];
        for Case { dialect, body, same, other } in cases {
            let absent = key(dialect, &body);
            for member in same {
                assert_eq!(
                    key(dialect, &with(body.clone(), member, Value::Null)),
                    absent,
                    "{dialect:?}: {member}"
                );
            }
            let all = same.iter().fold(body.clone(), |body, member| with(body, member, Value::Null));
            assert_eq!(key(dialect, &all), absent, "{dialect:?}");
            for member in other {
                assert_ne!(
                    key(dialect, &with(body.clone(), member, Value::Null)),
                    absent,
                    "{dialect:?}: {member}"
                );
            }
        }
    }

    #[test]
    fn null_within_a_member_counts() {
        let body = |reasoning: Value| json!({ "model": "m", "input": "what?", "reasoning": reasoning });
        assert_ne!(key(&Responses, &body(json!({ "effort": null }))), key(&Responses, &body(json!({}))));
    }
}
