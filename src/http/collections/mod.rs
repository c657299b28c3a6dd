//! `/v1/collections`: making, describing and dropping collections.

mod document;
mod document_list;
mod documents;
mod elsewhere;
mod endpoint;
mod filter;
mod include;
mod results_writer;
mod search;
mod snapshots;
mod vector_input;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::routes;

pub(super) use self::elsewhere::{Elsewhere, pass_on};
use self::endpoint::CollectionName;
pub(super) use self::endpoint::Endpoint;
use crate::domain::Principal;
use crate::error::{Error, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::UnreadBody;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::json::{parse, shortened};
use crate::http::extract::model_name::check_model_name;
use crate::http::routes::{Access, Routes};
use crate::search::{Collection, Indexed, Metric, metric_name};
use crate::service::collections::Spec;

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    let delete_as_id = axum::routing::get(document::get).patch(document::patch).delete(document::delete);
    Routes::new()
        .add(routes!(list))
        .add(routes!(create, describe_one, drop_collection))
        .add(routes!(documents::upsert, document_list::list))
        .add(routes!(document_list::count))
        .add(routes!(documents::delete))
        .add(routes!(document::get, document::patch, document::delete))
        // `delete` is the id of a document for all methods but POST.
        .add_undocumented(Access::Client, "/v1/collections/{name}/documents/delete", delete_as_id)
        // Not the list of documents, which exports all of them: the path of one document with an empty id.
        .add_undocumented(Access::Client, "/v1/collections/{name}/documents/", any(document::no_id))
        .add(routes!(search::search))
        .add(routes!(snapshots::take, snapshots::list))
        .add(routes!(snapshots::index_file))
        .add(routes!(snapshots::ids))
}

/// Fields of a collection's spec in its request.
const FIELDS: FieldNames = FieldNames(&[("dim", "dimensions")]);

/// The name of a metric, for the contract.
struct MetricName;

impl PartialSchema for MetricName {
    fn schema() -> RefOr<Schema> {
        let names = metric_name::NAMES.iter().map(|(_, name)| *name);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl ToSchema for MetricName {}

/// The settings of a new collection. Without them a collection has the model of the server.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CollectionSpec {
    /// How vectors are compared; the cosine by default.
    #[schema(value_type = Option<MetricName>)]
    metric: Option<String>,
    /// The server's model, by its name; also the default.
    model: Option<String>,
    /// Length of the vectors. Without a model, clients bring the vectors.
    #[schema(minimum = 1, maximum = 8192)]
    dimensions: Option<usize>,
    /// `auto` (default: none while it is small, then the server's), `exact`, or a factory string of FAISS: `CODES`,
    /// `HNSW<links>`, `HNSW<links>,Flat`, `HNSW<links>,SQ8` or `IVF<lists>,CODES`, where `CODES` is `Flat`, `SQ4`, `SQ6`,
    /// `SQ8`, `SQfp16`, `SQbf16`, `PQ<parts>` or `PQ<parts>x<bits>`. `links` is 4 to 64, `lists` 1 to 65536, `parts` 1 to
    /// 256 and a divisor of the dimension, `bits` 4 to 8 (8 if left out).
    index: Option<String>,
}

/// A collection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CollectionObject {
    /// Its name.
    name: String,
    /// Whether the server could open it. The other members are present only then.
    is_available: bool,
    /// How vectors are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = MetricName, required = false)]
    metric: Option<&'static str>,
    /// Length of its vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dimensions: Option<usize>,
    /// The model whose vectors it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    model: Option<String>,
    /// Documents in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    documents: Option<usize>,
    /// Counts its changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<u64>,
    /// Rows of removed documents, until the next compaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dead_rows: Option<usize>,
    /// Segments on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    segments: Option<usize>,
    /// Bytes in memory, mapped files not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    memory_bytes: Option<usize>,
    /// The index of its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    index: Option<String>,
    /// Rows of its index, those of removed documents included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    indexed_rows: Option<usize>,
    /// Whether an index is being built.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    is_indexing: Option<bool>,
    /// Why the server builds no index; a request for a snapshot builds it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    index_error: Option<String>,
    /// Queries whose results are cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cached_queries: Option<usize>,
}

/// All collections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CollectionList {
    /// `list`.
    object: &'static str,
    /// The collections, sorted by name.
    data: Vec<CollectionObject>,
}

