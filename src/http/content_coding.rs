//! Content codings: compressed request bodies are decoded within limits.

use std::io::Read;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::error::{Error, Kind, Result};
use crate::http::extract::body;
use crate::http::reservation::BodyReservation;

/// The codings of request bodies, as `accept-encoding` of a response lists them.
pub(super) const DECODED: HeaderValue = HeaderValue::from_static("gzip, zstd");

/// A body may grow to a hundred times what was sent, and a short one to a megabyte: text compresses less, and what
/// costs the sender nothing must not cost the server all it can take.
const EXPANSION_MAX: usize = 100;
const EXPANDED_BYTES_MIN: usize = 1 << 20;
/// What is decoded before the budget is asked again: as much as is missing of the declared length, within these. The least is
/// what a step needs that only finds the end.
const STEP_BYTES_MIN: usize = 16 * 1024;
const STEP_BYTES_MAX: usize = 256 * 1024;

/// Windows of zstd are at most 8 MiB (RFC 9659, section 3), so that a decoder's memory is bounded.
const WINDOW_LOG_MAX: u32 = 23;

/// Coding takes a processor; more of it at a time would only hold more bodies in memory.
pub(super) static CODERS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)));

/// A content coding that is understood here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }
}

/// How a request's body is coded; none if it is as it stands.
///
/// # Errors
/// `UnsupportedCoding` for other codings, and for more than one.
pub(super) fn of_body(headers: &HeaderMap) -> Result<Option<Coding>> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for name in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let coding = match name.to_ascii_lowercase().as_slice() {
                b"" | b"identity" => continue,
                b"gzip" | b"x-gzip" => Coding::Gzip,
                b"zstd" => Coding::Zstd,
                _ => return Err(unsupported(&format!("got {}", String::from_utf8_lossy(name)))),
            };
            if found.replace(coding).is_some() {
                return Err(unsupported("got more than one coding"));
            }
        }
    }
    Ok(found)
}

fn unsupported(got: &str) -> Error {
    let message = format!("content-encoding is gzip, zstd or identity, {got}");
    Error::new(Kind::UnsupportedCoding, message).param("content-encoding")
}

/// The body of a request in clear, of at most `bytes_max` bytes before and after. It is read and decoded when it is
/// first polled, off the runtime, and `bytes` reserves what it expands to while it does, then what it has expanded to.
pub(super) fn decoded(body: Body, coding: Coding, bytes_max: usize, bytes: BodyReservation) -> Body {
    let decode = async move {
        let coded = body::read(body, bytes_max).await?;
        let permit = CODERS.acquire().await.expect("it is never closed: this is a bug");
        let decoding = tokio::task::spawn_blocking(move || {
            // Held by the work, because a client that leaves does not end it.
            let _permit = permit;
            let clear = decode(&coded, coding, bytes_max, |expanded| bytes.cover(expanded))?;
            drop(coded);
            bytes.shrink_to(clear.len());
            Ok::<_, Error>(clear)
        });
        decoding.await.map_err(|error| Error::new(Kind::Internal, "cannot decode a body").source(error))?
    };
    Body::from_stream(futures_util::stream::once(decode))
}

/// Decodes. `cover` reserves what the result takes, before it is taken.
///
/// Cost: at most [`EXPANSION_MAX`] times the length of `coded`, or [`EXPANDED_BYTES_MIN`].
fn decode(
    coded: &[u8],
    coding: Coding,
    bytes_max: usize,
    cover: impl FnMut(usize) -> Result<()>,
) -> Result<Bytes> {
    let bytes_max = bytes_max.min(EXPANDED_BYTES_MIN.max(coded.len().saturating_mul(EXPANSION_MAX)));
    // One byte more shows that there is more than may be.
    let limit = bytes_max as u64 + 1;
    let expected = declared_bytes(coded, coding).min(limit) as usize;
    let decoded = match coding {
        Coding::Gzip => {
            let decoder = flate2::bufread::MultiGzDecoder::new(coded);
            read_in_steps(decoder.take(limit), expected, coding, cover)?
        }
        Coding::Zstd => {
            let fault = |error| invalid(coding, error);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(coded).map_err(fault)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(fault)?;
            read_in_steps(decoder.take(limit), expected, coding, cover)?
        }
    };
    if decoded.len() > bytes_max {
        let message = format!("the body of {} bytes expands to more than {bytes_max} bytes", coded.len());
        return Err(Error::new(Kind::TooLarge, message));
    }
    Ok(decoded.into())
}

