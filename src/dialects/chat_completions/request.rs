//! Parses a request for a chat completion and splits it into scope and question.

use serde_json::json;

use crate::dialects::choices::request::{Members, drop_single_choice};
use crate::dialects::conversation::{
    CanonicalConversation, REWORDABLE_BYTES_MAX, check_messages, fingerprint, is_unset, offers,
    take_question, unwrap_single_text,
};
use crate::dialects::ignored_members::remove_ignored;
use crate::dialects::null_members::drop_null;
use crate::dialects::{Dialect, HostedFeatures, ParsedRequest};
use crate::error::Result;
use crate::request_identity::{
    IdentityParts, IdentityRules, Json, NormalizedQuestion, mentions_text_operations_within,
};

/// Members of messages and of their parts that are read by their names, in whatever order they stand. An object with any other
/// may be shown to the model as it is.
const OF_MESSAGES: [&str; 9] = [
    "audio",
    "content",
    "function_call",
    "name",
    "reasoning_content",
    "refusal",
    "role",
    "tool_call_id",
    "tool_calls",
];
const OF_PARTS: [&str; 6] = ["file", "image_url", "input_audio", "refusal", "text", "type"];

/// Members with which an answer depends on the texts of the request alone, and is a text. Tools that a server runs have many names.
const OF_TEXTS: [&str; 25] = [
    "cache",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
];
/// Members that are as `null` what they are if absent. Source: OpenAI's reference of `POST /v1/chat/completions`.
const NULLABLE: [&str; 20] = [
    "audio",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "n",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "seed",
    "stop",
    "store",
    "stream_options",
    "temperature",
    "top_logprobs",
    "top_p",
    "verbosity",
];
/// The roles of messages that are texts.
const TEXT_ROLES: [&str; 4] = ["assistant", "developer", "system", "user"];

