//! `GET /v1/collections/{name}/documents`, by page, by ids or all of them, and `/count`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::document::DocumentObject;
use super::include::Include;
use super::{CollectionName, Endpoint, filter};
use crate::domain::Principal;
use crate::error::{Error, Result};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::query::QueryFields;
use crate::http::offload::offload;
use crate::http::reservation::ResponseReservation;
use crate::http::response::chunked::{self, CHUNK_BYTES};
use crate::search::{DocumentPage, Filter, ID_BYTES_MAX, View};
use crate::service::collections::Selection;

/// Documents that are looked up at a time for an export.
const EXPORTED_AT_ONCE: usize = 16;

/// Some documents of a collection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DocumentList {
    /// `list`.
    object: &'static str,
    /// The documents.
    data: Vec<DocumentObject>,
    /// The `after` of the next page; missing in the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
    /// The version of the collection.
    version: u64,
}

/// A number of documents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CountAnswer {
    /// The number of documents.
    documents: usize,
    /// The version of the collection.
    version: u64,
}

/// The parameters of a list. Without a selection all documents are exported.
#[derive(Debug, Default)]
pub(super) struct ListParameters {
    selection: Option<Selection>,
    include: Include,
}

/// The parameters as text.
struct RawParameters(QueryFields);

impl RawParameters {
    /// Those of a request that has only parameters called as one of `names`.
    fn read(head: &Parts, names: &'static [&'static str]) -> Result<RawParameters> {
        QueryFields::read_with_list(head, names, Some("ids")).map(RawParameters)
    }

    fn filter(&self) -> Result<Option<Filter>> {
        let Some(text) = self.0.text("filter") else { return Ok(None) };
        let fault = |error| Error::invalid("filter", format!("filter must be a JSON object: {error}"));
        let raw = RawValue::from_string(text.to_owned()).map_err(fault)?;
        filter::read(&raw).map(Some)
    }

    fn after(&self) -> Result<Option<String>> {
        let Some(after) = self.0.text("after") else { return Ok(None) };
        let bytes = after.len();
        if bytes > ID_BYTES_MAX {
            let message = format!("after must be an id of at most {ID_BYTES_MAX} bytes, got {bytes}");
            return Err(Error::invalid("after", message));
        }
        Ok(Some(after.to_owned()))
    }

    /// Which documents are listed; `None` if no parameter selects any.
    fn selection(&self) -> Result<Option<Selection>> {
        let (limit, after, filter) = (self.0.number("limit")?, self.after()?, self.filter()?);
        let is_page = limit.is_some() || after.is_some() || filter.is_some();
        let ids = self.0.list("ids");
        if ids.is_empty() {
            return Ok(is_page.then_some(Selection::Page { after, limit, filter }));
        }
        if is_page {
            return Err(Error::invalid("ids", "ids cannot be given with limit, after or filter"));
        }
        Ok(Some(Selection::Ids(ids)))
    }
}

impl<S: Sync> FromRequestParts<S> for ListParameters {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<ListParameters, Problem> {
        let raw = RawParameters::read(head, &["limit", "after", "ids", "filter", "include"])?;
        let include = Include::read(raw.0.text("include").unwrap_or_default())?;
        Ok(ListParameters { selection: raw.selection()?, include })
    }
}

/// The filter in the query of a request.
pub(in crate::http) struct FilterParameter(Option<Filter>);

impl<S: Sync> FromRequestParts<S> for FilterParameter {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<FilterParameter, Problem> {
        Ok(FilterParameter(RawParameters::read(head, &["filter"])?.filter()?))
    }
}

