//! Other APIs of embeddings, whose clients ask for the same vectors in other words.
//!
//! The contracts of these routes are those of their projects, so that `/openapi.json` does not describe them.

mod cohere;
mod ollama;
mod tei;
mod tei_tokenize;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::request::Parts;
use serde_json::value::{RawValue, to_raw_value};

use super::input::EmbeddingInput;
use super::upstream::ParsedUpstreamRequest;
use super::vectors::ResponseVectors;
use super::wire::EncodingFormat;
use super::{Endpoint, ServedRequest, embed_at_upstream, embed_here};
use crate::domain::{InputType, Principal};
use crate::error::{Error, Kind, Result};
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_shape::ErrorShape;
use crate::http::extract::directives::CacheObject;
use crate::http::routes::{Access, Routes};

/// The routes of all APIs, each with its own shape of errors.
pub(in crate::http) fn all_routes() -> [Routes<Arc<Endpoint>>; 3] {
    [
        tei::routes().with_errors(ErrorShape::TextEmbeddingsInference),
        ollama::routes().with_errors(ErrorShape::Ollama),
        cohere::routes().with_errors(ErrorShape::Cohere),
    ]
}

/// A request of any API.
struct ApiRequest {
    /// `None` for the default model.
    model: Option<String>,
    input: EmbeddingInput,
    input_type: Option<InputType>,
    truncate: bool,
    dimensions: Option<u32>,
    /// Further fields for a model that only an upstream has.
    fields: Vec<(&'static str, String)>,
}

/// Embeds the inputs of a request, by a model that is served here or by one that only an upstream has.
async fn embed(
    endpoint: &Endpoint,
    head: &Parts,
    principal: Arc<Principal>,
    permit: &ConcurrencyPermit,
    asked: ApiRequest,
) -> Result<ResponseVectors> {
    let models = &endpoint.models;
    let model = match &asked.model {
        None => Some(models.default_model()?),
        Some(name) => models.find(name),
    };
    if let Some(model) = model {
        let card = model.card();
        let request = ServedRequest {
            dim: super::dim(asked.dimensions, card)?,
            texts: super::texts(asked.input, &**model, endpoint)?,
            model: Arc::clone(model),
            input_type: asked.input_type,
            truncate: asked.truncate,
            format: EncodingFormat::Float,
            cache: CacheObject::default(),
        };
        return embed_here(endpoint, request, head, principal).await;
    }
    let name = asked.model.unwrap_or_default();
    let Some(upstream) = &endpoint.upstream else { return Err(models.unknown(&name)) };
    let fields = fields(&name, asked.dimensions, &asked.fields)?;
    let dimensions = asked.dimensions.and_then(|dimensions| usize::try_from(dimensions).ok());
    let request = ParsedUpstreamRequest::new(name, asked.input, fields, EncodingFormat::Float, dimensions)
        .ok_or_else(|| Error::invalid("input", "input must not be empty, and have no empty element"))?;
    permit.release();
    embed_at_upstream(endpoint, upstream, request, head, principal).await
}

/// The fields of a request of OpenAI's API but its input.
fn fields(
    model: &str,
    dimensions: Option<u32>,
    further: &[(&'static str, String)],
) -> Result<BTreeMap<String, Box<RawValue>>> {
    let fault = |error| Error::new(Kind::Internal, "cannot write a request for an upstream").source(error);
    let mut fields = BTreeMap::from([("model".to_owned(), to_raw_value(model).map_err(fault)?)]);
    if let Some(dimensions) = dimensions {
        fields.insert("dimensions".to_owned(), to_raw_value(&dimensions).map_err(fault)?);
    }
    for (name, value) in further {
        fields.insert((*name).to_owned(), to_raw_value(value).map_err(fault)?);
    }
    Ok(fields)
}

/// The type of the input by the name that an API has for it.
fn input_type_of(field: &'static str, name: &str) -> Result<InputType> {
    match name {
        "query" | "search_query" => Ok(InputType::Query),
        "document" | "passage" | "search_document" => Ok(InputType::Document),
        _ => {
            Err(Error::invalid(field, format!("{field} must be for queries or for documents, got `{name}`")))
        }
    }
}

/// Adds a route that the contract does not describe.
fn route(
    routes: Routes<Arc<Endpoint>>,
    pattern: &str,
    handler: axum::routing::MethodRouter<Arc<Endpoint>>,
) -> Routes<Arc<Endpoint>> {
    routes.add_undocumented(Access::Client, pattern, handler)
}
