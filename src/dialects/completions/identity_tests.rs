//! Which requests share an identity, and which do not.

use serde_json::{Value, json};

use super::Completions;
use crate::dialects::Dialect;
use crate::dialects::chat_completions::ChatCompletions;
use crate::dialects::test_requests::partition;
use crate::domain::TenantId;
use crate::request_identity::{Identity, IdentityRules, Normalization};

fn identity_by(dialect: &'static dyn Dialect, body: &str) -> Identity {
    let parsed = dialect.parse(body.as_bytes(), &IdentityRules::new(Normalization::WordLists, &[])).unwrap();
    parsed.identity(&partition(&TenantId::default()))
}

fn identity(body: &str) -> Identity {
    identity_by(&Completions, body)
}

fn with(member: &str, value: Value) -> String {
    let mut body = json!({ "model": "m", "prompt": "once upon a time" });
    body[member] = value;
    body.to_string()
}

#[test]
fn every_member_that_selects_the_answer_is_part_of_the_identity() {
    let members = [
        ("model", json!("other")),
        ("prompt", json!("twice upon a time")),
        ("prompt", json!(["once upon a time"])),
        ("prompt", json!(["once upon a time", "once upon a time"])),
        ("prompt", json!([1, 2, 3])),
        ("prompt", json!([[1, 2, 3]])),
        ("prompt", Value::Null),
        ("prompt", json!(true)),
        ("suffix", json!("the end")),
        ("echo", json!(true)),
        ("best_of", json!(3)),
        ("logprobs", json!(2)),
        ("n", json!(2)),
        ("max_tokens", json!(7)),
        ("temperature", json!(0.5)),
        ("top_p", json!(0.5)),
        ("stop", json!("\n")),
        ("seed", json!(1)),
        ("logit_bias", json!({ "50256": -100 })),
        ("user", json!("one")),
        ("x_unknown", json!({ "deep": [1, { "a": null }] })),
        ("stream_options", json!({ "x_unknown": 1 })),
    ];
    let mut keys = vec![identity(&with("prompt", json!("once upon a time"))).key];
    keys.extend(members.map(|(member, value)| identity(&with(member, value)).key));
    keys.push(identity(r#"{"model":"m"}"#).key);
    let count = keys.len();
    keys.sort_by_key(|key| key.0);
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn no_two_spellings_of_a_prompt_are_one() {
    let of = |prompt: &str| identity(&with("prompt", json!(prompt))).key;
    for other in [" what is it", "what is it ", "What is it", "what is it?", "what  is it", "what is it\n"] {
        assert_ne!(of("what is it"), of(other), "{other:?}");
    }
    assert_ne!(of("cafe\u{301}"), of("caf\u{e9}"), "composed letters are other tokens");
}

#[test]
fn the_spelling_of_json_and_the_delivery_are_no_part_of_the_identity() {
    let same = [
        r#"{"model":"m","prompt":"once","n":1}"#,
        "{ \"n\" : 1.0,\n\"prompt\":\"\\u006fnce\", \"model\":\"m\"}",
        r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m","prompt":"once","n":1}"#,
        r#"{"cache":{"ttl":5},"model":"m","prompt":"once","n":1}"#,
        r#"{"prompt_cache_key":"a","service_tier":"flex","model":"m","prompt":"once","n":1}"#,
    ];
    let first = identity(same[0]);
    assert!(same.iter().all(|body| identity(body) == first));
}

#[test]
fn the_identities_of_two_dialects_never_collide() {
    for body in [
        r#"{"model":"m","prompt":"hi","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"model":"m","messages":[{"role":"system","content":"hi"}]}"#,
    ] {
        let [one, two] = [identity(body), identity_by(&ChatCompletions, body)];
        assert!(one.key != two.key && one.exact != two.exact && one.scope != two.scope, "{body}");
    }
}

#[test]
fn a_fault_names_its_field() {
    for (body, param) in [
        ("[]", None),
        (r#"{"prompt":"a"}"#, Some("model")),
        (r#"{"model":"m","stream":"yes"}"#, Some("stream")),
        (r#"{"model":"m","stream_options":1}"#, Some("stream_options")),
        (r#"{"model":"m","temperature":"2"}"#, Some("temperature")),
    ] {
        let error = Completions.parse(body.as_bytes(), &IdentityRules::default()).unwrap_err();
        assert_eq!(error.param_name(), param, "{body}");
    }
}
