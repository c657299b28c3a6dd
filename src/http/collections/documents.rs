//! `/v1/collections/{name}/documents`: storing, reading and removing documents.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::vector_input::VectorInput;
use super::{CollectionName, Endpoint, filter};
use crate::domain::{Principal, Tag};
use crate::error::{Error, FieldPath, Kind, Result};
use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::UnreadBody;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::json::{parse, shortened};
use crate::http::extract::path::{path, query};
use crate::http::response::chunked::{self, CHUNK_BYTES};
use crate::search::{
    Change, Document, DocumentRef, Filter, METADATA_BYTES_MAX, Receipt, TAGS_MAX, View, check_metadata,
};
use crate::service::collections::NewDocument;

/// Documents that are looked up at a time for an export.
const EXPORTED_AT_ONCE: usize = 16;
/// Documents and ids of one request that are read at all.
const DOCUMENTS_MAX: usize = 65_536;
/// Tags of one list that are read at all.
const TAGS_READ_MAX: usize = 1024;

/// Documents to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpsertRequest {
    /// Documents; each takes the place of the one with its id.
    #[schema(value_type = Vec<DocumentInput>, min_items = 1, max_items = 4096)]
    documents: BoundedList<DocumentInput, DOCUMENTS_MAX>,
    /// Whether a text longer than the model reads is cut (default) or refused.
    truncate: Option<bool>,
}

/// A document to store: with a text, which is embedded, or a vector, or both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentInput {
    /// Its id in the collection, 1 to 512 bytes.
    id: String,
    /// Its text. The server embeds it unless the document has a vector, and returns it.
    text: Option<String>,
    /// Its vector.
    vector: Option<VectorInput>,
    /// A JSON object. Filters read its strings, numbers and booleans.
    #[schema(value_type = Option<JsonObject>)]
    metadata: Option<Box<RawValue>>,
    /// Tags, by which documents are invalidated and deleted.
    #[schema(value_type = Option<Vec<String>>)]
    tags: Option<BoundedList<String, TAGS_READ_MAX>>,
}

/// The effect of a write.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct WriteAnswer {
    /// The number of documents stored or removed.
    documents: usize,
    /// The version of the collection after the write.
    version: u64,
}

/// Which documents to remove: one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteRequest {
    /// The documents with these ids.
    #[schema(value_type = Option<Vec<String>>)]
    ids: Option<BoundedList<String, DOCUMENTS_MAX>>,
    /// All documents that have one of these tags.
    #[schema(value_type = Option<Vec<String>>)]
    tags: Option<BoundedList<String, TAGS_READ_MAX>>,
    /// All documents that the filter selects.
    #[schema(value_type = Option<JsonObject>)]
    filter: Option<Box<RawValue>>,
}

/// Whether the query of a request asks for vectors.
pub(super) struct IncludesVector(bool);