/// Reads a request of `dialect`. Only what is needed here is checked; the rest is between the client and the model. `rules` say which
/// requests are one.
///
/// # Errors
/// `InvalidInput`, naming the field, for what cannot be a request for a chat completion.
pub(super) fn parse(
    dialect: &'static dyn Dialect,
    body: &[u8],
    rules: &IdentityRules,
) -> Result<ParsedRequest> {
    let CanonicalConversation { members, question, form, has_tools, hosted } = canonical(body, rules)?;
    let Members { model, streams, wants_usage, temperature, has_directives, is_exact, scope } = members;
    Ok(ParsedRequest {
        dialect,
        scope_domain: "likewise/scope/chat/v2",
        model,
        streams,
        wants_usage,
        temperature,
        has_tools,
        hosted,
        is_credential_bound: false,
        has_directives,
        is_exact,
        form,
        scope: fingerprint("likewise/request/chat/v2", question.as_ref(), &scope),
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
    let has_tools = offers(scope, "tools")? | offers(scope, "functions")?;
    drop_single_choice(scope);
    drop_null(scope, &NULLABLE);
    canonicalize(scope);
    let question = take_question(scope);
    let alone = question.as_ref().filter(|question| question.is_alone);
    let form =
        alone.and_then(|question| NormalizedQuestion::within(scope, &question.text, rules.normalization));
    Ok(CanonicalConversation { members, question, form, has_tools, hosted: HostedFeatures::default() })
}

/// [`Dialect::is_rewordable`].
pub(super) fn is_rewordable(body: &[u8]) -> bool {
    if body.len() > REWORDABLE_BYTES_MAX {
        return false;
    }
    let Ok(mut request) = Json::parse(body) else { return false };
    remove_ignored(&mut request);
    let Json::Object(members) = &request else { return false };
    let is_of_texts_alone =
        members.iter().all(|(name, value)| OF_TEXTS.contains(&name.as_ref()) || is_unset(value));
    let messages = request.get("messages").and_then(Json::as_list).unwrap_or_default();
    let last = messages.len().wrapping_sub(1);
    if !is_of_texts_alone || !messages.iter().all(is_of_texts) {
        return false;
    }
    let Some(question) = take_question(&mut request) else { return false };
    request.take("cache");
    question.is_alone && question.place.0 == last && !mentions_text_operations_within(&request)
}

/// Whether a message has texts only, and neither calls tools nor has their results.
fn is_of_texts(message: &Json<'_>) -> bool {
    let is_text = |part: &Json<'_>| part.get("type").and_then(Json::as_text) == Some("text");
    let content = match message.get("content") {
        Some(Json::Text(_)) => true,
        Some(Json::List(parts)) => parts.iter().all(is_text),
        _ => false,
    };
    let is_absent = |name: &str| matches!(message.get(name), None | Some(Json::Null));
    let role = message.get("role").and_then(Json::as_text).unwrap_or_default();
    content
        && TEXT_ROLES.contains(&role)
        && ["tool_calls", "function_call", "tool_call_id", "audio"].into_iter().all(is_absent)
}

/// Takes away the differences that have no meaning: the order of members of the request, of its messages and of their parts, and whether a
/// text stands by itself or in a list of one part. Elsewhere, as in a schema, the order may have a meaning.
fn canonicalize(request: &mut Json<'_>) {
    request.sort();
    let Some(Json::List(messages)) = request.get_mut("messages") else { return };
    for message in messages.iter_mut().filter(|message| message.has_only(&OF_MESSAGES)) {
        message.sort();
        if let Some(Json::List(parts)) = message.get_mut("content") {
            parts.iter_mut().filter(|part| part.has_only(&OF_PARTS)).for_each(Json::sort);
        }
        message.get_mut("content").into_iter().for_each(|content| unwrap_single_text(content, "text"));
    }
}

/// A request with one question, as a client in a simulation sends it.
pub fn request_in_words(model: &str, question: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": question }] }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::chat_completions::ChatCompletions;
    use crate::dialects::chat_completions::parse;
    use crate::dialects::test_requests::assert_null_is_absent;

    fn param(body: &str) -> String {
        parse(body.as_bytes(), &IdentityRules::default())
            .unwrap_err()
            .param_name()
            .unwrap_or("none")
            .to_owned()
    }

    #[test]
    fn a_request_is_split_at_the_last_words_of_the_user() {
        let body = br#"{"model":"m","messages":[{"role":"system","content":"be brief"},
            {"role":"user","content":"one"},{"role":"assistant","content":"1"},
            {"role":"user","content":[{"type":"text","text":"two"},{"type":"image_url","image_url":{"url":"u"}}]},
            {"role":"tool","content":"3"}],"stream":true,"stream_options":{"include_usage":true},
            "cache":{"ttl":1},"temperature":0}"#;
        let chat = parse(body, &IdentityRules::default()).unwrap();
        assert_eq!((chat.question.as_deref(), chat.streams, chat.wants_usage), (Some("two"), true, true));
        assert_eq!((chat.temperature, chat.has_tools, chat.has_directives), (Some(0.0), false, true));
        let mut rest = Json::parse(body).unwrap();
        assert_eq!(take_question(&mut rest).unwrap().place, (3, Some(0)));
        let rest = String::from_utf8(rest.canonical()).unwrap();
        assert!(
            rest.contains(r#"[{"type":"text","text":null},{"type":"image_url""#) && !rest.contains("two"),
            "{rest}"
        );
    }

    #[test]
    fn a_request_without_words_of_the_user_is_all_scope() {
        for message in
            [r#"{"role":"system","content":"x"}"#, r#"{"role":"user","content":null}"#, r#"{"role":"user"}"#]
        {
            let body = format!(r#"{{"model":"m","messages":[{message}]}}"#);
            assert_eq!(parse(body.as_bytes(), &IdentityRules::default()).unwrap().question, None);
        }
    }

    #[test]
    fn a_question_may_be_reworded_only_where_the_answer_depends_on_texts_alone() {
        let rewordable = |members: &str, messages: &str| {
            is_rewordable(format!(r#"{{"model":"m",{members}"messages":[{messages}]}}"#).as_bytes())
        };
        let asked = r#"{"role":"user","content":"how do I return it?"}"#;
        let system = |text: &str| format!(r#"{{"role":"system","content":"{text}"}},{asked}"#);
        assert!(rewordable("", asked));
        assert!(rewordable("", &system("You help the customers of a shop.")));
        assert!(rewordable(
            r#""temperature":0,"tools":[],"cache":{"semantic":true,"tags":["letter"]},"#,
            asked
        ));
        assert!(rewordable("", r#"{"role":"user","content":[{"type":"text","text":"how?"}]}"#));
        for members in [
            r#""tools":[{"type":"function"}],"#,
            r#""functions":[{}],"#,
            r#""web_search_options":{},"#,
            r#""modalities":["text","audio"],"#,
            r#""audio":{"voice":"alloy"},"#,
            r#""search_parameters":{"mode":"auto"},"#,
            r#""plugins":[{"id":"web"}],"#,
        ] {
            assert!(!rewordable(members, asked), "{members}");
        }
        for text in ["Translate what the user says.", "Correct the spelling.", "Corrige la ortografía."] {
            assert!(!rewordable("", &system(text)), "{text}");
        }
        let image = r#"{"type":"image_url","image_url":{"url":"u"}}"#;
        for messages in [
            format!(r#"{{"role":"user","content":[{{"type":"text","text":"what is it?"}},{image}]}}"#),
            format!(r#"{{"role":"user","content":[{image}]}},{asked}"#),
            format!(r#"{asked},{{"role":"assistant","content":"So"}}"#),
            format!(r#"{{"role":"tool","tool_call_id":"1","content":"3"}},{asked}"#),
            format!(r#"{{"role":"function","name":"f","content":"3"}},{asked}"#),
            format!(r#"{asked},{{"role":"tool","tool_call_id":"1","content":"3"}}"#),
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#.to_owned(),
            r#"{"role":"user","content":null}"#.to_owned(),
            String::new(),
        ] {
            assert!(!rewordable("", &messages), "{messages}");
        }
        assert!(!is_rewordable(b"[]") && !is_rewordable(b"{") && !is_rewordable(&[b' '; 70_000]));
    }

    #[test]
    fn a_fault_names_its_field() {
        assert_eq!(param("[]"), "none");
        assert_eq!(param(r#"{"messages":[]}"#), "model");
        assert_eq!(param(r#"{"model":7,"messages":[]}"#), "model");
        let named =
            |bytes: usize| format!(r#"{{"model":"{}","messages":[{{"role":"user"}}]}}"#, "m".repeat(bytes));
        assert!(parse(named(256).as_bytes(), &IdentityRules::default()).is_ok());
        assert_eq!(param(&named(257)), "model");
        assert_eq!(param(r#"{"model":"m"}"#), "messages");
        assert_eq!(param(r#"{"model":"m","messages":"hi"}"#), "messages");
        assert_eq!(param(r#"{"model":"m","messages":[]}"#), "messages");
        assert_eq!(param(r#"{"model":"m","messages":["hi"]}"#), "messages");
        for (name, value) in
            [("temperature", "\"2\""), ("temperature", "[]"), ("tools", "\"x\""), ("functions", "{}")]
        {
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user"}}],"{name}":{value}}}"#);
            assert_eq!(param(&body), name);
        }
        assert_eq!(param(r#"{"model":"m","stream":"yes","messages":[{"role":"user"}]}"#), "stream");
        assert_eq!(
            param(r#"{"model":"m","stream_options":1,"messages":[{"role":"user"}]}"#),
            "stream_options"
        );
    }

    #[test]
    fn null_is_absent_where_the_api_says_so() {
        let body = serde_json::json!({ "model": "m", "messages": [{ "role": "user", "content": "what?" }] });
        assert_null_is_absent(&ChatCompletions, &body, &NULLABLE);
    }
}
