//! Replies of other servers that come compressed although `identity` was requested, read piece by piece within bounds.

use std::io::{BufRead, ErrorKind, Read};

use bytes::{Buf as _, Bytes};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::error::{Error, Kind, Result};

/// A piece has at most so many bytes, however few they were compressed to: who reads it decides whether more are wanted.
const PIECE_BYTES: usize = 32 * 1024;
/// The window that decoders of HTTP must offer for zstd (RFC 9659), as a power of two. A larger one is memory for nothing.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A way in which a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyCoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or RFC 1951 without its header.
    Deflate,
    /// RFC 8878.
    Zstd,
    /// Another one, or several: the body can only be passed on.
    Other,
}

impl ReplyCoding {
    /// How a body is compressed whose `content-encoding` lines these are; `None` if it is not.
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<ReplyCoding> {
        let mut lines = lines.into_iter();
        let (first, more) = (lines.next()?, lines.next());
        let coding = match first.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => None,
            b"gzip" | b"x-gzip" => Some(ReplyCoding::Gzip),
            b"deflate" => Some(ReplyCoding::Deflate),
            b"zstd" => Some(ReplyCoding::Zstd),
            _ => Some(ReplyCoding::Other),
        };
        if more.is_some() { Some(ReplyCoding::Other) } else { coding }
    }
}

/// The body as it was before it was compressed. Breaks off where it cannot be read.
pub(crate) fn decompressed(
    body: BoxStream<'static, Result<Bytes>>,
    coding: ReplyCoding,
) -> BoxStream<'static, Result<Bytes>> {
    let begun = Decompressing { body, coding, decoder: None, buffer: vec![0; PIECE_BYTES] };
    let pieces = stream::unfold(Some(begun), |body| async move {
        let mut body = body?;
        match body.next().await.transpose()? {
            Ok(bytes) => Some((Ok(bytes), Some(body))),
            Err(error) => Some((Err(error), None)),
        }
    });
    pieces.boxed()
}

struct Decompressing {
    body: BoxStream<'static, Result<Bytes>>,
    coding: ReplyCoding,
    /// None until something has come: an empty body is one of no bytes.
    decoder: Option<Decoder>,
    buffer: Vec<u8>,
}

impl Decompressing {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.read(&mut self.buffer) {
                    Ok(0) => return Ok(None),
                    Ok(count) => return Ok(Some(Bytes::copy_from_slice(&self.buffer[..count]))),
                    // All that has come is read.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(fault(error)),
                }
            }
            match (self.body.next().await.transpose()?, &mut self.decoder) {
                (Some(bytes), Some(decoder)) => decoder.feed().bytes = bytes,
                (Some(bytes), None) if bytes.is_empty() => {}
                (Some(bytes), None) => self.decoder = Some(Decoder::new(self.coding, bytes).map_err(fault)?),
                (None, Some(decoder)) => decoder.feed().is_over = true,
                (None, None) => return Ok(None),
            }
        }
    }
}

fn fault(error: std::io::Error) -> Error {
    Error::new(Kind::Upstream, "cannot decompress the reply").source(error)
}

