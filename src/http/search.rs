//! `/v1/collections/{name}/search`: the nearest documents.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request as HttpRequest, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::collections::{Endpoint, Place};
use super::documents::VectorInput;
use super::embeddings::directives;
use super::headers::{CACHE_STATUS, COALESCED, HITS, MISSES, Millis, SERVER_TIMING, path};
use super::problem::{ErrorBody, Problem};
use super::wire::{CacheObject, object, parse};
use super::{body, filter};
use crate::domain::Tenant;
use crate::error::{Error, Result};
use crate::search::{Hit, Results};
use crate::service::neighbors::{Found, Input, Search};

const K: usize = 10;

/// A search: by one of `query`, `vector`, `queries` and `vectors`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchRequest {
    /// A text, embedded by the collection's model.
    query: Option<String>,
    /// A vector: numbers, or base64 of little-endian f32.
    #[schema(value_type = Option<Vec<f32>>)]
    vector: Option<VectorInput>,
    /// Several texts; `results` is then a list of lists.
    queries: Option<Vec<String>>,
    /// Several vectors; `results` is then a list of lists.
    #[schema(value_type = Option<Vec<Vec<f32>>>)]
    vectors: Option<Vec<VectorInput>>,
    /// How many documents are wanted of each query; 10.
    k: Option<usize>,
    /// Which documents may be found, such as `{"brand": "acme", "price": {"$lt": 20}}`.
    #[schema(value_type = Option<Object>)]
    filter: Option<serde_json::Value>,
    /// Scores below it are not results.
    #[schema(value_type = Option<f32>)]
    min_score: Option<f64>,
    /// Whether the results must be exact, whatever index the collection has.
    exact: Option<bool>,
    /// Nodes that a graph widens: more find more, and take as much longer.
    ef: Option<usize>,
    /// What results hold besides id and score; text and metadata if it is left out.
    include: Option<Vec<Field>>,
    /// What the request says about the cache.
    #[serde(default, deserialize_with = "object")]
    cache: Option<CacheObject>,
}

/// What a result may hold besides id and score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Field {
    Text,
    Metadata,
    Tags,
    Vector,
}

// `write` writes answers; these are their shape, for the contract.

/// What was found.
#[derive(Serialize, ToSchema)]
pub(super) struct SearchAnswer {
    /// The nearest documents, best first; a list of such lists where there are several queries.
    results: Vec<SearchResult>,
    /// The version of the collection of which they are true.
    version: u64,
}

/// A document that was found.
#[derive(Serialize, ToSchema)]
struct SearchResult {
    /// Its name in the collection.
    id: String,
    /// How near it is, higher is nearer: the cosine, the inner product, or minus the squared distance.
    score: f32,
    /// Its text.
    text: Option<String>,
    /// Its metadata.
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// Its tags.
    tags: Option<Vec<String>>,
    /// Its vector.
    vector: Option<Vec<f32>>,
}

/// Searches a collection.
///
/// Results are exact where the collection has no index or the search says `exact`; else the index may miss some, and all
/// that it finds have exact scores. They are cached, and a write drops exactly those that it changes.
#[utoipa::path(
    post,
    path = "/v1/collections/{name}/search",
    tag = "collections",
    params(("name" = String, Path)),
    request_body = SearchRequest,
    responses(
        (status = 200, body = SearchAnswer),
        (status = 400, body = ErrorBody, description = "`param` names the field"),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "A text in a collection of another model, or of none"),
        (status = 413, body = ErrorBody),
        (status = 429, body = ErrorBody, description = "Too many searches are waiting, or the model's queue is full"),
        (status = 504, body = ErrorBody, description = "Not cached, with only-if-cached"),
    )
)]
pub(super) async fn search(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(tenant): Extension<Tenant>,
    place: Place,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let name = path(place, "name")?;
    let (head, body) = request.into_parts();
    let body = body::read(body, endpoint.body_bytes_max).await?;
    let wire: SearchRequest = parse(&body)?;
    let include = wire.include.unwrap_or_else(|| vec![Field::Text, Field::Metadata]);
    let (input, is_batch) = input(wire.query, wire.vector, wire.queries, wire.vectors)?;
    let score_min = wire.min_score.map(|min| min as f32);
    if score_min.is_some_and(|min| !min.is_finite()) {
        return Err(Error::invalid("min_score", "min_score is a finite number").into());
    }
    let search = Search {
        input,
        k: wire.k.unwrap_or(K),
        filter: wire.filter.as_ref().map(filter::read).transpose()?,
        score_min,
        has_vectors: include.contains(&Field::Vector),
        is_exact: wire.exact.unwrap_or(false),
        ef: wire.ef,
        tenant,
        directives: directives(&head.headers, wire.cache.unwrap_or_default())?,
        fields: if is_batch { ["queries", "vectors"] } else { ["query", "vector"] },
    };
    let found = endpoint.neighbors.search(&name, search).await?;
    Ok(answer(&found, is_batch, &include))
}