impl<S: Sync> FromRequestParts<S> for IncludesVector {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<IncludesVector, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Include {
            include: Option<String>,
        }
        match query::<Include>(head, "include")?.include.as_deref() {
            None | Some("") => Ok(IncludesVector(false)),
            Some("vector") => Ok(IncludesVector(true)),
            Some(other) => {
                let message = format!("include is `vector` or left out, got {other:?}");
                Err(Error::invalid("include", message).into())
            }
        }
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

/// Stores documents: all of them, or none.
///
/// The response is sent once they are flushed to disk and every search finds them.
#[utoipa::path(
    post,
    path = "/v1/collections/{name}/documents",
    operation_id = "upsertDocuments",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    request_body = UpsertRequest,
    responses(
        (status = 200, body = WriteAnswer, description = "The documents are stored and flushed to disk"),
        (status = 400, body = ErrorBody, description = "A field is invalid: `param` names the row and the field. Nothing was stored"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 409, body = ErrorBody, description = "A document has a text, and the collection has no model or one that is not loaded"),
        (status = 422, body = ErrorBody, description = "A remote model refuses a text"),
        (status = 429, body = ErrorBody, description = "The queue of the model is full, or the server is at a limit of requests or bytes in flight"),
        (status = 502, body = ErrorBody, description = "A remote model cannot be reached"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: nothing was stored"),
        (status = 504, body = ErrorBody, description = "The model did not embed the texts in time"),
    )
)]
pub(in crate::http) async fn upsert(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
    body: UnreadBody,
) -> Result<Json<WriteAnswer>, Problem> {
    // Before the body is read, so that a wrong name is not refused after a long upload.
    endpoint.collections.get(&principal, &name)?;
    let read = |body: &[u8]| {
        let wire: UpsertRequest = parse(body)?;
        let drafts = wire.documents.0.into_iter().enumerate().map(|(row, input)| draft(row, input));
        Ok((drafts.collect::<Result<Vec<_>>>()?, wire.truncate.unwrap_or(true)))
    };
    let (drafts, truncate) = body.parse(read).await?;
    let receipt = endpoint.collections.upsert(&principal, &name, drafts, truncate).await?;
    Ok(Json(receipt.into()))
}

/// Removes documents.
#[utoipa::path(
    post,
    path = "/v1/collections/{name}/documents/delete",
    operation_id = "deleteDocuments",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    request_body = DeleteRequest,
    responses(
        (status = 200, body = WriteAnswer, description = "How many documents were removed"),
        (status = 400, body = ErrorBody, description = "A field is invalid; nothing was removed"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 503, body = ErrorBody, description = "The store takes no writes since an error of the disk: nothing was removed"),
    )
)]
pub(in crate::http) async fn delete(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
    body: UnreadBody,
) -> Result<Json<WriteAnswer>, Problem> {
    let change = body.parse(change).await?;
    Ok(Json(endpoint.collections.delete(&principal, &name, change).await?.into()))
}

/// What a request removes.
fn change(body: &[u8]) -> Result<Change> {
    match parse(body)? {
        DeleteRequest { ids: Some(ids), tags: None, filter: None } => Ok(Change::Delete(ids.0)),
        DeleteRequest { ids: None, tags: Some(tags), filter: None } => {
            if let Some(wrong) = tags.0.iter().find(|tag| Tag::named(tag).is_none()) {
                return Err(Error::invalid("tags", format!("{:?}: {}", shortened(wrong), Tag::RULE)));
            }
            Ok(Change::DeleteMatching(Filter::Tagged(tags.0)))
        }
        DeleteRequest { ids: None, tags: None, filter: Some(filter) } => {
            Ok(Change::DeleteMatching(filter::read(&filter)?))
        }
        DeleteRequest { .. } => {
            Err(Error::invalid("ids", "exactly one of ids, tags and filter must be given"))
        }
    }
}

/// What the path of a document names.
#[derive(Deserialize)]
pub(in crate::http) struct DocumentPath {
    name: String,
    /// The path of removals names none: with GET it is that of a document.
    #[serde(default = "delete_as_id")]
    id: String,
}

fn delete_as_id() -> String {
    "delete".to_owned()
}

impl<S: Sync> FromRequestParts<S> for DocumentPath {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<DocumentPath, Problem> {
        Ok(path(head, "id").await?)
    }
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
        ("include" = Option<String>, Query, pattern = "^(vector)?$", description = "`vector` adds the vector to each document"),
    ),
    responses(
        (status = 200, body = DocumentObject, description = "The document"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection, or no such document"),
    )
)]
pub(in crate::http) async fn get_document(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    DocumentPath { name, id }: DocumentPath,
    IncludesVector(has_vector): IncludesVector,
) -> Result<Json<DocumentObject>, Problem> {
    let view = endpoint.collections.get(&principal, &name)?.view();
    let (document, vector) = view.get(&id).ok_or_else(|| {
        Error::new(Kind::NotFound, format!("there is no document {id:?} in {name}")).param("id")
    })?;
    Ok(Json(object(&document, has_vector.then_some(vector))))
}

