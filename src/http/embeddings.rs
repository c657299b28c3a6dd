//! `/v1/embeddings`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use super::headers::{CACHE_STATUS, COALESCED, HITS, MISSES, Millis, SERVER_TIMING};
use super::models::Names;
use super::problem::{ErrorBody, Problem};
use super::wire::{
    CacheObject, EmbeddingsAnswer, EmbeddingsRequest, EncodingFormat, Input, InputTypeName, parse,
};
use super::{answer, body, cache_control};
use crate::cache::TierName;
use crate::domain::{InputType, Tenant};
use crate::embed::ModelCard;
use crate::error::{Error, Result};
use crate::service::embeddings::{Request, Response as Served};
use crate::service::{Directives, Embeddings};

const TRUNCATED: HeaderName = HeaderName::from_static("x-likewise-truncated");

/// Room for the headers of an answer, those that the gate and the connection add included.
const HEADERS: usize = 12;

/// What the handler needs.
pub(super) struct Endpoint {
    pub(super) embeddings: Arc<Embeddings>,
    pub(super) names: Arc<Names>,
    pub(super) body_bytes_max: usize,
}

/// Embeds texts.
///
/// Vectors come in the order of the inputs. Texts that were embedded before are served from the cache; the headers
/// `x-likewise-hits`, `-misses` and `-coalesced` tell how many.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "embeddings",
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, body = EmbeddingsAnswer),
        (status = 400, body = ErrorBody, description = "A field is wrong; `param` names it"),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "The model is not served here"),
        (status = 413, body = ErrorBody, description = "The body or the tokens are past a limit"),
        (status = 429, body = ErrorBody, description = "The model's queue is full; see `retry-after`"),
        (status = 504, body = ErrorBody, description = "Not cached, or not in time"),
    )
)]
pub(super) async fn create(
    State(endpoint): State<Arc<Endpoint>>,
    Extension(tenant): Extension<Tenant>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::read(body, endpoint.body_bytes_max).await?;
    let wire: EmbeddingsRequest = parse(&body)?;
    let card = endpoint.names.resolve(&wire.model)?;
    let dim = dim(&wire, card)?;
    let format = wire.encoding_format;
    let directives = directives(&head.headers, wire.cache.unwrap_or_default())?;
    let request = Request {
        texts: texts(wire.input, &endpoint.embeddings)?,
        input_type: wire.input_type.map(|name| match name {
            InputTypeName::Query => InputType::Query,
            InputTypeName::Document => InputType::Document,
        }),
        truncate: wire.truncate.unwrap_or(true),
        tenant,
        directives,
    };
    let served = endpoint.embeddings.embed(&request).await?;
    Ok(answer(&served, &card.name, format, dim, card.dim))
}

/// The texts of a request, in order.
fn texts(input: Input, embeddings: &Embeddings) -> Result<Vec<String>> {
    let texts = match input {
        Input::Texts(texts) => texts,
        Input::Tokens(lists) => {
            let decode = |(row, ids): (usize, Vec<u32>)| {
                if ids.is_empty() {
                    return Err(Error::invalid(
                        "input",
                        format!("input[{row}] is an empty list of token ids"),
                    ));
                }
                embeddings.decode_tokens(&ids)
            };
            lists.into_iter().enumerate().map(decode).collect::<Result<_>>()?
        }
    };
    if texts.is_empty() {
        return Err(Error::invalid("input", "input is an empty list"));
    }
    match texts.iter().position(String::is_empty) {
        Some(row) => Err(Error::invalid("input", format!("input[{row}] is an empty string"))),
        None => Ok(texts),
    }
}

/// The length of the vectors that the request asks for.
fn dim(wire: &EmbeddingsRequest, card: &ModelCard) -> Result<usize> {
    let Some(asked) = wire.dimensions else { return Ok(card.dim) };
    let asked = usize::try_from(asked).unwrap_or(usize::MAX);
    if card.matryoshka.allows(asked, card.dim) {
        return Ok(asked);
    }
    Err(Error::invalid(
        "dimensions",
        format!("the vectors of `{}` have {} dimensions and cannot be cut to {asked}", card.name, card.dim),
    ))
}

