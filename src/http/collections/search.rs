//! `/v1/collections/{name}/search`: the nearest documents.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::vector_input::VectorInput;
use super::{CollectionName, Endpoint, filter};
use crate::domain::TierName;
use crate::domain::{LookupOutcome, Principal};
use crate::error::{Error, FieldPath, Result};
use crate::http::contract::schemas::JsonObject;
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::Received;
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::directives::CacheObject;
use crate::http::extract::json::{object, parse};
use crate::http::reservation::ResponseReservation;
use crate::http::response::cache_status;
use crate::http::response::chunked::{self, CHUNK_BYTES};
use crate::http::response::headers::{CACHE_STATUS, COALESCED, HITS, MISSES, Millis, SERVER_TIMING};
use crate::search::{Hit, Results};
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
    #[schema(value_type = Option<Vec<String>>)]
    queries: Option<BoundedList<String, QUERIES_READ_MAX>>,
    /// Several vectors; `results` is then a list of lists.
    #[schema(value_type = Option<Vec<VectorInput>>)]
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
    ef: Option<usize>,
    /// The fields of results besides id and score; text and metadata by default.
    #[schema(value_type = Option<Vec<Field>>)]
    include: Option<BoundedList<Field, FIELDS_READ_MAX>>,
    /// The cache directives of the request.
    #[serde(default, deserialize_with = "object")]
    cache: Option<CacheObject>,
}

/// A field of a result besides id and score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Field {
    Text,
    Metadata,
    Tags,
    Vector,
}

// `write` writes answers; these are their shape, for the contract.

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
    let mut writer =
        ResultsWriter { results, include, is_batch, version, query: 0, at: 0, stage: Stage::Head };
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

/// An answer that is being written, in pieces or at once.
struct ResultsWriter {
    results: Vec<Results>,
    include: Vec<Field>,
    is_batch: bool,
    version: u64,
    /// Which results are next, and where among their bytes.
    query: usize,
    at: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Results,
    Done,
}

impl ResultsWriter {
    /// Writes on until there are `bytes` or more, or all is written.
    fn write(&mut self, json: &mut Vec<u8>, bytes: usize) {
        if self.stage == Stage::Head {
            self.stage = Stage::Results;
            json.extend_from_slice(br#"{"results":"#);
            json.extend(self.is_batch.then_some(b'['));
        }
        while self.stage == Stage::Results && json.len() < bytes {
            self.write_next(json);
        }
    }

    /// Writes one result, or the end of a list.
    fn write_next(&mut self, json: &mut Vec<u8>) {
        let Some(results) = self.results.get(self.query) else {
            self.stage = Stage::Done;
            json.extend(self.is_batch.then_some(b']'));
            json.extend_from_slice(br#","version":"#);
            value(json, &self.version);
            return json.push(b'}');
        };
        if self.at == 0 {
            json.extend((self.query > 0).then_some(b','));
            json.push(b'[');
        }
        if let Some((hit, next)) = results.at(self.at) {
            json.extend((self.at > 0).then_some(b','));
            write_hit(json, &hit, &self.include);
            self.at = next;
        } else {
            json.push(b']');
            (self.query, self.at) = (self.query + 1, 0);
        }
    }
}

impl Iterator for ResultsWriter {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut json = Vec::new();
        self.write(&mut json, CHUNK_BYTES);
        (!json.is_empty()).then(|| json.into())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    fn writer(queries: usize, hits: usize, is_batch: bool) -> ResultsWriter {
        let document = [&0_u32.to_le_bytes()[..], &2_u32.to_le_bytes(), &[1, 0, 0, 0], b"a{}"].concat();
        let hit =
            [&1.5_f32.to_le_bytes()[..], &(document.len() as u32).to_le_bytes(), &[0; 4], &document].concat();
        let results = vec![Results::from_bytes(hit.repeat(hits).into()); queries];
        let include = vec![Field::Metadata];
        ResultsWriter { results, include, is_batch, version: 7, query: 0, at: 0, stage: Stage::Head }
    }

    #[test]
    fn an_answer_in_pieces_is_the_answer_at_once() {
        for (queries, hits, is_batch) in
            [(1, 0, false), (1, 3, false), (3, 0, true), (2, 5000, true), (0, 0, true)]
        {
            let mut whole = Vec::new();
            writer(queries, hits, is_batch).write(&mut whole, usize::MAX);
            let pieces: Vec<Bytes> = writer(queries, hits, is_batch).collect();
            assert!(pieces.iter().all(|piece| piece.len() < CHUNK_BYTES + 100));
            assert_eq!(pieces.concat(), whole);
            let json: Json = serde_json::from_slice(&whole).unwrap();
            let lists: Vec<&Json> = if is_batch {
                json["results"].as_array().unwrap().iter().collect()
            } else {
                vec![&json["results"]]
            };
            assert_eq!(lists.len(), queries);
            let hit = serde_json::json!({ "id": "a", "score": 1.5, "text": "", "metadata": {} });
            let hit = |found: &Json| found["id"] == hit["id"] && found["metadata"] == hit["metadata"];
            for list in lists {
                assert!(
                    list.as_array().unwrap().len() == hits && list.as_array().unwrap().iter().all(hit),
                    "{list}"
                );
            }
            assert_eq!(json["version"], 7);
        }
    }
}
