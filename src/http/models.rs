//! `/v1/models`: what can be asked for.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, Request as HttpRequest, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::embed::{ModelCard, ModelRegistry};
use crate::error::{Error, Kind, Result};
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::credential::credential;
use crate::http::extract::model_name::check_model_name;
use crate::http::extract::path::path;
use crate::http::extract::trace_headers::trace_headers;
use crate::http::forward::{Forward, forward_request};
use crate::http::routes::{Access, Routes};

/// The error of a request for a model that is not served.
pub(super) fn unknown(models: &ModelRegistry, name: &str) -> Error {
    check_model_name(name).err().unwrap_or_else(|| models.unknown(name))
}

/// A model. One of an upstream is as the upstream describes it, and may have an `id` only.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelObject {
    /// The name of the model.
    pub(super) id: String,
    /// `model`.
    #[schema(required = false)]
    pub(super) object: &'static str,
    /// When its weights were written, in seconds since 1970.
    #[schema(required = false)]
    pub(super) created: u32,
    /// `likewise`, or what the upstream sends.
    #[schema(required = false)]
    pub(super) owned_by: &'static str,
    /// Length of its vectors.
    #[schema(required = false)]
    pub(super) dimensions: usize,
    /// The number of tokens that it reads of a text.
    #[schema(required = false)]
    pub(super) max_input_tokens: usize,
    /// A hash of all that determines its vectors.
    #[schema(required = false)]
    pub(super) fingerprint: String,
}

impl ModelObject {
    /// The model of `card` under the name `id`.
    fn new(id: &str, card: &ModelCard) -> ModelObject {
        ModelObject {
            id: id.to_owned(),
            object: "model",
            created: card.created.0,
            owned_by: "likewise",
            dimensions: card.dim,
            max_input_tokens: card.tokens_max,
            fingerprint: card.fingerprint.to_string(),
        }
    }
}

/// Whether the name in a model object of another server is that of a model that is served here.
fn is_served(models: &ModelRegistry, model: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let named = serde_json::from_str::<Named<'_>>(model.get());
    named.is_ok_and(|named| models.find(&named.id).is_some())
}

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// `list`.
    pub(super) object: &'static str,
    /// The models that embed here, then those of the upstreams as these describe them.
    #[schema(value_type = Vec<ModelObject>)]
    pub(super) data: Vec<Box<RawValue>>,
}

/// What the handlers need.
pub(super) struct Endpoint {
    pub(super) models: Arc<ModelRegistry>,
    pub(super) forward: Arc<Forward>,
}

/// The name of a model, in the path.
pub(super) struct ModelName(String);

impl<S: Sync> FromRequestParts<S> for ModelName {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<ModelName, Problem> {
        Ok(ModelName(path(head, "id").await?))
    }
}

/// The name of a model whose slashes are not encoded, in the path.
pub(super) struct NestedModelName(String);

impl<S: Sync> FromRequestParts<S> for NestedModelName {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<NestedModelName, Problem> {
        let (owner, rest): (String, String) = path(head, "id").await?;
        Ok(NestedModelName(format!("{owner}/{rest}")))
    }
}

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new()
        .add(routes!(list))
        .add(routes!(describe))
        .add_undocumented(Access::Client, "/v1/models/{owner}/{*rest}", axum::routing::get(describe_below))
        .forwarding_unknown_paths()
}

/// Lists the models: those that embed here, and those that the upstreams answer.
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "listModels",
    tag = "models",
    responses(
        (status = 200, body = ModelList, description = "The models of this server, then those of its upstreams"),
        (status = 502, body = ErrorBody, description = "An upstream cannot be reached, or its list is invalid"),
        (status = 504, body = ErrorBody, description = "An upstream did not respond in time"),
    )
)]
pub(super) async fn list(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    headers: HeaderMap,
) -> Result<Json<ModelList>, Problem> {
    let models = &endpoint.models;
    let fault = |error| Error::new(Kind::Internal, "cannot describe a model").source(error);
    let own = models
        .list()
        .map(|(id, embedder)| to_raw_value(&ModelObject::new(id, embedder.card())).map_err(fault));
    let mut data = own.collect::<Result<Vec<_>>>()?;
    if let Some(origin) = &endpoint.forward.origin {
        permit.release();
        let theirs = origin.models(credential(&headers), trace_headers(&headers)).await?;
        // A request for a model that both have is answered here.
        data.extend(theirs.into_iter().filter(|model| !is_served(models, model)));
    }
    Ok(Json(ModelList { object: "list", data }))
}

/// Describes one model, or passes the question on to its upstream.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    operation_id = "getModel",
    tag = "models",
    params(("id" = String, Path, description = "Name of the model; slashes are allowed")),
    responses(
        (status = 200, body = ModelObject, description = "The model; one of an upstream as the upstream describes it"),
        (status = 400, body = ErrorBody, description = "The name is invalid"),
        (status = 404, body = ErrorBody, description = "Neither this server nor an upstream has the model"),
        (status = 502, body = ErrorBody, description = "The upstream cannot be reached"),
        (status = 504, body = ErrorBody, description = "The upstream did not respond in time"),
    )
)]
pub(super) async fn describe(
    State(endpoint): State<Arc<Endpoint>>,
    ModelName(name): ModelName,
    request: HttpRequest,
) -> Result<Response, Problem> {
    described(&endpoint, &name, request).await
}

/// As [`describe`], for a name whose slashes are not encoded.
pub(super) async fn describe_below(
    State(endpoint): State<Arc<Endpoint>>,
    NestedModelName(name): NestedModelName,
    request: HttpRequest,
) -> Result<Response, Problem> {
    described(&endpoint, &name, request).await
}

async fn described(endpoint: &Endpoint, id: &str, request: HttpRequest) -> Result<Response, Problem> {
    check_model_name(id)?;
    match endpoint.models.find(id) {
        Some(embedder) => Ok(Json(ModelObject::new(id, embedder.card())).into_response()),
        None if endpoint.forward.origin.is_some() => forward_request(&endpoint.forward, request).await,
        None => Err(endpoint.models.unknown(id).into()),
    }
}
