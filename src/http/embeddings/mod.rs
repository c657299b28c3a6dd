//! `/v1/embeddings`.

pub(super) mod apis;
mod input;
mod response;
mod upstream;
mod vectors;
pub(super) mod wire;

use std::sync::Arc;

use axum::extract::{Extension, Request as HttpRequest, State};
use axum::http::HeaderName;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;

use self::input::EmbeddingInput;
use self::upstream::ParsedUpstreamRequest;
use self::vectors::ResponseVectors;
use self::wire::{EmbeddingsAnswer, EmbeddingsRequest, EncodingFormat, InputTypeName};
use utoipa_axum::routes;

use crate::byte_budget::ByteBudget;
use crate::domain::{InputType, Principal};
use crate::embed::{Embedder, ModelCard, ModelRegistry};
use crate::error::{Error, Kind, Result};
use crate::http::admission::{ConcurrencyPermit, OwnRequest};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::extract::body::{BodyLimit, Received};
use crate::http::extract::cache_member::without_cache_member;
use crate::http::extract::directives::CacheObject;
use crate::http::extract::field_names::FieldNames;
use crate::http::extract::json::parse;
use crate::http::extract::model_name::check_model_name;
use crate::http::forward::target::{ForwardTarget, model_of};
use crate::http::forward::{Forward, forward_to};
use crate::http::models::unknown;
use crate::http::offload::offload;
use crate::http::reservation::ResponseReservation;
use crate::http::routes::Routes;
use crate::service::Embeddings;
use crate::service::embeddings::{Request, UpstreamEmbeddings};

/// What the handler needs.
pub(super) struct Endpoint {
    pub(super) embeddings: Arc<Embeddings>,
    pub(super) models: Arc<ModelRegistry>,
    /// Models that only an upstream has. None where no upstream is configured.
    pub(super) upstream: Option<Arc<UpstreamEmbeddings>>,
    /// Headers that are passed on to it.
    pub(super) forwarded_headers: Vec<HeaderName>,
    /// Where requests are passed on that only the upstream understands.
    pub(super) forward: Arc<Forward>,
    pub(super) body_bytes_max: usize,
    /// Requests that are worked on at a time, and tokens of a forward pass: clients of some APIs ask for them.
    pub(super) requests_max: usize,
    pub(super) batch_tokens_max: usize,
    pub(super) budget: Arc<ByteBudget>,
}

impl BodyLimit for Endpoint {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }
}

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Endpoint>> {
    Routes::new().add(routes!(create))
}

/// Embeds texts.
///
/// ResponseVectors come in the order of the inputs. Texts that were embedded before are served from the cache; the headers
/// `x-likewise-hits`, `-misses` and `-coalesced` tell how many. Texts for a model that is not served here are embedded by its
/// upstream, where one is configured, and cached like all others. A request with fields that are not described here is passed on to
/// it, and its answer is not cached.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    operation_id = "createEmbeddings",
    tag = "embeddings",
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, body = EmbeddingsAnswer, headers(("x-likewise-hits"), ("x-likewise-misses"), ("x-likewise-coalesced"), ("x-likewise-truncated"), ("x-likewise-reason"), ("age"), ("cache-status"), ("server-timing")), description = "One vector for each input, in the order of the inputs"),
        (status = 400, body = ErrorBody, description = "A field or header of the request is invalid; `param` names it"),
        (status = 404, body = ErrorBody, description = "Neither this server nor an upstream has the model"),
        (status = 413, body = ErrorBody, description = "The body, or the number of tokens, exceeds a limit"),
        (status = 422, body = ErrorBody, description = "A model on another server refuses a text"),
        (status = 429, body = ErrorBody, description = "What waits for the model takes longer than a request may, or the server is at a limit of requests or bytes in flight"),
        (status = 502, body = ErrorBody, description = "The upstream or the remote model cannot be reached"),
        (status = 503, body = ErrorBody, description = "The model is not available"),
        (status = 504, body = ErrorBody, description = "A vector is not cached and the request sends `only-if-cached`, or the model took too long"),
    )
)]
pub(super) async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(permit): Extension<Arc<ConcurrencyPermit>>,
    Received { head, body }: Received,
) -> Result<Response, Problem> {
    let body = body.read().await?;
    let (reader, text) = (Arc::clone(&endpoint), body.clone());
    let (format, vectors) = match offload(body.len(), move || read(&reader, &text)).await? {
        ParsedBody::Served(asked) => {
            let asked = asked?;
            (asked.format, embed_here(&endpoint, asked, &head, principal).await?)
        }
        ParsedBody::OfUpstream(asked, upstream) => {
            // A request that waits for an upstream must not delay others.
            permit.release();
            (asked.format, embed_at_upstream(&endpoint, &upstream, *asked, &head, principal).await?)
        }
        ParsedBody::Forwarded(parsed) => {
            return forward_others(&endpoint, head, body, parsed).await;
        }
    };
    let bytes = response::bytes_max(vectors.len(), vectors.dim(), format);
    let write = move |vectors: &ResponseVectors| {
        response::write(vectors.rows(), vectors.dim(), format, vectors.model(), vectors.tokens())
    };
    Ok(vectors.respond(bytes, write).await?)
}

