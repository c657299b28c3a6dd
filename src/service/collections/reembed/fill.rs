//! Filling a generation: passes over the served one, each of which embeds what is not in the new one yet.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::task::ReembedTask;
use crate::domain::{Key, KeyHasher, Principal};
use crate::embed::{Embedder, count_cl100k};
use crate::error::{Error, FieldPath, Kind, Result};
use crate::pacing::backoff;
use crate::search::{Change, Collection, Difference, Document, DocumentBatch, View};
use crate::service::Collections;
use crate::service::background_work::{Interruption, WorkControl};
use crate::service::collections::query_vectors::{prepare, vector_of};
use crate::service::embeddings::Request;

/// Documents that a local model embeds at once, which are one record of the log and one flush. More would be embedded no faster, and more of them again
/// after a crash.
pub(super) const LOCAL_BATCH_DOCUMENTS: usize = 32;
/// Documents that a model on another server embeds at once. Fewer would wait for the network more often.
const REMOTE_BATCH_DOCUMENTS: usize = 64;
/// Rows that are compared between two looks for an order to stop.
const BATCH_ROWS: usize = 8192;
/// Changed documents after which a pass is followed by another one.
const CONVERGED_DOCUMENTS_MAX: usize = 32;
/// How often a model that fails is asked, before the work pauses. One that is busy is asked for as long as it is.
const ATTEMPTS_MAX: u32 = 12;
/// The shortest and the longest wait for a model that is busy or fails.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// Why the vector of a document cannot be made again.
pub(super) fn own_vector(has_own_vector: bool, text: Option<&str>) -> Option<&'static str> {
    match text {
        _ if has_own_vector => Some("the document brought its vector, which no model can make again"),
        None | Some("") => Some("the document has no text"),
        Some(_) => None,
    }
}

/// The work of filling a generation.
pub(super) struct Fill<'a> {
    collections: &'a Collections,
    control: &'a WorkControl,
    principal: &'a Arc<Principal>,
    source: &'a Arc<Collection>,
    target: &'a Arc<Collection>,
    model: &'a Arc<dyn Embedder>,
    /// Documents that cannot be embedded, as they were when that was found.
    refused: HashMap<String, Key>,
    /// Documents that stay in the new generation though the served one lacks them: when that was filled, its model refused them.
    left: HashSet<String>,
    /// Documents that are embedded and stored at once.
    batch_documents: usize,
}

