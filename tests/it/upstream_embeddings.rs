//! Goal: a model that only an upstream has is embedded through it and paid once. Method: the program without a model of its own before
//! an endpoint none of whose vectors are equal, so that a vector tells its text and the call that made it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use base64_simd::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{DIM, Endpoint, vector};
use crate::program::{Answer, Server, without_model};
use crate::upstream::{Mode, Upstream};

const MODEL: &str = "text-embedding-3-small";

fn start_in(dir: &TempDir, url: &str, environment: &[(&str, &str)]) -> Server {
    let mut program = without_model(dir.path());
    program
        .args(["--upstream", url])
        .env("OPENAI_API_KEY", "sk-ours")
        .env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1");
    Server::spawn(program.envs(environment.iter().copied()))
}

async fn start() -> (TempDir, Endpoint, Server) {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start_in(&dir, &endpoint.url, &[]);
    (dir, endpoint, server)
}

async fn ask(server: &Server, body: Value) -> Answer {
    server.ask("POST", "/v1/embeddings", &[], body.to_string()).await
}

async fn embed(server: &Server, input: impl Into<Value>) -> Answer {
    ask(server, json!({ "model": MODEL, "input": input.into() })).await
}

#[tokio::test]
async fn what_is_not_stored_or_not_cached_says_why() {
    let (_dir, _endpoint, server) = start().await;
    let reason = async |more: Value| {
        let mut body = json!({ "model": MODEL, "input": "a" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = ask(&server, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.header("x-likewise-reason").to_owned()
    };
    assert_eq!(reason(json!({ "cache": { "no-store": true } })).await, "no_store");
    assert_eq!(reason(json!({})).await, "");
    assert_eq!(reason(json!({ "cache": { "no-store": true } })).await, "", "it was stored before");
    assert_eq!(
        reason(json!({ "output_dtype": "float" })).await,
        "route",
        "only the upstream knows the field"
    );
}

#[tokio::test]
async fn texts_are_sent_once_and_served_from_the_cache_also_after_a_restart() {
    let (dir, endpoint, server) = start().await;
    let first = embed(&server, vec!["a", "b", "a"]).await;
    assert_eq!((first.status, first.counts()), (200, (0, 2, 1)), "{}", first.body);
    let vectors = first.vectors();
    assert_eq!(vectors, [vector("a", 1), vector("b", 2), vector("a", 1)]);
    assert_eq!((&first.body["model"], &first.body["usage"]["prompt_tokens"]), (&json!(MODEL), &json!(3)));
    let again = embed(&server, vec!["b", "a"]).await;
    assert_eq!((again.counts(), again.vectors()), ((2, 0, 0), vec![vector("b", 2), vector("a", 1)]));
    assert_eq!(again.header("cache-status"), "likewise; hit; detail=memory");
    let coded = ask(&server, json!({ "model": MODEL, "input": "a", "encoding_format": "base64" })).await;
    let bytes: Vec<u8> = vector("a", 1).iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(coded.body["data"][0]["embedding"], STANDARD.encode_to_string(bytes));
    assert_eq!(embed(&server, vec!["c", "a"]).await.counts(), (1, 1, 0));
    assert_eq!((endpoint.texts(), endpoint.calls()), (3, 2));
    assert!(server.stop().success());
    let server = start_in(&dir, &endpoint.url, &[]);
    assert_eq!(embed(&server, vec!["a", "b", "c"]).await.counts(), (3, 0, 0));
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test]
async fn what_changes_a_vector_is_part_of_what_is_asked_and_nothing_else() {
    let (_dir, endpoint, server) = start().await;
    let ask = async |more: Value| {
        let mut body = json!({ "model": MODEL, "input": "a" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = ask(&server, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    };
    assert_eq!(ask(json!({})).await.counts(), (0, 1, 0));
    for same in [
        json!({ "user": "u" }),
        json!({ "encoding_format": "float" }),
        json!({ "input": ["a"] }),
        json!({ "dimensions": null }),
    ] {
        assert_eq!(ask(same.clone()).await.counts(), (1, 0, 0), "{same}");
    }
    for other in [
        json!({ "dimensions": 4 }),
        json!({ "dimensions": 5 }),
        json!({ "input_type": "query" }),
        json!({ "input_type": "document" }),
        json!({ "model": "text-embedding-3-large" }),
        json!({ "input": [[97]] }),
        json!({ "input": "[97]" }),
        json!({ "cache": { "namespace": "other" } }),
    ] {
        let first = ask(other.clone()).await;
        assert_eq!(first.counts(), (0, 1, 0), "{other}");
        let again = ask(other.clone()).await;
        assert_eq!((again.counts(), again.vectors()), ((1, 0, 0), first.vectors()), "{other}");
        let width = other["dimensions"].as_u64().unwrap_or(DIM as u64);
        assert_eq!(again.vectors()[0].len() as u64, width, "{other}");
    }
    assert_eq!(endpoint.calls(), 9);
}

#[tokio::test]
async fn token_ids_are_sent_as_they_came() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream.url, &[]);
    let vectors =
        json!({ "data": [{ "index": 0, "embedding": [1, 2] }, { "index": 1, "embedding": [3, 4] }] });
    upstream.usually(Mode::Reply(200, vec![], vectors.to_string()));
    let first = embed(&server, json!([[15339, 1917], [7]])).await;
    assert_eq!(first.vectors(), [[1.0, 2.0], [3.0, 4.0]]);
    let again = embed(&server, json!([[7], [15339, 1917]])).await;
    assert_eq!((again.counts(), again.vectors()), ((2, 0, 0), vec![vec![3.0, 4.0], vec![1.0, 2.0]]));
    assert_eq!(upstream.calls(), 1);
    let sent = upstream.seen().remove(0);
    assert_eq!(
        serde_json::from_str::<Value>(&sent.body).unwrap(),
        json!({ "model": MODEL, "input": [[15339, 1917], [7]] })
    );
    assert_eq!(sent.header("authorization"), Some("Bearer sk-ours"));
}

/// Random batches of known and new texts in any order, with repeats: each vector is that of its text, and no text is sent twice.
/// `LIKEWISE_BATCHES` sets their number.
#[tokio::test(flavor = "multi_thread")]
async fn random_batches_send_only_what_is_new_and_keep_their_order() {
    let batches = std::env::var("LIKEWISE_BATCHES").map_or(300, |count| count.parse().unwrap());
    let (_dir, endpoint, server) = start().await;
    let seed = RandomState::new();
    let (mut known, mut new): (HashMap<String, Vec<f32>>, u64) = (HashMap::new(), 0);
    for batch in 0..batches {
        let draw = |place: u64, below: u64| seed.hash_one((batch, place)) % below;
        let texts: Vec<String> = (0..1 + draw(0, 40))
            .map(|place| format!("texto {}", draw(1 + place, 1 + 8 * (batch as u64 + 1))))
            .collect();
        let answer = embed(&server, texts.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        for (text, vector) in texts.iter().zip(answer.vectors()) {
            let is_of_text = crate::endpoint::vector(text, vector[0] as u32) == vector;
            assert!(is_of_text, "batch {batch}: the vector of another text for {text}");
            if !known.contains_key(text) {
                new += 1;
            }
            assert_eq!(
                *known.entry(text.clone()).or_insert_with(|| vector.clone()),
                vector,
                "batch {batch}: {text}"
            );
        }
        assert_eq!(endpoint.texts(), new, "batch {batch}");
    }
}

#[tokio::test]
async fn many_who_want_one_text_make_one_call() {
    let (_dir, endpoint, server) = start().await;
    let held = endpoint.hold().await;
    let all = futures_util::future::join_all((0..32).map(|_| embed(&server, "a")));
    let released = async {
        crate::program::until("the call is there", async || endpoint.calls() == 1).await;
        drop(held);
    };
    let (answers, ()) = tokio::join!(all, released);
    assert!(answers.iter().all(|answer| answer.vectors() == [vector("a", 1)]));
    let misses: usize = answers.iter().map(|answer| answer.counts().1).sum();
    assert_eq!((misses, endpoint.calls()), (1, 1));
}

#[tokio::test]
async fn a_refused_text_is_named_and_the_others_are_kept() {
    let (_dir, endpoint, server) = start().await;
    endpoint.refuse("malo", 400, "it is too long");
    let answer = embed(&server, vec!["a", "b", "malo", "c", "d"]).await;
    assert_eq!((answer.status, answer.error()), (400, ("invalid_input", Some("input"))));
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert_eq!(message, "input[2]: it is too long");
    // A text alone is refused in the words of the upstream.
    let answer = embed(&server, "malo").await;
    assert_eq!((answer.status, answer.body["error"]["message"].as_str()), (400, Some("it is too long")));
    let sent = endpoint.texts();
    assert_eq!(embed(&server, vec!["a", "b", "c", "d"]).await.counts(), (4, 0, 0));
    assert_eq!(endpoint.texts(), sent);

    // Several refused ones, far from each other.
    let texts: Vec<String> =
        (0..300).map(|n| if n % 140 == 9 { format!("malo {n}") } else { format!("bueno {n}") }).collect();
    let calls = endpoint.calls();
    let answer = embed(&server, texts.clone()).await;
    assert_eq!(answer.body["error"]["message"], "input[9]: it is too long");
    assert!(endpoint.calls() - calls < 64, "{}", endpoint.calls() - calls);
    let good: Vec<String> = texts.into_iter().filter(|text| text.starts_with("bueno")).collect();
    assert_eq!(embed(&server, good.clone()).await.counts(), (good.len(), 0, 0));
}

#[tokio::test]
async fn a_refusal_of_all_texts_names_none_and_is_not_repeated_for_each() {
    let (_dir, endpoint, server) = start().await;
    endpoint.refuse("texto", 400, "no good");
    let texts: Vec<String> = (0..512).map(|n| format!("texto {n}")).collect();
    let answer = embed(&server, texts).await;
    assert_eq!((answer.status, answer.error().1), (400, None));
    assert_eq!(answer.body["error"]["message"], "no good");
    assert!(endpoint.calls() <= 19, "{}", endpoint.calls());
}

#[tokio::test]
async fn clients_whose_headers_select_other_models_do_not_refuse_each_other() {
    let (_dir, endpoint, server) = start().await;
    for (width, organization) in [(8, "a"), (16, "b"), (8, "a"), (16, "b")] {
        endpoint.change_width(width);
        let text = format!("{organization} {}", endpoint.calls());
        let body = json!({ "model": MODEL, "input": text }).to_string();
        let answer =
            server.ask("POST", "/v1/embeddings", &[("openai-organization", organization)], body).await;
        assert_eq!((answer.status, answer.vectors()[0].len() as u64), (200, width), "{organization}");
    }
}

#[tokio::test]
async fn directives_for_this_server_are_read_in_bodies_that_only_the_upstream_understands() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream.url, &[]);
    let many = vec!["a"; 2049];
    let cached = json!({ "model": MODEL, "input": many, "cache": { "only-if-cached": true } });
    assert_eq!(ask(&server, cached).await.error().0, "not_cached");
    let bad = ask(&server, json!({ "model": MODEL, "input": "a", "cache": { "ttl": -3 } })).await;
    assert_eq!((bad.status, bad.error().0), (400, "invalid_input"));
    let plain = json!({ "model": MODEL, "input": many, "cache": { "no-store": true } });
    assert_eq!(ask(&server, plain).await.status, 200);
    let sent: Vec<_> = upstream.seen().iter().map(|seen| seen.body.contains("\"cache\"")).collect();
    assert_eq!(sent, [false]);
}

#[tokio::test]
async fn a_refusal_of_the_upstream_keeps_its_status_and_its_words() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream.url, &[]);
    let error =
        |message: &str, param: &str| json!({ "error": { "message": message, "param": param } }).to_string();
    for (status, code) in [(400, "invalid_input"), (404, "model_not_found"), (422, "unprocessable")] {
        upstream.next(Mode::Reply(status, vec![], error("no, since", "dimensions")));
        let answer = embed(&server, vec!["a", "b"]).await;
        assert_eq!((answer.status, answer.error()), (status, (code, Some("dimensions"))));
        assert_eq!(answer.body["error"]["message"], "no, since");
    }
    // A key of this server is no affair of clients.
    upstream.next(Mode::Reply(401, vec![], error("Incorrect API key provided: sk-ours", "")));
    let answer = embed(&server, "a").await;
    assert_eq!((answer.status, answer.error().0), (502, "upstream_error"));
    assert!(!answer.body.to_string().contains("sk-ours"));
    for (status, body) in
        [(200, r#"{"data": []}"#), (200, "<html>"), (200, r#"{"data": [{"index": 0, "embedding": [0, 0]}]}"#)]
    {
        upstream.next(Mode::Reply(status, vec![], body.to_owned()));
        let answer = embed(&server, "a").await;
        assert_eq!((answer.status, answer.error().0), (502, "upstream_error"), "{body}");
    }
    let only =
        ask(&server, json!({ "model": MODEL, "input": "a", "cache": { "only-if-cached": true } })).await;
    assert_eq!((only.status, only.error().0), (504, "not_cached"));
}

#[tokio::test]
async fn vectors_of_another_length_are_refused_until_the_namespace_is_invalidated() {
    let (_dir, endpoint, server) = start().await;
    assert_eq!(embed(&server, "a").await.status, 200);
    endpoint.change_width(8);
    for texts in [vec!["b"], vec!["a", "b"]] {
        let answer = embed(&server, texts).await;
        assert_eq!((answer.status, answer.error().0), (502, "upstream_error"));
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("so far have 384 numbers, and those that its upstream sends have 8"),
            "{message}"
        );
        assert!(message.ends_with("invalidate the namespace `embeddings`"), "{message}");
    }
    assert_eq!(embed(&server, "a").await.counts(), (1, 0, 0), "what is cached is served");
    // Others have lengths of their own.
    let other = ask(&server, json!({ "model": "other", "input": ["a", "b"] })).await;
    assert_eq!((other.status, other.vectors()[0].len()), (200, 8));
    let body = json!({ "namespace": "embeddings" }).to_string();
    assert_eq!(server.ask("POST", "/v1/invalidate", &[], body).await.status, 200);
    let answer = embed(&server, vec!["a", "b"]).await;
    assert_eq!((answer.status, answer.counts()), (200, (0, 2, 0)), "{}", answer.body);
    assert!(answer.vectors().iter().all(|vector| vector.len() == 8));
}

#[tokio::test]
async fn clients_with_keys_of_their_own_share_no_vectors_and_get_their_refusals() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream.url, &[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]);
    let vectors = json!({ "data": [{ "index": 0, "embedding": [1, 2] }] }).to_string();
    let ask = async |key: &str| {
        let headers = [("authorization", key)];
        let body = json!({ "model": MODEL, "input": "a" }).to_string();
        server.ask("POST", "/v1/embeddings", &headers, body).await
    };
    upstream.next(Mode::Reply(200, vec![], vectors.clone()));
    assert_eq!(ask("Bearer one").await.counts(), (0, 1, 0));
    assert_eq!(ask("Bearer one").await.counts(), (1, 0, 0));
    upstream.next(Mode::Reply(401, vec![], r#"{"error":{"message":"wrong key"}}"#.to_owned()));
    let refused = ask("Bearer two").await;
    assert_eq!((refused.status, refused.error().0), (401, "invalid_api_key"));
    let keys: Vec<_> =
        upstream.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    assert_eq!(keys, [Some("Bearer one".to_owned()), Some("Bearer two".to_owned())]);
}
