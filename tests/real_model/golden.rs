//! Our vectors against those of sentence-transformers, and against themselves: alone, and in a batch.
//!
//! `tests/golden/make_golden.py` made the files of `tests/data/golden` and says how.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::model;
use crate::program::Server;

/// Smallest cosine to the vector of sentence-transformers.
const COSINE_MIN: f64 = 0.99999;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn texts() -> Vec<String> {
    let lines = fs_err::read_to_string(data("texts.jsonl")).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    lines.lines().map(text).collect()
}

fn golden(name: &str, dim: usize) -> Vec<Vec<f32>> {
    let bytes = fs_err::read(data(name)).unwrap();
    let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect();
    numbers.chunks_exact(dim).map(<[f32]>::to_vec).collect()
}

fn cosine(one: &[f32], two: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(one, two) / (dot(one, one) * dot(two, two)).sqrt()
}

/// The vectors of a server on `model`, which also answers to the name that the tests ask for.
async fn vectors(model: &Path, environment: &[(&str, &str)], texts: &[String]) -> Vec<Vec<f32>> {
    let dir = TempDir::new().unwrap();
    let mut settings = vec![("LIKEWISE__MODEL__DIR", model.to_str().unwrap())];
    settings.extend(environment);
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.arg("serve").arg("--data-dir").arg(dir.path()).envs(settings);
    program.env("LIKEWISE__MODEL__ALIASES", model::NAME);
    let server = Server::spawn(&mut program);
    server.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await.vectors()
}

fn assert_golden(own: &[Vec<f32>], golden: &[Vec<f32>], texts: &[String]) {
    assert_eq!((own.len(), golden.len()), (200, 200));
    let (text, worst) = own
        .iter()
        .zip(golden)
        .map(|(own, golden)| cosine(own, golden))
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap();
    println!("smallest cosine {worst:.8}");
    assert!(worst >= COSINE_MIN, "text {text} has cosine {worst}: {:?}", texts[text]);
}

#[tokio::test]
async fn the_default_models_vectors_are_those_of_sentence_transformers() {
    let texts = texts();
    let own = vectors(&model::dir(), &[], &texts).await;
    assert_golden(&own, &golden("all-MiniLM-L6-v2.f32", 384), &texts);
}

#[tokio::test]
async fn a_text_alone_and_in_any_batch_is_the_same_vector() {
    // Every fourth text: all languages and lengths are among them, and a pass for each text stays affordable.
    let texts: Vec<String> = texts().into_iter().step_by(4).collect();
    let whole = vectors(&model::dir(), &[], &texts).await;
    // Every text is over the budget of a pass, so it rides alone.
    let alone = vectors(&model::dir(), &[("LIKEWISE__EMBED__BATCH_TOKENS_MAX", "1")], &texts).await;
    let one_pass = vectors(&model::dir(), &[("LIKEWISE__EMBED__BATCH_TOKENS_MAX", "100000")], &texts).await;
    let bits = |vectors: &[Vec<f32>]| -> Vec<u32> { vectors.iter().flatten().map(|x| x.to_bits()).collect() };
    assert!(bits(&whole) == bits(&alone), "other bits in default batches");
    assert!(bits(&one_pass) == bits(&alone), "other bits in one pass");
}

#[tokio::test]
async fn a_multilingual_models_vectors_are_those_of_sentence_transformers() {
    let Some(model) = std::env::var_os("LIKEWISE_TEST_MULTILINGUAL_MODEL").map(PathBuf::from) else {
        eprintln!(
            "SKIPPED: LIKEWISE_TEST_MULTILINGUAL_MODEL does not name a directory of multilingual-e5-small"
        );
        return;
    };
    let texts = texts();
    let own = vectors(&model, &[], &texts).await;
    assert_golden(&own, &golden("multilingual-e5-small-q4.f32", 384), &texts);
}
