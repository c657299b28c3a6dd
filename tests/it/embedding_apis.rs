//! Goal: clients of other APIs of embeddings get the vectors of `/v1/embeddings`, from the same cache, and errors of their own shape.

use base64_simd::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote, vector};
use crate::model;
use crate::program::{Answer, Server, likewise, without_model};

async fn post(server: &Server, path: &str, body: Value) -> Answer {
    server.ask("POST", path, &[], body.to_string()).await
}

/// The lists of numbers of a JSON value.
fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap_or_else(|_| panic!("no vectors: {value}"))
}

#[tokio::test]
async fn each_api_has_the_vectors_of_the_same_cache() {
    let server = Server::start();
    let expected = server.embed(&["una camiseta", "unas botas"]).await.vectors();
    let texts = json!(["una camiseta", "unas botas"]);

    let tei = post(&server, "/embed", json!({ "inputs": texts, "normalize": true, "parameters": {} })).await;
    assert_eq!((tei.status, tei.counts(), rows(&tei.body)), (200, (2, 0, 0), expected.clone()));
    let one = post(&server, "/embed", json!({ "inputs": "una camiseta" })).await;
    assert_eq!(rows(&one.body), expected[..1], "a list also of one");

    let name = format!("{}:latest", model::NAME);
    let ollama =
        post(&server, "/api/embed", json!({ "model": name, "input": texts, "keep_alive": "5m" })).await;
    assert_eq!(
        (ollama.status, ollama.counts(), rows(&ollama.body["embeddings"])),
        (200, (2, 0, 0), expected.clone())
    );
    assert_eq!(ollama.body["model"], name);
    assert!(
        ollama.body["prompt_eval_count"].as_u64().is_some_and(|tokens| tokens > 0),
        "{}",
        ollama.body["model"]
    );
    let asked = json!({ "model": model::NAME, "texts": texts, "input_type": "search_document",
        "embedding_types": ["base64", "float", "base64"] });
    let cohere = post(&server, "/v2/embed", asked).await;
    assert_eq!((cohere.status, cohere.counts()), (200, (2, 0, 0)));
    assert_eq!(rows(&cohere.body["embeddings"]["float"]), expected);
    let bytes: Vec<u8> = expected[1].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(cohere.body["embeddings"]["base64"][1], STANDARD.encode_to_string(bytes));
    assert_eq!(
        (&cohere.body["texts"], &cohere.body["response_type"]),
        (&texts, &json!("embeddings_by_type"))
    );
    assert!(cohere.body["meta"]["billed_units"]["input_tokens"].as_u64().is_some_and(|tokens| tokens > 0));
    assert_eq!(cohere.body["id"].as_str().map(str::len), Some(36));
}

/// Texts that were not stored for a reason.
async fn not_stored(server: &Server, reason: &str) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let name = format!("likewise_texts_not_stored_total{{reason=\"{reason}\"}} ");
    let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn what_is_not_stored_says_why_in_each_api() {
    let server = Server::start();
    let requests = |text: &str| {
        [
            ("/v1/embeddings", json!({ "model": model::NAME, "input": text })),
            ("/embed", json!({ "inputs": text })),
            ("/api/embed", json!({ "model": model::NAME, "input": text })),
            (
                "/v2/embed",
                json!({ "model": model::NAME, "texts": [text], "input_type": "search_document",
                    "embedding_types": ["float"] }),
            ),
        ]
    };
    let mut made = 0;
    for (path, body) in requests("una camiseta") {
        for _ in 0..2 {
            let answer = server.ask("POST", path, &[("cache-control", "no-store")], body.to_string()).await;
            assert_eq!((answer.status, answer.counts()), (200, (0, 1, 0)), "{path}: {}", answer.body);
            assert_eq!(answer.header("x-likewise-reason"), "no_store", "{path}");
            made += 1;
        }
    }
    assert_eq!(not_stored(&server, "no_store").await, made);
    // What is stored has no reason, nor has what was stored before.
    for (path, body) in requests("unas botas") {
        let stored = post(&server, path, body.clone()).await;
        assert_eq!((stored.status, stored.header("x-likewise-reason")), (200, ""), "{path}");
        let hit = server.ask("POST", path, &[("cache-control", "no-store")], body.to_string()).await;
        assert_eq!((hit.counts(), hit.header("x-likewise-reason")), ((1, 0, 0), ""), "{path}");
    }
    // Of a list, one text is enough.
    let body = json!({ "model": model::NAME, "input": ["unas botas", "una gorra"] });
    let some = server.ask("POST", "/v1/embeddings", &[("cache-control", "no-store")], body.to_string()).await;
    assert_eq!((some.counts(), some.header("x-likewise-reason")), ((1, 1, 0), "no_store"));
    assert_eq!(not_stored(&server, "no_store").await, made + 1);
}

