//! A model of an upstream that scores documents for one query, in the place of an embedder: the vector of a document is its score.
//!
//! A score is a double, as JSON has it, so that a cached one is the one that the upstream sent. It is kept as the bits of two single numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use tracing::Instrument as _;

use crate::domain::{Clock as _, Embedding, Fingerprint, SystemClock};
use crate::embed::{EmbedJob, Embedder, Matryoshka, ModelCard, Prompts};
use crate::error::{Error, Kind, Result};
use crate::service::upstream_calls::{ModelCall, unwritten};

/// The path of reranking below an upstream's `/v1`.
pub(super) const PATH: &str = "/rerank";

/// Bytes of a reply for each document beside its text, which some servers send back.
const BYTES_PER_RESULT: usize = 256;
const REPLY_BYTES_EXTRA: usize = 64 * 1024;
/// What a text of a reply may take in JSON, for each of its bytes.
const JSON_COST: usize = 6;

/// The call for one request.
pub(super) struct RerankCall {
    pub(super) call: ModelCall,
    pub(super) query: String,
}

/// A model of an upstream, for one query.
pub(super) struct Reranker {
    card: ModelCard,
    call: Arc<RerankCall>,
}

/// The name of a model that requests do not name, in statistics.
const UNNAMED: &str = "rerank";

/// The replies of Cohere, Jina and the servers that follow them.
#[derive(Deserialize)]
struct RerankReply {
    results: Vec<RerankedDocument>,
    #[serde(default)]
    usage: Option<RerankUsage>,
}

#[derive(Deserialize)]
struct RerankedDocument {
    index: usize,
    #[serde(alias = "score")]
    relevance_score: f64,
}

#[derive(Deserialize)]
struct RerankUsage {
    /// Any JSON: an invalid count must not fail the scores.
    #[serde(default)]
    total_tokens: serde_json::Value,
}

impl Reranker {
    pub(super) fn new(call: RerankCall, fingerprint: Fingerprint) -> Reranker {
        let card = ModelCard {
            name: call.call.model.clone().unwrap_or_else(|| UNNAMED.to_owned()),
            fingerprint,
            dim: 2,
            tokens_max: usize::MAX,
            prompts: Prompts::default(),
            pooling: None,
            matryoshka: Matryoshka::No,
            created: SystemClock.now(),
        };
        Reranker { card, call: Arc::new(call) }
    }
}

impl Embedder for Reranker {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Calls the upstream at once, with all documents.
    fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()> {
        let call = Arc::clone(&self.call);
        tokio::spawn(async move { call.run(jobs).await }.in_current_span());
        Ok(())
    }
}

impl RerankCall {
    async fn run(&self, jobs: Vec<EmbedJob>) {
        let started = Instant::now();
        let scored = self.score(&jobs).await;
        let cost = started.elapsed() / u32::try_from(jobs.len().max(1)).unwrap_or(u32::MAX);
        let cost_us = u32::try_from(cost.as_micros()).unwrap_or(u32::MAX);
        match scored {
            Ok((scores, tokens)) => {
                for (job, score) in jobs.into_iter().zip(scores) {
                    let vector = vector_of(score).into();
                    let queued = Duration::ZERO;
                    let embedding = Embedding { vector, tokens, is_truncated: false, cost_us, queued };
                    // The receiver is closed if its caller has left.
                    let _ = job.reply.send(Ok(embedding));
                }
            }
            Err(error) => jobs.into_iter().for_each(|job| _ = job.reply.send(Err(error.clone()))),
        }
    }

    /// The scores of the documents in their order, and the tokens of each pair as their share of all.
    async fn score(&self, jobs: &[EmbedJob]) -> Result<(Vec<f64>, u32)> {
        let own = self.own_fields(jobs).map_err(unwritten)?;
        let mut reply = self.call.post(&own).await.map_err(|failure| failure.error)?;
        let texts: usize = jobs.iter().map(|job| job.text.len() * JSON_COST + BYTES_PER_RESULT).sum();
        let body = reply.whole(texts + REPLY_BYTES_EXTRA).await?;
        let reply = if self.call.model.is_some() { read_object(&body) } else { read_list(&body) };
        in_order(reply?, jobs.len())
    }

