//! A miss names what separates it from a stored request.

use serde_json::{Value, json};

use super::{CHAT, ask, is_hit, question, quiet, start, status, with};

const DIFFERS: &str = "x-likewise-differs";

/// What clients are known to send that changes with each request, and does not change the answer.
struct Breaker {
    name: &'static str,
    /// The n-th request.
    body: fn(u64) -> String,
    /// What its miss names. `None` if it is a hit, because the difference does not count.
    named: Option<&'static str>,
}

const TRACE_ID: Breaker = Breaker {
    name: "a random id in the metadata",
    body: |n| {
        let metadata = json!({ "shop": "es", "trace_id": format!("t{n}") });
        with(base(), json!({ "metadata": metadata })).to_string()
    },
    named: Some("metadata.trace_id@1"),
};

const USER: Breaker = Breaker {
    name: "the id of a user",
    body: |n| with(base(), json!({ "user": format!("user-{n}") })).to_string(),
    named: Some("user@5"),
};

const BREAKERS: [Breaker; 8] = [
    Breaker {
        name: "a time in the system prompt",
        body: |n| with_system(&format!("You help the customers of a shop. It is 10:{n:02}.")),
        named: Some("messages[0].content@44"),
    },
    TRACE_ID,
    Breaker {
        name: "the order of the tools",
        body: |n| {
            let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
            let mut tools = [tool("price"), tool("stock")];
            tools.rotate_left(n as usize % 2);
            with(base(), json!({ "tools": tools })).to_string()
        },
        named: Some("tools"),
    },
    Breaker {
        name: "the place of a mark for the provider's cache",
        body: |n| {
            let mut body = base();
            for place in 0..2 {
                let mut part = json!({ "type": "text", "text": body["messages"][place]["content"] });
                if place as u64 == n {
                    part["cache_control"] = json!({ "type": "ephemeral" });
                }
                body["messages"][place]["content"] = json!([part]);
            }
            body.to_string()
        },
        named: None,
    },
    Breaker {
        name: "two spellings of one number",
        body: |n| {
            let body = with(base(), json!({ "temperature": 0 })).to_string();
            if n == 0 { body } else { body.replace("\"temperature\":0", "\"temperature\":0.0") }
        },
        named: None,
    },
    Breaker {
        name: "a space behind the system prompt",
        body: |n| with_system(&format!("You help the customers of a shop.{}", " ".repeat(n as usize))),
        named: Some("messages[0].content@33"),
    },
    USER,
    Breaker {
        name: "another name of the model",
        body: |n| {
            let model = if n == 0 { "gpt-5" } else { "gpt-5-2026-08-06" };
            with(base(), json!({ "model": model })).to_string()
        },
        named: Some("model@5"),
    },
];

fn base() -> Value {
    question("what is it?")
}

fn with_system(text: &str) -> String {
    let mut body = base();
    body["messages"][0]["content"] = text.into();
    body.to_string()
}

#[tokio::test]
async fn what_breaks_the_cache_is_named_first() {
    for Breaker { name, body, named } in BREAKERS {
        let (_dir, _upstream, server) = start(&[]).await;
        // Other questions, which are stored too.
        for n in 0..40 {
            assert!(!is_hit(&ask(&server, &question(&format!("what is number {n}?"))).await));
        }
        let send = async |n: u64| server.ask("POST", CHAT, &[], body(n)).await;
        let first = send(0).await;
        assert!(!is_hit(&first), "{name}");
        let second = send(1).await;
        match named {
            Some(named) => {
                assert!(!is_hit(&second), "{name}");
                assert_eq!(second.header(DIFFERS), named, "{name}");
            }
            None => assert!(is_hit(&second), "{name}: it does not change the answer"),
        }
    }
}

/// The share of hits that the statistics promise for ignoring a member is the share that there is once it is ignored.
#[tokio::test]
async fn the_promised_hits_are_those_that_come() {
    const REQUESTS: u64 = 600;
    let shares = async |environment: &[(&str, &str)], body: fn(u64) -> String| {
        let (_dir, _upstream, server) = start(environment).await;
        for n in 0..REQUESTS {
            // Some questions are asked often, and most seldom.
            let asked = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let asked = (asked % 100).pow(2) / 100;
            let mut body: Value = serde_json::from_str(&body(n)).unwrap();
            body["messages"][1]["content"] = format!("what is number {asked}?").into();
            ask(&server, &body).await;
        }
        let hits = server.stat("/answers/hits").await;
        let stats = server.get("/v1/stats").await.body;
        let rows = stats["answers"]["separated_misses"].as_array().unwrap().clone();
        (hits as f64 / REQUESTS as f64, rows)
    };
    for (member, body) in [("metadata.trace_id", TRACE_ID.body), ("user", USER.body)] {
        let (hits, rows) = shares(&[], body).await;
        let row = rows.iter().find(|row| row["members"] == json!([member])).unwrap();
        let promised = row["hits_if_ignored"].as_f64().unwrap() / REQUESTS as f64;
        let (reached, _) = shares(&[("LIKEWISE__ANSWERS__IGNORED_MEMBERS", member)], body).await;
        assert!(hits == 0.0 && reached > 0.5, "{member}: {hits} {reached}");
        assert!((promised - reached).abs() < 0.01, "{member}: promised {promised}, reached {reached}");
    }
}

