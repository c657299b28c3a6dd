//! Parses a request for a message and splits it into scope and question.

use super::hosted::{hosted_features, offers_own_tools};
use crate::dialects::choices::request::Members;
use crate::dialects::conversation::{
    CanonicalConversation, REWORDABLE_BYTES_MAX, check_messages, fingerprint, is_unset, offers,
    take_question, unwrap_single_text,
};
use crate::dialects::ignored_members::remove_ignored;
use crate::dialects::null_members::drop_null;
use crate::dialects::{Dialect, ParsedRequest};
use crate::error::Result;
use crate::request_identity::{
    IdentityParts, IdentityRules, Json, Normalization, NormalizedQuestion, mentions_text_operations_within,
};

/// Members of messages, of their blocks and of the sources of blocks that are read by their names, in whatever order they stand. An
/// object with any other may be shown to the model as it is.
const OF_MESSAGES: [&str; 2] = ["content", "role"];
const OF_BLOCKS: [&str; 15] = [
    "citations",
    "content",
    "context",
    "data",
    "id",
    "input",
    "is_error",
    "name",
    "signature",
    "source",
    "text",
    "thinking",
    "title",
    "tool_use_id",
    "type",
];
const OF_SOURCES: [&str; 4] = ["data", "media_type", "type", "url"];

/// Members that are as `null` what they are if absent. Source: Anthropic's reference of `POST /v1/messages`.
const NULLABLE: [&str; 6] =
    ["container", "context_management", "inference_geo", "output_format", "speed", "user_profile_id"];

/// Members with which an answer depends on the texts of the request alone, and is a text.
const OF_TEXTS: [&str; 11] = [
    "cache",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "top_k",
    "top_p",
];

/// Parses a request of `dialect`. The upstream checks the members that are not read here. `rules` say which requests are one.
///
/// # Errors
/// `InvalidInput`, naming the field, for what cannot be a request for a message.
pub(super) fn parse(
    dialect: &'static dyn Dialect,
    body: &[u8],
    rules: &IdentityRules,
) -> Result<ParsedRequest> {
    let CanonicalConversation { members, question, form, has_tools, hosted } = canonical(body, rules)?;
    let Members { model, streams, temperature, has_directives, is_exact, scope, .. } = members;
    Ok(ParsedRequest {
        dialect,
        scope_domain: "likewise/scope/messages/v1",
        model,
        streams,
        // Both forms report it, whether the request says so or not.
        wants_usage: true,
        temperature,
        has_tools,
        hosted,
        // What the upstream holds, and what it encrypts, is of the credential's owner.
        is_credential_bound: !hosted.is_empty(),
        has_directives,
        is_exact,
        form,
        scope: fingerprint("likewise/request/messages/v1", question.as_ref(), &scope),
        question: question.map(|question| question.text.into()),
    })
}

/// [`Dialect::identity_parts`].
///
/// # Errors
/// As [`parse`].
pub(super) fn identity_parts<'a>(body: &'a [u8], rules: &IdentityRules) -> Result<IdentityParts<'a>> {
    Ok(canonical(body, rules)?.into_parts())
}

fn canonical<'a>(body: &'a [u8], rules: &IdentityRules) -> Result<CanonicalConversation<'a>> {
    let mut members = Members::parse(body, rules)?;
    let scope = &mut members.scope;
    check_messages(scope)?;
    drop_null(scope, &NULLABLE);
    let has_tools = offers(scope, "tools")? && offers_own_tools(scope);
    let hosted = hosted_features(scope);
    canonicalize(scope);
    let question = take_question(scope);
    // What the model reads beside the request may be about the spelling of the question.
    let normalization = if hosted.is_empty() { rules.normalization } else { Normalization::Minimal };
    let alone = question.as_ref().filter(|question| question.is_alone);
    let form = alone.and_then(|question| NormalizedQuestion::within(scope, &question.text, normalization));
    Ok(CanonicalConversation { members, question, form, has_tools, hosted })
}

/// [`Dialect::is_rewordable`]: only of a conversation of one turn.
pub(super) fn is_rewordable(body: &[u8]) -> bool {
    if body.len() > REWORDABLE_BYTES_MAX {
        return false;
    }
    let Ok(mut request) = Json::parse(body) else { return false };
    remove_ignored(&mut request);
    canonicalize(&mut request);
    let Json::Object(members) = &request else { return false };
    let is_of_texts = |name: &str, value: &Json<'_>| OF_TEXTS.contains(&name) || is_unset(value);
    if !members.iter().all(|(name, value)| is_of_texts(name, value)) || !has_one_turn_of_text(&request) {
        return false;
    }
    let question = take_question(&mut request);
    request.take("cache");
    question.is_some() && !mentions_text_operations_within(&request)
}

/// Whether a canonical request has one message, which is a text of the user, and as its system prompt a text or none.
fn has_one_turn_of_text(request: &Json<'_>) -> bool {
    let is_text = |value: Option<&Json<'_>>| value.and_then(Json::as_text).is_some();
    let system = request.get("system");
    let [message] = request.get("messages").and_then(Json::as_list).unwrap_or_default() else { return false };
    message.has_only(&OF_MESSAGES)
        && message.get("role").and_then(Json::as_text) == Some("user")
        && is_text(message.get("content"))
        && (system.is_none_or(is_unset) || is_text(system))
}

