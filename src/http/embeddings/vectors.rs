//! The vectors of a request, for the answers of all APIs.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::domain::LookupOutcome;
use crate::error::Result;
use crate::http::offload::offload;
use crate::http::reservation::ResponseReservation;
use crate::http::response::cache_status;
use crate::http::response::headers::{CACHE_STATUS, COALESCED, HITS, MISSES, Millis, REASON, SERVER_TIMING};
use crate::service::embeddings::Response as EmbeddedTexts;

const TRUNCATED: HeaderName = HeaderName::from_static("x-likewise-truncated");

/// Room for the headers of an answer, those that the gate and the connection add included.
const HEADERS: usize = 12;

/// The vectors of a request, with what its answer has reserved.
pub(super) struct ResponseVectors {
    served: EmbeddedTexts,
    model: String,
    dim: usize,
    held: ResponseReservation,
}

impl ResponseVectors {
    /// ResponseVectors that are written with `dim` numbers.
    pub(super) fn new(
        served: EmbeddedTexts,
        model: String,
        dim: usize,
        held: ResponseReservation,
    ) -> ResponseVectors {
        ResponseVectors { served, model, dim, held }
    }

    pub(super) fn len(&self) -> usize {
        self.served.entries.len()
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The name of the model.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Tokens of all texts.
    pub(super) fn tokens(&self) -> u64 {
        self.served.tokens
    }

    /// The vectors in the order of the inputs, each as little-endian f32.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = Cow<'_, [u8]>> {
        self.served.entries.iter().map(|entry| {
            if entry.value.len() == self.dim * size_of::<f32>() {
                Cow::Borrowed(&*entry.value)
            } else {
                Cow::Owned(shortened(&entry.value, self.dim))
            }
        })
    }

    /// The answer whose JSON, of about so many bytes, `write` makes: off the runtime if it is long.
    pub(super) async fn respond(
        self,
        bytes: usize,
        write: impl FnOnce(&ResponseVectors) -> Vec<u8> + Send + 'static,
    ) -> Result<Response> {
        let written = offload(bytes, move || {
            let json = write(&self);
            (self, json)
        });
        let (vectors, json) = written.await?;
        let mut response = Response::new(Body::from(json));
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        describe(&vectors.served, headers);
        Ok(vectors.held.attach(response))
    }
}

/// Headers that tell how the answer came about.
fn describe(served: &EmbeddedTexts, headers: &mut HeaderMap) {
    let counts = served.counts;
    headers.insert(HITS, HeaderValue::from(counts.hits));
    headers.insert(MISSES, HeaderValue::from(counts.misses));
    headers.insert(COALESCED, HeaderValue::from(counts.coalesced));
    if let Some(reason) = served.not_stored {
        headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    }
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
fn cache_status(served: &EmbeddedTexts) -> &'static str {
    match served.tier {
        Some(tier) => cache_status::hit_in(tier),
        None if served.counts.misses == 0 => cache_status::of(LookupOutcome::Coalesced),
        None if served.counts.hits == 0 => cache_status::of(LookupOutcome::Miss),
        None => cache_status::PARTIAL,
    }
}

/// Where the time went, in the form of the W3C's Server Timing: milliseconds.
fn server_timing(served: &EmbeddedTexts) -> String {
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
    fn a_shortened_vector_has_unit_length() {
        let bytes: Vec<u8> = [3.0_f32, 4.0, 12.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(floats(&shortened(&bytes, 2)).collect::<Vec<_>>(), [0.6, 0.8]);
    }
}
