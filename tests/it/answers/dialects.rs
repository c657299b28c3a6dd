//! What holds for the answers of every dialect: one table of promises, run for each.

use likewise::dialects::Dialect;
use likewise::dialects::chat_completions::ChatCompletions;
use likewise::dialects::completions::Completions;
use likewise::dialects::messages::Messages;
use likewise::dialects::responses::Responses;
use serde_json::{Value, json};

use super::{CHAT, accumulated_by, is_hit, normalized, question, quiet, start, start_in, status, with};
use crate::program::{Answer, Server, until};
use crate::upstream::{Mode, Upstream};

/// A dialect as a client speaks it.
#[derive(Clone, Copy)]
struct Client {
    dialect: &'static dyn Dialect,
    path: &'static str,
    question: fn(&str) -> Value,
    /// What an answer says.
    text: fn(&Value) -> &Value,
}

const CLIENTS: [Client; 4] = [
    Client {
        dialect: &ChatCompletions,
        path: CHAT,
        question,
        text: |answer| &answer["choices"][0]["message"]["content"],
    },
    Client {
        dialect: &Completions,
        path: "/v1/completions",
        question: |text| json!({ "model": "gpt-5", "prompt": text }),
        text: |answer| &answer["choices"][0]["text"],
    },
    Client {
        dialect: &Responses,
        path: "/v1/responses",
        question: |text| json!({ "model": "gpt-5", "input": text, "store": false }),
        text: |answer| &answer["output"][0]["content"][0]["text"],
    },
    Client {
        dialect: &Messages,
        path: "/v1/messages",
        question: |text| with(question(text), json!({ "max_tokens": 100 })),
        text: |answer| &answer["content"][0]["text"],
    },
];

/// Those whose streams report usage on request only.
const OF_CHOICES: [Client; 2] = [CLIENTS[0], CLIENTS[1]];

impl Client {
    async fn ask(self, server: &Server, body: &Value) -> Answer {
        server.ask("POST", self.path, &[], body.to_string()).await
    }

    /// The complete answer of a stream.
    fn accumulated(self, answer: &Answer) -> Value {
        accumulated_by(self.dialect, answer)
    }
}

fn streamed(body: &Value) -> Value {
    with(body.clone(), json!({ "stream": true, "stream_options": { "include_usage": true } }))
}

#[tokio::test]
async fn a_request_is_answered_by_the_upstream_once() {
    for client in CLIENTS {
        let (_dir, upstream, server) = start(&[]).await;
        let body = (client.question)("what is it?");
        let first = client.ask(&server, &body).await;
        assert_eq!((first.status, status(&first)), (200, "fwd=miss"));
        assert_eq!(upstream.seen()[0].path, client.path);
        let second = client.ask(&server, &body).await;
        assert!(is_hit(&second) && second.header("cache-status").ends_with("; detail=memory"));
        assert_eq!(second.header("x-likewise-tokens-saved"), "30");
        assert_ne!(second.body["id"], first.body["id"], "a replay is another delivery");
        assert_eq!(normalized(second.body), normalized(first.body));
        assert_eq!(upstream.calls(), 1);
        let stats = [server.stat("/answers/hits").await, server.stat("/answers/misses").await];
        assert_eq!(stats, [1, 1]);
    }
}

#[tokio::test]
async fn an_answer_is_the_same_in_both_forms_of_its_dialect() {
    for client in CLIENTS {
        let (_dir, upstream, server) = start(&[]).await;
        let logprobs = if client.path == CHAT { json!(true) } else { json!(1) };
        let variants = [json!({}), json!({ "n": 3 }), json!({ "logprobs": logprobs, "n": 2 })];
        for (place, variant) in variants.iter().enumerate() {
            let one = with(with((client.question)("tell me"), variant.clone()), json!({ "seed": 1 }));
            let miss = client.ask(&server, &one).await;
            assert!(!is_hit(&miss));
            let hit = client.ask(&server, &streamed(&one)).await;
            assert!(is_hit(&hit), "{place}");
            assert_eq!(normalized(client.accumulated(&hit)), normalized(miss.body), "{place}");

            let two = with(one, json!({ "seed": 2 }));
            let miss = client.ask(&server, &streamed(&two)).await;
            assert!(!is_hit(&miss));
            let (hit, whole) = (client.ask(&server, &streamed(&two)).await, client.ask(&server, &two).await);
            assert!(is_hit(&hit) && is_hit(&whole), "{place}");
            assert_eq!(
                normalized(client.accumulated(&hit)),
                normalized(client.accumulated(&miss)),
                "{place}"
            );
            assert_eq!(normalized(whole.body), normalized(client.accumulated(&miss)), "{place}");
        }
        assert_eq!(upstream.calls(), 2 * variants.len());
    }
}

