//! One error for the whole program: a closed kind, what failed, where, and the cause.
//!
//! Faults of the world are [`Error`]s. Faults of the programmer are assertions. A miss, an empty result or a
//! dropped request is a value, not an error.

mod field_path;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::field_path::FieldPath;
use crate::labels::label_enum;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

label_enum! {
    /// The category of an error, for callers and operators. [`Kind::code`] is its stable name.
    pub enum Kind {
        /// The request is malformed or breaks a rule; `param` names the field.
        InvalidInput = "invalid_input",
        /// The request is larger than a limit.
        TooLarge = "too_large",
        /// The body is encoded in a way that is not known here.
        UnsupportedCoding = "unsupported_coding",
        /// The credential is missing or unknown.
        Unauthorized = "invalid_api_key",
        /// The request is not allowed, with or without a credential.
        Forbidden = "forbidden",
        /// The request did not arrive in time.
        RequestTimeout = "request_timeout",
        /// The request has come from here, by way of others.
        Loop = "loop_detected",
        /// The request is well formed, and the model refuses its content.
        Unprocessable = "unprocessable",
        /// The thing that was asked for does not exist.
        NotFound = "not_found",
        /// The route exists, but not for this method.
        MethodNotAllowed = "method_not_allowed",
        /// The connection was to change to a protocol that is not spoken here.
        UpgradeRequired = "upgrade_required",
        /// The model that was asked for is not served here.
        ModelNotFound = "model_not_found",
        /// The request came too late: what it builds on has changed.
        Conflict = "conflict",
        /// Another node has what the request is about.
        OnOtherNode = "on_other_node",
        /// A condition that the request sets does not hold.
        PreconditionFailed = "precondition_failed",
        /// Only a cached value was acceptable, and there is none.
        NotCached = "not_cached",
        /// A queue is full; trying again later may work.
        Overloaded = "overloaded",
        /// The work took longer than its limit.
        Timeout = "timeout",
        /// The server is starting, stopping, or has lost a part that it needs.
        Unavailable = "unavailable",
        /// A model behind us answered with an error or with nonsense.
        Upstream = "upstream_error",
        /// The configuration cannot be used.
        Config = "config",
        /// The model directory cannot be used.
        Model = "model",
        /// Another process holds the data directory.
        Locked = "locked",
        /// The data on disk is of a format that this version does not read.
        Format = "format",
        /// Bytes on disk are not what was written.
        Corrupt = "corrupt",
        /// The disk is full.
        DiskFull = "disk_full",
        /// The operating system refused an operation.
        Io = "io",
        /// A defect of this program.
        Internal = "internal",
    }
}

impl Kind {
    /// The stable name of the kind, as clients and dashboards see it.
    pub fn code(self) -> &'static str {
        self.as_str()
    }
}