#[tokio::test]
async fn members_that_the_operator_ignores_go_upstream_and_share_an_answer() {
    let ignored = [("LIKEWISE__ANSWERS__IGNORED_MEMBERS", "user,metadata.trace_id")];
    let (_dir, upstream, server) = start(&ignored).await;
    let body = |n: u64| {
        with(base(), json!({ "user": format!("u{n}"), "metadata": { "trace_id": n }, "stream": n == 2 }))
    };
    assert!(!is_hit(&ask(&server, &body(1)).await));
    assert_eq!(upstream.seen()[0].body, body(1).to_string());
    assert!(is_hit(&ask(&server, &body(2)).await) && is_hit(&ask(&server, &base()).await));
    let other = with(body(1), json!({ "metadata": { "shop": "es" } }));
    assert_eq!(ask(&server, &other).await.header(DIFFERS), "metadata");
}

#[tokio::test]
async fn a_miss_is_compared_with_stored_requests_of_its_caller_alone() {
    let key = |key: &'static str| [("authorization", key)];
    let (_dir, _upstream, server) = start(&[("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true")]).await;
    let as_key = async |name, body: Value| server.ask("POST", CHAT, &key(name), body.to_string()).await;
    let seeded = |seed: u64| with(base(), json!({ "seed": seed }));
    assert_eq!(as_key("Bearer one", seeded(1)).await.header(DIFFERS), "");
    assert_eq!(as_key("Bearer two", seeded(2)).await.header(DIFFERS), "", "another caller");
    assert_eq!(as_key("Bearer one", seeded(3)).await.header(DIFFERS), "seed");
    assert_eq!(as_key("Bearer one", seeded(3)).await.header(DIFFERS), "", "a hit");
    // What is not to be stored is compared, and not remembered.
    let unstored = with(base(), json!({ "user": "a", "cache": { "no-store": true } }));
    assert_eq!(as_key("Bearer one", unstored).await.header(DIFFERS), "user, seed");
    let near = with(base(), json!({ "user": "ab" }));
    assert_eq!(as_key("Bearer one", near).await.header(DIFFERS), "user, seed", "not user@1");
    let in_namespace = with(base(), json!({ "seed": 3, "cache": { "namespace": "default" } }));
    assert_eq!(as_key("Bearer one", in_namespace).await.header(DIFFERS), "cache:namespace@0");
}

#[tokio::test]
async fn what_is_not_stored_is_no_measure_and_the_comparison_can_be_off() {
    let off = [("LIKEWISE__ANSWERS__REMEMBERED_REQUESTS_BYTES_MAX", "0")];
    for (environment, is_on) in [(&[][..], true), (&off[..], false)] {
        let (_dir, _upstream, server) = start(environment).await;
        let limited = question("call a tool");
        assert_eq!(ask(&server, &limited).await.header("x-likewise-reason"), "tool_calls");
        let changed = with(limited.clone(), json!({ "seed": 1 }));
        assert_eq!(ask(&server, &changed).await.header(DIFFERS), "", "no answer is stored");
        let streamed = |seed: u64| with(base(), json!({ "seed": seed, "stream": true }));
        assert_eq!(status(&ask(&server, &streamed(1)).await), "fwd=miss");
        quiet(&server).await;
        let near = ask(&server, &streamed(2)).await;
        assert_eq!(near.header(DIFFERS), if is_on { "seed" } else { "" });
    }
}

#[tokio::test]
async fn an_invalidated_answer_is_no_measure() {
    let (_dir, _upstream, server) = start(&[]).await;
    let tagged = |seed: u64, tag: &str| with(base(), json!({ "seed": seed, "cache": { "tags": [tag] } }));
    ask(&server, &tagged(1, "old")).await;
    assert_eq!(ask(&server, &tagged(2, "new")).await.header(DIFFERS), "seed");
    for tag in ["new", "old"] {
        let body = json!({ "tags": [tag] }).to_string();
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], body).await.status, 200);
        let differs = ask(&server, &with(base(), json!({ "seed": 3, "cache": { "no-store": true } }))).await;
        assert_eq!(differs.header(DIFFERS), if tag == "new" { "seed" } else { "" }, "{tag}");
    }
}

#[tokio::test]
async fn a_request_that_demands_a_new_answer_is_remembered() {
    let (_dir, _upstream, server) = start(&[]).await;
    let forced = with(base(), json!({ "seed": 1, "cache": { "no-cache": true } }));
    assert_eq!(ask(&server, &forced).await.header(DIFFERS), "");
    assert_eq!(ask(&server, &with(base(), json!({ "seed": 2 }))).await.header(DIFFERS), "seed");
}