/// Exports all documents as JSON lines, in the order of their writes.
///
/// The export is a snapshot: it has no write that began after it.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/documents",
    operation_id = "exportDocuments",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("include" = Option<String>, Query, pattern = "^(vector)?$", description = "`vector` adds the vector to each document")),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson", headers(("x-likewise-documents")), description = "One `DocumentObject` per line"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
    )
)]
pub(in crate::http) async fn export(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
    IncludesVector(has_vectors): IncludesVector,
) -> Result<Response, Problem> {
    let view = endpoint.collections.get(&principal, &name)?.view();
    let count = view.documents();
    let mut next = Some((0, 0));
    let lines = std::iter::from_fn(move || {
        let (text, after) = lines(&view, next?, has_vectors);
        next = after;
        Some(Bytes::from(text))
    });
    let mut response = Response::new(chunked::body(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert("x-likewise-documents", HeaderValue::from(count));
    Ok(response)
}

/// Some documents as JSON lines, and where the next ones begin.
fn lines(view: &View, from: (usize, usize), has_vectors: bool) -> (Vec<u8>, Option<(usize, usize)>) {
    let (mut text, mut next) = (Vec::new(), Some(from));
    while text.len() < CHUNK_BYTES
        && let Some(from) = next
    {
        let (documents, after) = view.page(from, EXPORTED_AT_ONCE);
        for (document, vector) in documents {
            let object = object(&document, has_vectors.then_some(vector));
            serde_json::to_writer(&mut text, &object).expect("plain values into memory: this is a bug");
            text.push(b'\n');
        }
        next = after;
    }
    (text, next)
}

impl From<Receipt> for WriteAnswer {
    fn from(receipt: Receipt) -> WriteAnswer {
        WriteAnswer { documents: receipt.documents, version: receipt.version }
    }
}

fn draft(row: usize, input: DocumentInput) -> Result<NewDocument> {
    let field = |name: &'static str| FieldPath::from("documents").element(row).field(name);
    let metadata = input.metadata.map(|raw| one_line(raw.get())).filter(|text| text != "null");
    if let Some(text) = &metadata {
        let fault = |message| Error::invalid(field("metadata"), message);
        if text.len() > METADATA_BYTES_MAX {
            return Err(fault(format!(
                "metadata must have at most {METADATA_BYTES_MAX} bytes, got {}",
                text.len()
            )));
        }
        check_metadata(text).map_err(fault)?;
    }
    let tags = input.tags.map_or_else(Vec::new, |tags| tags.0);
    if tags.len() > TAGS_MAX {
        let message = format!("a document must have at most {TAGS_MAX} tags, got {}", tags.len());
        return Err(Error::invalid(field("tags"), message));
    }
    let tag = |name: &String| {
        let message = || format!("{:?}: {}", shortened(name), Tag::RULE);
        Tag::named(name).ok_or_else(|| Error::invalid(field("tags"), message()))
    };
    Ok(NewDocument {
        document: Document {
            id: input.id,
            text: input.text,
            metadata: metadata.unwrap_or_default(),
            tags: tags.iter().map(tag).collect::<Result<_>>()?,
        },
        vector: input.vector.map(|vector| vector.0),
    })
}

/// JSON without line breaks, which stand only between its tokens: exports have a document a line.
fn one_line(json: &str) -> String {
    json.trim().replace(['\r', '\n'], " ")
}

fn object(document: &DocumentRef<'_>, vector: Option<&[f32]>) -> DocumentObject {
    DocumentObject {
        id: document.id.to_owned(),
        text: document.text.map(str::to_owned),
        metadata: RawValue::from_string(document.metadata.to_owned()).ok(),
        tags: document.tags().map(str::to_owned).collect(),
        vector: vector.map(<[f32]>::to_vec),
    }
}
