//! What bad input gets: a 4xx in OpenAI's shape that names the field, and nothing cached.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::program::Server;

#[tokio::test]
async fn every_bad_request_names_its_field_and_caches_nothing() {
    let server = Server::start();
    let long = "palabra ".repeat(600);
    let too_many: Vec<&str> = vec!["a"; 2049];
    let cases: Vec<(Value, u16, &str, Option<&str>)> = vec![
        (json!({ "input": "" }), 400, "invalid_input", Some("input")),
        (json!({ "input": [] }), 400, "invalid_input", Some("input")),
        (json!({ "input": ["a", ""] }), 400, "invalid_input", Some("input")),
        (json!({ "input": [[]] }), 400, "invalid_input", Some("input")),
        (json!({ "input": too_many }), 400, "invalid_input", Some("input")),
        (json!({ "input": 7 }), 400, "invalid_input", Some("input")),
        (json!({ "input": ["a", 7] }), 400, "invalid_input", Some("input[1]")),
        (json!({ "input": { "text": "a" } }), 400, "invalid_input", Some("input")),
        (json!({ "input": null }), 400, "invalid_input", Some("input")),
        (json!({}), 400, "invalid_input", Some("input")),
        (json!({ "input": [100_277_000] }), 400, "invalid_input", Some("input")),
        (json!({ "input": [-1] }), 400, "invalid_input", Some("input[0]")),
        (json!({ "input": long, "truncate": false }), 400, "invalid_input", Some("input")),
        (json!({ "input": "a", "truncate": "no" }), 400, "invalid_input", Some("truncate")),
        (json!({ "input": "a", "dimensions": 5 }), 400, "invalid_input", Some("dimensions")),
        (json!({ "input": "a", "dimensions": 0 }), 400, "invalid_input", Some("dimensions")),
        (json!({ "input": "a", "dimensions": 385 }), 400, "invalid_input", Some("dimensions")),
        (json!({ "input": "a", "encoding_format": "hex" }), 400, "invalid_input", Some("encoding_format")),
        (json!({ "input": "a", "input_type": "poem" }), 400, "invalid_input", Some("input_type")),
        (json!({ "input": "a", "cache": { "ttl": 0 } }), 400, "invalid_input", Some("cache.ttl")),
        (json!({ "input": "a", "cache": { "ttl": -1 } }), 400, "invalid_input", Some("cache.ttl")),
        (json!({ "input": "a", "cache": { "ttl": 99_999_999 } }), 400, "invalid_input", Some("cache.ttl")),
    ];
    for (fields, status, code, param) in cases {
        let shown = fields.to_string().chars().take(80).collect::<String>();
        let answer = server.post(fields).await;
        assert_eq!((answer.status, answer.error()), (status, (code, param)), "{shown}: {}", answer.body);
    }
    assert_eq!(server.stat("/tiers/0/entries").await, 0);
    assert_eq!(server.stat("/tiers/1/entries").await, 0);
    assert_eq!(server.stat("/model/embedded_texts").await, 0);
}

#[tokio::test]
async fn one_text_too_long_refuses_the_whole_request_before_any_is_embedded() {
    let server = Server::start();
    let long = "palabra ".repeat(600);
    let answer = server.post(json!({ "input": ["corto", long], "truncate": false })).await;
    assert_eq!((answer.status, answer.error().1), (400, Some("input")));
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("input[1]"));
    assert_eq!(server.stat("/model/embedded_texts").await, 0);
    // A vector of the cut text, once cached, is still no answer to a request that forbids cutting.
    server.embed(&[&long]).await;
    let answer = server.post(json!({ "input": long, "truncate": false })).await;
    assert_eq!((answer.status, answer.error().1), (400, Some("input")));
}

