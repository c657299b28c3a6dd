//! `/v1/models`: what can be asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::problem::{ErrorBody, Problem};
use super::wire::{ModelList, ModelObject};
use crate::embed::ModelCard;
use crate::error::{Error, Kind, Result};

/// The names under which the model is served. Shared by `Arc`.
#[derive(Debug)]
pub struct Names {
    card: ModelCard,
    aliases: Vec<String>,
}

impl Names {
    /// The model of `card`, also called by `aliases`.
    pub fn new(card: ModelCard, aliases: Vec<String>) -> Names {
        Names { card, aliases }
    }

    /// The model called `name`.
    ///
    /// # Errors
    /// `ModelNotFound`, with the names that are served.
    pub(super) fn resolve(&self, name: &str) -> Result<&ModelCard> {
        if name == self.card.name || self.aliases.iter().any(|alias| alias == name) {
            return Ok(&self.card);
        }
        let served = self.all().collect::<Vec<_>>().join("`, `");
        Err(Error::new(Kind::ModelNotFound, format!("the model `{name}` is not served here; `{served}` is"))
            .param("model"))
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.card.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    fn object(&self, id: &str) -> ModelObject {
        ModelObject {
            id: id.to_owned(),
            object: "model",
            created: self.card.created.0,
            owned_by: "likewise",
            dimensions: self.card.dim,
            max_input_tokens: self.card.tokens_max,
            fingerprint: self.card.fingerprint.to_string(),
        }
    }
}

/// Lists the models.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = ModelList)))]
pub(super) async fn list(State(names): State<Arc<Names>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: names.all().map(|id| names.object(id)).collect() })
}

/// Describes one model.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "models",
    params(("id" = String, Path, description = "Name of the model; slashes are allowed")),
    responses((status = 200, body = ModelObject), (status = 404, body = ErrorBody))
)]
pub(super) async fn describe(
    State(names): State<Arc<Names>>,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, Problem> {
    names.resolve(&id)?;
    Ok(Json(names.object(&id)))
}
