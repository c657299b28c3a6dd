//! Which requests share an identity, and which do not.

use super::parse;
use crate::dialects::test_requests::partition;
use crate::domain::TenantId;
use crate::request_identity::{
    Identity, IdentityParts, IdentityRules, Json, MemberPath, Normalization, NormalizedQuestion, Partition,
    of_text,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn identity_in(partition: &Partition<'_>, body: &str) -> Identity {
    identity_by(partition, body, Normalization::WordLists)
}

fn identity_by(partition: &Partition<'_>, body: &str, normalization: Normalization) -> Identity {
    parse(body.as_bytes(), &IdentityRules::new(normalization, &[])).unwrap().identity(partition)
}

fn identity(body: &str) -> Identity {
    identity_in(&partition(&TenantId::default()), body)
}

fn base() -> Value {
    json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": "you sell shoes" },
            { "role": "user", "content": "hello" },
            { "role": "assistant", "content": "hi" },
            { "role": "user", "content": "which size do I need?" },
        ],
        "tools": [{ "type": "function", "function": { "name": "size", "parameters": {} } }],
        "response_format": { "type": "json_object" },
        "temperature": 0.5,
        "n": 2,
        "x_unknown": { "deep": [1, 2, { "a": null }] },
    })
}

/// Writes a value with spaces, and with numbers and letters spelled as `seed` says; a request also with its own members and
/// those of its messages and their parts in another order.
fn respelled(value: &Value, at: &str, seed: &mut u64) -> String {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let space = ["", " ", "\n\t"][(*seed >> 33) as usize % 3];
    match value {
        Value::Object(members) => {
            let mut written: Vec<String> = members
                .iter()
                .map(|(name, value)| {
                    let value = respelled(value, &format!("{at}/{name}"), seed);
                    format!("{}{space}:{value}", respelled_text(name, *seed))
                })
                .collect();
            if ["", "/messages/", "/messages//content/"].contains(&at) {
                let turn = (*seed >> 40) as usize % written.len().max(1);
                written.rotate_left(turn);
            }
            format!("{{{space}{}}}", written.join(&format!("{space},")))
        }
        Value::Array(elements) => {
            let written: Vec<String> =
                elements.iter().map(|element| respelled(element, &format!("{at}/"), seed)).collect();
            format!("[{space}{}{space}]", written.join(","))
        }
        Value::String(text) => respelled_text(text, *seed),
        Value::Number(number) if number.as_u64().is_some_and(|n| n < 1 << 53) && *seed > 1 << 63 => {
            format!("{number}.0")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn respelled_text(text: &str, seed: u64) -> String {
    if !seed.is_multiple_of(3) {
        return Value::from(text).to_string();
    }
    let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{escaped}\"")
}

/// Every place in a value where something stands, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
        }
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(at.to_owned()),
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6).prop_map(|x: f64| Value::from(x)),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-zé\u{1f600}]{1,4}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn order_spacing_and_spelling_never_separate(extra in json_value(), seed in any::<u64>()) {
        let mut body = base();
        body["extra"] = extra;
        let mut seed = seed;
        prop_assert_eq!(identity(&body.to_string()), identity(&respelled(&body, "", &mut seed)));
    }

    #[test]
    fn different_values_of_any_field_never_share(one in json_value(), two in json_value(), name in "[a-z_]{1,12}") {
        let (first, second) = (one.to_string(), two.to_string());
        prop_assume!(Json::parse(first.as_bytes()).unwrap() != Json::parse(second.as_bytes()).unwrap());
        let known = [
            "model", "messages", "stream", "stream_options", "cache", "temperature", "tools", "functions",
        ];
        prop_assume!(!known.contains(&name.as_str()));
        let body = |value: &Value| {
            let mut body = base();
            body[name.as_str()] = value.clone();
            body.to_string()
        };
        prop_assert_ne!(identity(&body(&one)).scope, identity(&body(&two)).scope);
    }

    #[test]
    fn questions_share_only_by_their_form(one in ".{1,24}", two in ".{1,24}") {
        prop_assume!(one != two);
        let ask = |text: &str| {
            let mut body = base();
            body["messages"][3]["content"] = text.into();
            identity(&body.to_string())
        };
        let (first, second) = (ask(&one), ask(&two));
        prop_assert_eq!(first.scope, second.scope);
        prop_assert_ne!(first.exact, second.exact);
        let form = |text: &str| NormalizedQuestion::within(&Json::Null, text, Normalization::WordLists);
        let is_joined = form(&one).is_some() && form(&one) == form(&two);
        prop_assert_eq!(first.key == second.key, is_joined);
    }
}

