//! `/v1/collections/{name}/search`: the nearest documents.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::results_writer::{Field, ResultsWriter};
use super::vector_input::VectorInput;
use super::{CollectionName, Endpoint, filter};
use crate::domain::{LookupOutcome, Principal, TierName};
use crate::error::{Error, FieldPath, Result};
use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::directives::CacheObject;
use crate::http::extract::json::{object, parse};
use crate::http::reservation::ResponseReservation;
use crate::http::response::cache_status;
use crate::http::response::chunked;
use crate::http::response::headers::{CACHE_STATUS, COALESCED, HITS, MISSES, Millis, SERVER_TIMING};
use crate::service::collections::{Input, Search, SearchOutcome};

const K: usize = 10;
/// Queries of one request that are read at all.
const QUERIES_READ_MAX: usize = 4096;
/// Names in `include` that are read at all.
const FIELDS_READ_MAX: usize = 16;
/// Results up to so many bytes are written at once, longer ones in pieces.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;

/// A search: by one of `query`, `vector`, `queries` and `vectors`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchRequest {
    /// A text, embedded by the collection's model.
    query: Option<String>,
    /// A vector.
    vector: Option<VectorInput>,
    /// Several texts; `results` is then a list of lists.
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 256)]
    queries: Option<BoundedList<String, QUERIES_READ_MAX>>,
    /// Several vectors; `results` is then a list of lists.
    #[schema(value_type = Option<Vec<VectorInput>>, min_items = 1, max_items = 256)]
    vectors: Option<BoundedList<VectorInput, QUERIES_READ_MAX>>,
    /// The number of results for each query; 10 by default.
    #[schema(minimum = 1, maximum = 1000)]
    k: Option<usize>,
    /// The documents to search, such as `{"brand": "acme", "price": {"$lt": 20}}`.
    #[schema(value_type = Option<JsonObject>)]
    filter: Option<Box<RawValue>>,
    /// The lowest score of a result.
    #[schema(value_type = Option<f32>)]
    min_score: Option<f64>,
    /// Whether the results must be exact, whatever index the collection has.
    exact: Option<bool>,
    /// The number of nodes that a graph index expands: more nodes find more, and take longer.
    #[schema(minimum = 1, maximum = 8192)]
    ef: Option<usize>,
    /// The fields of results besides id and score; text and metadata by default.
    #[schema(value_type = Option<Vec<Field>>, max_items = 16)]
    include: Option<BoundedList<Field, FIELDS_READ_MAX>>,
    /// The cache directives of the request.
    #[serde(default, deserialize_with = "object")]
    cache: Option<CacheObject>,
}

// `ResultsWriter` writes answers; these are their shape, for the contract.

/// The results of a search.
#[derive(Serialize, ToSchema)]
pub(super) struct SearchAnswer {
    /// The nearest documents, best first; with `queries` or `vectors`, a list of such lists.
    results: Vec<QueryResult>,
    /// The version of the collection that was searched.
    version: u64,
}

/// A result of the only query, or the results of one of several queries.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
enum QueryResult {
    /// With `query` or `vector`.
    One(SearchResult),
    /// With `queries` or `vectors`.
    Each(Vec<SearchResult>),
}

/// A document that was found.
#[derive(Serialize, ToSchema)]
struct SearchResult {
    /// Its id in the collection.
    id: String,
    /// How near it is, higher is nearer: the cosine, the inner product, or minus the squared distance.
    score: f32,
    /// Its text.
    #[schema(nullable = false)]
    text: Option<String>,
    /// Its metadata.
    #[schema(value_type = JsonObject, required = false)]
    metadata: Option<serde_json::Value>,
    /// Its tags.
    #[schema(nullable = false)]
    tags: Option<Vec<String>>,
    /// Its vector.
    #[schema(nullable = false)]
    vector: Option<Vec<f32>>,
}