#[tokio::test]
async fn the_models_own_dimension_is_no_cut() {
    let server = Server::start();
    assert_eq!(server.post(json!({ "input": "a", "dimensions": 384 })).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused() {
    let server = Server::start();
    let bodies: [&'static [u8]; 5] = [
        b"",
        b"{",
        b"[]",
        b"{\"model\":\"m\",\"input\":\"\xff\xfe\"}",
        b"{\"model\":\"m\",\"input\":\"\\ud800\"}",
    ];
    for body in bodies {
        let answer = server.post_raw(body).await;
        assert_eq!(
            (answer.status, answer.error().0),
            (400, "invalid_input"),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}

/// Many clients write out every field of their types.
#[tokio::test]
async fn a_null_is_as_good_as_nothing() {
    let server = Server::start();
    let cache = json!({ "ttl": null, "s-maxage": null, "no-cache": null, "no-store": null, "only-if-cached": null,
        "namespace": null });
    let bodies = [
        (
            "/v1/embeddings",
            json!({ "model": "fake-model", "input": "a", "encoding_format": null, "dimensions": null,
            "input_type": null, "truncate": null, "user": null, "cache": cache }),
        ),
        ("/v1/embeddings", json!({ "model": "fake-model", "input": "a", "cache": null })),
        (
            "/v1/answers",
            json!({ "prompt": "p", "answer": "a", "scope": null, "tags": null, "ttl": null,
            "namespace": null }),
        ),
        ("/v1/answers/lookup", json!({ "prompt": "p", "scope": null, "tags": null, "namespace": null })),
        ("/v1/answers/feedback", json!({ "prompt": "p", "correct": true, "question": "q", "id": null })),
        ("/v1/answers/explain", json!({ "prompt": "p", "scope": null, "tags": null, "namespace": null })),
        (
            "/v1/invalidate",
            json!({ "tags": ["t"], "namespace": null, "keys": null, "entity": null, "all": null,
            "mode": null, "dry_run": null }),
        ),
        ("/v1/cache/default/batch", json!({ "get": ["k"], "put": null, "delete": null })),
        (
            "/v1/cache/default/batch",
            json!({ "put": [{ "key": "k", "value": "v", "value_base64": null,
            "content_type": null, "ttl": null, "tags": null }] }),
        ),
    ];
    for (route, body) in bodies {
        let answer = server.ask("POST", route, &[], body.to_string()).await;
        assert!((200..300).contains(&answer.status), "{route} {body}: {} {}", answer.status, answer.body);
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped_and_other_encodings_are_named() {
    let server = Server::start();
    let body = r#"{"model":"fake-model","input":"café"}"#;
    assert_eq!(server.post_raw(format!("\u{feff}{body}")).await.status, 200);
    let marked = format!("\u{feff}{body}");
    let little: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let unmarked: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin: Vec<u8> = body.chars().map(|letter| letter as u8).collect();
    for (bytes, name) in
        [(little, "UTF-16"), (unmarked, "UTF-16"), (latin, "not UTF-8"), (b"\x1f\x8b\x08".to_vec(), "gzip")]
    {
        let answer = server.post_raw(bytes).await;
        let said = answer.body["error"]["message"].as_str().unwrap();
        assert!(answer.status == 400 && said.contains(name), "{name}: {said}");
    }
    // RFC 8259: the parameter has no effect.
    let header = [("content-type", "application/json; charset=iso-8859-1")];
    assert_eq!(server.ask("POST", "/v1/embeddings", &header, body).await.status, 200);
}

/// Texts of half a megabyte, of which the model reads a kilobyte each.
#[tokio::test]
async fn probes_are_answered_beside_long_texts_and_long_lists() {
    let server = Server::start();
    let long = "palabra ".repeat(1 << 16);
    let texts = (0..8).map(|n| format!("{n} {long}")).collect::<Vec<_>>();
    let ids = vec![vec![1917; 100_000]; 4];
    let bodies =
        [json!({ "input": texts }), json!({ "input": texts, "truncate": false }), json!({ "input": ids })];
    let work = futures_util::future::join_all(bodies.map(|body| server.post(body)));
    let (longest, probes) = (std::sync::Mutex::new(Duration::ZERO), std::sync::atomic::AtomicU32::new(0));
    let probe = async {
        loop {
            let started = Instant::now();
            assert_eq!(server.get("/healthz").await.status, 200);
            let mut longest = longest.lock().unwrap();
            *longest = longest.max(started.elapsed());
            probes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let answers = tokio::select! { answers = work => answers, () = probe => unreachable!("it never ends") };
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 400, 200]);
    assert!(probes.into_inner() > 0);
    // A gross bound: it is a quarter of a second for an optimised program on a machine of its own.
    let longest = longest.into_inner().unwrap();
    assert!(longest < Duration::from_secs(5), "a probe took {longest:?}");
}

#[tokio::test]
async fn unknown_models_routes_and_methods_are_refused() {
    let server = Server::start();
    let answer = server.post_raw(r#"{"model":"gpt-7","input":"a"}"#).await;
    assert_eq!((answer.status, answer.error()), (404, ("model_not_found", Some("model"))));
    let answer = server.get("/v1/models/gpt-7").await;
    assert_eq!((answer.status, answer.error().0), (404, "model_not_found"));
    let answer = server.get("/v1/unknown").await;
    assert_eq!((answer.status, answer.error().0), (404, "not_found"));
    let answer = server.get("/v1/embeddings").await;
    assert_eq!((answer.status, answer.error().0), (405, "method_not_allowed"));
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__BODY_BYTES_MAX", "2048")]);
    let answer = server.post(json!({ "input": "a".repeat(3000) })).await;
    assert_eq!((answer.status, answer.error().0), (413, "too_large"));
}

#[tokio::test]
async fn a_request_past_the_token_limit_is_refused() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__EMBEDDINGS__REQUEST_TOKENS_MAX", "50")]);
    let answer = server.post(json!({ "input": ["palabra ".repeat(30), "otra ".repeat(30)] })).await;
    assert_eq!((answer.status, answer.error()), (413, ("too_large", Some("input"))));
    assert_eq!(server.stat("/model/embedded_texts").await, 0);
    server.embed(&["corto"]).await;
}

#[tokio::test]
async fn what_would_take_longer_than_a_request_may_is_refused_with_when_to_come_back() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__REQUEST_TIMEOUT_SECONDS", "1")]);
    // As long as the model reads, which takes milliseconds. The rate is known after a second pass over several texts; short ones share
    // a pass.
    let long = |n: usize| format!("{n} {}", "palabra ".repeat(60));
    for n in 0..3 {
        let texts: Vec<String> = (0..32).map(|text| format!("{n} {text}")).collect();
        assert_eq!(server.post(json!({ "input": texts })).await.status, 200);
    }
    let large = async |n: usize| {
        let texts: Vec<String> = (0..2048).map(|text| long(n * 2048 + text)).collect();
        server.post(json!({ "input": texts })).await
    };
    let answers = futures_util::future::join_all((0..12).map(large)).await;
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 429 | 504), "{}", answer.body);
        let wait = answer.header("retry-after").parse::<u32>();
        assert_eq!(
            answer.status == 429,
            wait.is_ok_and(|seconds| (1..=60).contains(&seconds)),
            "{}",
            answer.body
        );
    }
    assert_eq!(server.embed(&["corto"]).await.status, 200, "a short request does not wait for them");
}

#[tokio::test]
async fn keys_are_asked_for_once_they_are_configured() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__API_KEYS", "secreto-uno,secreto-dos")]);
    let ask = async |key: Option<&str>| {
        let mut request = server.client().get(format!("{}/v1/models", server.url()));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(None).await, 401);
    assert_eq!(ask(Some("secreto-tres")).await, 401);
    assert_eq!(ask(Some("secreto-dos")).await, 200);
    assert_eq!(server.get("/healthz").await.status, 200);
    let answer = server.get("/v1/stats").await;
    assert_eq!((answer.status, answer.error().0), (401, "invalid_api_key"));
}

/// Each client sends its key where the service that it was written for wants it.
#[tokio::test]
async fn a_key_is_accepted_in_every_header_that_clients_put_it_in() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__API_KEYS", "secreto-uno,secreto-dos")]);
    let ask = async |headers: &[(&str, &str)]| server.ask("GET", "/v1/models", headers, "").await.status;
    for name in ["api-key", "x-api-key", "x-goog-api-key", "API-Key"] {
        assert_eq!(ask(&[(name, "secreto-dos")]).await, 200, "{name}");
        assert_eq!(ask(&[(name, "secreto-tres")]).await, 401, "{name}");
        assert_eq!(ask(&[(name, "Bearer secreto-dos")]).await, 401, "{name}");
        assert_eq!(ask(&[(name, "")]).await, 401, "{name}");
    }
    let one = ("authorization", "bearer secreto-uno");
    assert_eq!(ask(&[one, ("api-key", "secreto-dos")]).await, 200, "both are known");
    assert_eq!(ask(&[one, ("x-api-key", "secreto-tres")]).await, 401, "one is not");
    assert_eq!(ask(&[one, ("authorization", "Bearer secreto-tres")]).await, 401);
    assert_eq!(ask(&[("authorization", "secreto-uno")]).await, 401, "of no scheme");
    assert_eq!(ask(&[("x-auth", "secreto-uno")]).await, 401, "no such header");
}