enum Decoder {
    Gzip(MultiGzDecoder<Feed>),
    Zlib(ZlibDecoder<Feed>),
    Deflate(DeflateDecoder<Feed>),
    Zstd(zstd::Decoder<'static, Feed>),
}

/// What has come of a body.
struct Feed {
    bytes: Bytes,
    is_over: bool,
}

impl Decoder {
    fn new(coding: ReplyCoding, bytes: Bytes) -> std::io::Result<Decoder> {
        // By RFC 9110 `deflate` has zlib's header, which some servers leave out (RFC 1950 section 2.2: CM is 8).
        let has_header = bytes.first().is_some_and(|first| first & 0x0f == 8 && first >> 4 <= 7);
        let feed = Feed { bytes, is_over: false };
        Ok(match coding {
            ReplyCoding::Gzip => Decoder::Gzip(MultiGzDecoder::new(feed)),
            ReplyCoding::Deflate if has_header => Decoder::Zlib(ZlibDecoder::new(feed)),
            ReplyCoding::Deflate => Decoder::Deflate(DeflateDecoder::new(feed)),
            ReplyCoding::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(feed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Decoder::Zstd(decoder)
            }
            ReplyCoding::Other => return Err(ErrorKind::Unsupported.into()),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zlib(decoder) => decoder.read(buffer),
            Decoder::Deflate(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }

    fn feed(&mut self) -> &mut Feed {
        match self {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Zlib(decoder) => decoder.get_mut(),
            Decoder::Deflate(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for Feed {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.bytes.is_empty() && !self.is_over {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(&self.bytes)
    }

    fn consume(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use std::io::Write as _;

    const TEXT: &str = "data: {\"a\":1}\n\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn body(bytes: &[u8], step: usize) -> BoxStream<'static, Result<Bytes>> {
        let pieces: Vec<_> = bytes.chunks(step).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces).boxed()
    }

    async fn read(body: BoxStream<'static, Result<Bytes>>) -> Result<Vec<u8>> {
        let pieces: Vec<Result<Bytes>> = body.collect().await;
        Ok(pieces.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    #[tokio::test]
    async fn a_compressed_body_is_read_however_it_comes() {
        let text = TEXT.repeat(1000);
        let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
        let codings = [
            (ReplyCoding::Gzip, gzip(text.as_bytes())),
            (ReplyCoding::Gzip, [gzip(&text.as_bytes()[..100]), gzip(&text.as_bytes()[100..])].concat()),
            (ReplyCoding::Deflate, zlib(text.as_bytes())),
            (ReplyCoding::Deflate, raw(text.as_bytes())),
            (ReplyCoding::Zstd, zstd),
        ];
        for (coding, bytes) in codings {
            for step in [1, 7, bytes.len()] {
                let whole = read(decompressed(body(&bytes, step), coding)).await.unwrap();
                assert!(whole == text.as_bytes(), "{coding:?} in pieces of {step}");
                if step > 1 {
                    let cut = read(decompressed(body(&bytes[..bytes.len() / 2], step), coding)).await;
                    assert_eq!(cut.unwrap_err().kind(), Kind::Upstream, "{coding:?} is cut");
                }
            }
            assert_eq!(read(decompressed(body(b"", 1), coding)).await.unwrap(), b"");
            let wrong = read(decompressed(body(b"\xffno such thing", 3), coding)).await;
            assert_eq!(wrong.unwrap_err().kind(), Kind::Upstream, "{coding:?}");
        }
    }

    /// What is flushed behind each event can be read before the next one comes.
    #[tokio::test]
    async fn a_compressed_stream_is_read_as_it_comes() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(TEXT.as_bytes()).unwrap();
        encoder.flush().unwrap();
        let begun = encoder.get_ref().clone();
        let open = stream::iter([Ok(Bytes::from(begun))]).chain(stream::pending()).boxed();
        assert_eq!(decompressed(open, ReplyCoding::Gzip).next().await.unwrap().unwrap(), TEXT);
    }

    #[tokio::test]
    async fn what_grows_without_end_comes_in_pieces() {
        let bomb = gzip(&vec![0; 50 << 20]);
        assert!(bomb.len() < 60_000);
        let mut body = decompressed(body(&bomb, bomb.len()), ReplyCoding::Gzip);
        for _ in 0..10 {
            assert!(body.next().await.unwrap().unwrap().len() <= PIECE_BYTES);
        }
    }

    #[test]
    fn a_coding_is_known_by_its_name() {
        let of = |lines: &[&str]| ReplyCoding::of(lines.iter().map(|line| line.as_bytes()));
        assert_eq!(of(&[]), None);
        assert_eq!([of(&["identity"]), of(&[""])], [None, None]);
        assert_eq!([of(&["GZIP "]), of(&["x-gzip"])], [Some(ReplyCoding::Gzip); 2]);
        assert_eq!([of(&["deflate"]), of(&["zstd"])], [Some(ReplyCoding::Deflate), Some(ReplyCoding::Zstd)]);
        assert_eq!([of(&["br"]), of(&["gzip, gzip"]), of(&["gzip", "gzip"])], [Some(ReplyCoding::Other); 3]);
    }
}
