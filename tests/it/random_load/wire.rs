//! A client of a few lines that sends whatever it is given, and reads each answer to its end.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::requests::{Random, Request};

/// A connection, opened when it is needed.
pub(super) struct Client {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

/// Status and body of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(url: &str) -> Client {
        Client { address: url.trim_start_matches("http://").to_owned(), stream: None }
    }

    /// Sends a request and reads its answer. None if a garbled head ended the connection without one.
    pub(super) async fn send(&mut self, request: &Request, random: &mut Random) -> Result<Option<Answer>> {
        let bytes = written(request, &self.address, random);
        // A connection that was kept open may have been closed meanwhile: then a new one is tried.
        for is_new in [self.stream.is_none(), true] {
            match self.exchange(&bytes, request).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => {
                    self.stream = None;
                    if request.is_garbled {
                        return Ok(None);
                    }
                    if is_new {
                        return Err(error);
                    }
                }
            }
        }
        Err(Error::other("the connection was closed twice"))
    }

    async fn exchange(&mut self, bytes: &[u8], request: &Request) -> Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(&self.address).await?),
        };
        // The server may answer, and close, before it has read everything.
        let sent = stream.write_all(bytes).await;
        if request.is_garbled {
            // A head that never ends would be waited for.
            let _ = stream.shutdown().await;
        }
        let head = Head::read(&mut stream).await.map_err(|error| sent.err().unwrap_or(error))?;
        let body = head.body(&mut stream, request.method == "HEAD").await?;
        if !head.closes && !request.is_garbled {
            self.stream = Some(stream);
        }
        Ok(Answer { status: head.status, body })
    }
}

fn written(request: &Request, address: &str, random: &mut Random) -> Vec<u8> {
    let Request { method, path, headers, body, is_garbled } = request;
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
    if *is_garbled {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes.truncate(at),
            _ => bytes.splice(at..at, *b"\r\n").for_each(drop),
        }
    }
    bytes.extend(body);
    bytes
}

/// The head of an answer.
#[derive(Debug, Default)]
struct Head {
    status: u16,
    length: Option<usize>,
    is_chunked: bool,
    closes: bool,
}

impl Head {
    async fn read(stream: &mut BufReader<TcpStream>) -> Result<Head> {
        loop {
            let mut head = Head::default();
            let line = line(stream).await?;
            let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            head.status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, line))?;
            loop {
                let field = self::line(stream).await?;
                let Some((name, value)) = field.split_once(':') else { break };
                let value = value.trim();
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => head.length = value.parse().ok(),
                    "transfer-encoding" => head.is_chunked = value.eq_ignore_ascii_case("chunked"),
                    "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                    _ => {}
                }
            }
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    async fn body(&self, stream: &mut BufReader<TcpStream>, is_head: bool) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        if is_head || matches!(self.status, 204 | 304) {
            return Ok(body);
        }
        if self.is_chunked {
            loop {
                let size = line(stream).await?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(Error::other)?;
                let start = body.len();
                body.resize(start + size, 0);
                stream.read_exact(&mut body[start..]).await?;
                if size == 0 {
                    while !line(stream).await?.is_empty() {}
                    return Ok(body);
                }
                line(stream).await?;
            }
        }
        match self.length {
            Some(length) => {
                body.resize(length, 0);
                stream.read_exact(&mut body).await?;
            }
            None => _ = stream.read_to_end(&mut body).await?,
        }
        Ok(body)
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