/// A body, by whose model it is for.
enum ParsedBody {
    Served(Result<ServedRequest>),
    /// For a model that only an upstream has.
    OfUpstream(Box<ParsedUpstreamRequest>, Arc<UpstreamEmbeddings>),
    /// For another model with fields of its own, or not to be understood.
    Forwarded(Result<EmbeddingsRequest>),
}

/// What a body asks of a model that is served here.
struct ServedRequest {
    model: Arc<dyn Embedder>,
    texts: Vec<String>,
    input_type: Option<InputType>,
    truncate: bool,
    format: EncodingFormat,
    /// Length of the vectors.
    dim: usize,
    cache: CacheObject,
}

fn read(endpoint: &Endpoint, body: &[u8]) -> ParsedBody {
    match parse::<EmbeddingsRequest>(body) {
        Ok(wire) => match endpoint.models.find(&wire.model) {
            Some(model) => ParsedBody::Served(ServedRequest::new(wire, model, endpoint)),
            None => of_upstream(endpoint, wire, body),
        },
        Err(error) => ParsedBody::Forwarded(Err(error)),
    }
}

fn of_upstream(endpoint: &Endpoint, wire: EmbeddingsRequest, body: &[u8]) -> ParsedBody {
    let Some(upstream) = &endpoint.upstream else { return ParsedBody::Forwarded(Ok(wire)) };
    match ParsedUpstreamRequest::read(wire, body) {
        Ok(parsed) => ParsedBody::OfUpstream(Box::new(parsed), Arc::clone(upstream)),
        Err(wire) => ParsedBody::Forwarded(Ok(*wire)),
    }
}

/// Numbers of a vector whose length is not known before it is there: those of `text-embedding-3-small`. Longer ones are reserved for once
/// they are.
const DIM_UNKNOWN: usize = 1536;
/// Numbers of the longest vector that is asked for.
const DIM_MAX: usize = 1 << 16;

/// Embeds the texts of a request for a model that is served here.
async fn embed_here(
    endpoint: &Endpoint,
    asked: ServedRequest,
    head: &Parts,
    principal: Arc<Principal>,
) -> Result<ResponseVectors> {
    let request = Request {
        model: asked.model,
        texts: asked.texts,
        input_type: asked.input_type,
        truncate: asked.truncate,
        principal,
        directives: asked.cache.with_headers(&head.headers)?,
        is_background: head.extensions.get::<OwnRequest>().is_some(),
    };
    let card = request.model.card();
    // Few bytes of text have a large answer, which is reserved with its vectors before the model works for it.
    let vectors_bytes = request.texts.len() * card.dim * size_of::<f32>();
    let bytes = vectors_bytes + response::bytes_max(request.texts.len(), asked.dim, asked.format);
    let held = ResponseReservation::reserve(&endpoint.budget, bytes)?;
    let served = endpoint.embeddings.embed(&request).await.map_err(wire_field)?;
    Ok(ResponseVectors::new(served, card.name.clone(), asked.dim, held))
}

/// Embeds the texts of a request for a model that only an upstream has.
async fn embed_at_upstream(
    endpoint: &Endpoint,
    upstream: &UpstreamEmbeddings,
    asked: ParsedUpstreamRequest,
    head: &Parts,
    principal: Arc<Principal>,
) -> Result<ResponseVectors> {
    check_model_name(asked.model())?;
    let (format, dimensions) = (asked.format, asked.dimensions);
    let request = asked.into_request(head, &endpoint.forwarded_headers, principal)?;
    let (model, texts) = (request.model.clone(), request.inputs.len());
    let bytes_of = |dim: usize| response::bytes_max(texts, dim, format) + texts * dim * size_of::<f32>();
    let expected = upstream.width(&request)?.or(dimensions).unwrap_or(DIM_UNKNOWN).min(DIM_MAX);
    let mut held = ResponseReservation::reserve(&endpoint.budget, bytes_of(expected))?;
    let served = upstream.embed(request).await.map_err(wire_field)?;
    let dim = served.entries.first().map_or(0, |entry| entry.value.len() / size_of::<f32>());
    if dim > expected {
        held = ResponseReservation::reserve(&endpoint.budget, bytes_of(dim))?;
    }
    Ok(ResponseVectors::new(served, model, dim, held))
}