#[test]
fn whatever_is_changed_or_missing_makes_another_scope() {
    let whole = identity(&base().to_string());
    let mut found = Vec::new();
    places(&base(), "", &mut found);
    assert!(found.len() > 15, "{found:?}");
    for place in found.iter().filter(|place| *place != "/messages/3/content") {
        let mut body = base();
        *body.pointer_mut(place).unwrap() =
            if place == "/temperature" { json!(0.75) } else { json!("other") };
        let changed = identity(&body.to_string());
        assert_ne!(whole.scope, changed.scope, "{place}");
        assert_ne!(whole.key, changed.key, "{place}");
    }
    for name in ["tools", "response_format", "temperature", "n", "x_unknown"] {
        let mut body = base();
        body.as_object_mut().unwrap().remove(name);
        assert_ne!(whole.key, identity(&body.to_string()).key, "{name} is gone");
    }
    let mut shorter = base();
    shorter["messages"].as_array_mut().unwrap().remove(0);
    assert_ne!(whole.key, identity(&shorter.to_string()).key, "the system prompt is gone");
}

#[test]
fn how_an_answer_travels_never_separates() {
    let whole = identity(&base().to_string());
    for (name, value) in [
        ("stream", json!(true)),
        ("stream", json!(false)),
        ("stream_options", json!({ "include_usage": true, "include_obfuscation": false })),
        ("stream_options", json!({})),
        ("stream_options", Value::Null),
        ("cache", json!({ "ttl": 5 })),
    ] {
        let mut body = base();
        body[name] = value;
        assert_eq!(whole, identity(&body.to_string()), "{name}");
    }
    let mut body = base();
    body["prompt_cache_key"] = json!("run-1");
    body["service_tier"] = json!("flex");
    body["messages"][0]["cache_control"] = json!({ "type": "ephemeral" });
    assert_eq!(whole, identity(&body.to_string()), "how the upstream caches the prompt");
    let mut body = base();
    body["stream_options"] = json!({ "include_usage": true, "continuous_usage_stats": true });
    assert_ne!(whole.key, identity(&body.to_string()).key, "an unknown option may change the answer");
}

#[test]
fn no_other_partition_shares_an_answer() {
    let (body, tenant, other) = (base().to_string(), TenantId::default(), TenantId::named("other").unwrap());
    let headers = [("openai-project".to_owned(), "p".to_owned())];
    let base = partition(&tenant);
    let whole = identity_in(&base, &body);
    for partition in [
        Partition { tenant: &other, ..base },
        Partition { namespace: "other", ..base },
        Partition { credential: Some(b"key"), ..base },
        Partition { credential: Some(b""), ..base },
        Partition { upstream: "http://two/v1", ..base },
        Partition { query: Some("api-version=2"), ..base },
        Partition { headers: &headers, ..base },
    ] {
        let another = identity_in(&partition, &body);
        assert_ne!(whole.key, another.key, "{partition:?}");
        assert_ne!(whole.scope, another.scope, "{partition:?}");
    }
}

#[test]
fn a_question_is_not_mistaken_for_its_place() {
    let ask = |messages: Value| identity(&json!({ "model": "m", "messages": messages }).to_string()).key;
    let one = ask(json!([{ "role": "user", "content": "a" }, { "role": "tool", "content": null }]));
    let two = ask(json!([{ "role": "user", "content": null }, { "role": "tool", "content": "a" }]));
    let three = ask(json!([{ "role": "user", "content": "a" }, { "role": "user", "content": null }]));
    let four = ask(json!([{ "role": "user", "content": null }, { "role": "user", "content": "a" }]));
    assert!(one != two && three != four);
}

