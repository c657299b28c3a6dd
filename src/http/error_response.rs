//! Errors as clients see them: OpenAI's shape, and the one place where a kind becomes a status code.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, Kind};
use crate::http::content_coding;
use crate::http::label_value::{ErrorCode, LabelValue};
use crate::sync::lock;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorObject {
    /// One sentence.
    message: String,
    /// The family of errors that OpenAI's clients know.
    #[serde(rename = "type")]
    family: &'static str,
    /// The field at fault.
    param: Option<String>,
    /// The stable name of the kind of error.
    #[schema(inline)]
    code: ErrorCode,
}

/// An [`Error`] on its way to a client.
#[derive(Debug)]
pub(super) struct Problem(pub(super) Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem(error)
    }
}

impl ErrorBody {
    fn new(message: String, status: StatusCode, error: &Error) -> ErrorBody {
        let (family, code) = (family(status), LabelValue(error.kind()));
        ErrorBody {
            error: ErrorObject { message, family, param: error.param_name().map(str::to_owned), code },
        }
    }
}

/// An error as an event of a stream that has begun: OpenAI's clients raise it.
pub(super) fn event(error: &Error) -> Bytes {
    format!("data: {}\n\n", json(error, status(error.kind()))).into()
}

/// An error as the body of an answer that no handler gives.
pub(super) fn json(error: &Error, status: StatusCode) -> String {
    let body = ErrorBody::new(error.message().to_owned(), status, error);
    serde_json::to_string(&body).expect("an error is made of texts: this is a bug")
}

/// The status code of a kind.
pub(super) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::InvalidInput => StatusCode::BAD_REQUEST,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UnsupportedCoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Kind::Loop => StatusCode::LOOP_DETECTED,
        Kind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::NotFound | Kind::ModelNotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Kind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        // RFC 9111 section 5.2.1.7 asks for 504 where only a stored response is acceptable and there is none.
        Kind::NotCached | Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Upstream => StatusCode::BAD_GATEWAY,
        Kind::Config
        | Kind::Model
        | Kind::Locked
        | Kind::Format
        | Kind::Corrupt
        | Kind::DiskFull
        | Kind::Io
        | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Logs a fault for the operator. Faults of other servers come in masses while an outage lasts, so of them one a second is logged,
/// and only if the log shows more than the client reads.
fn log(error: &Error, status: StatusCode) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let kind = error.kind().code();
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(%error, kind, "a request failed");
        return;
    }
    let said = error.to_string();
    if said == error.message() {
        return;
    }
    let mut last = lock(&LAST);
    if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
        *last = Some(Instant::now());
        tracing::warn!(error = said, kind, "a request failed");
    }
}

fn family(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    }
}

/// Seconds after which a client may try again, where that may help.
pub(super) fn retry_after_seconds(error: &Error, status: StatusCode) -> Option<u32> {
    let helps = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    error.retry_after_seconds().or(helps.then_some(1))
}

/// OpenAI's clients try a 5xx again by themselves; a cache that was asked not to compute will not do better, nor will a loop.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem(error) = self;
        let status = status(error.kind());
        // Context and causes of what the server, or one behind it, did wrong name files, machines and keys: they are for the
        // operator's log. The client learns the kind and the attempt.
        let message = if status.is_server_error() {
            log(&error, status);
            error.message().to_owned()
        } else {
            error.to_string()
        };
        let body = ErrorBody::new(message, status, &error);
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_seconds(&error, status) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if error.kind() == Kind::UnsupportedCoding {
            // RFC 9110, section 12.5.3: what would have been understood.
            headers.insert(header::ACCEPT_ENCODING, content_coding::DECODED);
        }
        if matches!(error.kind(), Kind::NotCached | Kind::Loop) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Kind; 24] {
        [
            Kind::InvalidInput,
            Kind::TooLarge,
            Kind::Unauthorized,
            Kind::Forbidden,
            Kind::RequestTimeout,
            Kind::Loop,
            Kind::NotFound,
            Kind::MethodNotAllowed,
            Kind::ModelNotFound,
            Kind::Conflict,
            Kind::PreconditionFailed,
            Kind::NotCached,
            Kind::Overloaded,
            Kind::Timeout,
            Kind::Unavailable,
            Kind::Upstream,
            Kind::Config,
            Kind::Model,
            Kind::Locked,
            Kind::Format,
            Kind::Corrupt,
            Kind::DiskFull,
            Kind::Io,
            Kind::Internal,
        ]
    }

    #[tokio::test]
    async fn no_fault_of_the_servers_shows_where_it_happened() {
        for kind in all() {
            let cause = std::io::Error::other("open /srv/data/1.seg: denied");
            let error = Error::new(kind, "read a segment").with("path", "/srv/data/1.seg").source(cause);
            let (event, response) = (event(&error), Problem(error).into_response());
            let is_server_error = response.status().is_server_error();
            let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains("read a segment"), "{body}");
            assert_eq!(body.contains("/srv"), !is_server_error, "{kind:?}: {body}");
            assert!(!String::from_utf8_lossy(&event).contains("/srv"), "{kind:?}");
        }
    }
}
