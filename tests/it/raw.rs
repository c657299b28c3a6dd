//! Speaks HTTP byte by byte, as no client library would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::program::Server;

/// A connection to the server. No answer may take longer than a minute.
pub(crate) struct Raw(BufReader<TcpStream>);

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The head behind the status line, with names in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(own, _)| *own == name).map(|(_, value)| value.trim()).next()
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Raw {
    pub(crate) fn connect(server: &Server) -> Raw {
        let address = server.url().strip_prefix("http://").expect("an address");
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        Raw(BufReader::new(stream))
    }

    /// Sends as much as the server takes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Raw {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
        self
    }

    /// Says that no more will be sent.
    pub(crate) fn end(&mut self) -> &mut Raw {
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
        self
    }

    /// The next answer that is not an interim one; none at the end of the connection.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        loop {
            let reply = self.any_reply()?;
            if reply.status >= 200 {
                return Some(reply);
            }
        }
    }

    /// The next answer, which may be an interim one.
    pub(crate) fn any_reply(&mut self) -> Option<Reply> {
        let mut reply = self.head()?;
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        reply.body.resize(length, 0);
        self.0.read_exact(&mut reply.body).expect("a body");
        Some(reply)
    }

    /// The head of the next answer, which has no body.
    pub(crate) fn head(&mut self) -> Option<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("a status line, not {line:?}"));
        let mut head = String::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("a head");
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header");
            head.push_str(&format!("{}:{value}", name.to_ascii_lowercase()));
        }
        Some(Reply { status, head, body: Vec::new() })
    }

    /// Whether the server ends the connection, with nothing more said.
    pub(crate) fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.0.read_to_end(&mut rest);
        rest.is_empty()
    }
}

/// The answer to one request on its own connection.
pub(crate) fn ask(server: &Server, request: impl AsRef<[u8]>) -> Option<Reply> {
    Raw::connect(server).send(request).reply()
}