impl<'a> Fill<'a> {
    pub(super) fn new(
        collections: &'a Collections,
        control: &'a WorkControl,
        principal: &'a Arc<Principal>,
        task: &'a ReembedTask,
        target: &'a Arc<Collection>,
        left: HashSet<String>,
    ) -> Fill<'a> {
        let (source, model) = (&task.source, &task.model);
        let batch_documents = if model.is_local() { LOCAL_BATCH_DOCUMENTS } else { REMOTE_BATCH_DOCUMENTS };
        Fill {
            collections,
            control,
            principal,
            source,
            target,
            model,
            refused: HashMap::new(),
            left,
            batch_documents,
        }
    }

    pub(super) fn source(&self) -> &'a Arc<Collection> {
        self.source
    }

    pub(super) fn target(&self) -> &'a Arc<Collection> {
        self.target
    }

    /// Documents that cannot be embedded and are still there as they were.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Passes until one has found little to do.
    pub(super) async fn converge(&mut self) -> Result<(), Interruption> {
        while self.pass().await? > CONVERGED_DOCUMENTS_MAX {}
        Ok(())
    }

    /// A pass that ends at once if it has more to do than `documents_max`. Returns whether nothing is left.
    pub(super) async fn last_pass(&mut self, documents_max: usize) -> Result<bool, Interruption> {
        let (source, target) = (self.source.view(), self.target.view());
        let limit = documents_max + self.refused.len();
        let missing = blocking(move || source.difference((0, 0), &target, limit + 1, usize::MAX)).await?;
        if missing.documents.len() > limit {
            return Ok(false);
        }
        self.pass().await?;
        Ok(true)
    }

    /// Embeds and stores what the new generation lacks or has otherwise, and removes what is gone. Returns how many documents were changed.
    async fn pass(&mut self) -> Result<usize, Interruption> {
        let source = self.source.view();
        let (mut done, mut changed, mut cursor) = (0, 0, Some((0, 0)));
        self.refused
            .retain(|id, text| source.get(id).is_some_and(|(document, _)| hash(document.text) == *text));
        // What a client has stored again may be removed by a client.
        self.left.retain(|id| source.get(id).is_none());
        while let Some(from) = cursor {
            self.control.check()?;
            let difference = self.next(&source, &self.target.view(), from, self.batch_documents).await?;
            done += difference.common;
            let stored = self.copy(difference.documents).await?;
            (done, changed) = (done + stored, changed + stored);
            self.control.set_progress(done as u64, source.documents() as u64);
            cursor = difference.next;
        }
        Ok(changed + self.remove_gone(&source).await?)
    }

    async fn next(
        &self,
        source: &Arc<View>,
        target: &Arc<View>,
        from: (usize, usize),
        documents_max: usize,
    ) -> Result<Difference> {
        let (source, target) = (Arc::clone(source), Arc::clone(target));
        blocking(move || source.difference(from, &target, documents_max, BATCH_ROWS)).await
    }

    /// Removes documents that are gone since they were stored. Returns how many.
    async fn remove_gone(&self, source: &Arc<View>) -> Result<usize, Interruption> {
        let target = self.target.view();
        let (mut removed, mut cursor) = (0, Some((0, 0)));
        while let Some(from) = cursor {
            self.control.check()?;
            let (views, rows) = ((Arc::clone(&target), Arc::clone(source)), BATCH_ROWS);
            let (mut ids, next) = blocking(move || views.0.ids_missing_in(&views.1, from, rows)).await?;
            ids.retain(|id| !self.left.contains(id));
            if !ids.is_empty() {
                removed += self.target.fill(Change::Delete(ids)).await?.documents;
            }
            cursor = next;
        }
        Ok(removed)
    }

    /// Stores documents with vectors of the new model. Returns how many.
    async fn copy(&mut self, documents: Vec<Document>) -> Result<usize, Interruption> {
        let mut wanted = Vec::with_capacity(documents.len());
        for document in documents {
            if self.refused.get(&document.id) == Some(&hash(document.text.as_deref())) {
                continue;
            }
            match own_vector(document.has_own_vector, document.text.as_deref()) {
                Some(reason) => self.refuse(document, reason).await?,
                None => wanted.push(document),
            }
        }
        if wanted.is_empty() {
            return Ok(0);
        }
        self.spend(&wanted).await?;
        let (mut waiting, mut stored, mut attempts) = (vec![wanted], 0, 0);
        while let Some(batch) = waiting.pop() {
            let error = match self.embed_and_store(&batch).await {
                Ok(()) => {
                    (stored, attempts) = (stored + batch.len(), 0);
                    continue;
                }
                Err(error) => error,
            };
            if is_final(error.kind()) {
                return Err(error.into());
            }
            if !is_refusal(error.kind()) {
                attempts += 1;
                self.wait_for_model(&error, attempts).await?;
                waiting.push(batch);
                continue;
            }
            waiting.extend(self.split(batch, &error).await?);
        }
        Ok(stored)
    }

    /// What is left of a batch of which a text was refused: without the text if the error names it or it is alone, else its halves.
    async fn split(
        &mut self,
        mut batch: Vec<Document>,
        error: &Error,
    ) -> Result<Vec<Vec<Document>>, Interruption> {
        let named =
            error.field().and_then(|field| field.index_in("texts")).filter(|&text| text < batch.len());
        if let Some(refused) = named.or((batch.len() == 1).then_some(0)) {
            let document = batch.remove(refused);
            self.refuse(document, error.message()).await?;
            return Ok(if batch.is_empty() { Vec::new() } else { vec![batch] });
        }
        let behind = batch.split_off(batch.len() / 2);
        Ok(vec![behind, batch])
    }

    /// Notes that a document cannot be embedded. A former version of it is not served in its place.
    async fn refuse(&mut self, document: Document, reason: &str) -> Result<(), Interruption> {
        self.control.refuse(&document.id, reason);
        self.refused.insert(document.id.clone(), hash(document.text.as_deref()));
        if self.target.view().get(&document.id).is_some() {
            self.target.fill(Change::Delete(vec![document.id])).await?;
        }
        Ok(())
    }

    /// Waits for the pace, and counts the tokens of texts that are in no cache.
    async fn spend(&self, documents: &[Document]) -> Result<(), Interruption> {
        let request = self.request(documents);
        let cached = self.collections.embeddings.cached(&request).await?;
        let missing = request.texts.iter().zip(cached).filter(|(_, is_cached)| !is_cached);
        let texts: BTreeSet<&String> = missing.map(|(text, _)| text).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let texts = texts.into_iter().cloned().collect();
        self.control.spend(count_tokens(&request, texts).await?).await
    }

    /// The request for the vectors of documents, which goes behind those of clients.
    fn request(&self, documents: &[Document]) -> Request {
        let texts = documents.iter().filter_map(|document| document.text.clone()).collect();
        self.collections.background_request(self.model, texts, self.principal)
    }

    async fn embed_and_store(&self, batch: &[Document]) -> Result<()> {
        let embedded = self.collections.embeddings.embed(&self.request(batch)).await?;
        let mut vectors = Vec::with_capacity(batch.len() * self.target.settings().dim);
        for (text, entry) in embedded.entries.iter().enumerate() {
            let mut vector = vector_of(entry);
            prepare(self.target, &mut vector, FieldPath::from("texts").element(text))?;
            vectors.extend_from_slice(&vector);
        }
        let documents = batch.to_vec();
        self.target.fill(Change::Upsert(DocumentBatch { vectors, documents })).await.map(|_| ())
    }

    async fn wait_for_model(&self, error: &Error, attempts: u32) -> Result<(), Interruption> {
        if attempts > ATTEMPTS_MAX && error.kind() != Kind::Overloaded {
            let reason = format!("the model cannot be asked, or the disk takes no documents: {error}");
            return Err(Interruption::Paused(Some(reason)));
        }
        let asked = error.retry_after_seconds().map(|seconds| Duration::from_secs(seconds.into()));
        let wait = asked.unwrap_or_else(|| backoff(attempts, WAITS[0], WAITS[1]));
        tracing::debug!(%error, ?wait, "a batch of documents is embedded later");
        self.control.wait(wait.min(WAITS[1])).await
    }
}