#[tokio::test]
async fn clients_learn_what_is_served() {
    let server = Server::start();
    let info = server.get("/info").await.body;
    assert_eq!((&info["model_id"], &info["max_input_length"]), (&json!(model::NAME), &json!(256)));
    assert_eq!(info["model_type"], json!({ "embedding": { "pooling": "mean" } }));
    assert_eq!(info["max_client_batch_size"], 2048);
    let tags = server.get("/api/tags").await.body;
    assert_eq!(
        (&tags["models"][0]["name"], &tags["models"][0]["model"]),
        (&json!(model::NAME), &json!(model::NAME))
    );
    assert_eq!(server.get("/api/version").await.body["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn texts_are_tokenized_as_the_model_reads_them() {
    let server = Server::start();
    let text = "Una camiseta, 39,95 €";
    let tokens = post(&server, "/tokenize", json!({ "inputs": [text, ""] })).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    let lists = tokens.body.as_array().unwrap();
    assert_eq!(lists.len(), 2);
    let all = lists[0].as_array().unwrap();
    let (first, last) = (&all[0], &all[all.len() - 1]);
    for special in [first, last] {
        assert_eq!(
            (&special["special"], &special["start"], &special["stop"]),
            (&json!(true), &Value::Null, &Value::Null)
        );
    }
    assert_eq!((&first["text"], &last["text"]), (&json!("<s>"), &json!("</s>")));
    assert_eq!(lists[1].as_array().unwrap().len(), 2, "of an empty text the special ones: {}", lists[1]);
    // Each other one is the part of the text where it says that it is, and nothing but spaces is between them.
    let mut end = 0;
    for token in &all[1..all.len() - 1] {
        let at = |name: &str| token[name].as_u64().unwrap() as usize;
        assert_eq!(
            (&token["text"], &token["special"]),
            (&json!(&text[at("start")..at("stop")]), &json!(false))
        );
        // The tokens of one character overlap.
        assert!(text[end.min(at("start"))..at("start")].trim().is_empty(), "{token}");
        end = end.max(at("stop"));
    }
    assert_eq!(end, text.len());

    let plain = post(&server, "/tokenize", json!({ "inputs": text, "add_special_tokens": false })).await;
    assert_eq!(plain.body, json!([&all[1..all.len() - 1]]), "a list also of one");
    let embedded = server.embed(&[text]).await;
    assert_eq!(embedded.body["usage"]["prompt_tokens"], all.len());
    // More than the model reads.
    let long = post(&server, "/tokenize", json!({ "inputs": "una camiseta azul ".repeat(500) })).await;
    assert!(long.body[0].as_array().unwrap().len() > 1000);
}

#[tokio::test]
async fn what_cannot_be_tokenized_is_refused_in_the_shape_of_the_api() {
    let server = Server::start();
    for body in [
        json!({ "inputs": [] }),
        json!({ "inputs": [1, 2] }),
        json!({ "inputs": "a", "add_special_tokens": 1 }),
        json!({ "inputs": "a", "prompt_name": "other" }),
        json!({ "inputs": ["a", "b".repeat(1024 * 1024 + 1)] }),
        json!({}),
    ] {
        let answer = post(&server, "/tokenize", body).await;
        assert!(matches!(answer.status, 400 | 413), "{}: {}", answer.status, answer.body);
        assert!(
            answer.body["error"].is_string() && answer.body["error_type"] == "Validation",
            "{}",
            answer.body
        );
    }
    let dir = TempDir::new().unwrap();
    let (endpoint, alone) = (Endpoint::start().await, Server::spawn(&mut without_model(dir.path())));
    let answer = post(&alone, "/tokenize", json!({ "inputs": "a" })).await;
    assert!(answer.status >= 400 && answer.body["error"].is_string(), "{}", answer.body);
    let dir = TempDir::new().unwrap();
    let far = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let answer = post(&far, "/tokenize", json!({ "inputs": "a" })).await;
    assert_eq!((answer.status, &answer.body["error_type"]), (400, &json!("Validation")), "{}", answer.body);
}

#[tokio::test]
async fn the_type_of_the_input_selects_the_prompt() {
    let dir = TempDir::new().unwrap();
    let server =
        Server::spawn(likewise("serve", dir.path()).env("LIKEWISE__EMBED__PROMPTS__QUERY", "query: "));
    let expected = server.embed(&["query: botas"]).await.vectors();
    let tei = post(&server, "/embed", json!({ "inputs": "botas", "prompt_name": "query" })).await;
    assert_eq!(rows(&tei.body), expected);
    let asked = json!({ "model": model::NAME, "texts": ["botas"], "input_type": "search_query" });
    let cohere = post(&server, "/v2/embed", asked).await;
    assert_eq!(rows(&cohere.body["embeddings"]["float"]), expected);
}

#[tokio::test]
async fn errors_have_the_shape_of_the_api() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[("LIKEWISE__EMBEDDINGS__TEXT_BYTES_MAX", "2000")]);
    let long = "a".repeat(3000);
    for body in [
        json!({ "inputs": long }),
        json!({ "inputs": [] }),
        json!({ "inputs": ["a", ""] }),
        json!({ "inputs": "a", "normalize": false }),
        json!({ "inputs": "a", "truncation_direction": "Left" }),
        json!({ "inputs": "a", "prompt_name": "other" }),
        json!({ "inputs": "a", "dimensions": 7 }),
        json!({ "inputs": { "a": 1 } }),
        json!({}),
    ] {
        let answer = post(&server, "/embed", body.clone()).await;
        assert!(matches!(answer.status, 400 | 413), "{body}: {}", answer.status);
        assert!(
            answer.body["error"].is_string() && answer.body["error_type"] == "Validation",
            "{}",
            answer.body
        );
    }
    for body in [
        json!({ "model": "other", "input": "a" }),
        json!({ "model": model::NAME, "input": long }),
        json!({ "model": model::NAME }),
        json!({ "input": "a" }),
        json!({ "model": model::NAME, "input": "a".repeat(1000), "truncate": false }),
    ] {
        let answer = post(&server, "/api/embed", body.clone()).await;
        assert!(matches!(answer.status, 400 | 404 | 413), "{body}: {}", answer.status);
        assert!(answer.body["error"].is_string(), "{}", answer.body);
    }
    for body in [
        json!({ "model": "other", "texts": ["a"] }),
        json!({ "model": model::NAME, "texts": ["a"], "embedding_types": ["int8"] }),
        json!({ "model": model::NAME, "texts": ["a"], "embedding_types": vec!["float"; 9] }),
        json!({ "model": model::NAME, "texts": ["a"], "input_type": "image" }),
        json!({ "model": model::NAME, "texts": ["a"], "truncate": "START" }),
        json!({ "model": model::NAME, "images": ["data:,"] }),
        json!({ "model": model::NAME, "texts": [[1, 2]] }),
        json!({ "model": model::NAME }),
    ] {
        let answer = post(&server, "/v2/embed", body.clone()).await;
        assert!(matches!(answer.status, 400 | 404), "{body}: {}", answer.status);
        assert!(answer.body["message"].is_string(), "{}", answer.body);
    }
    // Also of what is refused before the handler.
    let refused = server.ask("POST", "/embed", &[("content-encoding", "x")], "{}").await;
    assert!(refused.status == 415 && refused.body["error_type"] == "Validation", "{}", refused.body);
}