    fn own_fields(&self, jobs: &[EmbedJob]) -> serde_json::Result<BTreeMap<&'static str, Box<RawValue>>> {
        let documents: Vec<&str> = jobs.iter().map(|job| job.text.as_str()).collect();
        let query = to_raw_value(&self.query)?;
        let Some(model) = &self.call.model else {
            return Ok(BTreeMap::from([("query", query), ("texts", to_raw_value(&documents)?)]));
        };
        Ok(BTreeMap::from([
            ("model", to_raw_value(model)?),
            ("query", query),
            ("documents", to_raw_value(&documents)?),
            // All: some servers send ten by default.
            ("top_n", to_raw_value(&documents.len())?),
        ]))
    }
}

/// A score as it is cached.
fn vector_of(score: f64) -> [f32; 2] {
    let bits = score.to_bits();
    [f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]
}

/// The score that was cached as these bytes.
pub(super) fn score_of(value: &[u8]) -> Option<f64> {
    value.as_array().map(|bytes| f64::from_le_bytes(*bytes))
}

/// Reads a reply of the upstream of a model that is named.
fn read_object(body: &[u8]) -> Result<RerankReply> {
    serde_json::from_slice(body).map_err(|error| unreadable("it is no list of results").source(error))
}

/// Reads a reply of Text Embeddings Inference, which is nothing but the list.
fn read_list(body: &[u8]) -> Result<RerankReply> {
    let results: serde_json::Result<Vec<RerankedDocument>> = serde_json::from_slice(body);
    results
        .map(|results| RerankReply { results, usage: None })
        .map_err(|error| unreadable("it is no list of results").source(error))
}

fn unreadable(message: &str) -> Error {
    Error::new(Kind::Upstream, format!("cannot read the upstream's scores: {message}"))
}

/// The scores of a reply, in the order of the documents, and the tokens of each as their share of all.
fn in_order(reply: RerankReply, documents: usize) -> Result<(Vec<f64>, u32)> {
    if reply.results.len() != documents {
        let error = unreadable("it has another number of them than documents");
        return Err(error.with("documents", documents).with("results", reply.results.len()));
    }
    let mut scores: Vec<Option<f64>> = vec![None; documents];
    for result in reply.results {
        let score = result.relevance_score;
        match scores.get_mut(result.index) {
            Some(slot @ None) if score.is_finite() => *slot = Some(score),
            Some(Some(_) | None) | None => {
                return Err(unreadable("an index is repeated or out of range, or a score is not a number"));
            }
        }
    }
    let tokens = reply.usage.and_then(|usage| usage.total_tokens.as_u64()).unwrap_or(0);
    let share = u32::try_from(tokens / documents.max(1) as u64).unwrap_or(u32::MAX);
    // As many results as documents and no index twice: every slot is filled.
    Ok((scores.into_iter().flatten().collect(), share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_to_their_documents_in_either_form() {
        let body = br#"{"results": [{"index": 1, "relevance_score": 0.25, "document": {"text": "b"}}, {"index": 0, "score": 0}],
            "usage": {"total_tokens": 9}}"#;
        assert_eq!(in_order(read_object(body).unwrap(), 2).unwrap(), (vec![0.0, 0.25], 4));
        let list = br#"[{"index": 1, "score": 0.25}, {"index": 0, "text": "a", "score": -7.5}]"#;
        assert_eq!(in_order(read_list(list).unwrap(), 2).unwrap(), (vec![-7.5, 0.25], 0));
    }

    #[test]
    fn a_cached_score_is_the_one_that_was_sent() {
        for score in [0.0, -0.0, 0.1, 0.987_129_390_8, -11.25, 1e-300, f64::MAX] {
            let bytes = vector_of(score).map(f32::to_le_bytes).concat();
            assert_eq!(score_of(&bytes).map(f64::to_bits), Some(score.to_bits()));
        }
        assert_eq!(score_of(&[0; 4]), None);
    }

    #[test]
    fn a_reply_whose_scores_cannot_be_trusted_is_refused() {
        for body in [
            r#"{"results": []}"#,
            r#"{"results": [{"index": 0, "relevance_score": 1}]}"#,
            r#"{"results": [{"index": 0, "relevance_score": 1}, {"index": 0, "relevance_score": 1}]}"#,
            r#"{"results": [{"index": 0, "relevance_score": 1}, {"index": 2, "relevance_score": 1}]}"#,
            r#"{"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": 1e400}]}"#,
            r#"{"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": null}]}"#,
            "<html>",
        ] {
            let read = read_object(body.as_bytes()).and_then(|reply| in_order(reply, 2));
            assert_eq!(read.unwrap_err().kind(), Kind::Upstream, "{body}");
        }
        assert_eq!(read_list(br#"{"results": []}"#).err().map(|error| error.kind()), Some(Kind::Upstream));
    }
}