/// Lists documents by page or by their ids, or exports all of them.
///
/// `limit`, `after` and `filter` select a page, in the order of the ids. The `next` of a page is the `after` of the next one. A document
/// that exists from the first page to the last one is in exactly one of them, whatever is written meanwhile. `ids` selects documents by
/// their ids, in that order; those that are missing are left out. Without any of these parameters all documents are exported as JSON
/// lines, in the order of their writes: a snapshot, which has no write that began after it.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/documents",
    operation_id = "listDocuments",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "Documents of the page, at most; 100 by default. A page of long documents has fewer"),
        ("after" = Option<String>, Query, max_length = 512, description = "The page begins behind this id: the `next` of the page before"),
        ("ids" = Option<Vec<String>>, Query, min_items = 1, max_items = 1000, description = "Ids of documents, each a parameter of its own: `ids=1&ids=2`. Not with `limit`, `after` or `filter`"),
        ("filter" = Option<String>, Query, description = "The documents to list, as in a search: a JSON object such as `{\"brand\": \"acme\"}`"),
        ("include" = Option<String>, Query, pattern = "^((id|text|metadata|tags|vector)(,(id|text|metadata|tags|vector))*)?$", description = "Members of each document, separated by commas. `vector` is added to the others, which are all of them unless one is named"),
    ),
    responses(
        (status = 200, content((DocumentList = "application/json"), (String = "application/x-ndjson")), headers(("x-likewise-documents")), description = "The page; or for an export one `DocumentObject` per line, with their number in `x-likewise-documents`"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 429, body = ErrorBody, description = "Too many searches wait, or the server is at a limit of requests or bytes in flight"),
    )
)]
pub(in crate::http) async fn list(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
    ListParameters { selection, include }: ListParameters,
) -> Result<Response, Problem> {
    let Some(selection) = selection else {
        return Ok(export(endpoint.collections.get(&principal, &name)?.view(), include));
    };
    let page = endpoint.collections.documents(&principal, &name, selection, include.vector).await?;
    // The page as objects, and as JSON.
    let bytes = page.bytes().saturating_mul(3);
    let held = ResponseReservation::reserve(&endpoint.budget, bytes)?;
    let json = offload(page.bytes(), move || to_json(&page, include)).await?;
    let content_type = HeaderValue::from_static("application/json");
    Ok(held.attach(([(header::CONTENT_TYPE, content_type)], json).into_response()))
}

fn to_json(page: &DocumentPage, include: Include) -> Vec<u8> {
    let object = |(document, vector)| DocumentObject::new(&document, vector, include);
    let list = DocumentList {
        object: "list",
        data: page.documents().map(object).collect(),
        next: page.next().map(str::to_owned),
        version: page.version(),
    };
    serde_json::to_vec(&list).expect("plain values into memory: this is a bug")
}

/// Counts the documents of a collection, or those that a filter selects.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/count",
    operation_id = "countDocuments",
    tag = "collections",
    params(
        ("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("filter" = Option<String>, Query, description = "The documents to count, as in a search: a JSON object such as `{\"brand\": \"acme\"}`"),
    ),
    responses(
        (status = 200, body = CountAnswer, description = "How many there are"),
        (status = 400, body = ErrorBody, description = "A parameter is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 429, body = ErrorBody, description = "Too many searches wait, or the server is at a limit of requests or bytes in flight"),
    )
)]
pub(in crate::http) async fn count(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
    FilterParameter(filter): FilterParameter,
) -> Result<Json<CountAnswer>, Problem> {
    let count = endpoint.collections.count(&principal, &name, filter).await?;
    Ok(Json(CountAnswer { documents: count.documents, version: count.version }))
}

/// All documents of a view as JSON lines.
fn export(view: Arc<View>, include: Include) -> Response {
    let count = view.documents();
    let mut next = Some((0, 0));
    let lines = std::iter::from_fn(move || {
        let (text, after) = lines(&view, next?, include);
        next = after;
        Some(Bytes::from(text))
    });
    let mut response = Response::new(chunked::body(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert("x-likewise-documents", HeaderValue::from(count));
    response
}

/// Some documents as JSON lines, and where the next ones begin.
fn lines(view: &View, from: (usize, usize), include: Include) -> (Vec<u8>, Option<(usize, usize)>) {
    let (mut text, mut next) = (Vec::new(), Some(from));
    while text.len() < CHUNK_BYTES
        && let Some(from) = next
    {
        let (documents, after) = view.page(from, EXPORTED_AT_ONCE);
        for (document, vector) in documents {
            let object = DocumentObject::new(&document, vector, include);
            serde_json::to_writer(&mut text, &object).expect("plain values into memory: this is a bug");
            text.push(b'\n');
        }
        next = after;
    }
    (text, next)
}