fn invalid(coding: Coding, error: std::io::Error) -> Error {
    let message = format!("the body is not valid {}", coding.name());
    Error::new(Kind::InvalidInput, message).param("content-encoding").source(error)
}

/// Reads all. Where the result has `expected` bytes, its buffer never grows.
fn read_in_steps(
    mut decoder: impl Read,
    expected: usize,
    coding: Coding,
    mut cover: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<u8>> {
    cover(expected)?;
    let mut decoded = Vec::with_capacity(expected);
    loop {
        let step = expected.saturating_sub(decoded.len()).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        cover(decoded.len() + step)?;
        let read = decoder.by_ref().take(step as u64).read_to_end(&mut decoded);
        if read.map_err(|error| invalid(coding, error))? == 0 {
            // The declared length may have been too large.
            decoded.shrink_to_fit();
            return Ok(decoded);
        }
    }
}

/// The decoded length that the body declares; 0 if it declares none.
fn declared_bytes(coded: &[u8], coding: Coding) -> u64 {
    match coding {
        // RFC 1952, section 2.3.1: the length of the last member, and nearly all have one.
        Coding::Gzip => coded.last_chunk().map_or(0, |length| u32::from_le_bytes(*length).into()),
        Coding::Zstd => zstd::zstd_safe::get_frame_content_size(coded).ok().flatten().unwrap_or(0),
    }
}

/// Compresses a whole answer.
pub(super) fn compress_zstd(plain: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(plain, level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::byte_budget::ByteBudget;
    use crate::metrics::unexported;
    use axum::http::HeaderMap;
    use std::io::Write as _;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let lines = lines.iter().map(|line| (header::CONTENT_ENCODING, HeaderValue::from_static(line)));
        HeaderMap::from_iter(lines)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn decode_all(coded: &[u8], coding: Coding, bytes_max: usize) -> Result<Bytes> {
        decode(coded, coding, bytes_max, |_| Ok(()))
    }

    #[test]
    fn what_a_body_expands_to_is_covered_before_it_is_decoded() {
        let text = vec![b'x'; 900_000];
        for (coded, coding) in [(gzip(&text), Coding::Gzip), (zstd(&text), Coding::Zstd)] {
            let mut most = 0;
            decode(&coded, coding, 1 << 20, |bytes| {
                most = most.max(bytes);
                Ok(())
            })
            .unwrap();
            assert!(most >= text.len(), "{most} bytes of {coding:?}");
            let full = |_| Err(Error::new(Kind::Overloaded, "full"));
            assert_eq!(decode(&coded, coding, 1 << 20, full).unwrap_err().kind(), Kind::Overloaded);
        }
    }

    #[tokio::test]
    async fn a_decoded_body_reserves_what_it_has_and_a_short_one_nothing() {
        let budget = ByteBudget::new(64 << 20, unexported());
        let text = |length: usize| vec![b'x'; length];
        let unsized_zstd = |text: &[u8]| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        for (coded, coding, length) in [
            (gzip(&text(1000)), Coding::Gzip, 1000),
            (zstd(&text(1000)), Coding::Zstd, 1000),
            (unsized_zstd(&text(1000)), Coding::Zstd, 1000),
            ([gzip(&text(400)), gzip(&text(600))].concat(), Coding::Gzip, 1000),
            (gzip(&text(100_000)), Coding::Gzip, 100_000),
            (unsized_zstd(&text(900_000)), Coding::Zstd, 900_000),
        ] {
            let lines = [(header::CONTENT_LENGTH, HeaderValue::from(coded.len()))];
            let bytes = BodyReservation::admit(&budget, &HeaderMap::from_iter(lines), 1 << 20, true).unwrap();
            let clear = decoded(Body::from(coded), coding, 1 << 20, bytes.clone());
            let clear = axum::body::to_bytes(clear, usize::MAX).await.unwrap();
            assert_eq!(clear.len(), length);
            let reserved = budget.reserved();
            if length == 1000 {
                assert_eq!(reserved, 0, "{coding:?}");
            } else {
                assert!((length..4 * length).contains(&reserved), "{coding:?}: {reserved} for {length}");
            }
            drop(bytes);
            assert_eq!(budget.reserved(), 0);
        }
    }

    #[test]
    fn a_short_body_is_decoded_in_little_memory() {
        let text = b"some text of some length, some text";
        for (coded, coding) in [(gzip(text), Coding::Gzip), (zstd(text), Coding::Zstd)] {
            let mut most = 0;
            decode(&coded, coding, 1 << 20, |bytes| {
                most = most.max(bytes);
                Ok(())
            })
            .unwrap();
            assert!(most <= text.len() + STEP_BYTES_MIN, "{most} bytes of {coding:?}");
        }
    }

    #[test]
    fn one_coding_is_understood_and_others_are_named() {
        assert_eq!(of_body(&headers(&[])).unwrap(), None);
        assert_eq!(of_body(&headers(&["identity", ""])).unwrap(), None);
        assert_eq!(of_body(&headers(&["GZIP"])).unwrap(), Some(Coding::Gzip));
        assert_eq!(of_body(&headers(&["x-gzip , identity"])).unwrap(), Some(Coding::Gzip));
        assert_eq!(of_body(&headers(&["zstd"])).unwrap(), Some(Coding::Zstd));
        for lines in
            [&["deflate"][..], &["br"], &["gzip, gzip"], &["gzip", "zstd"], &["gzip;q=1"], &["aes128gcm"]]
        {
            let error = of_body(&headers(lines)).unwrap_err();
            assert_eq!(error.kind(), Kind::UnsupportedCoding, "{lines:?}");
        }
    }

    #[test]
    fn what_was_coded_comes_back() {
        for text in [&b""[..], b"{}", &[b'x'; 100_000]] {
            assert_eq!(decode_all(&gzip(text), Coding::Gzip, 1 << 20).unwrap(), text);
            assert_eq!(decode_all(&zstd(text), Coding::Zstd, 1 << 20).unwrap(), text);
        }
        let members = [gzip(b"ab"), gzip(b"c")].concat();
        assert_eq!(decode_all(&members, Coding::Gzip, 3).unwrap(), "abc");
        let frames = [zstd(b"ab"), zstd(b"c")].concat();
        assert_eq!(decode_all(&frames, Coding::Zstd, 3).unwrap(), "abc");
    }

    #[test]
    fn a_body_that_expands_too_far_is_refused() {
        let text = vec![b'x'; 16 << 20];
        for (coded, coding) in [(gzip(&text), Coding::Gzip), (zstd(&text), Coding::Zstd)] {
            let error = decode_all(&coded, coding, 64 << 20).unwrap_err();
            assert_eq!(error.kind(), Kind::TooLarge, "{} bytes", coded.len());
            assert_eq!(decode_all(&coded, coding, 100).unwrap_err().kind(), Kind::TooLarge);
        }
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        wide.write_all(&text).unwrap();
        let error = decode_all(&wide.finish().unwrap(), Coding::Zstd, 64 << 20).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput, "a window of 128 MiB");
    }

    #[test]
    fn what_is_cut_off_damaged_or_followed_by_more_is_invalid() {
        let text = b"some text of some length, some text";
        for (coded, coding) in [(gzip(text), Coding::Gzip), (zstd(text), Coding::Zstd)] {
            for end in [1, coded.len() / 2, coded.len() - 1] {
                let error = decode_all(&coded[..end], coding, 1000).unwrap_err();
                assert_eq!(error.kind(), Kind::InvalidInput, "{coding:?} cut to {end}");
            }
            let more = [&coded[..], b"and more"].concat();
            assert_eq!(decode_all(&more, coding, 1000).unwrap_err().kind(), Kind::InvalidInput);
            assert_eq!(decode_all(text, coding, 1000).unwrap_err().kind(), Kind::InvalidInput);
        }
        let mut damaged = gzip(text);
        let last = damaged.len() - 5;
        damaged[last] ^= 1;
        assert_eq!(
            decode_all(&damaged, Coding::Gzip, 1000).unwrap_err().kind(),
            Kind::InvalidInput,
            "its checksum"
        );
    }
}
