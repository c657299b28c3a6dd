//! Why a call gave no reply.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::breaker::CallEnd;
use super::metrics::CallOutcome;
use crate::error::{Error, Kind};

/// Why a call gave no reply. A read answers it as a miss.
#[derive(Debug, Clone)]
pub enum CallError {
    /// There is no connection; one is being opened.
    NotConnected,
    /// The server is not the primary, or lacks changes that this node knows.
    NotPrimary,
    /// The breaker is open.
    BreakerOpen,
    /// Too many calls are under way.
    TooMany,
    /// No answer came in time. Whether the server has done what was asked is unknown.
    TimedOut,
    /// The connection broke, or the server could not serve. Whether it has done what was asked is unknown.
    Failed(RedisError),
    /// The server refused the command: rights, memory, a mistake.
    Refused(RedisError),
}

impl CallError {
    /// Whether the connection is of no use to later calls.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            CallError::Failed(error) => {
                error.is_unrecoverable_error()
                    || matches!(server_kind(error), Some(ServerErrorKind::ReadOnly | ServerErrorKind::Moved))
                    || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
            }
            CallError::NotConnected
            | CallError::NotPrimary
            | CallError::BreakerOpen
            | CallError::TooMany
            | CallError::TimedOut
            | CallError::Refused(_) => false,
        }
    }

    /// Whether the user lacks the right to the command.
    pub(super) fn is_no_permission(&self) -> bool {
        matches!(self, CallError::Refused(error) if error.code() == Some("NOPERM"))
    }

    /// As the breaker counts it.
    pub(super) fn outcome(&self) -> CallEnd {
        match self {
            CallError::NotConnected | CallError::NotPrimary | CallError::Failed(_) => CallEnd::Failed,
            CallError::TimedOut => CallEnd::TimedOut,
            CallError::Refused(_) | CallError::BreakerOpen | CallError::TooMany => CallEnd::Answered,
        }
    }

    /// As metrics count it.
    pub(super) fn label(&self) -> CallOutcome {
        match self {
            CallError::NotConnected | CallError::NotPrimary => CallOutcome::NotConnected,
            CallError::BreakerOpen => CallOutcome::BreakerOpen,
            CallError::TooMany => CallOutcome::TooMany,
            CallError::TimedOut => CallOutcome::TimedOut,
            CallError::Failed(_) => CallOutcome::Failed,
            CallError::Refused(_) => CallOutcome::Refused,
        }
    }
}

fn server_kind(error: &RedisError) -> Option<ServerErrorKind> {
    if let ErrorKind::Server(kind) = error.kind() { Some(kind) } else { None }
}

impl From<RedisError> for CallError {
    fn from(error: RedisError) -> CallError {
        let is_refusal = match server_kind(&error) {
            Some(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly,
            ) => false,
            Some(_) => true,
            // Errors that Redis has no kind for, such as OOM, are of kind `Extension`.
            None => {
                error.kind() == ErrorKind::Extension
                    && !matches!(
                        error.code(),
                        Some("NOAUTH" | "WRONGPASS" | "BUSY" | "MISCONF" | "NOREPLICAS")
                    )
            }
        };
        if is_refusal { CallError::Refused(error) } else { CallError::Failed(error) }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Error {
        let kind = match &error {
            CallError::TimedOut => Kind::Timeout,
            CallError::TooMany => Kind::Overloaded,
            CallError::NotConnected
            | CallError::NotPrimary
            | CallError::BreakerOpen
            | CallError::Failed(_)
            | CallError::Refused(_) => Kind::Unavailable,
        };
        Error::new(kind, error.to_string())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NotConnected => f.write_str("there is no connection to Redis"),
            CallError::NotPrimary => {
                f.write_str("the server of Redis is not the primary, or lacks changes that are known")
            }
            CallError::BreakerOpen => f.write_str("Redis is not asked, because it has failed too often"),
            CallError::TooMany => f.write_str("too many calls to Redis are under way"),
            CallError::TimedOut => f.write_str("Redis did not answer in time"),
            CallError::Failed(error) => write!(f, "the call to Redis failed: {error}"),
            CallError::Refused(error) => write!(f, "Redis refused the command: {error}"),
        }
    }
}

impl std::error::Error for CallError {}

/// A reply, or the error that the server has sent in its place.
pub(super) fn checked(value: Value) -> Result<Value, CallError> {
    if let Value::ServerError(error) = value {
        return Err(CallError::from(RedisError::from(error)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_server(line: &str) -> CallError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        checked(value).unwrap_err()
    }

    #[test]
    fn servers_that_cannot_serve_are_distinguished_from_those_that_refuse() {
        for line in ["LOADING x", "MOVED 1 a:1", "CLUSTERDOWN x", "READONLY x", "NOAUTH x", "MISCONF x"] {
            assert!(matches!(of_server(line), CallError::Failed(_)), "{line}");
        }
        for line in ["ERR x", "NOPERM x", "OOM x", "WRONGTYPE x", "NOSCRIPT x", "MINE x"] {
            assert!(matches!(of_server(line), CallError::Refused(_)), "{line}");
        }
    }

    #[test]
    fn a_connection_is_given_up_where_it_can_never_serve() {
        for line in ["READONLY x", "NOAUTH x", "MOVED 1 a:1"] {
            assert!(of_server(line).breaks_connection(), "{line}");
        }
        for line in ["LOADING x", "NOPERM x", "TRYAGAIN x"] {
            assert!(!of_server(line).breaks_connection(), "{line}");
        }
        let reset = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(CallError::from(reset).breaks_connection());
    }
}
