//! Errors as clients see them, and the one place where a kind becomes a status code. Routes of a dialect have errors of its shape,
//! all others those of OpenAI's.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::ToSchema;

use crate::dialects::{self, Dialect, ErrorClass, ErrorReply};
use crate::error::{Error, Kind};
use crate::http::content_coding;
use crate::http::error_shape::ErrorShape;
use crate::http::label_value::{ErrorCode, ErrorTypeLabel};
use crate::sync::lock;

/// The body of every response that is not a success.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
pub(super) struct ErrorBody {
    error: ErrorObject,
}

/// What went wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
struct ErrorObject {
    /// What is wrong, for people.
    message: String,
    /// The class of the error, by which the clients of OpenAI raise it.
    #[schema(rename = "type")]
    class: ErrorTypeLabel,
    /// The field or header that is invalid.
    #[schema(required)]
    param: Option<String>,
    /// The kind of the error, for programs.
    code: ErrorCode,
}

/// The body of every response that is not a success, on routes of Anthropic's API.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
pub(super) struct MessagesErrorBody {
    /// Always `error`.
    #[schema(rename = "type")]
    kind: String,
    error: MessagesErrorObject,
    /// The id of the request, as in `x-request-id`.
    request_id: Option<String>,
}

/// What went wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape in the OpenAPI document")]
struct MessagesErrorObject {
    /// The class of the error, by which Anthropic's clients know it.
    #[schema(rename = "type")]
    class: String,
    /// What is wrong, for people. It names the field or header that is invalid.
    message: String,
    /// The kind of the error, for programs. An error of an upstream has none.
    code: Option<ErrorCode>,
}

/// An [`Error`] on its way to a client.
#[derive(Debug)]
pub(super) struct Problem(pub(super) Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem(error)
    }
}

/// The error of a response, from which the dialect of the route writes the body again.
#[derive(Debug, Clone)]
struct ReportedError {
    error: Error,
    message: String,
}

/// What a dialect writes of an error.
fn error_reply<'a>(error: &'a Error, message: &'a str, status: StatusCode) -> ErrorReply<'a> {
    let (class, code) = (class(status), error.kind().code());
    ErrorReply { message, class, param: error.param_name(), code, request_id: None }
}

/// An error as an event of a stream that has begun.
pub(super) fn event(error: &Error, dialect: &dyn Dialect) -> Bytes {
    dialect.error_event(&error_reply(error, error.message(), status(error.kind()))).into()
}

/// An error as the body of a response to a request that is no HTTP, and so has no route.
pub(super) fn json(error: &Error, status: StatusCode) -> Vec<u8> {
    dialects::error_body(&error_reply(error, error.message(), status))
}

/// A response, an error in the shape of its route, with the id of its request.
pub(super) fn in_shape(mut response: Response, shape: ErrorShape, request_id: &HeaderValue) -> Response {
    if response.status().is_success() || matches!(shape, ErrorShape::OpenAi) {
        return response;
    }
    let status = response.status();
    if let Some(ReportedError { error, message }) = response.extensions_mut().remove()
        && let Some(body) = shape.body(&ErrorReply {
            request_id: request_id.to_str().ok(),
            ..error_reply(&error, &message, status)
        })
    {
        *response.body_mut() = body.into();
        // It was that of the former body.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
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
        Kind::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::OnOtherNode => StatusCode::MISDIRECTED_REQUEST,
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

fn class(status: StatusCode) -> ErrorClass {
    match status {
        StatusCode::UNAUTHORIZED => ErrorClass::Authentication,
        StatusCode::TOO_MANY_REQUESTS => ErrorClass::RateLimit,
        status if status.is_client_error() => ErrorClass::InvalidRequest,
        _ => ErrorClass::Server,
    }
}

/// Seconds after which a client may try again, where that may help.
pub(super) fn retry_after_seconds(error: &Error, status: StatusCode) -> Option<u32> {
    let helps = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    error.retry_after_seconds().or(helps.then_some(1))
}

/// Tells OpenAI's clients not to retry a 5xx. A retry of `only-if-cached`, or of a request in a loop, fails alike.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem(error) = self;
        let status = status(error.kind());
        // Context and causes of a server error name files, machines and keys, so they are logged only. The client gets the kind
        // and the message.
        let message = if status.is_server_error() {
            log(&error, status);
            error.message().to_owned()
        } else {
            error.to_string()
        };
        let body = dialects::error_body(&error_reply(&error, &message, status));
        let json = HeaderValue::from_static("application/json");
        let mut response = (status, [(header::CONTENT_TYPE, json)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_seconds(&error, status) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if error.kind() == Kind::UnsupportedCoding {
            // RFC 9110, section 12.5.3: the codings that are decoded.
            headers.insert(header::ACCEPT_ENCODING, content_coding::DECODED);
        }
        if matches!(error.kind(), Kind::NotCached | Kind::Loop) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response.extensions_mut().insert(ReportedError { error, message });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::chat_completions::ChatCompletions;
    use crate::labels::Label as _;

    fn all() -> [Kind; 25] {
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
            Kind::OnOtherNode,
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

    #[test]
    fn the_reference_has_each_kind_with_its_code_and_status() {
        let page = include_str!("../../docs/reference/errors.md");
        for kind in Kind::ALL {
            let start = format!("| {kind:?} | `{}` | {}", kind.code(), status(*kind).as_u16());
            assert!(page.lines().any(|line| line.starts_with(&start)), "no row `{start}`");
        }
        let is_row = |line: &&str| line.starts_with("| ") && line.contains("` | ");
        assert_eq!(
            page.lines().filter(is_row).count(),
            1 + Kind::ALL.len(),
            "the head of the table, and a row each"
        );
    }

    #[tokio::test]
    async fn no_fault_of_the_servers_shows_where_it_happened() {
        for kind in all() {
            let cause = std::io::Error::other("open /srv/data/1.seg: denied");
            let error = Error::new(kind, "read a segment").with("path", "/srv/data/1.seg").source(cause);
            let (event, response) = (event(&error, &ChatCompletions), Problem(error).into_response());
            let is_server_error = response.status().is_server_error();
            let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains("read a segment"), "{body}");
            assert_eq!(body.contains("/srv"), !is_server_error, "{kind:?}: {body}");
            assert!(!String::from_utf8_lossy(&event).contains("/srv"), "{kind:?}");
        }
    }
}
