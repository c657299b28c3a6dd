//! Which requests share an identity, and which do not.

use serde_json::{Value, json};

use super::Responses;
use crate::dialects::chat_completions::ChatCompletions;
use crate::dialects::test_requests::partition;
use crate::dialects::{Dialect, HostedFeature, HostedFeatures, ParsedRequest};
use crate::domain::TenantId;
use crate::request_identity::{Identity, IdentityRules, Normalization};

fn parsed(body: &str) -> ParsedRequest {
    Responses.parse(body.as_bytes(), &IdentityRules::new(Normalization::WordLists, &[])).unwrap()
}

fn identity_of(request: &ParsedRequest) -> Identity {
    request.identity(&partition(&TenantId::default()))
}

fn identity(body: &Value) -> Identity {
    identity_of(&parsed(&body.to_string()))
}

fn base() -> Value {
    json!({ "model": "m", "input": "which size do I need?" })
}

fn with(member: &str, value: Value) -> Value {
    let mut body = base();
    body[member] = value;
    body
}

fn message(role: &str, content: Value) -> Value {
    json!({ "role": role, "content": content })
}

#[test]
fn every_member_that_selects_the_answer_is_part_of_the_identity() {
    let turn = || message("user", "and in blue?".into());
    let members = [
        ("model", json!("other")),
        ("input", json!("another size")),
        ("input", json!([])),
        ("input", json!([message("system", "which size do I need?".into())])),
        ("input", json!([message("assistant", "which size do I need?".into())])),
        ("input", json!([message("user", "which size do I need?".into()), turn()])),
        ("input", json!([turn(), message("user", "which size do I need?".into())])),
        ("input", json!([{ "type": "item_reference", "id": "msg_1" }, turn()])),
        ("input", json!([{ "type": "function_call_output", "call_id": "c", "output": "4" }, turn()])),
        ("input", json!([{ "role": "user", "content": "which size do I need?", "id": "msg_1" }])),
        ("input", json!([message("user", json!([{ "type": "input_image", "image_url": "u" }]))])),
        ("instructions", json!("be brief")),
        ("tools", json!([{ "type": "function", "name": "size", "parameters": {} }])),
        ("tool_choice", json!("required")),
        ("text", json!({ "format": { "type": "json_object" } })),
        ("reasoning", json!({ "effort": "low" })),
        ("include", json!(["reasoning.encrypted_content"])),
        ("truncation", json!("auto")),
        ("previous_response_id", json!("resp_1")),
        ("previous_response_id", json!("resp_2")),
        ("store", json!(false)),
        ("store", json!(true)),
        ("prompt", json!({ "id": "pmpt_1" })),
        ("max_output_tokens", json!(7)),
        ("temperature", json!(0.5)),
        ("metadata", json!({ "trace": "1" })),
        ("user", json!("one")),
        ("x_unknown", json!({ "deep": [1, { "a": null }] })),
        ("stream_options", json!({ "x_unknown": 1 })),
    ];
    let mut keys = vec![identity(&base()).key];
    keys.extend(members.map(|(member, value)| identity(&with(member, value)).key));
    let count = keys.len();
    keys.sort_by_key(|key| key.0);
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn how_a_response_travels_and_how_its_prompt_is_cached_never_separates() {
    let whole = identity(&base());
    for (member, value) in [
        ("stream", json!(true)),
        ("stream_options", json!({ "include_obfuscation": false })),
        ("cache", json!({ "ttl": 5 })),
        ("prompt_cache_key", json!("run-1")),
        ("prompt_cache_retention", json!("24h")),
        ("prompt_cache_options", json!({ "mode": "explicit" })),
        ("service_tier", json!("flex")),
        ("background", json!(false)),
    ] {
        let is_in_it = member == "background";
        assert_eq!(whole == identity(&with(member, value)), !is_in_it, "{member}");
    }
}

#[test]
fn a_text_and_one_message_with_that_text_are_one_input() {
    let text = "which size do I need?";
    let one = |part: Value| json!([message("user", json!([part]))]);
    for input in [
        json!(text),
        json!([message("user", text.into())]),
        json!([{ "type": "message", "role": "user", "content": text }]),
        one(json!({ "type": "input_text", "text": text })),
        one(json!({ "text": text, "type": "input_text" })),
        one(json!({ "type": "input_text", "text": text, "prompt_cache_breakpoint": { "mode": "explicit" } })),
    ] {
        assert_eq!(identity(&with("input", input.clone())), identity(&base()), "{input}");
    }
    for other in [
        one(json!({ "type": "output_text", "text": text })),
        one(json!({ "type": "input_text", "text": text, "x_unknown": 1 })),
        json!([message(
            "user",
            json!([{ "type": "input_text", "text": text }, { "type": "input_text", "text": "" }])
        )]),
    ] {
        assert_ne!(identity(&with("input", other.clone())).key, identity(&base()).key, "{other}");
    }
    let turns = |content: Value| {
        identity(&with("input", json!([message("developer", content), message("user", "hi".into())])))
    };
    assert_eq!(turns("be kind".into()), turns(json!([{ "type": "input_text", "text": "be kind" }])));
}

#[test]
fn the_order_of_members_is_meaning_only_where_a_schema_may_stand() {
    let body = r#"{"model":"m","input":[{"role":"developer","content":"a","id":"1"},{"content":"b","role":"user"}]}"#;
    let turned = r#"{"input":[{"id":"1","content":"a","role":"developer"},{"role":"user","content":"b"}],"model":"m"}"#;
    assert_eq!(identity_of(&parsed(body)), identity_of(&parsed(turned)));
    let schema = |properties: &str| {
        let schema = format!(r#"{{"type":"object","properties":{properties}}}"#);
        let format = format!(r#"{{"format":{{"type":"json_schema","name":"x","schema":{schema}}}}}"#);
        identity_of(&parsed(&format!(r#"{{"model":"m","input":"a","text":{format}}}"#))).key
    };
    assert_ne!(schema(r#"{"a":{},"b":{}}"#), schema(r#"{"b":{},"a":{}}"#));
}

#[test]
fn spellings_are_joined_only_where_all_that_the_model_reads_is_known() {
    let ask = |input: &str, more: (&str, Value)| {
        let mut body = with(more.0, more.1);
        body["input"] = input.into();
        identity(&body).key
    };
    let none = || ("x_unknown", json!(1));
    assert_eq!(ask("What is it?", none()), ask("what is it", none()));
    let spelling = || ("instructions", json!("Correct the spelling."));
    assert_ne!(ask("What is it?", spelling()), ask("what is it", spelling()));
    for hidden in ["previous_response_id", "prompt", "conversation"] {
        let hidden = || (hidden, json!("x"));
        assert_ne!(ask("What is it?", hidden()), ask("what is it", hidden()));
        assert_eq!(ask("What is it?", hidden()), ask(" What is it?", hidden()));
    }
}

#[test]
fn the_identities_of_two_dialects_never_collide() {
    let body = r#"{"model":"m","input":"hi","messages":[{"role":"user","content":"hi"}]}"#;
    let chat =
        ChatCompletions.parse(body.as_bytes(), &IdentityRules::new(Normalization::WordLists, &[])).unwrap();
    let [one, two] = [identity_of(&parsed(body)), identity_of(&chat)];
    assert!(one.key != two.key && one.exact != two.exact && one.scope != two.scope);
}

#[test]
fn what_an_answer_depends_on_beside_its_request_is_named() {
    use HostedFeature::{
        Background, CodeInterpreter, Computer, Container, Conversation, FileSearch, ImageGeneration, Mcp,
        WebSearch,
    };
    let own = json!({ "type": "function", "name": "f", "parameters": {} });
    let set = |features: &[HostedFeature]| features.iter().copied().collect::<HostedFeatures>();
    for (member, value, hosted, has_tools) in [
        ("tools", json!([own, { "type": "custom", "name": "g" }]), set(&[]), true),
        ("tools", json!([]), set(&[]), false),
        ("conversation", Value::Null, set(&[]), false),
        ("previous_response_id", json!("resp_1"), set(&[]), false),
        ("background", json!(true), set(&[Background]), false),
        ("conversation", json!("conv_1"), set(&[Conversation]), false),
        ("conversation", json!({ "id": "conv_1" }), set(&[Conversation]), false),
        ("tools", json!([own, { "type": "web_search" }]), set(&[WebSearch]), true),
        (
            "tools",
            json!([{ "type": "file_search" }, { "type": "web_search_preview_2025_03_11" }]),
            set(&[FileSearch, WebSearch]),
            false,
        ),
        ("tools", json!([{ "type": "mcp", "server_url": "u" }]), set(&[Mcp]), true),
        (
            "tools",
            json!([{ "type": "computer_use_preview" }, { "type": "computer" }]),
            set(&[Computer]),
            true,
        ),
        ("tools", json!([{ "type": "image_generation" }]), set(&[ImageGeneration]), false),
        (
            "tools",
            json!([{ "type": "code_interpreter", "container": { "type": "auto" } }]),
            set(&[CodeInterpreter]),
            false,
        ),
        (
            "tools",
            json!([{ "type": "code_interpreter", "container": "cntr_1" }]),
            set(&[CodeInterpreter, Container]),
            false,
        ),
        ("tools", json!([{ "name": "f" }]), HostedFeatures::UNKNOWN_TOOL, true),
        ("tools", json!([{ "type": "local_shell" }]), HostedFeatures::UNKNOWN_TOOL, true),
    ] {
        let request = parsed(&with(member, value.clone()).to_string());
        assert_eq!(request.hosted, hosted, "{member}: {value}");
        assert!(request.is_credential_bound && request.wants_usage);
        assert_eq!(request.has_tools, has_tools, "{value}");
    }
}

#[test]
fn a_template_may_stand_for_the_model_and_the_input() {
    for body in [
        r#"{"prompt":{"id":"pmpt_1"}}"#,
        r#"{"model":"m","previous_response_id":"resp_1"}"#,
        r#"{"model":"m","input":null,"conversation":"conv_1"}"#,
    ] {
        let request = parsed(body);
        assert_eq!(
            (request.question.as_deref(), request.named_model().is_some()),
            (None, body.contains("model"))
        );
    }
}

#[test]
fn a_fault_names_its_field() {
    for (body, param) in [
        ("[]", None),
        (r#"{"input":"a"}"#, Some("model")),
        (r#"{"model":"","prompt":{"id":"p"}}"#, Some("model")),
        (r#"{"model":"m"}"#, Some("input")),
        (r#"{"model":"m","input":null}"#, Some("input")),
        (r#"{"model":"m","input":1}"#, Some("input")),
        (r#"{"model":"m","input":{"role":"user","content":"a"}}"#, Some("input")),
        (r#"{"model":"m","input":"a","stream":"yes"}"#, Some("stream")),
        (r#"{"model":"m","input":"a","background":1}"#, Some("background")),
        (r#"{"model":"m","input":"a","tools":{}}"#, Some("tools")),
        (r#"{"model":"m","input":"a","stream_options":1}"#, Some("stream_options")),
        (r#"{"model":"m","input":"a","temperature":"2"}"#, Some("temperature")),
    ] {
        let error = Responses.parse(body.as_bytes(), &IdentityRules::default()).unwrap_err();
        assert_eq!(error.param_name(), param, "{body}");
    }
}