impl ServedRequest {
    fn new(wire: EmbeddingsRequest, model: &Arc<dyn Embedder>, endpoint: &Endpoint) -> Result<ServedRequest> {
        Ok(ServedRequest {
            model: Arc::clone(model),
            dim: dim(wire.dimensions, model.card())?,
            texts: texts(wire.input, &**model, endpoint)?,
            input_type: wire.input_type.map(|name| match name {
                InputTypeName::Query => InputType::Query,
                InputTypeName::Document => InputType::Document,
            }),
            truncate: wire.truncate.unwrap_or(true),
            format: wire.encoding_format,
            cache: wire.cache.unwrap_or_default(),
        })
    }
}

/// Fields of the use case in the body of a request.
const FIELDS: FieldNames = FieldNames(&[
    ("texts", "input"),
    ("ids", "input"),
    ("ttl_seconds", "cache.ttl"),
    ("namespace", "cache.namespace"),
]);

/// The error of the use case as clients read it: `param` is `input`, also where the message names an element of it.
fn wire_field(error: Error) -> Error {
    let error = FIELDS.apply(error);
    if error.field().is_some_and(|field| field.is_in("input")) { error.param("input") } else { error }
}

/// Passes a request on whose model is not served here. It may have a shape that is known to its model only; then it is
/// `parsed` as an error.
///
/// # Errors
/// What is wrong with the request, where no upstream is configured or it names no other model.
async fn forward_others(
    endpoint: &Endpoint,
    head: Parts,
    body: Bytes,
    parsed: Result<EmbeddingsRequest>,
) -> Result<Response, Problem> {
    let model = match parsed {
        Ok(wire) if endpoint.forward.origin.is_some() => wire.model,
        Ok(wire) => return Err(unknown(&endpoint.models, &wire.model).into()),
        Err(error) => match model_of(&head.headers, &body).await {
            Ok(Some(model))
                if endpoint.forward.origin.is_some() && endpoint.models.find(&model).is_none() =>
            {
                model
            }
            Ok(_) | Err(_) => return Err(error.into()),
        },
    };
    let body = without_cache_member(&head.headers, body)?;
    let target = ForwardTarget { path: "embeddings".to_owned(), model: Some(model), answer_id: None };
    forward_to(&endpoint.forward, target, HttpRequest::from_parts(head, body.into())).await
}

/// The texts of a request, in order. Those of token ids have together at most the bytes of a body, as if they had been sent.
fn texts(input: EmbeddingInput, model: &dyn Embedder, endpoint: &Endpoint) -> Result<Vec<String>> {
    let texts = match input {
        EmbeddingInput::Texts(texts) => texts,
        EmbeddingInput::Tokens(lists) => decoded(&lists, model, endpoint)?,
    };
    if texts.is_empty() {
        return Err(Error::invalid("input", "input must not be an empty list"));
    }
    match texts.iter().position(String::is_empty) {
        Some(row) => Err(Error::invalid("input", format!("input[{row}] must not be an empty string"))),
        None => Ok(texts),
    }
}

fn decoded(lists: &[Vec<u32>], model: &dyn Embedder, endpoint: &Endpoint) -> Result<Vec<String>> {
    let bytes_max = endpoint.body_bytes_max;
    let mut texts = Vec::with_capacity(lists.len());
    let mut bytes = 0;
    for (row, ids) in lists.iter().enumerate() {
        if ids.is_empty() {
            return Err(Error::invalid(
                "input",
                format!("input[{row}] must not be an empty list of token ids"),
            ));
        }
        let text = endpoint.embeddings.decode_tokens(model, ids).map_err(wire_field)?;
        bytes += text.len();
        if bytes > bytes_max {
            let message = format!("the texts of the token ids have together more than {bytes_max} bytes");
            return Err(Error::new(Kind::TooLarge, message).param("input"));
        }
        texts.push(text);
    }
    Ok(texts)
}

/// The length of the vectors that the request asks for.
fn dim(asked: Option<u32>, card: &ModelCard) -> Result<usize> {
    let Some(asked) = asked else { return Ok(card.dim) };
    let asked = usize::try_from(asked).unwrap_or(usize::MAX);
    if card.matryoshka.allows(asked, card.dim) {
        return Ok(asked);
    }
    Err(Error::invalid(
        "dimensions",
        format!("the vectors of `{}` have {} dimensions and cannot be cut to {asked}", card.name, card.dim),
    ))
}