/// Creates a collection, or returns it if it exists with these settings.
#[utoipa::path(
    put,
    path = "/v1/collections/{name}",
    operation_id = "createCollection",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection: 1 to 64 letters, digits, `-` and `_`", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    request_body = Option<CollectionSpec>,
    responses(
        (status = 200, body = CollectionObject, description = "The collection existed already, with these settings"),
        (status = 201, body = CollectionObject, description = "The collection was created"),
        (status = 400, body = ErrorBody, description = "A field or header of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such model"),
        (status = 409, body = ErrorBody, description = "The collection exists with another metric, dimension, model or index"),
        (status = 429, body = ErrorBody, description = "There are too many collections, or the server is at a limit of requests or bytes in flight"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: the collection was not created"),
    )
)]
pub(super) async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
    body: UnreadBody,
) -> Result<Response, Problem> {
    let body = body.read().await?;
    let wire: Option<CollectionSpec> = if body.is_empty() { None } else { parse(&body)? };
    let wire = wire.unwrap_or_default();
    let metric = match &wire.metric {
        None => Metric::Cosine,
        Some(name) => metric_name::read(name).ok_or_else(|| {
            let name = shortened(name);
            Error::invalid("metric", format!("metric must be cosine, inner_product or l2, got {name:?}"))
        })?,
    };
    wire.model.as_deref().map(check_model_name).transpose()?;
    let spec = Spec {
        metric,
        model: wire.model,
        dim: wire.dimensions,
        index: wire.index.map(Indexed::from).unwrap_or_default(),
    };
    let created = endpoint.collections.create(&principal, &name, spec).await;
    let (collection, is_new) = created.map_err(|error| FIELDS.apply(error))?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(describe(name, Some(&collection)))).into_response())
}

/// Describes a collection.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}",
    operation_id = "getCollection",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 200, body = CollectionObject, description = "The collection"),
        (status = 400, body = ErrorBody, description = "The name is invalid"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 503, body = ErrorBody, description = "The server could not open the collection"),
    )
)]
pub(super) async fn describe_one(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
) -> Result<Json<CollectionObject>, Problem> {
    let collection = endpoint.collections.get(&principal, &name)?;
    Ok(Json(describe(name, Some(&collection))))
}

/// Lists all collections.
#[utoipa::path(
    get,
    path = "/v1/collections",
    operation_id = "listCollections",
    tag = "collections",
    responses(
        (status = 200, body = CollectionList, description = "The collections, sorted by name"),
    )
)]
pub(super) async fn list(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
) -> Json<CollectionList> {
    let all = endpoint.collections.list(&principal).into_iter();
    let data = all.map(|(name, collection)| describe(name, collection.as_deref())).collect();
    Json(CollectionList { object: "list", data })
}

/// Removes a collection with its documents, a damaged one too.
#[utoipa::path(
    delete,
    path = "/v1/collections/{name}",
    operation_id = "deleteCollection",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 204, description = "The collection and its files are removed"),
        (status = 400, body = ErrorBody, description = "The name is invalid"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
    )
)]
pub(super) async fn drop_collection(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
) -> Result<StatusCode, Problem> {
    endpoint.collections.drop_collection(&principal, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn describe(name: String, collection: Option<&Collection>) -> CollectionObject {
    let view = collection.map(Collection::view);
    let settings = collection.map(Collection::settings);
    CollectionObject {
        name,
        is_available: collection.is_some(),
        metric: settings.map(|settings| metric_name::of(settings.metric)),
        dimensions: settings.map(|settings| settings.dim),
        model: settings.and_then(|settings| settings.model.as_ref()).map(|model| model.name.clone()),
        documents: view.as_ref().map(|view| view.documents()),
        version: view.as_ref().map(|view| view.version()),
        dead_rows: view.as_ref().map(|view| view.dead_rows()),
        segments: view.as_ref().map(|view| view.segments()),
        memory_bytes: view.as_ref().map(|view| view.memory_bytes()),
        index: settings.map(|settings| settings.index.clone().into()),
        indexed_rows: view.as_ref().map(|view| view.indexed_rows()),
        is_indexing: collection.map(Collection::is_indexing),
        index_error: collection.and_then(Collection::index_error).map(|reason| reason.to_string()),
        cached_queries: collection.map(Collection::watched),
    }
}