/// An error with its context. Clones share the cause, so that many waiters can receive one failure.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    message: Arc<str>,
    field: Option<Arc<ErrorField>>,
    retry_after_seconds: Option<u32>,
    context: Vec<(&'static str, Arc<str>)>,
    advice: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The field that an error is about.
struct ErrorField {
    path: FieldPath,
    /// Where the message names it.
    message_at: Option<usize>,
}

impl Error {
    /// An error of `kind`. `message` is in lower case without a full stop. Of a fault of input it says what the field must be, of any
    /// other fault what failed: `cannot read segment`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into().into(),
            field: None,
            retry_after_seconds: None,
            context: Vec::new(),
            advice: None,
            source: None,
        }
    }

    /// An error about one field of a request.
    pub fn invalid(field: impl Into<FieldPath>, message: impl Into<String>) -> Error {
        Error::new(Kind::InvalidInput, message).param(field)
    }

    /// An error whose message names the field at fault: `before`, the path, `after`.
    pub fn naming(kind: Kind, field: impl Into<FieldPath>, before: &str, after: &str) -> Error {
        let path = field.into();
        let error = Error::new(kind, format!("{before}{path}{after}"));
        Error { field: Some(Arc::new(ErrorField { path, message_at: Some(before.len()) })), ..error }
    }

    /// An error of the operating system; a full disk has a kind of its own.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Error {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let is_full = matches!(source.kind(), StorageFull | QuotaExceeded);
        let kind = if is_full { Kind::DiskFull } else { Kind::Io };
        Error::new(kind, message).source(source)
    }

    /// Names the field of the input that is at fault.
    #[must_use]
    pub fn param(mut self, field: impl Into<FieldPath>) -> Error {
        self.field = Some(Arc::new(ErrorField { path: field.into(), message_at: None }));
        self
    }

    /// Gives the field at fault another path, in the message too if that names it: the one that the caller's caller knows.
    #[must_use]
    pub fn map_field(mut self, map: impl FnOnce(FieldPath) -> FieldPath) -> Error {
        let Some(field) = self.field.take() else { return self };
        let path = map(field.path.clone());
        if let Some(at) = field.message_at {
            let (before, after) = (&self.message[..at], &self.message[at + field.path.as_str().len()..]);
            self.message = format!("{before}{path}{after}").into();
        }
        self.field = Some(Arc::new(ErrorField { path, message_at: field.message_at }));
        self
    }

    /// Sets when a retry may work: `wait` from now, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Error {
        let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// Adds a fact that helps to find the fault.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Error {
        self.context.push((name, value.to_string().into()));
        self
    }

    /// Says what an operator types to correct the fault, unless that is said already: where it arose, more is known.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Error {
        self.advice.get_or_insert_with(|| advice.into().into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn source(mut self, source: impl StdError + Send + Sync + 'static) -> Error {
        self.source = Some(Arc::new(source));
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What an operator types to correct the fault, if that is known.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The message, without context and cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Seconds after which trying again may work, where that is known.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after_seconds
    }

    /// The field of the input that is at fault.
    pub fn field(&self) -> Option<&FieldPath> {
        self.field.as_deref().map(|field| &field.path)
    }

    /// The field of the input that is at fault, as clients read it.
    pub fn param_name(&self) -> Option<&str> {
        self.field().map(FieldPath::as_str)
    }
}

/// One line: message, context in brackets, then the chain of causes, then what to do.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (i, (name, value)) in self.context.iter().enumerate() {
            write!(f, "{}{name}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.context.is_empty() {
            f.write_str(")")?;
        }
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // Our own Display already writes the causes below it.
            cause = if error.is::<Error>() { None } else { error.source() };
        }
        self.advice.iter().try_for_each(|advice| write!(f, " -> {advice}"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_with_context_and_causes() {
        let error = Error::io("cannot read segment", std::io::Error::other("disk on fire"))
            .with("path", "/data/1.seg")
            .with("offset", 4096);
        assert_eq!(error.to_string(), "cannot read segment (path: /data/1.seg, offset: 4096): disk on fire");
    }

    #[test]
    fn the_first_advice_is_shown_last() {
        let error = Error::new(Kind::Config, "cannot bind").advise("give another port").advise("give up");
        assert_eq!(
            error.source(std::io::Error::other("busy")).to_string(),
            "cannot bind: busy -> give another port"
        );
    }

    #[test]
    fn a_field_is_renamed_in_the_message_that_names_it() {
        let path = FieldPath::from("texts").element(1);
        let error = Error::naming(Kind::InvalidInput, path.clone(), "number 3 of ", " is not finite");
        assert_eq!(error.message(), "number 3 of texts[1] is not finite");
        let error = error.map_field(|path| path.renamed("texts", "input"));
        assert_eq!(
            (error.message(), error.param_name()),
            ("number 3 of input[1] is not finite", Some("input[1]"))
        );
        let error = Error::invalid(path, "of texts[1]").map_field(|path| path.renamed("texts", "input"));
        assert_eq!((error.message(), error.param_name()), ("of texts[1]", Some("input[1]")));
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        let error = Error::io("cannot write slot", std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(error.kind(), Kind::DiskFull);
    }
}
