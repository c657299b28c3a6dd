//! Making, filling and describing collections.

use std::collections::HashSet;
use std::future::ready;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tracing::instrument;

use super::Collections;
use super::query_vectors::{collection_model, prepare};
use crate::domain::{InputType, Principal, Tag, TenantId};
use crate::error::{Error, FieldPath, Kind, Result};
use crate::search::{
    Change, ChangeGuard, Collection, CollectionModel, Document, DocumentBatch, ID_BYTES_MAX, Indexed,
    METADATA_BYTES_MAX, Metric, Receipt, Settings, TAGS_MAX,
};

/// Generations of a collection for which a change is made ready: the one that is served changes rarely.
const GENERATIONS_TRIED: usize = 3;

/// What a collection is to be.
#[derive(Debug, Clone)]
pub struct Spec {
    /// How vectors are compared.
    pub metric: Metric,
    /// The model whose vectors it is to hold, by the name that this server knows it by.
    pub model: Option<String>,
    /// Length of its vectors. With it and without a model, clients bring the vectors.
    pub dim: Option<usize>,
    /// Which index it has.
    pub index: Indexed,
}

/// A document to be stored.
#[derive(Debug, Clone, Default)]
pub struct NewDocument {
    /// Its id; the server makes one for a document without.
    pub id: Option<String>,
    /// Its text.
    pub text: Option<String>,
    /// A JSON object; empty if there is none.
    pub metadata: String,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its vector; without one its text is embedded.
    pub vector: Option<Vec<f32>>,
}

/// The effect of storing documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpsertOutcome {
    /// How many were stored, and the version.
    pub receipt: Receipt,
    /// The ids of all of them in their order, if the server made one of these.
    pub ids: Option<Vec<String>>,
}

impl Collections {
    /// Creates a collection, of the default model unless the spec names another, and returns whether it is new.
    ///
    /// # Errors
    /// `InvalidInput` for a name or a dimension that cannot be one, and for none where no model is served; `ModelNotFound`,
    /// `Conflict` if it is there and of another kind, `Overloaded` if there are too many, `Io`, `DiskFull`.
    ///
    /// Cancel safety: a started call runs to its end, before another one creates or drops a collection.
    #[instrument(level = "debug", skip_all, fields(collection = name), err(level = "debug"))]
    pub async fn create(
        &self,
        principal: &Principal,
        name: &str,
        spec: Spec,
    ) -> Result<(Arc<Collection>, bool)> {
        let (model, dim) = self.model_and_dim(&spec)?;
        let max = self.options.dimensions_max;
        if !(1..=max).contains(&dim) {
            return Err(Error::invalid("dim", format!("dim must be 1 to {max}, got {dim}")));
        }
        let settings = Settings { metric: spec.metric, dim, model, index: spec.index };
        let (catalog, tenant, name) = (Arc::clone(&self.catalog), principal.tenant.clone(), name.to_owned());
        tokio::spawn(async move { catalog.create(&tenant, &name, settings).await })
            .await
            .map_err(|died| Error::new(Kind::Internal, "cannot make a collection").source(died))?
    }

    /// The model of a collection and the length of its vectors.
    fn model_and_dim(&self, spec: &Spec) -> Result<(Option<CollectionModel>, usize)> {
        let embedder = match (&spec.model, spec.dim) {
            (None, Some(dim)) => return Ok((None, dim)),
            (None, None) => self.models.default_model().map_err(|error| {
                let fault = format!(" must be given without a model: {}", error.message());
                Error::naming(Kind::InvalidInput, "dim", "", &fault)
            })?,
            (Some(name), _) => self.model_for_collection(name)?,
        };
        let card = embedder.card();
        if let Some(dim) = spec.dim.filter(|dim| *dim != card.dim) {
            let message = format!("the vectors of {} have {} numbers, not {dim}", card.name, card.dim);
            return Err(Error::invalid("dim", message));
        }
        Ok((Some(collection_model(card)), card.dim))
    }

    /// A collection of the sender's tenant.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if it could not be opened.
    pub fn get(&self, principal: &Principal, name: &str) -> Result<Arc<Collection>> {
        self.catalog.get(&principal.tenant, name)
    }

