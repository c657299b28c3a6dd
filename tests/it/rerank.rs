//! Goal: the score of a query and a document is asked for once, whatever list, order or limit it is in. Method: the program before a model
//! that counts the pairs that it scores.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::program::{Answer, Server, without_model};
use crate::upstream::{Mode, Upstream};

/// What the model was asked: the documents of each call.
type Calls = Arc<Mutex<Vec<Vec<String>>>>;

/// Starts the model, and returns its address.
async fn start_model() -> (String, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            let service = service_fn(move |request| answer(Arc::clone(&seen), request));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { _ = connection.await });
        }
    });
    (url, calls)
}

/// The score of a pair: of many digits, and another one for each.
fn score(query: &str, document: &str) -> f64 {
    let hash = blake3::hash(format!("{query}\n{document}").as_bytes());
    f64::from(u32::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())) / 4e9 - 0.3
}

async fn answer(calls: Calls, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = axum::body::to_bytes(Body::new(request.into_body()), 1 << 26).await.unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    if asked.get("texts").is_some() {
        return Ok(Response::new(Body::from(tei_reply(&calls, &asked))));
    }
    let query = asked["query"].as_str().unwrap_or_default();
    let documents: Vec<String> = serde_json::from_value(asked["documents"].clone()).unwrap_or_default();
    assert_eq!(asked["top_n"], documents.len());
    let mut results: Vec<(usize, f64)> =
        documents.iter().enumerate().map(|(index, document)| (index, score(query, document))).collect();
    results.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let results: Vec<Value> =
        results.iter().map(|(index, score)| json!({ "index": index, "relevance_score": score })).collect();
    let reply = json!({ "model": asked["model"], "results": results, "usage": { "total_tokens": 10 * documents.len() } });
    calls.lock().unwrap().push(documents);
    Ok(Response::new(Body::from(Bytes::from(reply.to_string()))))
}

/// What a server of Text Embeddings Inference replies. Its raw scores are others.
fn tei_reply(calls: &Calls, asked: &Value) -> String {
    assert!(asked["model"].is_null() && asked["return_text"].is_null(), "{asked}");
    let query = asked["query"].as_str().unwrap_or_default();
    let texts: Vec<String> = serde_json::from_value(asked["texts"].clone()).unwrap_or_default();
    let factor = if asked["raw_scores"] == true { 8.0 } else { 1.0 };
    let score = |text: &String| score(query, text) * factor;
    let ranks: Vec<Value> = (texts.iter().enumerate().rev())
        .map(|(index, text)| json!({ "index": index, "score": score(text) }))
        .collect();
    calls.lock().unwrap().push(texts);
    json!(ranks).to_string()
}

fn start_in(dir: &TempDir, url: &str) -> Server {
    let mut program = without_model(dir.path());
    Server::spawn(
        program
            .args(["--upstream", url])
            .env("OPENAI_API_KEY", "sk-ours")
            .env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1"),
    )
}

async fn rerank(server: &Server, body: Value) -> Answer {
    server.ask("POST", "/v1/rerank", &[], body.to_string()).await
}

/// The results: index and score of each.
fn results(answer: &Answer) -> Vec<(usize, f64)> {
    let all = answer.body["results"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
    let result = |result: &Value| {
        (result["index"].as_u64().unwrap() as usize, result["relevance_score"].as_f64().unwrap())
    };
    all.iter().map(result).collect()
}

fn expected(query: &str, documents: &[String]) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> =
        documents.iter().enumerate().map(|(index, document)| (index, score(query, document))).collect();
    all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    all
}

/// Sliding lists of which four fifths are known: a fifth of the pairs is sent, and the scores are those of the model to the last digit.
#[tokio::test]
async fn sliding_lists_send_only_documents_that_are_new() {
    let (dir, (url, calls)) = (TempDir::new().unwrap(), start_model().await);
    let server = start_in(&dir, &url);
    let mut asked = 0;
    for at in 0..20 {
        let documents: Vec<String> = (at * 10..at * 10 + 50).map(|n| format!("documento {n}")).collect();
        asked += documents.len();
        let answer = rerank(&server, json!({ "model": "m", "query": "q", "documents": documents })).await;
        assert_eq!((answer.status, results(&answer)), (200, expected("q", &documents)), "{}", answer.body);
    }
    let sent: usize = calls.lock().unwrap().iter().map(Vec::len).sum();
    assert_eq!((sent, asked), (50 + 19 * 10, 1000));
    // Also after a restart, and in another order and number.
    assert!(server.stop().success());
    let server = start_in(&dir, &url);
    let documents: Vec<String> = (0..50).rev().map(|n| format!("documento {n}")).collect();
    let body =
        json!({ "model": "m", "query": "q", "documents": documents, "top_n": 3, "return_documents": true });
    let answer = rerank(&server, body).await;
    assert_eq!(results(&answer), expected("q", &documents)[..3]);
    let best = &answer.body["results"][0];
    assert_eq!(best["document"]["text"], documents[best["index"].as_u64().unwrap() as usize]);
    assert_eq!((answer.counts(), &answer.body["usage"]["total_tokens"]), ((50, 0, 0), &json!(500)));
    assert_eq!(calls.lock().unwrap().len(), 20);
}

