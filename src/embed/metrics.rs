//! The metrics of models.

use crate::metrics::{Counter, Gauge, Histogram, ModuleMetrics, Registry, exponential_buckets};

/// The metrics of models.
#[derive(Debug)]
pub struct EmbedMetrics {
    /// Forward passes of a local model, or calls of a remote one.
    pub batches: Counter,
    /// Texts in each pass.
    pub batch_texts: Histogram,
    /// Texts that a model has embedded.
    pub embedded_texts: Counter,
    /// Tokens that a model has read.
    pub embedded_tokens: Counter,
    /// Seconds that each pass took.
    pub inference_seconds: Histogram,
    /// Texts in the queue of the model.
    pub queued_texts: Gauge,
    /// Texts dropped before their pass, since all their callers had left.
    pub dropped_texts: Counter,
    /// Retries of calls of a remote model.
    pub retries: Counter,
}

impl ModuleMetrics for EmbedMetrics {
    fn register(registry: &mut Registry) -> EmbedMetrics {
        EmbedMetrics {
            batches: registry.counter("batches", "Forward passes"),
            batch_texts: registry.histogram(
                "batch_texts",
                "Texts in a pass",
                exponential_buckets(1.0, 2.0, 12),
            ),
            embedded_texts: registry.counter("embedded_texts", "Texts embedded by the model"),
            embedded_tokens: registry.counter("embedded_tokens", "Tokens read by the model"),
            inference_seconds: registry.seconds("inference", "Time of a pass"),
            queued_texts: registry.gauge("queued_texts", "Texts waiting for the model"),
            dropped_texts: registry.counter("dropped_texts", "Texts dropped unstarted"),
            retries: registry.counter("embedding_retries", "Retries of calls of a remote model"),
        }
    }
}
