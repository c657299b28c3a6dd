//! Cache correctness: each test is a defect that embedding caches in the field have had.

use std::collections::HashSet;

use serde_json::json;
use tempfile::TempDir;

use crate::program::{Answer, Server};

/// Vectors of the same text differ by rounding only.
const SAME: f32 = 1e-6;

fn assert_same(one: &[f32], two: &[f32]) {
    assert_eq!(one.len(), two.len());
    let worst = one.iter().zip(two).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= SAME, "vectors differ by {worst}");
}

fn assert_different(one: &[f32], two: &[f32]) {
    let worst = one.iter().zip(two).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 1e-3, "vectors are the same to {worst}");
}

#[tokio::test]
async fn a_second_request_is_a_hit_and_gives_the_same_bits() {
    let server = Server::start();
    let first = server.embed(&["una camiseta azul"]).await;
    let second = server.embed(&["una camiseta azul"]).await;
    assert_eq!((first.counts(), second.counts()), ((0, 1, 0), (1, 0, 0)));
    assert_eq!(first.vectors(), second.vectors());
    assert_eq!(first.body["usage"], second.body["usage"]);
    assert_eq!(first.header("cache-status"), "likewise; fwd=miss");
    assert_eq!(second.header("cache-status"), "likewise; hit; detail=memory");
    assert!(second.header("age").parse::<u32>().is_ok());
    assert!(first.header("server-timing").contains("inference;dur="));
    assert!(!second.header("x-request-id").is_empty());
}

#[tokio::test]
async fn partial_hits_return_every_vector_at_its_own_place() {
    let server = Server::start();
    let texts = ["zapatos de mujer", "running shoes", "chaussures", "Schuhe", "sabates", "scarpe"];
    let mut alone = Vec::new();
    for text in texts {
        alone.push(server.embed(&[text]).await.vectors().remove(0));
    }
    let mixed = Server::start();
    mixed.embed(&[texts[1], texts[4]]).await;
    let answer = mixed.embed(&texts).await;
    assert_eq!(answer.counts(), (2, 4, 0));
    assert_eq!(answer.header("cache-status"), "likewise; fwd=miss; detail=partial");
    for (own, expected) in answer.vectors().iter().zip(&alone) {
        assert_same(own, expected);
    }
}

#[tokio::test]
async fn duplicates_in_a_batch_are_embedded_once() {
    let server = Server::start();
    let answer = server.embed(&["a b", "c", "a b", "a b", "c"]).await;
    assert_eq!(answer.counts(), (0, 2, 3));
    assert_eq!(server.stat("/model/embedded_texts").await, 2);
    let vectors = answer.vectors();
    assert_eq!(vectors[0], vectors[2]);
    assert_eq!(vectors[0], vectors[3]);
    assert_eq!(vectors[1], vectors[4]);
    assert_different(&vectors[0], &vectors[1]);
}

#[tokio::test]
async fn texts_that_differ_in_anything_are_different_entries() {
    let server = Server::start();
    // Lower-casing and accent-stripping happen inside this model; the cache must not do it for others.
    let texts = ["año", "ano", "Año", "año ", "an\u{303}o", "a ño", "61c3b16f", "YcOxbw=="];
    let answer = server.embed(&texts).await;
    assert_eq!(answer.counts(), (0, texts.len(), 0));
}

#[tokio::test]
async fn concurrent_identical_misses_cost_one_forward_pass_of_one_text() {
    let server = Server::start();
    let asks = (0..64).map(|_| server.embed(&["oferta del día: cafetera italiana"]));
    let answers: Vec<Answer> = futures_util::future::join_all(asks).await;
    assert_eq!(server.stat("/model/batches").await, 1);
    assert_eq!(server.stat("/model/embedded_texts").await, 1);
    let count =
        |of: fn((usize, usize, usize)) -> usize| answers.iter().map(|a| of(a.counts())).sum::<usize>();
    assert_eq!(count(|(_, misses, _)| misses), 1);
    assert_eq!(count(|(hits, _, coalesced)| hits + coalesced), 63);
    let first = answers[0].vectors();
    assert!(answers.iter().all(|answer| answer.vectors() == first));
}

#[tokio::test]
async fn overlapping_batches_embed_each_text_once() {
    let server = Server::start();
    let texts: Vec<String> = (0..40).map(|n| format!("producto número {n}")).collect();
    let batches: Vec<Vec<&str>> =
        (0..16).map(|n| texts.iter().cycle().skip(n * 5).take(20).map(String::as_str).collect()).collect();
    let answers = futures_util::future::join_all(batches.iter().map(|batch| server.embed(batch))).await;
    assert_eq!(server.stat("/model/embedded_texts").await, 40);
    let reference = server.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(reference.counts(), (40, 0, 0));
    let expected = reference.vectors();
    for (batch, answer) in batches.iter().zip(&answers) {
        for (text, vector) in batch.iter().zip(answer.vectors()) {
            let place = texts.iter().position(|known| known == text).unwrap();
            assert_eq!(vector, expected[place]);
        }
    }
}