/// Tokens that texts of a request have for its model: by its tokenizer, or, where that is not known, by that of OpenAI's models.
pub(super) async fn count_tokens(request: &Request, texts: Vec<String>) -> Result<u64> {
    let card = request.model.card();
    let prompt = card.prompts.for_input(request.input_type);
    let texts: Vec<String> = texts.into_iter().map(|text| format!("{prompt}{text}")).collect();
    let counts = match request.model.count_tokens(texts.clone()).await? {
        Some(counts) => counts,
        None => blocking(move || count_cl100k(&texts)).await?,
    };
    Ok(counts.into_iter().map(|count| count.min(card.tokens_max) as u64).sum())
}

/// Whether the same would fail again and again: the collection or the model is gone.
fn is_final(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::ModelNotFound | Kind::Conflict | Kind::Internal)
}

/// Whether a model refuses a text for what it is.
fn is_refusal(kind: Kind) -> bool {
    matches!(kind, Kind::InvalidInput | Kind::TooLarge | Kind::Unprocessable)
}

fn hash(text: Option<&str>) -> Key {
    KeyHasher::new("likewise/refused-text/v1").field(text.unwrap_or_default().as_bytes()).finish()
}

/// Runs work that takes long on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let died = |died| Error::new(Kind::Internal, "the work on a collection has panicked").source(died);
    tokio::task::spawn_blocking(work).await.map_err(died)
}
