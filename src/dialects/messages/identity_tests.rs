//! Which requests for a message share an identity, and which do not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::parse;
use crate::dialects::test_requests::partition;
use crate::domain::TenantId;
use crate::request_identity::{Identity, IdentityRules, Partition};

fn identity_with(headers: &[(&str, &str)], body: &str) -> Identity {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let tenant = TenantId::default();
    let partition = Partition { headers: &headers, ..partition(&tenant) };
    parse(body.as_bytes(), &IdentityRules::default()).unwrap().identity(&partition)
}

fn identity(body: &Value) -> Identity {
    identity_with(&[], &body.to_string())
}

fn base() -> Value {
    json!({
        "model": "m", "max_tokens": 100, "system": "you sell shoes",
        "messages": [
            { "role": "user", "content": "hello" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "sig" },
                { "type": "tool_use", "id": "toolu_1", "name": "size", "input": { "b": 1, "a": 2 } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "toolu_1", "content": "44" },
                { "type": "text", "text": "which size do I need?" },
            ] },
        ],
        "tools": [{ "name": "size", "input_schema": { "type": "object", "properties": { "b": {}, "a": {} } } }],
        "stop_sequences": ["\n\n"],
        "temperature": 0.5,
        "metadata": { "user_id": "u" },
    })
}

/// A text of the body with one part of it spelled in another way.
fn respelled(from: &str, to: &str) -> String {
    let body = base().to_string();
    assert!(body.contains(from), "{from} is not in {body}");
    body.replace(from, to)
}

#[test]
fn what_does_not_change_an_answer_never_separates() {
    let whole = identity(&base());
    let marked = json!({ "type": "ephemeral", "ttl": "1h" });
    for (place, value) in [
        ("/stream", json!(true)),
        ("/cache", json!({ "ttl": 5 })),
        ("/service_tier", json!("auto")),
        ("/cache_control", marked.clone()),
        ("/tools/0/cache_control", marked.clone()),
        ("/messages/1/content/1/cache_control", marked.clone()),
        ("/messages/2/content/0/cache_control", marked.clone()),
        ("/messages/2/content/1/cache_control", marked.clone()),
    ] {
        let mut body = base();
        let (parent, name) = place.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value;
        assert_eq!(identity(&body), whole, "{place}");
    }
    let text = |text: &str| json!([{ "type": "text", "text": text, "cache_control": marked }]);
    let mut body = base();
    body["system"] = text("you sell shoes");
    body["messages"][0]["content"] = text("hello");
    assert_eq!(identity(&body), whole, "a text is the same in a list of one block");
}

#[test]
fn the_last_text_is_the_same_in_a_list_of_one_block() {
    let ask = |content: Value| {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": content }] });
        let parsed = parse(body.to_string().as_bytes(), &IdentityRules::default()).unwrap();
        (identity(&body), parsed.question)
    };
    let block = |text: &str| json!({ "type": "text", "text": text });
    assert_eq!(ask(json!("hello")), ask(json!([block("hello")])));
    assert_eq!(ask(json!("hello")).0.key, ask(json!([block(" hello\n")])).0.key, "normalised alike");
    assert_ne!(ask(json!("hello")).0.key, ask(json!([block("hello"), block("")])).0.key);
    assert_ne!(ask(json!([block("a"), block("b")])).0.key, ask(json!("ab")).0.key);
    let cited = json!([{ "type": "text", "text": "hello", "citations": [1] }]);
    assert_ne!(ask(json!("hello")).0.key, ask(cited).0.key);
}

#[test]
fn members_are_sorted_where_they_are_read_by_their_names_only() {
    let whole = identity(&base());
    for (from, to) in [
        (r#""max_tokens":100"#, r#""max_tokens":100.0"#),
        (r#"{"content":"hello","role":"user"}"#, r#"{"role":"user", "content":"\u0068ello"}"#),
        (
            r#"{"text":"which size do I need?","type":"text"}"#,
            r#"{"type":"text","text":"which size do I need?"}"#,
        ),
        (
            r#"{"signature":"sig","thinking":"hm","type":"thinking"}"#,
            r#"{"type":"thinking","thinking":"hm","signature":"sig"}"#,
        ),
    ] {
        assert_eq!(identity_with(&[], &respelled(from, to)), whole, "{to}");
    }
    for (from, to) in [
        (r#"{"a":2,"b":1}"#, r#"{"b":1,"a":2}"#),
        (r#""properties":{"a":{},"b":{}}"#, r#""properties":{"b":{},"a":{}}"#),
    ] {
        assert_ne!(identity_with(&[], &respelled(from, to)).key, whole.key, "{to}");
    }
}

#[test]
fn whatever_is_changed_or_missing_makes_another_scope() {
    let whole = identity(&base());
    for place in [
        "/model",
        "/max_tokens",
        "/system",
        "/messages/0/content",
        "/messages/0/role",
        "/messages/1/content/0/signature",
        "/messages/1/content/1/input/a",
        "/messages/2/content/0/content",
        "/tools/0/name",
        "/stop_sequences/0",
        "/metadata/user_id",
    ] {
        let mut body = base();
        *body.pointer_mut(place).unwrap() = json!("other");
        let changed = identity(&body);
        assert!(changed.scope != whole.scope && changed.key != whole.key, "{place}");
    }
    for name in ["max_tokens", "system", "tools", "stop_sequences", "temperature", "metadata"] {
        let mut body = base();
        body.as_object_mut().unwrap().remove(name);
        assert_ne!(identity(&body).key, whole.key, "{name} is gone");
    }
    for (name, value) in [
        ("thinking", json!({ "type": "enabled", "budget_tokens": 1024 })),
        ("top_k", json!(5)),
        ("tool_choice", json!({ "type": "any" })),
        ("output_config", json!({ "effort": "low" })),
        ("x_unknown", json!(null)),
    ] {
        let mut body = base();
        body[name] = value;
        assert_ne!(identity(&body).key, whole.key, "{name}");
    }
}

#[test]
fn the_version_and_each_beta_are_part_of_what_is_asked() {
    let body = base().to_string();
    let with = |headers: &[(&str, &str)]| identity_with(headers, &body).key;
    let one = with(&[("anthropic-version", "2023-06-01"), ("anthropic-beta", "one-1,two-2")]);
    for same in [
        &[("anthropic-version", "2023-06-01"), ("anthropic-beta", "two-2 , one-1")][..],
        &[("anthropic-beta", "two-2"), ("anthropic-version", "2023-06-01"), ("anthropic-beta", "one-1")],
    ] {
        assert_eq!(with(same), one, "{same:?}");
    }
    for other in [
        &[][..],
        &[("anthropic-version", "2023-06-01")],
        &[("anthropic-version", "2023-06-01"), ("anthropic-beta", "one-1")],
        &[("anthropic-version", "2023-01-01"), ("anthropic-beta", "one-1,two-2")],
        &[("anthropic-beta", "one-1,two-2")],
    ] {
        assert_ne!(with(other), one, "{other:?}");
    }
}

proptest! {
    #[test]
    fn questions_share_only_by_their_form(one in ".{1,24}", two in ".{1,24}") {
        prop_assume!(one.trim() != two.trim() && !one.trim().is_empty() && !two.trim().is_empty());
        let ask = |text: &str| {
            let mut body = base();
            body["messages"][2]["content"] = text.into();
            identity(&body)
        };
        let (first, second) = (ask(&one), ask(&two));
        prop_assert_eq!(first.scope, second.scope);
        prop_assert_ne!(first.exact, second.exact);
    }
}
