//! `/v1/rerank` and `/v2/rerank`: the API of Cohere and Jina. `tei`: that of Text Embeddings Inference.
//!
//! The contract is theirs, so that `/openapi.json` does not describe it. A request with other fields than are known here is passed on.

mod tei;

use std::sync::Arc;

use axum::extract::{Extension, Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::Principal;
use crate::error::{Error, Result};
use crate::http::admission::ConcurrencyPermit;
use crate::http::error_response::Problem;
use crate::http::error_shape::ErrorShape;
use crate::http::extract::body::{BodyLimit, Received};
use crate::http::extract::bounded_list::BoundedList;
use crate::http::extract::cache_member::without_cache_member;
use crate::http::extract::credential::credential;
use crate::http::extract::directives::CacheObject;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::forwarded_headers::forwarded_headers;
use crate::http::extract::json::parse;
use crate::http::extract::known_members::{KnownMembers, known_members};
use crate::http::extract::model_name::check_model_name;
use crate::http::extract::trace_headers::trace_headers;
use crate::http::forward::target::{ForwardTarget, model_of};
use crate::http::forward::{Forward, forward_to};
use crate::http::offload::offload;
use crate::http::response::headers::{COALESCED, HITS, MISSES, REASON};
use crate::http::routes::{Access, Routes};
use crate::service::Rerank;
use crate::service::rerank::{RerankModel, RerankRequest, RerankResponse};

/// Fields that are sent along as they came, and may change scores.
const SENT_ALONG: [&str; 5] =
    ["instruction", "max_chunks_per_doc", "max_tokens_per_doc", "truncate", "truncation"];
/// Fields that are understood here.
const OURS: [&str; 7] = ["cache", "documents", "model", "query", "return_documents", "top_n", "user"];

/// Documents of a request; Cohere takes as many. A longer list is left to the upstream.
const DOCUMENTS_MAX: usize = 10_000;

/// Fields of the use case in the body of a request.
const FIELDS: FieldNames =
    FieldNames(&[("texts", "documents"), ("ttl_seconds", "cache.ttl"), ("namespace", "cache.namespace")]);

/// What the handler needs.
pub(super) struct Endpoint {
    /// None where no upstream is configured.
    pub(super) rerank: Option<Arc<Rerank>>,
    /// Headers that are passed on.
    pub(super) forwarded_headers: Vec<HeaderName>,
    /// Where requests are passed on that only the upstream understands.
    pub(super) forward: Arc<Forward>,
    pub(super) body_bytes_max: usize,
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// The routes of this feature, by the API whose errors they have.
pub(super) fn all_routes() -> [Routes<Arc<Endpoint>>; 3] {
    let route = |pattern| Routes::new().add_undocumented(Access::Client, pattern, post(create));
    [
        route("/v1/rerank"),
        route("/v2/rerank").with_errors(ErrorShape::Cohere),
        tei::routes().with_errors(ErrorShape::TextEmbeddingsInference),
    ]
}

#[derive(Deserialize)]
struct KnownFields {
    model: String,
    query: String,
    documents: BoundedList<DocumentText, DOCUMENTS_MAX>,
    top_n: Option<usize>,
    return_documents: Option<bool>,
    cache: Option<CacheObject>,
}

/// A document: a text, or an object with nothing else.
#[derive(Deserialize)]
#[serde(untagged)]
enum DocumentText {
    Text(String),
    Object(TextObject),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextObject {
    text: String,
}

/// A result as both APIs have it.
#[derive(Serialize)]
struct RankedDocument<'a> {
    index: usize,
    relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<RankedText<'a>>,
}

#[derive(Serialize)]
struct RankedText<'a> {
    text: &'a str,
}

/// What a body asks.
struct ParsedRerankRequest {
    known: KnownFields,
    fields: KnownMembers,
}

async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let body = body.read().await?;
    let text = body.clone();
    let parsed = offload(body.len(), move || read(&text)).await?;
    let (Some(rerank), Some(asked)) = (&endpoint.rerank, parsed) else {
        let model = model_of(&head.headers, &body).await?;
        let body = without_cache_member(&head.headers, body)?;
        let target = ForwardTarget { path: "rerank".to_owned(), model, answer_id: None };
        return forward_to(&endpoint.forward, target, HttpRequest::from_parts(head, body.into())).await;
    };
    // A request that waits for an upstream must not delay others.
    permit.release();
    let ParsedRerankRequest { known, fields } = asked;
    check_model_name(&known.model)?;
    if known.top_n == Some(0) {
        return Err(Error::invalid("top_n", "top_n must be at least 1").into());
    }
    let documents: Vec<String> = known.documents.0.into_iter().map(DocumentText::into_text).collect();
    let returned = known.return_documents.unwrap_or(false).then(|| documents.clone());
    let response = rerank
        .rerank(RerankRequest {
            model: RerankModel::Named(known.model.clone()),
            query: known.query,
            documents,
            fields,
            headers: forwarded_headers(&head.headers, &endpoint.forwarded_headers)?,
            traces: trace_headers(&head.headers),
            credential: credential(&head.headers),
            principal,
            directives: known.cache.unwrap_or_default().with_headers(&head.headers)?,
        })
        .await
        .map_err(|error| FIELDS.apply(error))?;
    Ok(respond(&known.model, &response, returned.as_deref(), known.top_n))
}

impl DocumentText {
    fn into_text(self) -> String {
        match self {
            DocumentText::Text(text) | DocumentText::Object(TextObject { text }) => text,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            DocumentText::Text(text) | DocumentText::Object(TextObject { text }) => text.is_empty(),
        }
    }
}

/// Reads a body, if it is understood here.
fn read(body: &[u8]) -> Option<ParsedRerankRequest> {
    let mut fields = known_members(body, &[&OURS[..], &SENT_ALONG].concat())?;
    let known: KnownFields = parse(body).ok()?;
    let BoundedList(documents) = &known.documents;
    if documents.is_empty() || documents.iter().any(DocumentText::is_empty) {
        return None;
    }
    fields.retain(|name, value| SENT_ALONG.contains(&name.as_str()) && value.get() != "null");
    Some(ParsedRerankRequest { known, fields })
}

/// The documents by their scores, the best first; those of one score in their order.
fn respond(
    model: &str,
    response: &RerankResponse,
    documents: Option<&[String]>,
    top_n: Option<usize>,
) -> Response {
    let mut ranked = ranked(&response.scores);
    ranked.truncate(top_n.unwrap_or(usize::MAX));
    let document = |index: usize| Some(RankedText { text: documents?.get(index)? });
    let results = ranked.into_iter().map(|(index, relevance_score)| RankedDocument {
        index,
        relevance_score,
        document: document(index),
    });
    let results: Vec<RankedDocument<'_>> = results.collect();
    let body = json!({ "model": model, "results": results, "usage": { "total_tokens": response.tokens } });
    json_response(body.to_string(), response)
}

/// The places of documents with their scores, the best first; those of one score in their order.
fn ranked(scores: &[f64]) -> Vec<(usize, f64)> {
    let mut ranked: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    ranked
}

/// `json` with the headers that describe how the scores were served.
fn json_response(json: String, served: &RerankResponse) -> Response {
    let mut response = json.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    describe(served, headers);
    response
}

fn describe(served: &RerankResponse, headers: &mut HeaderMap) {
    let counts = served.counts;
    if let Some(reason) = served.not_stored {
        headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    }
    headers.insert(HITS, HeaderValue::from(counts.hits));
    headers.insert(MISSES, HeaderValue::from(counts.misses));
    headers.insert(COALESCED, HeaderValue::from(counts.coalesced));
}
