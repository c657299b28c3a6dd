//! What stops a collection from being embedded by a model.

use super::fill::Fill;
use super::task::ReembedSpec;
use crate::embed::{Embedder, ModelCard};
use crate::error::{Error, Kind, Result};
use crate::search::{Collection, CollectionModel};
use crate::service::background_work::{ITEM_ERRORS_MAX, Interruption};
use crate::service::collections::query_vectors::collection_model;

/// Whether a collection is known to hold vectors of the model, by its fingerprint and its prompt for documents. Where the prompt was not recorded, it
/// may have been another one.
pub(super) fn is_same(held: &CollectionModel, model: &dyn Embedder) -> bool {
    held.document_prompt.is_some() && held.is_of_same_vectors(&collection_model(model.card()))
}

/// # Errors
/// `Conflict` if documents of the former generation would get another prompt than they had.
pub(super) fn check_prompt_of_former(former: &Collection, card: &ModelCard) -> Result<()> {
    let Some(held) = &former.settings().model else { return Ok(()) };
    let now = collection_model(card);
    if held.is_of_same_vectors(&now) {
        return Ok(());
    }
    let prompt = |model: &CollectionModel| model.document_prompt.clone().unwrap_or_default();
    let message = format!(
        "the former vectors are of documents with the prompt {:?} of {}, which is {:?} now: change prompts.document of the model back to \
         roll back",
        prompt(held),
        card.name,
        prompt(&now)
    );
    Err(Error::new(Kind::Conflict, message).param("rollback"))
}

/// # Errors
/// `Conflict` if the collection has the model already.
pub(super) fn check_is_other(held: &CollectionModel, model: &dyn Embedder) -> Result<()> {
    if !is_same(held, model) {
        return Ok(());
    }
    let message = format!("the collection holds vectors of {} already", held.name);
    Err(Error::new(Kind::Conflict, message).param("model"))
}

/// Documents that cannot be embedded would not be found any more.
pub(super) fn pause_for_refused(spec: &ReembedSpec, fill: &Fill<'_>) -> Result<(), Interruption> {
    match fill.refused() {
        refused if refused > ITEM_ERRORS_MAX => Err(Interruption::Paused(Some(format!(
            "{refused} documents cannot be embedded by the new model; at most {ITEM_ERRORS_MAX} may be left out of what is served"
        )))),
        refused if refused > 0 && !spec.leave_refused => Err(Interruption::Paused(Some(format!(
            "{refused} documents cannot be embedded by the new model, as `errors` says; change or remove them, or resume with \
             leave_refused to serve the collection without them"
        )))),
        _ => Ok(()),
    }
}
