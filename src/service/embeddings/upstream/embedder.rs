//! A model of an upstream as an embedder: each batch that it is given is one call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::{RawValue, to_raw_value};
use tracing::Instrument as _;

use super::request::InputForm;
use crate::domain::{Clock as _, Fingerprint, SystemClock};
use crate::embed::endpoint::{BatchSplit, Failure, RemoteVector, deliver, read_vectors};
use crate::embed::{EmbedJob, EmbedMetrics, Embedder, Matryoshka, ModelCard, Prompts};
use crate::error::{Error, Kind, Result};
use crate::service::upstream_calls::{ModelCall, fault_of_upstream, unwritten};

/// The path of embeddings below an upstream's `/v1`.
pub(super) const PATH: &str = "/embeddings";

/// Bytes of the longest reply: of so many texts with vectors of 4,096 numbers in decimals. The budget of all requests ends most before.
const REPLY_BYTES_PER_TEXT: usize = 4096 * 32;
const REPLY_BYTES_EXTRA: usize = 64 * 1024;
/// Longer replies are parsed on a thread that may block.
const INLINE_BYTES: usize = 64 * 1024;

/// The calls for one request.
pub(super) struct EmbedCall {
    pub(super) call: ModelCall,
    pub(super) form: InputForm,
    pub(super) metrics: Arc<EmbedMetrics>,
}

/// A model of an upstream, for one request: with its fields, its headers and its credential.
pub(super) struct UpstreamEmbedder<F> {
    card: ModelCard,
    call: Arc<EmbedCall>,
    /// Refuses vectors whose length is not that of those before.
    expect: F,
}

impl<F: Fn(usize) -> Result<()> + Clone + Send + Sync + 'static> UpstreamEmbedder<F> {
    pub(super) fn new(
        call: EmbedCall,
        fingerprint: Fingerprint,
        dim: usize,
        expect: F,
    ) -> UpstreamEmbedder<F> {
        let card = ModelCard {
            name: call.call.model.clone().unwrap_or_default(),
            fingerprint,
            dim,
            tokens_max: usize::MAX,
            prompts: Prompts::default(),
            pooling: None,
            matryoshka: Matryoshka::No,
            created: SystemClock.now(),
        };
        UpstreamEmbedder { card, call: Arc::new(call), expect }
    }
}

impl<F: Fn(usize) -> Result<()> + Clone + Send + Sync + 'static> Embedder for UpstreamEmbedder<F> {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Calls the upstream at once. How many calls there are at a time is limited by it, how many texts by the requests in flight.
    fn submit(&self, jobs: Vec<EmbedJob>) -> Result<()> {
        let (call, expect) = (Arc::clone(&self.call), self.expect.clone());
        tokio::spawn(async move { call.run(jobs, expect).await }.in_current_span());
        Ok(())
    }
}

impl EmbedCall {
    /// Embeds a batch: in one call, and in parts if the upstream refuses it.
    async fn run(&self, jobs: Vec<EmbedJob>, expect: impl Fn(usize) -> Result<()>) {
        let (mut parts, mut refused) = (BatchSplit::new(jobs), Vec::new());
        while let Some(mut part) = parts.next() {
            let count = part.len();
            part.retain(|job| !job.is_unwanted());
            self.metrics.dropped_texts.inc_by((count - part.len()) as u64);
            if part.is_empty() {
                continue;
            }
            let started = Instant::now();
            let outcome = self.embed(&part).await.and_then(|vectors| {
                let mut lengths = vectors.iter().flatten().map(|vector| vector.numbers.len());
                lengths.try_for_each(&expect).map_err(fault_of_upstream)?;
                Ok(vectors)
            });
            self.metrics.batches.inc();
            self.metrics.batch_texts.observe(part.len() as f64);
            self.metrics.inference_seconds.observe(started.elapsed().as_secs_f64());
            match outcome {
                Ok(vectors) => {
                    parts.has_succeeded = true;
                    deliver(part, vectors, started, &self.metrics);
                }
                Err(failure) => refused.extend(parts.split(part, failure)),
            }
        }
        for (part, error) in refused {
            // Where all parts are refused, no text is the cause. The upstream does not know the place of a text that was sent alone.
            let is_of_text = parts.has_succeeded && part.len() == 1 && error.kind() != Kind::Upstream;
            let error = if is_of_text { error.param("text") } else { error };
            // The receiver is closed if its caller has left.
            part.into_iter().for_each(|job| _ = job.reply.send(Err(error.clone())));
        }
    }

    async fn embed(&self, part: &[EmbedJob]) -> Result<Vec<Result<RemoteVector>>, Failure> {
        let own =
            BTreeMap::from([("input", self.input(part).map_err(unwritten).map_err(fault_of_upstream)?)]);
        let mut reply = self.call.post(&own).await?;
        let bytes_max = part.len().saturating_mul(REPLY_BYTES_PER_TEXT).saturating_add(REPLY_BYTES_EXTRA);
        let body = reply.whole(bytes_max).await.map_err(fault_of_upstream)?;
        let lengths: Vec<usize> = part.iter().map(|job| job.text.len()).collect();
        let read = if body.len() <= INLINE_BYTES {
            read_vectors(&body, &lengths, None)
        } else {
            let read = tokio::task::spawn_blocking(move || read_vectors(&body, &lengths, None)).await;
            let lost = |error| Error::new(Kind::Internal, "cannot read the upstream's vectors").source(error);
            read.map_err(lost).flatten()
        };
        read.map_err(fault_of_upstream)
    }

    fn input(&self, part: &[EmbedJob]) -> serde_json::Result<Box<RawValue>> {
        let input = |job: &EmbedJob| match self.form {
            InputForm::Text => to_raw_value(&job.text),
            InputForm::TokenIds => RawValue::from_string(job.text.clone()),
        };
        to_raw_value(&part.iter().map(input).collect::<serde_json::Result<Vec<_>>>()?)
    }
}