/// Whatever the system prompt asks about the form of the user's text.
#[test]
fn by_default_only_composition_and_surrounding_space_join() {
    let tenant = TenantId::default();
    let ask = |text: &str| {
        let messages =
            json!([{ "role": "system", "content": "翻译成英文" }, { "role": "user", "content": text }]);
        let body = json!({ "model": "m", "messages": messages }).to_string();
        let chat = identity_by(&partition(&tenant), &body, Normalization::default());
        let given = of_text(&partition(&tenant), &Json::Null, text, Normalization::default());
        [chat.key, given.key]
    };
    let key = ask("¿Cómo es?");
    for same in [" ¿Cómo es?", "¿Cómo es?\n\t", "¿Co\u{301}mo es?", "¿Cómo es?"] {
        assert_eq!(ask(same), key, "{same:?}");
    }
    for other in ["¿cómo es?", "Cómo es", "¿Cómo es", "¿Cómo  es?", "¿Cómo\u{a0}es?", "¿Cómo es?."]
    {
        assert!(ask(other).iter().zip(key).all(|(other, key)| *other != key), "{other:?}");
    }
}

/// Models write the properties of a schema in its order.
#[test]
fn the_order_of_members_is_meaning_wherever_a_schema_may_stand() {
    let schema = |names: [&str; 2]| {
        let [one, two] = names;
        format!(
            r#"{{"type":"object","properties":{{"{one}":{{"type":"string"}},"{two}":{{"type":"string"}}}}}}"#
        )
    };
    let message = r#"{"role":"user","content":[{"type":"text","text":"hi"}]}"#;
    let places = [
        r#""response_format":{"type":"json_schema","json_schema":{"name":"x","schema":SCHEMA}}"#,
        r#""tools":[{"type":"function","function":{"name":"x","parameters":SCHEMA}}]"#,
        r#""functions":[{"name":"x","parameters":SCHEMA}]"#,
        r#""guided_json":SCHEMA"#,
        r#""extra_body":{"structured_outputs":{"json":SCHEMA}}"#,
        r#""x_unheard_of":[[{"a":SCHEMA}]]"#,
        r#""stream_options":{"x":SCHEMA}"#,
        r#""messages":[{"role":"system","content":"a","schema":SCHEMA},MESSAGE]"#,
        r#""messages":[{"role":"user","content":[{"type":"json","json":SCHEMA}]},MESSAGE]"#,
        r#""messages":[{"role":"user","content":SCHEMA},MESSAGE]"#,
    ];
    for place in places {
        let rest = if place.contains("messages") { "" } else { r#","messages":[MESSAGE]"# };
        let body = |names| {
            let body = format!(r#"{{"model":"m",{place}{rest}}}"#);
            identity(&body.replace("SCHEMA", &schema(names)).replace("MESSAGE", message))
        };
        assert_ne!(body(["answer", "reasoning"]).key, body(["reasoning", "answer"]).key, "{place}");
        assert_eq!(body(["answer", "reasoning"]), body(["answer", "reasoning"]), "{place}");
    }
    let tenant = TenantId::default();
    let given = |scope: &str| {
        of_text(&partition(&tenant), &Json::parse(scope.as_bytes()).unwrap(), "hi", Normalization::default())
    };
    assert_ne!(given(&schema(["a", "b"])).key, given(&schema(["b", "a"])).key);
    let with_unknown = |part: &str| {
        identity(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}},{message}]}}"#))
            .key
    };
    assert_ne!(with_unknown(r#"{"b":1,"a":2}"#), with_unknown(r#"{"a":2,"b":1}"#), "no part that is known");
}

#[test]
fn spellings_are_joined_only_where_nothing_else_may_be_about_them() {
    let ask = |system: &str, content: Value| {
        let messages =
            json!([{ "role": "system", "content": system }, { "role": "user", "content": content }]);
        identity(&json!({ "model": "m", "messages": messages }).to_string()).key
    };
    let (one, two) = ("What is it?", "what is it");
    let shop = "you sell shoes";
    assert_eq!(ask(shop, json!(one)), ask(shop, json!(two)));
    for system in
        ["Correct what the user writes", "Repite lo que diga el usuario", "Is the input a question?"]
    {
        assert_ne!(ask(system, json!(one)), ask(system, json!(two)), "{system}");
    }
    let parts = |text: &str| json!([{ "type": "text", "text": "About this line:" }, { "type": "text", "text": text }]);
    assert_ne!(ask(shop, parts(one)), ask(shop, parts(two)));
    let part = |text: &str| json!([{ "type": "text", "text": text }]);
    assert_eq!(ask(shop, part(one)), ask(shop, part(two)));
    let tenant = TenantId::default();
    let look = |scope: &str, text: &str| {
        of_text(&partition(&tenant), &Json::parse(scope.as_bytes()).unwrap(), text, Normalization::WordLists)
            .key
    };
    assert_eq!(look(r#"["shoes"]"#, one), look(r#"["shoes"]"#, two));
    assert_ne!(look(r#"["spelling"]"#, one), look(r#"["spelling"]"#, two));
}

#[test]
fn what_was_joined_by_other_rules_is_not_found() {
    let body =
        json!({ "model": "m", "messages": [{ "role": "user", "content": "What is it?" }] }).to_string();
    let tenant = TenantId::default();
    let by = |normalization| identity_by(&partition(&tenant), &body, normalization);
    assert_ne!(by(Normalization::Minimal).key, by(Normalization::WordLists).key);
    assert_eq!(by(Normalization::Minimal).exact, by(Normalization::WordLists).exact);
}

#[test]
fn members_that_the_operator_ignores_do_not_count() {
    let paths = ["user", "metadata.trace_id"].map(|path| MemberPath::parse(path).unwrap());
    let rules = IdentityRules::new(Normalization::Minimal, &paths);
    let tenant = TenantId::default();
    let by = |rules: &IdentityRules, members: Value| {
        let mut body = base();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        parse(body.to_string().as_bytes(), rules).unwrap().identity(&partition(&tenant))
    };
    for members in [json!({ "user": "a" }), json!({ "metadata": { "trace_id": "a" }, "user": "b" })] {
        assert_eq!(by(&rules, members.clone()), by(&rules, json!({})), "{members}");
        assert_ne!(
            by(&IdentityRules::default(), members.clone()).key,
            by(&rules, json!({})).key,
            "{members}"
        );
    }
    for members in [json!({ "metadata": { "shop": "a" } }), json!({ "x_unknown": { "user": 1 } })] {
        assert_ne!(by(&rules, members.clone()).key, by(&rules, json!({})).key, "{members}");
    }
}

#[test]
fn one_choice_and_one_text_part_are_written_in_two_ways() {
    let text = |content: &str, members: &str| {
        format!(
            r#"{{"model":"m",{members}"messages":[{{"role":"system","content":{content}}},{{"role":"user","content":{content}}}]}}"#
        )
    };
    let (plain, part) = (r#""which size?""#, r#"[{"type":"text","text":"which size?"}]"#);
    assert_eq!(identity(&text(plain, "")), identity(&text(part, r#""n":1,"#)));
    for (content, members) in [
        (plain, r#""n":2,"#),
        (r#"[{"type":"text","text":"which size?"},{"type":"text","text":""}]"#, ""),
        (r#"[{"type":"text","text":"which size?","x":1}]"#, ""),
        (r#"[{"type":"input_text","text":"which size?"}]"#, ""),
        (r#"{"type":"text","text":"which size?"}"#, ""),
    ] {
        assert_ne!(
            identity(&text(content, members)).key,
            identity(&text(plain, "")).key,
            "{content} {members}"
        );
    }
}

#[test]
fn the_parts_of_an_identity_are_equal_where_the_identity_is() {
    fn parts(body: &str) -> IdentityParts<'_> {
        let rules = IdentityRules::new(Normalization::WordLists, &[]);
        super::request::identity_parts(body.as_bytes(), &rules).unwrap()
    }
    let body = |question: &str, members: &str| {
        format!(r#"{{{members}"model":"m","messages":[{{"role":"user","content":"{question}"}}]}}"#)
    };
    let base = body("Which size do I need?", "");
    let question = parts(&base).question.unwrap();
    assert_eq!(question.path, "messages[0].content");
    for (question, members, is_same) in [
        ("which size do I need", "", true),
        (" Which size do I need? ", r#""stream":true,"cache":{"ttl":5},"service_tier":"flex","#, true),
        ("Which size do you need?", "", false),
        ("Which size do I need?", r#""seed":1,"#, false),
    ] {
        let other = body(question, members);
        assert_eq!(parts(&other) == parts(&base), is_same, "{other}");
        assert_eq!(identity(&other).key == identity(&base).key, is_same, "{other}");
    }
}
