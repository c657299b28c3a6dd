//! Errors as clients see them: OpenAI's shape, and the one place where a kind becomes a status code.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, Kind};

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
    code: &'static str,
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
        let (family, code) = (family(status), error.kind().code());
        ErrorBody {
            error: ErrorObject { message, family, param: error.param_name().map(str::to_owned), code },
        }
    }
}

/// An error as an event of a stream that has begun: OpenAI's clients raise it.
pub(super) fn event(error: &Error) -> Bytes {
    let body = ErrorBody::new(error.message().to_owned(), status(error.kind()), error);
    let json = serde_json::to_string(&body).expect("an error is made of texts: this is a bug");
    format!("data: {json}\n\n").into()
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::InvalidInput => StatusCode::BAD_REQUEST,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Kind::Loop => StatusCode::LOOP_DETECTED,
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

fn family(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    }
}

/// Seconds after which a client may try again, where that may help.
fn retry_after_seconds(status: StatusCode) -> Option<u32> {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE).then_some(1)
}

/// OpenAI's clients try a 5xx again by themselves; a cache that was asked not to compute will not do better, nor will a loop.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem(error) = self;
        let status = status(error.kind());
        // What the server did wrong is for the operator's log; the client learns the kind and the attempt.
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(%error, kind = error.kind().code(), "a request failed");
            error.message().to_owned()
        } else {
            error.to_string()
        };
        let body = ErrorBody::new(message, status, &error);
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_seconds(status) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(error.kind(), Kind::NotCached | Kind::Loop) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}