#[tokio::test]
async fn a_query_and_a_document_of_the_same_words_are_different_entries() {
    let dir = TempDir::new().unwrap();
    let prompts =
        [("LIKEWISE__EMBED__PROMPTS__QUERY", "query: "), ("LIKEWISE__EMBED__PROMPTS__DOCUMENT", "passage: ")];
    let server = Server::start_in(dir.path(), &prompts);
    let ask = async |kind| server.post(json!({ "input": "botas de agua", "input_type": kind })).await;
    let (query, document) = (ask("query").await, ask("document").await);
    assert_eq!(document.counts(), (0, 1, 0));
    assert_different(&query.vectors()[0], &document.vectors()[0]);
    // The prompt is part of the identity, not glued to the text: the glued text is another entry with equal numbers.
    let glued = server.embed(&["query: botas de agua"]).await;
    assert_eq!(glued.counts(), (0, 1, 0));
    assert_same(&glued.vectors()[0], &query.vectors()[0]);
}

#[tokio::test]
async fn another_truncation_limit_is_another_model() {
    let dir = TempDir::new().unwrap();
    let long = "palabra ".repeat(100);
    let server = Server::start_in(dir.path(), &[]);
    let whole = server.embed(&[&long]).await;
    assert!(server.stop().success());
    let server = Server::start_in(dir.path(), &[("LIKEWISE__EMBED__TOKENS_MAX", "16")]);
    let cut = server.embed(&[&long]).await;
    assert_eq!(cut.counts(), (0, 1, 0), "a vector of another limit was served");
    assert_eq!(cut.header("x-likewise-truncated"), "1");
    assert_different(&whole.vectors()[0], &cut.vectors()[0]);
}

#[tokio::test]
async fn entries_are_found_after_a_clean_stop_and_after_a_kill() {
    let dir = TempDir::new().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let first = server.embed(&["uno", "dos"]).await;
    assert!(server.stop().success());

    let server = Server::start_in(dir.path(), &[]);
    let second = server.embed(&["uno", "dos", "tres"]).await;
    assert_eq!(second.counts(), (2, 1, 0));
    assert_eq!(second.vectors()[..2], first.vectors());
    server.kill();

    let server = Server::start_in(dir.path(), &[("LIKEWISE__CACHE__WARM_RESTART__KEYS_MAX", "0")]);
    let third = server.embed(&["tres", "uno"]).await;
    assert_eq!(third.counts(), (2, 0, 0));
    assert_eq!(third.header("cache-status"), "likewise; hit; detail=disk");
    assert_eq!(third.vectors()[0], second.vectors()[2]);
    assert_eq!(server.stat("/model/embedded_texts").await, 0);
}

#[tokio::test]
async fn cache_directives_are_obeyed() {
    let server = Server::start();
    let ask = async |cache| server.post(json!({ "input": "tetera", "cache": cache })).await;
    let refused = ask(json!({ "only-if-cached": true })).await;
    assert_eq!((refused.status, refused.error().0), (504, "not_cached"));
    assert_eq!(ask(json!({ "no-store": true })).await.counts(), (0, 1, 0));
    assert_eq!(ask(json!({})).await.counts(), (0, 1, 0), "no-store has stored");
    assert_eq!(ask(json!({ "only-if-cached": true })).await.counts(), (1, 0, 0));
    assert_eq!(ask(json!({ "no-cache": true })).await.counts(), (0, 1, 0));
    assert_eq!(ask(json!({ "namespace": "otra" })).await.counts(), (0, 1, 0), "namespaces share entries");
    assert_eq!(ask(json!({ "s-maxage": 3600 })).await.counts(), (1, 0, 0));
    let by_header = server
        .client()
        .post(format!("{}/v1/embeddings", server.url()))
        .header("cache-control", "no-cache")
        .body(r#"{"model":"fake-model","input":"tetera"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(by_header.headers()["x-likewise-misses"], "1");
}

#[tokio::test]
async fn a_client_never_has_to_split_its_batch() {
    let server = Server::start();
    let sentence = "camiseta de algodón orgánico con cuello redondo y manga corta para hombre, talla ";
    let texts: Vec<String> = (0..2048).map(|n| format!("{sentence}{}", n % 64)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answer = server.embed(&texts).await;
    assert_eq!(answer.counts(), (0, 64, 2048 - 64));
    let vectors = answer.vectors();
    assert_eq!(vectors.len(), 2048);
    assert!((0..2048).all(|n| vectors[n] == vectors[n % 64]));
    let distinct: HashSet<Vec<u32>> =
        vectors[..64].iter().map(|vector| vector.iter().map(|x| x.to_bits()).collect()).collect();
    assert_eq!(distinct.len(), 64);
}

#[tokio::test]
async fn floats_and_base64_are_the_same_numbers() {
    let server = Server::start();
    let floats = server.embed(&["mochila"]).await.vectors().remove(0);
    let answer = server.post(json!({ "input": ["mochila"], "encoding_format": "base64" })).await;
    let text = answer.body["data"][0]["embedding"].as_str().expect("base64");
    let bytes = base64_simd::STANDARD.decode_to_vec(text).unwrap();
    let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect();
    assert_eq!(numbers, floats);
    let norm: f32 = numbers.iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-5);
}

#[tokio::test]
async fn token_ids_are_read_as_the_text_they_stand_for() {
    let server = Server::start();
    // "hello world" in cl100k.
    let by_ids = server.post(json!({ "input": [15339, 1917] })).await;
    let by_text = server.embed(&["hello world"]).await;
    assert_eq!(by_text.counts(), (1, 0, 0));
    assert_eq!(by_ids.vectors(), by_text.vectors());
    let lists = server.post(json!({ "input": [[15339, 1917], [15339]] })).await;
    assert_eq!(lists.vectors()[0], by_text.vectors()[0]);
}
