//! `/v1/collections/{name}/documents/{id}`: one document.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Endpoint;
use super::documents::{TAGS_READ_MAX, WriteAnswer, check_metadata_size, one_line, tags};
use super::include::Include;
use super::vector_input::VectorInput;
use crate::domain::Principal;
use crate::error::{Error, Kind, Result};
use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::UnreadBody;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::json::parse;
use crate::http::extract::path::path;
use crate::search::{Change, DocumentPatch, DocumentRef};

/// The collection and the id of a document, in the path.
#[derive(Deserialize)]
pub(in crate::http) struct DocumentPath {
    name: String,
    /// The path of removals names none: with other methods than POST it is that of a document.
    #[serde(default = "delete_as_id")]
    id: String,
}

fn delete_as_id() -> String {
    "delete".to_owned()
}

/// The answer to a path with an empty id.
pub(super) async fn no_id() -> Problem {
    let message = "the path is /v1/collections/{name}/documents/{id}, and the id is empty; all documents are at \
        /v1/collections/{name}/documents";
    Problem(Error::new(Kind::NotFound, message).param("id"))
}

impl<S: Sync> FromRequestParts<S> for DocumentPath {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<DocumentPath, Problem> {
        Ok(path(head, "id").await?)
    }
}

/// A document.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DocumentObject {
    /// Its id in the collection.
    id: String,
    /// Its text, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
    /// Its metadata, as the client sent them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = JsonObject, required = false)]
    metadata: Option<Box<RawValue>>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// Its vector, if the request includes it; of unit length if the metric is the cosine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    vector: Option<Vec<f32>>,
}

impl DocumentObject {
    pub(super) fn new(document: &DocumentRef<'_>, vector: &[f32], include: Include) -> DocumentObject {
        let metadata = Some(document.metadata).filter(|_| include.metadata);
        DocumentObject {
            id: document.id.to_owned(),
            text: document.text.filter(|_| include.text).map(str::to_owned),
            metadata: metadata.and_then(|metadata| RawValue::from_string(metadata.to_owned()).ok()),
            tags: document.tags().filter(|_| include.tags).map(str::to_owned).collect(),
            vector: include.vector.then(|| vector.to_vec()),
        }
    }
}

/// A JSON merge patch (RFC 7396) of a document: members that it does not name stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentPatchInput {
    /// A new text. The server embeds it unless the patch has a vector. `null` removes the text, and the vector stays.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    text: Option<Option<String>>,
    /// A new vector.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    vector: Option<VectorInput>,
    /// A merge patch of the metadata: members are added or replaced, those with `null` are removed, objects are merged. `null` removes
    /// all metadata.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<JsonObject>)]
    metadata: Option<Box<RawValue>>,
    /// New tags, in the place of the old ones. `null` removes them.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    tags: Option<Option<BoundedList<String, TAGS_READ_MAX>>>,
}

/// A member that may be `null`, which is something else than a member that is left out.
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A member whose type decides whether it may be `null`.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Returns one document.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/documents/{id}",
    operation_id = "getDocument",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("id" = String, Path, description = "The id of the document, percent-encoded"),
        ("include" = Option<String>, Query, pattern = "^((id|text|metadata|tags|vector)(,(id|text|metadata|tags|vector))*)?$", description = "Members of the document, separated by commas. `vector` is added to the others, which are all of them unless one is named"),
    ),
    responses(
        (status = 200, body = DocumentObject, description = "The document"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection, or no such document"),
    )
)]
pub(in crate::http) async fn get(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    DocumentPath { name, id }: DocumentPath,
    include: Include,
) -> Result<Json<DocumentObject>, Problem> {
    let view = endpoint.collections.get(&principal, &name)?.view();
    let (document, vector) = view.get(&id).ok_or_else(|| {
        Error::new(Kind::NotFound, format!("there is no document {id:?} in {name}")).param("id")
    })?;
    Ok(Json(DocumentObject::new(&document, vector, include)))
}

/// Changes some members of a document.
///
/// The response is sent once the change is flushed to disk and every search finds it. Patches of one document at the same time are all
/// applied, one after the other. Without a new text or vector nothing is embedded, and the vector stays.
#[utoipa::path(
    patch,
    path = "/v1/collections/{name}/documents/{id}",
    operation_id = "patchDocument",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("id" = String, Path, description = "The id of the document, percent-encoded"),
    ),
    request_body(content = DocumentPatchInput, description = "The members to change, as `application/json` or `application/merge-patch+json`"),
    responses(
        (status = 200, body = WriteAnswer, description = "The document is changed and flushed to disk; `documents` is 0 if the patch changed nothing"),
        (status = 400, body = ErrorBody, description = "A member is invalid, or the merged metadata exceed their limits; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection, or no such document"),
        (status = 409, body = ErrorBody, description = "The patch has a text, and the collection has no model or one that is not loaded"),
        (status = 422, body = ErrorBody, description = "A remote model refuses the text"),
        (status = 429, body = ErrorBody, description = "The queue of the model is full, or the server is at a limit of requests or bytes in flight"),
        (status = 502, body = ErrorBody, description = "A remote model cannot be reached"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: nothing was changed"),
        (status = 504, body = ErrorBody, description = "The model did not embed the text in time"),
    )
)]
pub(in crate::http) async fn patch(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    DocumentPath { name, id }: DocumentPath,
    body: UnreadBody,
) -> Result<Json<WriteAnswer>, Problem> {
    endpoint.collections.get(&principal, &name)?;
    let patch = body.parse(document_patch).await?;
    Ok(Json(endpoint.collections.patch(&principal, &name, id, patch).await?.into()))
}

fn document_patch(body: &[u8]) -> Result<DocumentPatch> {
    let wire: DocumentPatchInput = parse(body)?;
    let metadata = wire.metadata.map(|raw| one_line(raw.get()));
    if let Some(patch) = metadata.as_deref().filter(|patch| *patch != "null") {
        check_metadata_size(patch, "metadata".into())?;
    }
    let names = wire.tags.map(|tags| tags.map_or_else(Vec::new, |tags| tags.0));
    Ok(DocumentPatch {
        text: wire.text,
        vector: wire.vector.map(|vector| vector.0),
        metadata,
        tags: names.map(|names| tags(names, &"tags".into())).transpose()?,
        ..DocumentPatch::default()
    })
}

/// Removes a document.
#[utoipa::path(
    delete,
    path = "/v1/collections/{name}/documents/{id}",
    operation_id = "deleteDocument",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("id" = String, Path, description = "The id of the document, percent-encoded"),
    ),
    responses(
        (status = 204, description = "There is no such document any more"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: nothing was removed"),
    )
)]
pub(in crate::http) async fn delete(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    DocumentPath { name, id }: DocumentPath,
) -> Result<StatusCode, Problem> {
    endpoint.collections.delete(&principal, &name, Change::Delete(vec![id])).await?;
    Ok(StatusCode::NO_CONTENT)
}