/// The body's `cache` object and the `Cache-Control` of RFC 9111; where both speak, the stricter holds.
pub(super) fn directives(headers: &HeaderMap, object: CacheObject) -> Result<Directives> {
    let mut directives = Directives {
        no_cache: object.no_cache,
        no_store: object.no_store,
        only_if_cached: object.only_if_cached,
        age_seconds_max: object.s_maxage,
        ttl_seconds: object.ttl,
        namespace: object.namespace,
        ..Directives::default()
    };
    cache_control::apply(headers, &mut directives)?;
    Ok(directives)
}

fn answer(served: &Served, model: &str, format: EncodingFormat, dim: usize, native_dim: usize) -> Response {
    let vectors = served.entries.iter().map(|entry| {
        if dim == native_dim {
            Cow::Borrowed(&*entry.value)
        } else {
            Cow::Owned(shortened(&entry.value, dim))
        }
    });
    let json = answer::write(vectors, dim, format, model, served.tokens);
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    describe(served, headers);
    response
}

/// Headers that tell how the answer came about.
fn describe(served: &Served, headers: &mut HeaderMap) {
    let counts = served.counts;
    headers.insert(HITS, HeaderValue::from(counts.hits));
    headers.insert(MISSES, HeaderValue::from(counts.misses));
    headers.insert(COALESCED, HeaderValue::from(counts.coalesced));
    if served.truncated > 0 {
        headers.insert(TRUNCATED, HeaderValue::from(served.truncated));
    }
    if served.tier.is_some() {
        headers.insert(header::AGE, HeaderValue::from(served.age_seconds));
    }
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(served)));
    let timing = HeaderValue::try_from(server_timing(served));
    headers.insert(SERVER_TIMING, timing.expect("digits and words are a valid header: this is a bug"));
}

/// RFC 9211: one answer, so one verdict; a batch is a hit only if every text was.
fn cache_status(served: &Served) -> &'static str {
    match served.tier {
        Some(TierName::Memory) => "likewise; hit; detail=memory",
        Some(TierName::Disk) => "likewise; hit; detail=disk",
        None if served.counts.misses == 0 => "likewise; fwd=miss; collapsed",
        None if served.counts.hits == 0 => "likewise; fwd=miss",
        None => "likewise; fwd=miss; detail=partial",
    }
}

/// Where the time went, in the form of the W3C's Server Timing: milliseconds.
fn server_timing(served: &Served) -> String {
    let mut text = String::with_capacity(48);
    let mut push = |name: &str, time: Duration| {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{name};dur={}", Millis(time));
    };
    push("lookup", served.lookup);
    if served.tier.is_none() {
        push("queue", served.queued);
        push("inference", served.waiting - served.queued);
    }
    text
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk))
}

/// The first `dim` numbers, brought back to unit length (Kusupati et al., "Matryoshka Representation Learning",
/// 2022), as little-endian f32 like the vector they come from.
fn shortened(bytes: &[u8], dim: usize) -> Vec<u8> {
    let norm = floats(bytes).take(dim).map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { norm } else { 1.0 };
    floats(bytes).take(dim).flat_map(|x| ((f64::from(x) / scale) as f32).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_and_the_cache_object_add_up() {
        let mut headers = HeaderMap::new();
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store, max-age=60"));
        let object = CacheObject { s_maxage: Some(70), no_cache: true, ..CacheObject::default() };
        let directives = directives(&headers, object).unwrap();
        assert!(directives.no_store && directives.no_cache);
        assert_eq!(directives.age_seconds_max, Some(60));
    }

    #[test]
    fn a_shortened_vector_has_unit_length() {
        let bytes: Vec<u8> = [3.0_f32, 4.0, 12.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(floats(&shortened(&bytes, 2)).collect::<Vec<_>>(), [0.6, 0.8]);
    }
}