#[tokio::test]
async fn scores_that_are_not_stored_say_why() {
    let (dir, (url, calls)) = (TempDir::new().unwrap(), start_model().await);
    let server = start_in(&dir, &url);
    let no_store = [("cache-control", "no-store")];
    for (path, body) in [
        ("/v1/rerank", json!({ "model": "m", "query": "q", "documents": ["a", "b"] })),
        ("/v2/rerank", json!({ "model": "m", "query": "q2", "documents": ["a", "b"] })),
        ("/rerank", json!({ "query": "q", "texts": ["a", "b"] })),
    ] {
        let reason = async |headers: &[(&str, &str)]| {
            let answer = server.ask("POST", path, headers, body.to_string()).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            (answer.counts(), answer.header("x-likewise-reason").to_owned())
        };
        assert_eq!(reason(&no_store).await, ((0, 2, 0), "no_store".to_owned()), "{path}");
        assert_eq!(reason(&[]).await, ((0, 2, 0), String::new()), "{path}");
        assert_eq!(reason(&no_store).await, ((2, 0, 0), String::new()), "{path}");
    }
    assert_eq!(calls.lock().unwrap().len(), 6);
    let metrics = server.get("/metrics").await.body;
    let counted = "likewise_texts_not_stored_total{reason=\"no_store\"} 6\n";
    assert!(metrics.as_str().unwrap().contains(counted));
}