#[tokio::test]
async fn usage_is_requested_of_the_upstream_and_reported_on_request() {
    for client in OF_CHOICES {
        let (_dir, upstream, server) = start(&[]).await;
        let body = with((client.question)("how much?"), json!({ "stream": true }));
        let miss = client.ask(&server, &body).await;
        assert!(upstream.seen()[0].body.contains("include_usage"));
        assert!(!miss.body.as_str().unwrap().contains("\"usage\""), "{}", miss.body);
        let hit = client.ask(&server, &streamed(&body)).await;
        assert!(is_hit(&hit));
        assert_eq!(client.accumulated(&hit)["usage"]["total_tokens"], 30);
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test]
async fn a_reply_that_is_no_complete_answer_is_never_stored() {
    for client in CLIENTS {
        let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
        let error = json!({ "error": { "message": "bad" } }).to_string();
        let json = |status, body: &str| {
            Mode::Reply(status, vec![("content-type", "application/json")], body.to_owned())
        };
        let modes = [
            Mode::Ending("length"),
            Mode::Ending("content_filter"),
            json(400, &error),
            json(500, &error),
            json(200, &error),
            json(200, "{}"),
        ];
        for (place, mode) in modes.into_iter().enumerate() {
            let body = with((client.question)("fragile"), json!({ "seed": place }));
            for form in [body.clone(), streamed(&body)] {
                upstream.next(mode.clone());
                assert_eq!(status(&client.ask(&server, &form).await), "fwd=miss", "{mode:?}");
            }
            assert!(!is_hit(&client.ask(&server, &body).await), "{mode:?} was stored");
            assert!(is_hit(&client.ask(&server, &body).await), "{mode:?}");
        }
        // A stream without its end.
        let body = streamed(&(client.question)("cut"));
        upstream.next(Mode::Events(vec!["data: {\"model\":\"m\",\"choices\":[]}\n\n".into()]));
        client.ask(&server, &body).await;
        quiet(&server).await;
        assert!(!is_hit(&client.ask(&server, &body).await));
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_call() {
    const REQUESTS: usize = 20;
    for client in CLIENTS {
        let (_dir, upstream, server) = start(&[]).await;
        let held = upstream.hold().await;
        let body = (client.question)("the same");
        let requests = (0..REQUESTS).map(|n| {
            let body = if n % 2 == 0 { streamed(&body) } else { body.clone() };
            let server = &server;
            async move { client.ask(server, &body).await }
        });
        let release = async {
            until("most are in flight", async || super::in_flight(&server).await > REQUESTS as u64 / 2).await;
            drop(held);
        };
        let (answers, ()) =
            futures_util::future::join(futures_util::future::join_all(requests), release).await;
        assert_eq!(upstream.calls(), 1);
        let texts = answers.iter().map(|answer| {
            let whole =
                if answer.body.is_string() { client.accumulated(answer) } else { answer.body.clone() };
            (client.text)(&whole).clone()
        });
        let texts: Vec<Value> = texts.collect();
        assert!(texts[0].is_string() && texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    }
}

#[tokio::test]
async fn directives_and_tags_hold() {
    for client in CLIENTS {
        let (_dir, upstream, server) = start(&[]).await;
        let cache = async |cache: Value| {
            client.ask(&server, &with((client.question)("direct me"), json!({ "cache": cache }))).await
        };
        let refused = cache(json!({ "only-if-cached": true })).await;
        assert_eq!((refused.status, refused.error().0), (504, "not_cached"));
        assert!(!is_hit(&cache(json!({ "no-store": true })).await));
        assert!(!is_hit(&cache(json!({ "tags": ["product:42"] })).await), "no-store has stored");
        assert!(upstream.seen().iter().all(|seen| !seen.body.contains("\"cache\"")), "directives are ours");
        assert!(is_hit(&cache(json!({})).await));
        assert_eq!(status(&cache(json!({ "no-cache": true })).await), "fwd=request");
        let invalidated = json!({ "tags": ["product:42"] }).to_string();
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], invalidated).await.status, 200);
        assert!(!is_hit(&cache(json!({})).await));
        let warm = with((client.question)("surprise me"), json!({ "temperature": 1.2 }));
        let bypassed = client.ask(&server, &warm).await;
        assert_eq!((status(&bypassed), bypassed.header("x-likewise-reason")), ("fwd=bypass", "temperature"));
        let wrong = client.ask(&server, &with(warm, json!({ "cache": { "ttl": "long" } }))).await;
        assert!(
            wrong.status == 400 && wrong.body["error"].to_string().contains("cache.ttl"),
            "{}",
            wrong.body
        );
        let id = cache(json!({})).await.header("x-likewise-answer-id").to_owned();
        assert_eq!(server.ask("DELETE", &format!("/v1/answers/{id}"), &[], "").await.status, 204);
        assert!(!is_hit(&cache(json!({})).await));
    }
}

/// Answers that call tools, and those that a limit cut short, are stored and served where the request, or its namespace, wishes so.
#[tokio::test]
async fn tool_calls_and_truncated_answers_are_stored_by_wish() {
    let namespaces = [
        ("LIKEWISE__CACHE__NAMESPACES__AGENTS__CACHE_TOOL_CALLS", "true"),
        ("LIKEWISE__CACHE__NAMESPACES__AGENTS__CACHE_TRUNCATED", "true"),
    ];
    let (_dir, upstream, server) = start(&namespaces).await;
    let [chat, completions, responses, messages] = CLIENTS;
    let limited = |reason| Some(Mode::Ending(reason));
    for (client, text, ending, wish, reason) in [
        (chat, "call a tool", None, "tool_calls", "tool_calls"),
        (responses, "call a tool", None, "tool_calls", "tool_calls"),
        (messages, "call a tool", None, "tool_calls", "tool_calls"),
        (chat, "at length", limited("length"), "truncated", "truncated"),
        (completions, "at length", limited("length"), "truncated", "truncated"),
        (messages, "at length", limited("max_tokens"), "truncated", "truncated"),
    ] {
        upstream.usually(ending.unwrap_or_default());
        for streams in [false, true] {
            let body = with((client.question)(text), json!({ "stream": streams, "seed": u8::from(streams) }));
            let asked = async |cache: Value| {
                client.ask(&server, &with(body.clone(), json!({ "cache": cache }))).await
            };
            let first = asked(json!({})).await;
            assert!(streams || first.header("x-likewise-reason") == reason, "{}", first.body);
            quiet(&server).await;
            assert!(!is_hit(&asked(json!({ wish: true })).await), "it was stored without a wish");
            quiet(&server).await;
            let hit = asked(json!({ wish: true })).await;
            assert!(is_hit(&hit), "{wish}");
            assert!(!is_hit(&asked(json!({})).await), "served without a wish");
            assert!(!is_hit(&asked(json!({ wish: false })).await));
            assert!(!is_hit(&asked(json!({ "namespace": "agents" })).await));
            quiet(&server).await;
            assert!(is_hit(&asked(json!({ "namespace": "agents" })).await));
            assert!(
                !is_hit(&asked(json!({ "namespace": "agents", wish: false })).await),
                "the request decides"
            );
        }
    }
}

#[tokio::test]
async fn a_stored_answer_survives_a_restart() {
    for client in CLIENTS {
        let (dir, upstream, server) = start(&[]).await;
        let body = (client.question)("remember me");
        let first = client.ask(&server, &body).await;
        quiet(&server).await;
        drop(server);
        let server = start_in(dir.path(), &upstream, &[]);
        let hit = client.ask(&server, &streamed(&body)).await;
        assert!(is_hit(&hit), "{}", status(&hit));
        assert_eq!(normalized(client.accumulated(&hit)), normalized(first.body));
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test]
async fn a_stale_answer_is_served_while_one_request_refreshes_it() {
    for client in CLIENTS {
        let (_dir, upstream, server) = start(&[]).await;
        let body = with((client.question)("price?"), json!({ "cache": { "tags": ["product:42"] } }));
        let first = client.ask(&server, &body).await;
        quiet(&server).await;
        let softly = json!({ "tags": ["product:42"], "mode": "soft" }).to_string();
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], softly).await.status, 200);
        let stale = client.ask(&server, &streamed(&body)).await;
        assert!(is_hit(&stale) && stale.header("cache-status").ends_with("-stale"), "{}", status(&stale));
        assert_eq!(normalized(client.accumulated(&stale)), normalized(first.body.clone()));
        until("it is generated again", async || upstream.calls() > 1).await;
        quiet(&server).await;
        let fresh = client.ask(&server, &body).await;
        assert!(is_hit(&fresh) && !fresh.header("cache-status").ends_with("-stale"));
        assert_ne!((client.text)(&fresh.body), (client.text)(&first.body));
        assert_eq!(upstream.calls(), 2, "one request refreshes it");
    }
}