#[tokio::test]
async fn models_of_an_upstream_are_found_too() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let mut program = without_model(dir.path());
    let server = Server::spawn(program.args(["--upstream", &endpoint.url]).env("OPENAI_API_KEY", "sk-ours"));
    let ollama =
        post(&server, "/api/embed", json!({ "model": "far", "input": ["a", "b"], "dimensions": 8 })).await;
    let expected: Vec<Vec<f32>> =
        [("a", 1), ("b", 2)].map(|(text, place)| vector(text, place)[..8].to_vec()).into();
    assert_eq!((ollama.status, rows(&ollama.body["embeddings"])), (200, expected.clone()), "{}", ollama.body);
    // The same as of OpenAI's API.
    let body = json!({ "model": "far", "input": ["b", "a"], "dimensions": 8 });
    let answer = post(&server, "/v1/embeddings", body).await;
    assert_eq!(
        (answer.counts(), answer.vectors()),
        ((2, 0, 0), vec![expected[1].clone(), expected[0].clone()])
    );
    let cohere =
        json!({ "model": "far", "texts": ["a"], "input_type": "search_query", "output_dimension": 8 });
    let cohere = post(&server, "/v2/embed", cohere).await;
    assert_eq!((cohere.status, cohere.counts()), (200, (0, 1, 0)), "the type is part of what is asked");
    let empty = post(&server, "/api/embed", json!({ "model": "far", "input": [""] })).await;
    assert!(empty.status == 400 && empty.body["error"].is_string(), "{}", empty.body);
    let none = post(&server, "/embed", json!({ "inputs": "a" })).await;
    assert!(
        none.status == 404 && none.body["error"].as_str().unwrap().contains("no embedding model"),
        "{}",
        none.body
    );
}