    /// All collections of the sender's tenant, sorted by name; without its content one that could not be opened.
    pub fn list(&self, principal: &Principal) -> Vec<(String, Option<Arc<Collection>>)> {
        self.catalog.list(&principal.tenant)
    }

    /// The tenants and names of all collections.
    pub fn names(&self) -> Vec<(TenantId, String)> {
        self.catalog.names()
    }

    /// Whether the tenant has a collection of this name here.
    pub fn has(&self, tenant: &TenantId, name: &str) -> bool {
        self.catalog.has(tenant, name)
    }

    /// Drops a collection with everything in it.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    ///
    /// Cancel safety: what has begun is finished.
    #[instrument(level = "debug", skip_all, fields(collection = name), err(level = "debug"))]
    pub async fn drop_collection(&self, principal: &Principal, name: &str) -> Result<()> {
        let (catalog, tenant, name) = (Arc::clone(&self.catalog), principal.tenant.clone(), name.to_owned());
        tokio::spawn(async move { catalog.drop_collection(&tenant, &name).await })
            .await
            .map_err(|died| Error::new(Kind::Internal, "cannot drop a collection").source(died))?
    }

    /// Stores documents in the place of those with the same ids: all of them, or none. A text that is longer than the model
    /// reads is embedded as far as it does, or refused if it must not be cut. A document without an id gets one.
    ///
    /// # Errors
    /// `InvalidInput` naming the row and the field; `Conflict` for a text in a collection of another model; `NotFound`;
    /// what embedding may say; `Io`, `DiskFull`, `Unavailable` if the disk did not take them.
    ///
    /// Cancel safety: documents that were sent to the disk are stored.
    #[instrument(level = "debug", skip_all, fields(collection = name), err(level = "debug"))]
    pub async fn upsert(
        &self,
        principal: &Arc<Principal>,
        name: &str,
        drafts: Vec<NewDocument>,
        truncate: bool,
    ) -> Result<UpsertOutcome> {
        self.catalog.get(&principal.tenant, name)?;
        self.check_drafts(&drafts)?;
        let (drafts, ids) = self.with_ids(drafts)?;
        let mut brought = Vec::with_capacity(drafts.len());
        let mut documents = Vec::with_capacity(drafts.len());
        for draft in drafts {
            documents.push(Document {
                id: draft.id.unwrap_or_default(),
                text: draft.text,
                metadata: draft.metadata,
                tags: draft.tags,
                has_own_vector: draft.vector.is_some(),
            });
            brought.push(draft.vector);
        }
        let (vectors, guard) = self
            .while_served(principal, name, |collection| {
                self.vectors_of(collection, &documents, &brought, truncate, principal).boxed()
            })
            .await?;
        let receipt = guard.change(Change::Upsert(DocumentBatch { vectors, documents })).await?;
        Ok(UpsertOutcome { receipt, ids })
    }

    /// The vectors of documents, prepared, one after the other: those that they brought, and the others from their texts.
    async fn vectors_of(
        &self,
        collection: Arc<Collection>,
        documents: &[Document],
        brought: &[Option<Vec<f32>>],
        truncate: bool,
        principal: &Arc<Principal>,
    ) -> Result<Vec<f32>> {
        let mut vectors = brought.to_vec();
        let mut rows = Vec::new();
        let mut texts = Vec::new();
        for (row, document) in documents.iter().enumerate().filter(|(_, document)| !document.has_own_vector) {
            rows.push(row);
            texts.push(text_of(row, document)?);
        }
        let first_text = rows.first().map(|&row| field_of(row, "text"));
        let model = first_text.map(|field| self.model_of(&collection, field)).transpose()?;
        // Vectors that were brought are looked at before any text is embedded.
        for (row, vector) in vectors.iter_mut().enumerate() {
            if let Some(vector) = vector {
                prepare(&collection, vector, field_of(row, "vector"))?;
            }
        }
        if let Some(model) = model {
            let path = |text: usize| field_of(rows[text], "text");
            let embedded = self.embed(model, texts, InputType::Document, truncate, principal, path).await;
            let embedded =
                embedded.map_err(|error| error.map_field(|field| field.renamed("texts", "documents")))?;
            for (&row, mut vector) in rows.iter().zip(embedded) {
                prepare(&collection, &mut vector, field_of(row, "text"))?;
                vectors[row] = Some(vector);
            }
        }
        Ok(vectors.into_iter().flatten().collect::<Vec<_>>().concat())
    }

