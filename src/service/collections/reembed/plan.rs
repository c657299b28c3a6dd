//! What it would take to embed a collection by another model.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fill::{LOCAL_BATCH_DOCUMENTS, blocking, count_tokens};
use super::task::{ReembedSpec, ReembedTask};
use crate::domain::Principal;
use crate::error::Result;
use crate::search::View;
use crate::service::background_work::{Interruption, WorkControl};
use crate::service::{Collections, Directives};

/// Texts that are looked up and tokenized between two looks for an order to stop.
const BATCH_TEXTS: usize = 512;
/// For how long the rate is measured, at least.
const TIMED_FOR: Duration = Duration::from_secs(3);
/// Texts that are embedded at most to measure the rate.
const TIMED_TEXTS_MAX: usize = 512;
/// Bytes of a row beside its vector and its document: its place in the table, and its code (one byte a number) in memory.
const ROW_BYTES: usize = 16;

/// What it would take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReembedPlan {
    /// The model whose vectors are served.
    pub from_model: String,
    /// The model whose vectors would be served.
    pub to_model: String,
    /// Length of the new vectors.
    pub dimensions: usize,
    /// Documents of the collection.
    pub documents: usize,
    /// Their distinct texts.
    pub distinct_texts: usize,
    /// Of these, those whose vectors of the new model are in the cache.
    pub cached_texts: usize,
    /// Tokens of all distinct texts, as far as the model reads them.
    pub tokens: u64,
    /// Of these, those that would be sent to the model.
    pub uncached_tokens: u64,
    /// Whether tokens were counted by the model's own tokenizer. Otherwise by that of OpenAI's models (cl100k).
    pub is_exact: bool,
    /// Seconds, by the rate of a sample that was embedded. `None` for a model on another server, which may charge for it.
    pub seconds: Option<f64>,
    /// Dollars by the price table; `None` if it does not name the model.
    pub cost_usd: Option<f64>,
    /// Bytes on disk until the former generation is removed, indexes not counted.
    pub disk_bytes: u64,
}

impl Collections {
    pub(super) async fn plan(
        &self,
        principal: &Arc<Principal>,
        spec: &ReembedSpec,
        task: &ReembedTask,
        control: &WorkControl,
    ) -> Result<ReembedPlan, Interruption> {
        let view = task.source.view();
        let card = task.model.card();
        let looked_at = Arc::clone(&view);
        let (texts, document_bytes) = blocking(move || distinct_texts(&looked_at)).await?;
        let documents = view.documents();
        let mut plan = ReembedPlan {
            from_model: task.from_model.clone(),
            to_model: card.name.clone(),
            dimensions: card.dim,
            documents,
            distinct_texts: texts.len(),
            cached_texts: 0,
            tokens: 0,
            uncached_tokens: 0,
            is_exact: false,
            seconds: None,
            cost_usd: None,
            disk_bytes: (documents * (card.dim * 4 + ROW_BYTES) + document_bytes) as u64,
        };
        let mut uncached_texts = Vec::new();
        let mut looked_up = 0;
        for batch in texts.chunks(BATCH_TEXTS) {
            control.check()?;
            let request = self.background_request(&task.model, batch.to_vec(), principal);
            let cached = self.embeddings.cached(&request).await?;
            plan.tokens += count_tokens(&request, batch.to_vec()).await?;
            let missing = batch.iter().zip(cached).filter(|(_, is_cached)| !is_cached);
            let uncached: Vec<String> = missing.map(|(text, _)| text.clone()).collect();
            plan.cached_texts += batch.len() - uncached.len();
            plan.uncached_tokens += count_tokens(&request, uncached.clone()).await?;
            uncached_texts.extend(uncached);
            looked_up += batch.len();
            control.set_progress(looked_up as u64, texts.len() as u64);
        }
        plan.is_exact = task.model.is_local();
        plan.cost_usd = control.price_of(plan.uncached_tokens);
        if plan.is_exact {
            let rate = self.tokens_per_second(principal, task, &uncached_texts, control).await?;
            plan.seconds = Some(rate.map_or(0.0, |rate| plan.uncached_tokens as f64 / rate));
        }
        tracing::info!(collection = spec.collection, ?plan, "planned to embed a collection again");
        Ok(plan)
    }

    /// Tokens of a second of texts that are spread over those that are to be embedded; `None` if there are none.
    async fn tokens_per_second(
        &self,
        principal: &Arc<Principal>,
        task: &ReembedTask,
        texts: &[String],
        control: &WorkControl,
    ) -> Result<Option<f64>, Interruption> {
        let every = texts.len().div_ceil(TIMED_TEXTS_MAX).max(1);
        let sample: Vec<String> = texts.iter().step_by(every).cloned().collect();
        let (mut tokens, mut spent) = (0, Duration::ZERO);
        for batch in sample.chunks(LOCAL_BATCH_DOCUMENTS) {
            control.check()?;
            let mut request = self.background_request(&task.model, batch.to_vec(), principal);
            request.directives = Directives { no_cache: true, no_store: true, ..Directives::default() };
            let started = Instant::now();
            tokens += self.embeddings.embed(&request).await?.tokens;
            spent += started.elapsed();
            if spent >= TIMED_FOR {
                break;
            }
        }
        Ok((tokens > 0).then(|| tokens as f64 / spent.as_secs_f64()))
    }
}

/// The distinct texts of a view in the order of their documents, and the bytes of all documents.
fn distinct_texts(view: &View) -> (Vec<String>, usize) {
    let (mut seen, mut texts, mut bytes) = (HashSet::new(), Vec::new(), 0);
    for (document, _) in view.iter() {
        let text = document.text.unwrap_or_default();
        bytes += text.len() + document.id.len() + document.metadata.len();
        if !text.is_empty() && seen.insert(text) {
            texts.push(text.to_owned());
        }
    }
    (texts, bytes)
}