/// Takes away the differences that have no meaning: the order of members where they are read by their names, and whether a text stands
/// by itself or in a list of one block. Elsewhere, as in a schema, the order may have a meaning.
fn canonicalize(request: &mut Json<'_>) {
    request.sort();
    request.get_mut("system").into_iter().for_each(canonicalize_content);
    let Some(Json::List(messages)) = request.get_mut("messages") else { return };
    for message in messages {
        message.get_mut("content").into_iter().for_each(canonicalize_content);
        if message.has_only(&OF_MESSAGES) {
            message.sort();
        }
    }
}

fn canonicalize_content(content: &mut Json<'_>) {
    let Json::List(blocks) = content else { return };
    blocks.iter_mut().for_each(sort_block);
    unwrap_single_text(content, "text");
}

fn sort_block(block: &mut Json<'_>) {
    if let Some(source) = block.get_mut("source").filter(|source| source.has_only(&OF_SOURCES)) {
        source.sort();
    }
    if block.has_only(&OF_BLOCKS) {
        block.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::messages::Messages;
    use crate::dialects::messages::parse;
    use crate::dialects::test_requests::assert_null_is_absent;

    fn param(body: &str) -> String {
        let error = parse(body.as_bytes(), &IdentityRules::default()).unwrap_err();
        error.param_name().unwrap_or("none").to_owned()
    }

    #[test]
    fn a_request_is_split_at_the_last_words_of_the_user() {
        let body = br#"{"model":"m","max_tokens":5,"system":"be brief","messages":[{"role":"user","content":"one"},
            {"role":"assistant","content":"1"},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"3"},
            {"type":"text","text":"two"}]}],"stream":true,"cache":{"ttl":1},"temperature":0,"tools":[{"name":"f"}]}"#;
        let parsed = parse(body, &IdentityRules::default()).unwrap();
        assert_eq!(
            (parsed.question.as_deref(), parsed.streams, parsed.wants_usage),
            (Some("two"), true, true)
        );
        assert_eq!((parsed.temperature, parsed.has_tools, parsed.has_directives), (Some(0.0), true, true));
        assert!(parsed.is_exact && parsed.hosted.is_empty());
    }

    #[test]
    fn a_fault_names_its_field() {
        for (body, expected) in [
            ("[]", "none"),
            (r#"{"messages":[]}"#, "model"),
            (r#"{"model":"m"}"#, "messages"),
            (r#"{"model":"m","messages":"hi"}"#, "messages"),
            (r#"{"model":"m","messages":[]}"#, "messages"),
            (r#"{"model":"m","messages":["hi"]}"#, "messages"),
            (r#"{"model":"m","messages":[{"role":"user"}],"tools":{}}"#, "tools"),
            (r#"{"model":"m","messages":[{"role":"user"}],"stream":"yes"}"#, "stream"),
            (r#"{"model":"m","messages":[{"role":"user"}],"temperature":"1"}"#, "temperature"),
        ] {
            assert_eq!(param(body), expected, "{body}");
        }
        assert!(
            parse(br#"{"model":"m","messages":[{"role":"user"}],"system":7}"#, &IdentityRules::default())
                .is_ok(),
            "what does not decide how it is cached is for the upstream to check"
        );
    }

    #[test]
    fn a_question_may_be_reworded_only_where_the_answer_depends_on_one_turn_of_text() {
        let rewordable = |members: &str, messages: &str| {
            is_rewordable(
                format!(r#"{{"model":"m","max_tokens":9,{members}"messages":[{messages}]}}"#).as_bytes(),
            )
        };
        let asked = r#"{"role":"user","content":"how do I return it?"}"#;
        assert!(rewordable("", asked));
        assert!(rewordable("", r#"{"role":"user","content":[{"type":"text","text":"how?"}]}"#));
        assert!(rewordable(r#""system":"You help the customers of a shop.","tools":[],"#, asked));
        assert!(rewordable(r#""cache":{"tags":["letter"]},"service_tier":"auto","#, asked));
        let marked = r#"[{"type":"text","text":"You help.","cache_control":{"type":"ephemeral"}}]"#;
        assert!(rewordable(&format!(r#""system":{marked},"#), asked));
        for members in [
            r#""system":"Translate what the user says.","#,
            r#""system":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"#,
            r#""tools":[{"name":"f"}],"#,
            r#""thinking":{"type":"enabled","budget_tokens":1024},"#,
            r#""output_config":{"effort":"low"},"#,
            r#""mcp_servers":[{"url":"u"}],"#,
        ] {
            assert!(!rewordable(members, asked), "{members}");
        }
        for messages in [
            String::new(),
            format!(r#"{asked},{{"role":"assistant","content":"So"}}"#),
            format!(r#"{asked},{{"role":"assistant","content":"So"}},{asked}"#),
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#.into(),
            r#"{"role":"user","content":[{"type":"image","source":{}},{"type":"text","text":"b"}]}"#.into(),
            r#"{"role":"assistant","content":"a"}"#.into(),
        ] {
            assert!(!rewordable("", &messages), "{messages}");
        }
        assert!(!is_rewordable(b"[]") && !is_rewordable(b"{") && !is_rewordable(&[b' '; 70_000]));
    }

    #[test]
    fn null_is_absent_where_the_api_says_so() {
        let body = serde_json::json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "what?" }] });
        assert_null_is_absent(&Messages, &body, &NULLABLE);
    }
}
