//! Compresses answers for clients who ask for it (RFC 9110, section 12.5.3).

use std::io::Write as _;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use crate::error::{Error, Kind, Result};
use crate::http::content_coding::{CODERS, Coding};
use crate::http::reservation;

/// Shorter answers gain nothing; longer ones are streams in all but name, and pass as they are.
const BYTES: std::ops::RangeInclusive<u64> = 1024..=64 << 20;
/// Up to here compressing takes less time than a change of threads is worth.
const INLINE_BYTES_MAX: usize = 16 * 1024;
/// The fastest level of each coding: clients are near, or their time goes into the model.
const LEVEL: i32 = 1;

/// The coding that a client prefers; none if it wants none, or none that is known here.
pub(in crate::http) fn accepted(headers: &HeaderMap) -> Option<Coding> {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return None;
    }
    let (mut gzip, mut zstd, mut identity, mut any) = (None, None, None, None);
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for element in value.to_str().ok()?.split(',') {
            let mut parts = element.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            // What is no number is no wish.
            let weight = weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0));
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("gzip") || is("x-gzip") {
                gzip = Some(weight);
            } else if is("zstd") {
                zstd = Some(weight);
            } else if is("identity") {
                identity = Some(weight);
            } else if is("*") {
                any = Some(weight);
            }
        }
    }
    let any = any.unwrap_or(0.0);
    let (gzip, zstd) = (gzip.unwrap_or(any), zstd.unwrap_or(any));
    let (weight, coding) = if zstd >= gzip { (zstd, Coding::Zstd) } else { (gzip, Coding::Gzip) };
    (weight > 0.0 && weight >= identity.unwrap_or(0.0)).then_some(coding)
}

/// The answer, compressed if its client accepts a coding and it is worth it. Long answers are compressed off the runtime.
///
/// Objects are not: their strong entity tags stand for the bytes as they are. Nor are streams.
///
/// # Errors
/// `Internal` if the body cannot be had.
pub(in crate::http) async fn compress(
    mut response: Response,
    method: &Method,
    coding: Option<Coding>,
) -> Result<Response> {
    if !is_worth_it(&response) {
        return Ok(response);
    }
    if coding.is_some() || matches!(*method, Method::GET | Method::HEAD) {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    let Some(coding) = coding.filter(|_| method != Method::HEAD) else { return Ok(response) };
    let (mut head, body) = response.into_parts();
    let fault = |error| Error::new(Kind::Internal, "cannot compress an answer").source(error);
    let plain = body.collect().await.map_err(fault)?.to_bytes();
    // The body that reserved is gone: what is sent instead makes a reservation of its own.
    reservation::forget_reservation(&mut head.extensions);
    let coded = if plain.len() <= INLINE_BYTES_MAX {
        encode(&plain, coding)
    } else {
        let plain = plain.clone();
        let permit = CODERS.acquire().await.expect("it is never closed: this is a bug");
        let encoding = tokio::task::spawn_blocking(move || {
            // Held by the work, because a client that leaves does not end it.
            let _permit = permit;
            encode(&plain, coding)
        });
        encoding
            .await
            .map_err(|error| Error::new(Kind::Internal, "cannot compress an answer").source(error))?
    };
    let body = match coded.filter(|coded| coded.len() < plain.len()) {
        Some(coded) => {
            head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            head.headers.remove(header::CONTENT_LENGTH);
            coded
        }
        None => plain,
    };
    Ok(Response::from_parts(head, Body::from(body)))
}

fn is_worth_it(response: &Response) -> bool {
    if !response.body().size_hint().exact().is_some_and(|size| BYTES.contains(&size)) {
        return false;
    }
    let headers = response.headers();
    let is_whole = !matches!(response.status(), StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    let is_free = !headers.contains_key(header::ETAG) && !headers.contains_key(header::CONTENT_ENCODING);
    let may_change = || {
        let mut values = headers.get_all(header::CACHE_CONTROL).iter().map(HeaderValue::as_bytes);
        values.all(|value| !value.windows(12).any(|part| part.eq_ignore_ascii_case(b"no-transform")))
    };
    is_whole && is_free && is_text(headers) && may_change()
}

/// Whether compression gains something for the media type.
fn is_text(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return true;
    }
    let essence = essence.to_ascii_lowercase();
    let is_json = essence.ends_with("+json");
    let is_lines = matches!(essence.as_str(), "application/x-ndjson" | "application/openmetrics-text");
    is_json || is_lines || (essence.starts_with("text/") && essence != "text/event-stream")
}

/// None if it cannot be done, which costs the client nothing.
fn encode(plain: &[u8], coding: Coding) -> Option<Bytes> {
    let coded = match coding {
        Coding::Gzip => {
            let room = Vec::with_capacity(plain.len() / 2);
            let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
            encoder.write_all(plain).and_then(|()| encoder.finish())
        }
        Coding::Zstd => crate::http::content_coding::compress_zstd(plain, LEVEL),
    };
    coded.ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(lines: &[&'static str]) -> Option<Coding> {
        let lines = lines.iter().map(|line| (header::ACCEPT_ENCODING, HeaderValue::from_static(line)));
        accepted(&HeaderMap::from_iter(lines))
    }

    #[test]
    fn the_client_decides_by_weight() {
        for (lines, coding) in [
            (&[][..], None),
            (&[""], None),
            (&["identity"], None),
            (&["deflate, br"], None),
            (&["gzip;q=0"], None),
            (&["gzip; q=0.000"], None),
            (&["gzip;q=x"], None),
            (&["*;q=0"], None),
            (&["gzip;q=0.5, identity"], None),
            (&["gzip, deflate"], Some(Coding::Gzip)),
            (&["deflate, GZIP;q=0.5"], Some(Coding::Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Coding::Zstd)),
            (&["zstd;q=0.5, gzip;q=0.8"], Some(Coding::Gzip)),
            (&["deflate", "x-gzip"], Some(Coding::Gzip)),
            (&["*"], Some(Coding::Zstd)),
            (&["zstd;q=0, *"], Some(Coding::Gzip)),
            (&["gzip;q=NaN"], None),
        ] {
            assert_eq!(accepts(lines), coding, "{lines:?}");
        }
    }

    async fn answered(headers: &[(&'static str, &'static str)], length: usize) -> Response {
        let mut response = Response::new(Body::from(vec![b'x'; length]));
        for (name, value) in headers {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        compress(response, &Method::GET, Some(Coding::Gzip)).await.unwrap()
    }

    #[tokio::test]
    async fn only_text_of_some_length_is_compressed() {
        let json = ("content-type", "application/json; charset=utf-8");
        for length in [1024, 100_000] {
            let response = answered(&[json], length).await;
            assert_eq!(response.headers()["content-encoding"], "gzip");
            assert_eq!(response.headers()["vary"], "accept-encoding");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::bufread::GzDecoder::new(&body[..]), &mut plain).unwrap();
            assert_eq!(plain, vec![b'x'; length]);
        }
        for headers in [
            &[][..],
            &[("content-type", "application/octet-stream")],
            &[("content-type", "text/event-stream")],
            &[json, ("etag", "\"1\"")],
            &[json, ("content-encoding", "br")],
            &[json, ("cache-control", "max-age=1, No-Transform")],
        ] {
            let response = answered(headers, 5000).await;
            assert_ne!(
                response.headers().get("content-encoding").map(HeaderValue::as_bytes),
                Some(&b"gzip"[..])
            );
        }
        assert!(!answered(&[json], 1023).await.headers().contains_key("content-encoding"));
    }
}
