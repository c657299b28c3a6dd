//! `/v1/collections/{name}/documents`: storing and removing several documents.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::vector_input::VectorInput;
use super::{CollectionName, Endpoint, filter};
use crate::domain::{Principal, Tag};
use crate::error::{Error, FieldPath, Result};
use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::UnreadBody;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::json::{parse, shortened};
use crate::search::{Change, Filter, METADATA_BYTES_MAX, Receipt, TAGS_MAX, check_metadata};
use crate::service::collections::NewDocument;

/// Documents and ids of one request that are read at all.
const DOCUMENTS_MAX: usize = 65_536;
/// Tags of one list that are read at all.
pub(super) const TAGS_READ_MAX: usize = 1024;

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
    /// Its id in the collection, 1 to 512 bytes. The server makes one for a document without an id.
    #[schema(min_length = 1, max_length = 512)]
    id: Option<String>,
    /// Its text. The server embeds it unless the document has a vector, and returns it.
    text: Option<String>,
    /// Its vector.
    vector: Option<VectorInput>,
    /// A JSON object. Filters read its strings, numbers and booleans.
    #[schema(value_type = Option<JsonObject>)]
    metadata: Option<Box<RawValue>>,
    /// Tags, by which documents are invalidated and deleted.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    tags: Option<BoundedList<String, TAGS_READ_MAX>>,
}

/// The effect of a write.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct WriteAnswer {
    /// The number of documents stored or removed.
    documents: usize,
    /// The version of the collection after the write.
    version: u64,
    /// The ids of all documents in the order of the request, if the server made one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ids: Option<Vec<String>>,
}

/// Which documents to remove: one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteRequest {
    /// The documents with these ids.
    #[schema(value_type = Option<Vec<String>>, max_items = 4096)]
    ids: Option<BoundedList<String, DOCUMENTS_MAX>>,
    /// All documents that have one of these tags.
    #[schema(value_type = Option<Vec<String>>, max_items = 1024)]
    tags: Option<BoundedList<String, TAGS_READ_MAX>>,
    /// All documents that the filter selects.
    #[schema(value_type = Option<JsonObject>)]
    filter: Option<Box<RawValue>>,
}

/// Stores documents: all of them, or none.
///
/// The response is sent once they are flushed to disk and every search finds them. A retry stores documents without ids again, under
/// other ids; one of documents with ids replaces them.
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
    let stored = endpoint.collections.upsert(&principal, &name, drafts, truncate).await?;
    Ok(Json(WriteAnswer { ids: stored.ids, ..stored.receipt.into() }))
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

impl From<Receipt> for WriteAnswer {
    fn from(receipt: Receipt) -> WriteAnswer {
        WriteAnswer { documents: receipt.documents, version: receipt.version, ids: None }
    }
}

fn draft(row: usize, input: DocumentInput) -> Result<NewDocument> {
    let field = |name: &'static str| FieldPath::from("documents").element(row).field(name);
    let metadata = input.metadata.map(|raw| one_line(raw.get())).filter(|text| text != "null");
    if let Some(metadata) = &metadata {
        check_metadata_size(metadata, field("metadata"))?;
    }
    Ok(NewDocument {
        id: input.id,
        text: input.text,
        metadata: metadata.unwrap_or_default(),
        tags: tags(input.tags.map_or_else(Vec::new, |tags| tags.0), &field("tags"))?,
        vector: input.vector.map(|vector| vector.0),
    })
}

/// Checks metadata, or a patch of them, whose field is at `field`.
pub(super) fn check_metadata_size(metadata: &str, field: FieldPath) -> Result<()> {
    let bytes = metadata.len();
    if bytes > METADATA_BYTES_MAX {
        let message = format!("metadata must have at most {METADATA_BYTES_MAX} bytes, got {bytes}");
        return Err(Error::invalid(field, message));
    }
    check_metadata(metadata).map_err(|fault| Error::invalid(field, fault))
}

/// Tags by their names, which are at `field`.
pub(super) fn tags(names: Vec<String>, field: &FieldPath) -> Result<Vec<Tag>> {
    if names.len() > TAGS_MAX {
        let message = format!("a document must have at most {TAGS_MAX} tags, got {}", names.len());
        return Err(Error::invalid(field.clone(), message));
    }
    let tag = |name: &String| {
        let message = || format!("{:?}: {}", shortened(name), Tag::RULE);
        Tag::named(name).ok_or_else(|| Error::invalid(field.clone(), message()))
    };
    names.iter().map(tag).collect()
}

/// JSON without line breaks, which stand only between its tokens: exports have a document a line.
pub(super) fn one_line(json: &str) -> String {
    json.trim().replace(['\r', '\n'], " ")
}
