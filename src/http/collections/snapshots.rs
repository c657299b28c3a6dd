//! `/v1/collections/{name}/snapshots` and the files for FAISS: the index of a collection, and the ids of its rows.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::{CollectionName, Endpoint};
use crate::domain::Principal;
use crate::error::Result;
use crate::http::contract::schemas::Binary;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::offload::offload;
use crate::http::response::chunked;
use crate::search::{Collection, View, flat_header};

/// Bytes of one piece of a file, about.
const FILE_CHUNK_BYTES: usize = 256 << 10;
/// Bytes that are read to find an id, about.
const ID_BYTES: usize = 256;
/// Rows of one piece of a table of ids.
const CHUNK_ROWS: usize = 4096;
/// The collection's version of which a file is true.
const VERSION: &str = "x-likewise-version";

/// The snapshots of a collection: of its index, the one that holds.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SnapshotList {
    /// `list`.
    object: &'static str,
    /// None, or one.
    data: Vec<SnapshotObject>,
    /// Whether a new one is being made.
    is_indexing: bool,
    /// Why the last one could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// A snapshot of an index.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SnapshotObject {
    /// A later one has a higher number.
    number: u64,
    /// FAISS's name for the kind of index.
    factory: String,
    /// Rows in it, those included that are gone by now.
    rows: usize,
    /// Bytes of its file.
    bytes: usize,
    /// The version of the collection whose rows it holds; later ones are in its log and segments.
    version: u64,
}

/// Takes a snapshot: builds the index of all rows that there are, and keeps it on disk, also if that has failed before.
/// Answers at once; the list shows when it is done, and the `error` if it has failed.
#[utoipa::path(
    post,
    path = "/v1/collections/{name}/snapshots",
    operation_id = "createSnapshot",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 202, body = SnapshotList, description = "The server builds the index; the list shows its end"),
        (status = 400, body = ErrorBody, description = "The name is invalid"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 409, body = ErrorBody, description = "The collection can have no index, or has too few documents for it"),
        (status = 503, body = ErrorBody, description = "The collection refuses writes"),
    )
)]
pub(in crate::http) async fn take(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
) -> Result<(StatusCode, Json<SnapshotList>), Problem> {
    let collection = endpoint.collections.get(&principal, &name)?;
    collection.index()?;
    Ok((StatusCode::ACCEPTED, Json(describe(&collection))))
}

/// Lists the snapshots of a collection.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/snapshots",
    operation_id = "listSnapshots",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 200, body = SnapshotList, description = "The current snapshot, if there is one"),
        (status = 400, body = ErrorBody, description = "The name is invalid"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
    )
)]
pub(in crate::http) async fn list(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
) -> Result<Json<SnapshotList>, Problem> {
    let collection = endpoint.collections.get(&principal, &name)?;
    Ok(Json(describe(&collection)))
}

/// A file that `faiss.read_index` opens: the index of the snapshot, or all vectors (`IndexFlat`) where there is none.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/index.faiss",
    operation_id = "getIndexFile",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 200, body = inline(Binary), content_type = "application/octet-stream", headers(("x-likewise-version")), description = "A file that `faiss.read_index` opens"),
        (status = 400, body = ErrorBody, description = "The name is invalid"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
    )
)]
pub(in crate::http) async fn index_file(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
) -> Result<Response, Problem> {
    let collection = endpoint.collections.get(&principal, &name)?;
    let view = collection.view();
    let (length, version, body) = match view.snapshot().cloned() {
        Some(snapshot) => {
            let (length, version) = (snapshot.bytes().len(), snapshot.coverage().version);
            let pieces = (0..length).step_by(FILE_CHUNK_BYTES).map(move |from| {
                let to = (from + FILE_CHUNK_BYTES).min(snapshot.bytes().len());
                Bytes::copy_from_slice(&snapshot.bytes()[from..to])
            });
            (length, version, chunked::body(pieces))
        }
        None => flat(&collection, &view),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(VERSION, HeaderValue::from(version));
    Ok(response)
}

/// The ids of the rows of `index.faiss` as JSON lines, in their order; `null` for a row that is gone since.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/ids.jsonl",
    operation_id = "getIndexIds",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson", headers(("x-likewise-version")), description = "One id per line"),
        (status = 400, body = ErrorBody, description = "The name is invalid"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
    )
)]
pub(in crate::http) async fn ids(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
) -> Result<Response, Problem> {
    let view = endpoint.collections.get(&principal, &name)?.view();
    let version = view.snapshot().map_or(view.version(), |snapshot| snapshot.coverage().version);
    let lines = offload(view.documents() * ID_BYTES, move || id_lines(&view)).await?;
    let mut response = Response::new(chunked::body(lines.into_iter()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(VERSION, HeaderValue::from(version));
    Ok(response)
}

/// The ids of the rows of a view's index as JSON lines, in pieces.
fn id_lines(view: &View) -> Vec<Bytes> {
    let line = |id: &Option<&str>| {
        let mut line = serde_json::to_string(id).expect("a text: this is a bug");
        line.push('\n');
        line
    };
    let piece = |ids: &[Option<&str>]| Bytes::from(ids.iter().map(line).collect::<String>());
    view.indexed_ids().chunks(CHUNK_ROWS).map(piece).collect()
}

/// All vectors of a view as FAISS keeps them: length, version, content.
fn flat(collection: &Collection, view: &Arc<View>) -> (usize, u64, Body) {
    let dim = view.dim();
    let head = flat_header(collection.settings().metric, dim as u32, view.documents() as u64);
    let rows_at_once = (FILE_CHUNK_BYTES / (4 * dim)).max(1);
    let (length, version, view) = (head.len() + view.documents() * dim * 4, view.version(), Arc::clone(view));
    let mut next = Some((0, 0));
    let pieces = std::iter::from_fn(move || {
        let (page, after) = view.page(next?, rows_at_once);
        next = after;
        Some(page.iter().flat_map(|(_, vector)| vector.iter().flat_map(|x| x.to_le_bytes())).collect())
    });
    (length, version, chunked::body(std::iter::once(Bytes::copy_from_slice(&head)).chain(pieces)))
}

fn describe(collection: &Collection) -> SnapshotList {
    let view = collection.view();
    let snapshot = view.snapshot().map(|snapshot| SnapshotObject {
        number: snapshot.number(),
        factory: snapshot.coverage().factory.clone(),
        rows: view.indexed_rows(),
        bytes: snapshot.bytes().len(),
        version: snapshot.coverage().version,
    });
    SnapshotList {
        object: "list",
        data: snapshot.into_iter().collect(),
        is_indexing: collection.is_indexing(),
        error: collection.index_error().map(|reason| reason.to_string()),
    }
}