/// Searches a collection.
///
/// Results are exact where the collection has no index or the search says `exact`; else the index may miss some, and all
/// that it finds have exact scores. They are cached, and a write drops exactly those that it changes.
#[utoipa::path(
    post,
    path = "/v1/collections/{name}/search",
    operation_id = "searchDocuments",
    tag = "collections",
    params(("name" = String, Path, description = "The name of the collection", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    request_body = SearchRequest,
    responses(
        (status = 200, body = SearchAnswer, headers(("x-likewise-hits"), ("x-likewise-misses"), ("x-likewise-coalesced"), ("age"), ("cache-status"), ("server-timing")), description = "The nearest documents"),
        (status = 400, body = ErrorBody, description = "A field or header of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "There is no such collection"),
        (status = 409, body = ErrorBody, description = "The query is a text, and the collection has no model or one that is not loaded"),
        (status = 422, body = ErrorBody, description = "A remote model refuses a text"),
        (status = 429, body = ErrorBody, description = "Too many searches wait, the queue of the model is full, or the server is at a limit of requests or bytes in flight"),
        (status = 502, body = ErrorBody, description = "A remote model cannot be reached"),
        (status = 503, body = ErrorBody, description = "The server could not open the collection"),
        (status = 504, body = ErrorBody, description = "The result is not cached and the request sends `only-if-cached`, or the search took too long"),
    )
)]
pub(in crate::http) async fn search(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    CollectionName(name): CollectionName,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let read = |body: &[u8]| {
        let wire: SearchRequest = parse(body)?;
        let filter = wire.filter.as_deref().map(filter::read).transpose()?;
        Ok((wire, filter))
    };
    let (wire, filter) = body.parse(read).await?;
    let include = wire.include.map_or_else(|| vec![Field::Text, Field::Metadata], |fields| fields.0);
    let (input, is_batch) = input(wire.query, wire.vector, wire.queries, wire.vectors)?;
    let score_min = wire.min_score.map(|min| min as f32);
    if score_min.is_some_and(|min| !min.is_finite()) {
        return Err(Error::invalid("min_score", "min_score must be a finite number").into());
    }
    let search = Search {
        input,
        k: wire.k.unwrap_or(K),
        filter,
        score_min,
        has_vectors: include.contains(&Field::Vector),
        is_exact: wire.exact.unwrap_or(false),
        ef: wire.ef,
        principal,
        directives: wire.cache.unwrap_or_default().with_headers(&head.headers)?,
    };
    let found = endpoint.collections.search(&name, search).await;
    let found = found.map_err(|error| error.map_field(|field| wire_field(field, is_batch)))?;
    // The results are held until they are written, and about as much again is written.
    let bytes: usize = found.results.iter().map(|results| results.bytes().len()).sum();
    let held = ResponseReservation::reserve(&endpoint.budget, bytes.saturating_mul(2))?;
    Ok(held.attach(answer(found, is_batch, include)))
}

/// The path in a request of a field of the use case, which knows only lists of texts and of vectors.
fn wire_field(field: FieldPath, is_batch: bool) -> FieldPath {
    let field = field.renamed("ttl_seconds", FieldPath::parse("cache.ttl"));
    let names = if is_batch { ["queries", "vectors"] } else { ["query", "vector"] };
    for (list, name) in ["texts", "vectors"].into_iter().zip(names) {
        if field.is_in(list) {
            // A single query is an element of no list.
            let steps = if is_batch || field.index_in(list).is_none() { 1 } else { 2 };
            return field.moved(steps, name.into());
        }
    }
    field
}

fn input(
    query: Option<String>,
    vector: Option<VectorInput>,
    queries: Option<BoundedList<String, QUERIES_READ_MAX>>,
    vectors: Option<BoundedList<VectorInput, QUERIES_READ_MAX>>,
) -> Result<(Input, bool)> {
    match (query, vector, queries, vectors) {
        (Some(text), None, None, None) => Ok((Input::Texts(vec![text]), false)),
        (None, Some(vector), None, None) => Ok((Input::Vectors(vec![vector.0]), false)),
        (None, None, Some(texts), None) => Ok((Input::Texts(texts.0), true)),
        (None, None, None, Some(vectors)) => {
            Ok((Input::Vectors(vectors.0.into_iter().map(|vector| vector.0).collect()), true))
        }
        _ => Err(Error::invalid("query", "exactly one of query, vector, queries and vectors must be given")),
    }
}

fn answer(mut found: SearchOutcome, is_batch: bool, include: Vec<Field>) -> Response {
    let (queries, version) = (found.results.len(), found.version);
    let results = std::mem::take(&mut found.results);
    let bytes: usize = results.iter().map(|results| results.bytes().len()).sum();
    let mut writer = ResultsWriter::new(results, include, is_batch, version);
    let mut response = Response::new(if bytes <= AT_ONCE_BYTES_MAX {
        let mut json = Vec::with_capacity(256 + bytes * 2);
        writer.write(&mut json, usize::MAX);
        Body::from(json)
    } else {
        chunked::body(writer)
    });
    let headers = response.headers_mut();
    headers.reserve(10);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HITS, HeaderValue::from(found.hits));
    headers.insert(MISSES, HeaderValue::from(found.misses));
    headers.insert(COALESCED, HeaderValue::from(found.coalesced));
    if found.hits == queries {
        headers.insert(header::AGE, HeaderValue::from(found.age_seconds));
    }
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(&found)));
    let mut timing = String::with_capacity(48);
    let (embedding, searching) = (Millis(found.embedding), Millis(found.searching));
    let _ = write!(timing, "embedding;dur={embedding}, search;dur={searching}");
    headers.insert(SERVER_TIMING, HeaderValue::try_from(timing).expect("digits and words: this is a bug"));
    response
}

/// RFC 9211: one answer, so one verdict; a batch is a hit only if every query was.
fn cache_status(found: &SearchOutcome) -> &'static str {
    match (found.hits, found.misses, found.coalesced) {
        (_, 0, 0) => cache_status::hit_in(TierName::Memory),
        (0, 0, _) => cache_status::of(LookupOutcome::Coalesced),
        (0, _, _) => cache_status::of(LookupOutcome::Miss),
        (..) => cache_status::PARTIAL,
    }
}