fn input(
    query: Option<String>,
    vector: Option<VectorInput>,
    queries: Option<Vec<String>>,
    vectors: Option<Vec<VectorInput>>,
) -> Result<(Input, bool)> {
    match (query, vector, queries, vectors) {
        (Some(text), None, None, None) => Ok((Input::Texts(vec![text]), false)),
        (None, Some(vector), None, None) => Ok((Input::Vectors(vec![vector.0]), false)),
        (None, None, Some(texts), None) => Ok((Input::Texts(texts), true)),
        (None, None, None, Some(vectors)) => {
            Ok((Input::Vectors(vectors.into_iter().map(|vector| vector.0).collect()), true))
        }
        _ => Err(Error::invalid("query", "give one of query, vector, queries and vectors")),
    }
}

fn answer(found: &Found, is_batch: bool, include: &[Field]) -> Response {
    let mut json = Vec::with_capacity(
        256 + found.results.iter().map(|results| results.bytes().len() * 2).sum::<usize>(),
    );
    json.extend_from_slice(br#"{"results":"#);
    if is_batch {
        separated(&mut json, found.results.iter(), |json, results| write(json, results, include));
    } else if let Some(results) = found.results.first() {
        write(&mut json, results, include);
    }
    json.extend_from_slice(br#","version":"#);
    value(&mut json, &found.version);
    json.push(b'}');
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.reserve(10);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HITS, HeaderValue::from(found.hits));
    headers.insert(MISSES, HeaderValue::from(found.misses));
    headers.insert(COALESCED, HeaderValue::from(found.coalesced));
    if found.hits == found.results.len() {
        headers.insert(header::AGE, HeaderValue::from(found.age_seconds));
    }
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(found)));
    let mut timing = String::with_capacity(48);
    let (embedding, searching) = (Millis(found.embedding), Millis(found.searching));
    let _ = write!(timing, "embedding;dur={embedding}, search;dur={searching}");
    headers.insert(SERVER_TIMING, HeaderValue::try_from(timing).expect("digits and words: this is a bug"));
    response
}

/// RFC 9211: one answer, so one verdict; a batch is a hit only if every query was.
fn cache_status(found: &Found) -> &'static str {
    match (found.hits, found.misses, found.coalesced) {
        (_, 0, 0) => "likewise; hit; detail=memory",
        (0, 0, _) => "likewise; fwd=miss; collapsed",
        (0, _, _) => "likewise; fwd=miss",
        (..) => "likewise; fwd=miss; detail=partial",
    }
}

fn write(json: &mut Vec<u8>, results: &Results, include: &[Field]) {
    separated(json, results.iter(), |json, hit| write_hit(json, &hit, include));
}

fn write_hit(json: &mut Vec<u8>, hit: &Hit<'_>, include: &[Field]) {
    json.extend_from_slice(br#"{"id":"#);
    value(json, hit.document.id);
    json.extend_from_slice(br#","score":"#);
    value(json, &hit.score);
    if include.contains(&Field::Text)
        && let Some(text) = hit.document.text
    {
        json.extend_from_slice(br#","text":"#);
        value(json, text);
    }
    if include.contains(&Field::Metadata) && !hit.document.metadata.is_empty() {
        // It was a JSON object when it came in, and is kept as it was.
        json.extend_from_slice(br#","metadata":"#);
        json.extend_from_slice(hit.document.metadata.as_bytes());
    }
    if include.contains(&Field::Tags) {
        json.extend_from_slice(br#","tags":"#);
        separated(json, hit.document.tags(), value);
    }
    if include.contains(&Field::Vector) {
        json.extend_from_slice(br#","vector":"#);
        let numbers = hit.vector.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number));
        separated(json, numbers, |json, number| value(json, &number));
    }
    json.push(b'}');
}

/// A JSON list.
fn separated<T>(json: &mut Vec<u8>, items: impl Iterator<Item = T>, mut item: impl FnMut(&mut Vec<u8>, T)) {
    json.push(b'[');
    for (place, each) in items.enumerate() {
        if place > 0 {
            json.push(b',');
        }
        item(json, each);
    }
    json.push(b']');
}

fn value<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("a plain value into memory: this is a bug");
}