/// A browser on this machine shows pages from elsewhere, and what they ask would be the operator's to pay.
#[tokio::test]
async fn pages_of_other_sites_are_served_only_with_keys() {
    let body = || json!({ "model": "fake-model", "input": "a" }).to_string();
    let from = async |server: &Server, site, key| {
        let headers = [("sec-fetch-site", site), ("content-type", "text/plain"), ("authorization", key)];
        server.ask("POST", "/v1/embeddings", &headers, body()).await
    };
    let server = Server::start();
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        assert_eq!(from(&server, site, "none").await.status, status, "{site}");
    }
    assert_eq!(from(&server, "cross-site", "none").await.error().0, "forbidden");
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__HTTP__API_KEYS", "sk-likewise")]);
    assert_eq!(from(&server, "cross-site", "Bearer sk-likewise").await.status, 200);
}

/// Each holds a connection, of which there are only so many.
#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let dir = TempDir::new().unwrap();
    let limits = [("LIKEWISE__HTTP__CONNECTIONS_MAX", "1"), ("LIKEWISE__HTTP__HEADER_TIMEOUT_SECONDS", "1")];
    let server = Server::start_in(dir.path(), &limits);
    let address = server.url().strip_prefix("http://").unwrap();
    let mut deaf = tokio::net::TcpStream::connect(address).await.unwrap();
    // Far more than what the buffers between the two hold.
    let asks = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(500);
    deaf.write_all(asks.as_bytes()).await.unwrap();
    assert_eq!(server.get("/healthz").await.status, 200, "another is served in its place");
    drop(deaf);
}