    /// What `make` makes for the generation of a collection that is served, with the right to change it: again, if another generation is
    /// served when it is made.
    pub(super) async fn while_served<'a, T>(
        &self,
        principal: &Principal,
        name: &str,
        make: impl Fn(Arc<Collection>) -> BoxFuture<'a, Result<T>>,
    ) -> Result<(T, ChangeGuard)> {
        for _ in 0..GENERATIONS_TRIED {
            let collection = self.catalog.get(&principal.tenant, name)?;
            let made = make(Arc::clone(&collection)).await?;
            if let Some(guard) = collection.admit_change().await {
                return Ok((made, guard));
            }
        }
        let message = "the collection takes no changes: which of its generations is served is known at the next start only";
        Err(Error::new(Kind::Unavailable, message).with("collection", name))
    }

    /// Removes documents. Ids that are not there are not an error.
    ///
    /// # Errors
    /// `InvalidInput` for too many ids, `NotFound`, `Io`, `DiskFull`, `Unavailable`.
    ///
    /// Cancel safety: what was sent to the disk is removed.
    #[instrument(level = "debug", skip_all, fields(collection = name), err(level = "debug"))]
    pub async fn delete(&self, principal: &Principal, name: &str, change: Change) -> Result<Receipt> {
        let max = self.options.documents_max;
        if let Change::Delete(ids) = &change
            && ids.len() > max
        {
            let message = format!("at most {max} documents are removed at once, got {}", ids.len());
            return Err(Error::invalid("ids", message));
        }
        let ((), guard) = self.while_served(principal, name, |_| ready(Ok(())).boxed()).await?;
        guard.change(change).await
    }

    /// The documents, each with an id; and the ids, if one is new.
    fn with_ids(&self, mut drafts: Vec<NewDocument>) -> Result<(Vec<NewDocument>, Option<Vec<String>>)> {
        let missing = drafts.iter().filter(|draft| draft.id.is_none()).count();
        if missing == 0 {
            return Ok((drafts, None));
        }
        let mut made = self.document_ids.take(missing)?.into_iter();
        for draft in drafts.iter_mut().filter(|draft| draft.id.is_none()) {
            draft.id = made.next();
        }
        let ids = drafts.iter().filter_map(|draft| draft.id.clone()).collect();
        Ok((drafts, Some(ids)))
    }

    fn check_drafts(&self, drafts: &[NewDocument]) -> Result<()> {
        let max = self.options.documents_max;
        if !(1..=max).contains(&drafts.len()) {
            let message = format!("a request stores 1 to {max} documents, got {}", drafts.len());
            return Err(Error::invalid("documents", message));
        }
        let mut ids = HashSet::with_capacity(drafts.len());
        for (row, draft) in drafts.iter().enumerate() {
            let fault = |field, message: String| Err(Error::invalid(field_of(row, field), message));
            if let Some(id) = &draft.id {
                if !(1..=ID_BYTES_MAX).contains(&id.len()) {
                    return fault("id", format!("id must have 1 to {ID_BYTES_MAX} bytes, got {}", id.len()));
                }
                if !ids.insert(id.as_str()) {
                    return fault("id", format!("the id {id:?} is there twice in one request"));
                }
            }
            if draft.metadata.len() > METADATA_BYTES_MAX {
                return fault("metadata", format!("metadata must have at most {METADATA_BYTES_MAX} bytes"));
            }
            if draft.tags.len() > TAGS_MAX {
                return fault("tags", format!("a document must have at most {TAGS_MAX} tags"));
            }
        }
        Ok(())
    }
}

/// The field of a document in the order of the request.
fn field_of(row: usize, field: &'static str) -> FieldPath {
    FieldPath::from("documents").element(row).field(field)
}

fn text_of(row: usize, document: &Document) -> Result<String> {
    match document.text.as_deref() {
        None => {
            let message = "a document has a text, a vector, or both";
            Err(Error::invalid(field_of(row, "text"), message))
        }
        Some("") => {
            let message = "text must not be empty without a vector";
            Err(Error::invalid(field_of(row, "text"), message))
        }
        Some(text) => Ok(text.to_owned()),
    }
}