#[tokio::test]
async fn an_expired_answer_stands_in_for_an_upstream_that_fails() {
    for client in CLIENTS {
        let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
        let asked = |cache: Value| with((client.question)("still there?"), json!({ "cache": cache }));
        let body = asked(json!({ "ttl": 1 }));
        let first = client.ask(&server, &body).await;
        // Until it is on the disk, clients that ask the same join it.
        quiet(&server).await;
        let cached_only = asked(json!({ "only-if-cached": true }));
        until("it has ended", async || client.ask(&server, &cached_only).await.status == 504).await;
        upstream.usually(Mode::Reply(529, vec![("content-type", "application/json")], "{}".to_owned()));
        for form in [body.clone(), streamed(&body)] {
            let answer = client.ask(&server, &form).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert!(status(&answer).starts_with("fwd=stale; fwd-status=529"), "{}", status(&answer));
            let whole = if form == body { answer.body } else { client.accumulated(&answer) };
            assert_eq!(normalized(whole), normalized(first.body.clone()));
        }
    }
}

/// Prompts in words, lists of prompts and tokens are all cached, each as another request.
#[tokio::test]
async fn every_kind_of_prompt_is_cached() {
    let (_dir, upstream, server) = start(&[]).await;
    let [_, completions] = OF_CHOICES;
    let prompts =
        [json!("one"), json!(["one"]), json!(["one", "two"]), json!([1, 2]), json!([[1, 2]]), json!("one ")];
    for prompt in &prompts {
        let body = json!({ "model": "m", "prompt": prompt });
        assert!(!is_hit(&completions.ask(&server, &body).await), "{prompt}");
        assert!(is_hit(&completions.ask(&server, &body).await), "{prompt}");
    }
    let body = json!({ "model": "m" });
    assert!(!is_hit(&completions.ask(&server, &body).await));
    assert_eq!(upstream.calls(), prompts.len() + 1);
}

/// The same body on two routes is two requests.
#[tokio::test]
async fn no_answer_is_replayed_by_another_dialect() {
    let (_dir, upstream, server): (_, Upstream, _) = start(&[]).await;
    let body = with(question("hi"), json!({ "prompt": "hi", "input": "hi" }));
    for client in CLIENTS {
        assert!(!is_hit(&client.ask(&server, &body).await));
    }
    for client in CLIENTS {
        let hit = client.ask(&server, &body).await;
        assert!(is_hit(&hit) && (client.text)(&hit.body).is_string(), "{}", hit.body);
    }
    assert_eq!(upstream.calls(), CLIENTS.len());
}
