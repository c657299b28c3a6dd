//! Partial updates of documents.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tracing::instrument;

use super::Collections;
use super::query_vectors::prepare;
use crate::domain::{InputType, Principal};
use crate::error::{Error, Result};
use crate::search::{Change, Collection, DocumentPatch, Receipt};

impl Collections {
    /// Changes some members of a document. A new text without a vector is embedded, as far as the model reads it; other changes leave
    /// the vector as it is. Patches of one document at the same time are all applied, one after the other.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` naming the member; `Conflict` for a text in a collection without a model or of one that is not
    /// loaded; what embedding may say; `Io`, `DiskFull`, `Unavailable` if the disk did not take the change.
    ///
    /// Cancel safety: a patch that was sent to the disk is stored.
    #[instrument(level = "debug", skip_all, fields(collection = name), err(level = "debug"))]
    pub async fn patch(
        &self,
        principal: &Arc<Principal>,
        name: &str,
        id: String,
        mut patch: DocumentPatch,
    ) -> Result<Receipt> {
        patch.has_own_vector = patch.vector.is_some();
        let vector = |collection| self.patched_vector(collection, &id, &patch, principal).boxed();
        let (vector, guard) = self.while_served(principal, name, vector).await?;
        patch.vector = vector;
        guard.change(Change::Patch(id, patch)).await
    }

    /// The new vector of a document, if it is to have one.
    async fn patched_vector(
        &self,
        collection: Arc<Collection>,
        id: &str,
        patch: &DocumentPatch,
        principal: &Arc<Principal>,
    ) -> Result<Option<Vec<f32>>> {
        match (&patch.vector, &patch.text) {
            (Some(vector), _) => {
                let mut vector = vector.clone();
                prepare(&collection, &mut vector, "vector")?;
                Ok(Some(vector))
            }
            // A text of a missing document is not embedded. The writer refuses it, even if the document is stored meanwhile.
            (None, Some(Some(text))) if collection.view().get(id).is_some() => {
                self.document_vector(&collection, text, principal).await.map(Some)
            }
            (None, _) => Ok(None),
        }
    }

    async fn document_vector(
        &self,
        collection: &Collection,
        text: &str,
        principal: &Arc<Principal>,
    ) -> Result<Vec<f32>> {
        if text.is_empty() {
            return Err(Error::invalid("text", "text must not be empty without a vector"));
        }
        let model = self.model_of(collection, "text")?;
        let texts = vec![text.to_owned()];
        let embedded =
            self.embed(model, texts, InputType::Document, true, principal, |_| "text".into()).await;
        let embedded = embedded.map_err(|error| error.map_field(|field| field.renamed("texts", "text")))?;
        let mut vector = embedded.concat();
        prepare(collection, &mut vector, "text")?;
        Ok(vector)
    }
}
