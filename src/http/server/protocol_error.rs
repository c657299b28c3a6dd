//! Answers to what is no request: hyper finds the fault, and the client reads what it was and where.

use std::error::Error as _;
use std::fmt::Write as _;

use axum::http::{HeaderValue, StatusCode};

use crate::error::{Error, Kind};
use crate::http::error_response;

/// Largest head of a request, its trailers included.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The answer to a head that cannot be parsed.
pub(super) struct ProtocolError {
    status: StatusCode,
    error: Error,
}

impl ProtocolError {
    /// None if nothing can be answered. `unparsed` is what was read of the connection and not parsed.
    pub(in crate::http) fn of(error: &hyper::Error, unparsed: &[u8]) -> Option<ProtocolError> {
        if let Some(own) = own_error(error) {
            let error = Error::new(own.kind(), own.message().to_owned());
            return Some(ProtocolError { status: error_response::status(own.kind()), error });
        }
        if !error.is_parse() {
            return None;
        }
        // The kinds of hyper's errors differ in their texts only.
        let fault = error.to_string();
        let names = |what: &str| fault.contains(what);
        let invalid =
            |param: &'static str, message: String| (StatusCode::BAD_REQUEST, Error::invalid(param, message));
        let (status, error) = if error.is_parse_too_large() {
            too_large(unparsed)
        } else if names("content-length") {
            let message = "content-length must be one number of decimal digits below 2^64; if given twice, both must be equal";
            invalid("content-length", message.into())
        } else if names("transfer-encoding") {
            let message = "transfer-encoding must end in `chunked`, in HTTP/1.1 only";
            invalid("transfer-encoding", message.into())
        } else {
            let message = format!("the request cannot be read as HTTP/1.1: {fault}");
            (StatusCode::BAD_REQUEST, Error::new(Kind::InvalidInput, message))
        };
        Some(ProtocolError { status, error })
    }

    pub(in crate::http) fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer as it is sent, with the name of the request.
    pub(in crate::http) fn into_bytes(self, id: &HeaderValue) -> Vec<u8> {
        let body = error_response::json(&self.error, self.status);
        let mut answer = format!("HTTP/1.1 {}\r\n", self.status);
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let retry_after =
            error_response::retry_after_seconds(&self.error, self.status).map(|seconds| seconds.to_string());
        let lines = [
            ("content-type", "application/json"),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
            ("date", &date),
            ("content-length", &body.len().to_string()),
            ("x-request-id", id.to_str().unwrap_or_default()),
        ];
        let retry_after = retry_after.iter().map(|seconds| ("retry-after", seconds.as_str()));
        for (name, value) in lines.into_iter().chain(retry_after) {
            write!(answer, "{name}: {value}\r\n").expect("a string takes everything: this is a bug");
        }
        answer.push_str("\r\n");
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(&body);
        answer
    }
}

/// The error of this server that ended the reading, if it was one.
fn own_error(error: &hyper::Error) -> Option<&Error> {
    error.source()?.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref()
}

/// Either the head is too large, and then it was not parsed, or it was, and names a body of more bytes than can be counted.
fn too_large(unparsed: &[u8]) -> (StatusCode, Error) {
    if is_of_head(unparsed) {
        let message =
            format!("the head of the request has more than {HEAD_BYTES_MAX} bytes or more than 100 headers");
        return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Error::new(Kind::TooLarge, message));
    }
    let message = "content-length must be at most the limit of a body";
    (StatusCode::PAYLOAD_TOO_LARGE, Error::new(Kind::TooLarge, message).param("content-length"))
}

/// Whether this is the begin of a head: a request line and at least one header, or more bytes than a head may have.
fn is_of_head(unparsed: &[u8]) -> bool {
    let mut lines = unparsed.split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default().trim_ascii_end();
    let version = line.len().checked_sub(b" HTTP/1.1".len()).map_or(&[][..], |at| &line[at..]);
    unparsed.len() >= HEAD_BYTES_MAX || matches!(version, b" HTTP/1.1" | b" HTTP/1.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_want_of_memory_says_when_to_come_back() {
        let id = HeaderValue::from_static("req_1");
        let answer = |kind: Kind| {
            let fault =
                ProtocolError { status: error_response::status(kind), error: Error::new(kind, "full") };
            String::from_utf8(fault.into_bytes(&id)).unwrap()
        };
        let full = answer(Kind::Overloaded);
        assert!(full.starts_with("HTTP/1.1 429 ") && full.contains("\r\nretry-after: 1\r\n"), "{full}");
        let invalid = answer(Kind::InvalidInput);
        assert!(!invalid.contains("retry-after"), "{invalid}");
        assert!([full, invalid].iter().all(|answer| answer.contains("\r\nx-request-id: req_1\r\n")));
    }
}