#[tokio::test]
async fn what_may_change_a_score_is_part_of_what_is_asked() {
    let (dir, (url, calls)) = (TempDir::new().unwrap(), start_model().await);
    let server = start_in(&dir, &url);
    let ask = async |more: Value| {
        let mut body = json!({ "model": "m", "query": "q", "documents": ["a", "b"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rerank(&server, body).await.counts()
    };
    assert_eq!(ask(json!({})).await, (0, 2, 0));
    for same in [
        json!({ "top_n": 1 }),
        json!({ "documents": [{ "text": "b" }, { "text": "a" }] }),
        json!({ "return_documents": true, "user": "u", "max_tokens_per_doc": null }),
    ] {
        assert_eq!(ask(same.clone()).await, (2, 0, 0), "{same}");
    }
    for other in [
        json!({ "query": "r" }),
        json!({ "model": "n" }),
        json!({ "max_tokens_per_doc": 9 }),
        json!({ "cache": { "namespace": "other" } }),
    ] {
        assert_eq!(ask(other.clone()).await, (0, 2, 0), "{other}");
    }
    assert_eq!(calls.lock().unwrap().len(), 5);
    let cohere = json!({ "model": "m", "query": "q", "documents": ["a", "a", "c"] }).to_string();
    let answer = server.ask("POST", "/v2/rerank", &[], cohere).await;
    assert_eq!((answer.status, answer.counts()), (200, (2, 1, 0)), "{}", answer.body);
}

#[tokio::test]
async fn what_is_not_understood_is_passed_on_and_refusals_keep_their_words() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream.url);
    upstream.usually(Mode::Reply(200, vec![], r#"{"theirs": true}"#.to_owned()));
    for body in [
        json!({ "model": "m", "query": "q", "documents": [{ "title": "t" }] }),
        json!({ "model": "m", "query": "q", "documents": ["a"], "rank_fields": ["x"] }),
        json!({ "model": "m", "query": "q", "documents": [] }),
        json!({ "model": "m", "query": "q", "documents": vec!["a"; 10_001] }),
        json!({ "model": "m" }),
    ] {
        let answer = rerank(&server, body.clone()).await;
        assert_eq!((answer.status, &answer.body), (200, &json!({ "theirs": true })), "{body}");
    }
    let understood = json!({ "model": "m", "query": "q", "documents": ["a", "b"] });
    for (status, code) in
        [(400, "invalid_input"), (404, "model_not_found"), (422, "unprocessable"), (500, "upstream_error")]
    {
        upstream.usually(Mode::Reply(status, vec![], r#"{"error":{"message":"no, since"}}"#.to_owned()));
        let answer = rerank(&server, understood.clone()).await;
        let expected = if status == 500 { 502 } else { status };
        assert_eq!((answer.status, answer.error().0), (expected, code), "{}", answer.body);
        assert_eq!(answer.body["error"]["message"], "no, since");
    }
    upstream.usually(Mode::Reply(200, vec![], r#"{"results": []}"#.to_owned()));
    assert_eq!(rerank(&server, understood.clone()).await.status, 502);
    for cache in [json!({ "ttl": -1 }), json!(7)] {
        let body = json!({ "model": "m", "query": "q", "documents": ["a"], "cache": cache });
        assert_eq!(rerank(&server, body).await.status, 400, "it is for this server");
    }
    let zero = json!({ "model": "m", "query": "q", "documents": ["a"], "top_n": 0 });
    assert_eq!(rerank(&server, zero).await.error(), ("invalid_input", Some("top_n")));
    let cohere = server.ask("POST", "/v2/rerank", &[], understood.to_string()).await;
    assert!(cohere.status == 502 && cohere.body["message"].is_string(), "{}", cohere.body);
    let only = json!({ "model": "m", "query": "q", "documents": ["a"], "cache": { "only-if-cached": true } });
    assert_eq!(rerank(&server, only).await.error().0, "not_cached");
    let dir = TempDir::new().unwrap();
    let alone = Server::spawn(&mut without_model(dir.path()));
    assert_eq!(rerank(&alone, understood).await.status, 404);
}

#[tokio::test]
async fn one_pair_that_many_ask_for_is_scored_once() {
    let (dir, (url, calls)) = (TempDir::new().unwrap(), start_model().await);
    let server = start_in(&dir, &url);
    let body = json!({ "model": "m", "query": "q", "documents": ["a", "b", "c"] });
    let answers = futures_util::future::join_all((0..16).map(|_| rerank(&server, body.clone()))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for document in calls.lock().unwrap().iter().flatten() {
        *sent.entry(document.clone()).or_default() += 1;
    }
    assert_eq!(sent.into_values().collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test]
async fn clients_of_text_embeddings_inference_get_scores_of_the_cache() {
    let (dir, (url, calls)) = (TempDir::new().unwrap(), start_model().await);
    let server = start_in(&dir, &url);
    let ask = async |body: Value| server.ask("POST", "/rerank", &[], body.to_string()).await;
    let expected = |texts: &[&str], factor: f64, with_text: bool| {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let rank = |(index, score): (usize, f64)| {
            let score = score * factor;
            if with_text {
                json!({ "index": index, "text": texts[index], "score": score })
            } else {
                json!({ "index": index, "score": score })
            }
        };
        json!(self::expected("q", &texts).into_iter().map(rank).collect::<Vec<_>>())
    };
    let first = ask(json!({ "query": "q", "texts": ["a", "b", "c"] })).await;
    assert_eq!((first.status, first.counts()), (200, (0, 3, 0)), "{}", first.body);
    assert_eq!(first.body, expected(&["a", "b", "c"], 1.0, false));
    let second =
        ask(json!({ "query": "q", "texts": ["d", "c", "a"], "return_text": true, "raw_scores": false }))
            .await;
    assert_eq!((second.counts(), second.body), ((2, 1, 0), expected(&["d", "c", "a"], 1.0, true)));
    // What may change a score is part of what is asked.
    let raw = ask(json!({ "query": "q", "texts": ["a"], "raw_scores": true })).await;
    assert_eq!((raw.counts(), raw.body), ((0, 1, 0), expected(&["a"], 8.0, false)));
    for other in
        [json!({ "truncate": true }), json!({ "truncation_direction": "Left" }), json!({ "query": "r" })]
    {
        let mut body = json!({ "query": "q", "texts": ["a"] });
        body.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        assert_eq!(ask(body).await.counts(), (0, 1, 0), "{other}");
    }
    let sent: Vec<Vec<String>> = calls.lock().unwrap().clone();
    assert_eq!(sent, [vec!["a", "b", "c"], vec!["d"], vec!["a"], vec!["a"], vec!["a"], vec!["a"]]);
    // A model that is named is another one.
    assert_eq!(
        rerank(&server, json!({ "model": "m", "query": "q", "documents": ["a"] })).await.counts(),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn refusals_have_the_shape_of_text_embeddings_inference() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream.url);
    let refused = async |server: &Server, body: Value| {
        let answer = server.ask("POST", "/rerank", &[], body.to_string()).await;
        assert!(answer.body["error"].is_string(), "{body}: {}", answer.body);
        (answer.status, answer.body["error_type"].as_str().unwrap().to_owned())
    };
    for body in [
        json!({ "query": "q", "texts": [] }),
        json!({ "query": "q", "texts": ["a", ""] }),
        json!({ "query": "q", "texts": [["a"]] }),
        json!({ "query": "q", "texts": vec!["a"; 10_001] }),
        json!({ "query": "q", "texts": ["a"], "raw_scores": 1 }),
        json!({ "texts": ["a"] }),
    ] {
        assert_eq!(refused(&server, body).await, (400, "Validation".to_owned()));
    }
    assert_eq!(upstream.calls(), 0);
    let body = json!({ "query": "q", "texts": ["a", "b"] });
    upstream.usually(Mode::Reply(
        413,
        vec![],
        r#"{"error":"batch size 2 > 1","error_type":"Validation"}"#.to_owned(),
    ));
    let (status, error_type) = refused(&server, body.clone()).await;
    assert!((400..500).contains(&status) && error_type == "Validation", "{status} {error_type}");
    for wrong in
        ["{}", r#"[{"index": 0, "score": 1}]"#, r#"[{"index": 0, "score": 1}, {"index": 0, "score": 1}]"#]
    {
        upstream.usually(Mode::Reply(200, vec![], wrong.to_owned()));
        assert_eq!(refused(&server, body.clone()).await, (502, "Backend".to_owned()), "{wrong}");
    }
    let dir = TempDir::new().unwrap();
    let alone = Server::spawn(&mut without_model(dir.path()));
    assert_eq!(refused(&alone, body).await.0, 404);
}
