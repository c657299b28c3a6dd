//! Endpoints of embeddings (`/embeddings` of OpenAI's API): what they reply, and the batches that they refuse.

mod batch_split;
mod error_reply;
mod reply;

use std::time::{Duration, Instant};

pub use batch_split::BatchSplit;
pub use error_reply::{Failure, FailureCause, RefusedReply};
pub use reply::{RemoteVector, read_vectors};

use super::EmbedJob;
use super::metrics::EmbedMetrics;
use crate::domain::Embedding;
use crate::error::Result;

/// Replies to the jobs of a call that began at `started`, each with the vector or the error of its text.
pub fn deliver(
    jobs: Vec<EmbedJob>,
    vectors: Vec<Result<RemoteVector>>,
    started: Instant,
    metrics: &EmbedMetrics,
) {
    let cost = started.elapsed() / u32::try_from(jobs.len().max(1)).unwrap_or(u32::MAX);
    for (job, vector) in jobs.into_iter().zip(vectors) {
        let embedding = vector.map(|vector| embedding_of(vector, cost, started, &job));
        if let Ok(embedding) = &embedding {
            metrics.embedded_texts.inc();
            metrics.embedded_tokens.inc_by(embedding.tokens.into());
        }
        // The receiver is closed if its caller has left.
        let _ = job.reply.send(embedding);
    }
}

fn embedding_of(vector: RemoteVector, cost: Duration, started: Instant, job: &EmbedJob) -> Embedding {
    Embedding {
        vector: vector.numbers.into(),
        tokens: vector.tokens,
        is_truncated: false,
        cost_us: u32::try_from(cost.as_micros()).unwrap_or(u32::MAX),
        queued: started.saturating_duration_since(job.since),
    }
}
