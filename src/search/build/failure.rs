//! Why an index was not built.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Kind};

/// What kept an index from being built, by its name in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::search) enum Cause {
    /// The index is none that may be built, or its rows are not such that FAISS builds it.
    Refused,
    /// It took more memory than it may.
    Memory,
    /// It took more time than it may.
    Time,
    /// The process that built it crashed.
    Crash,
    /// The server ended meanwhile, several times.
    Interrupted,
    /// A build before the start, as its record says.
    Recorded,
    /// The disk or the system: not remembered on disk, so that the next start tries again.
    World,
}

/// Why an index was not built, as clients may read it.
#[derive(Debug, Clone)]
pub(in crate::search) struct Failure {
    pub(in crate::search) cause: Cause,
    pub(in crate::search) reason: Arc<str>,
    source: Option<Error>,
}

impl Cause {
    pub(in crate::search) fn name(self) -> &'static str {
        match self {
            Cause::Refused => "refused",
            Cause::Memory => "memory",
            Cause::Time => "time",
            Cause::Crash => "crash",
            Cause::Interrupted => "interrupted",
            Cause::Recorded => "recorded",
            Cause::World => "system",
        }
    }
}

impl Failure {
    pub(in crate::search) fn new(cause: Cause, reason: impl Into<Arc<str>>) -> Failure {
        Failure { cause, reason: reason.into(), source: None }
    }

    /// With what only the log shows.
    pub(in crate::search) fn source(self, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        let source = Error::new(Kind::Internal, "build an index").source(error);
        Failure { source: Some(source), ..self }
    }

    /// With what the process has printed, for the log.
    pub(super) fn printed(self, printed: &str) -> Failure {
        let source = Error::new(Kind::Internal, "build an index").with("it_printed", printed);
        Failure { source: Some(source), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            None => f.write_str(&self.reason),
            Some(source) => write!(f, "{}: {source}", self.reason),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(Cause::World, "its file could not be stored");
        Failure { source: Some(error), ..failure }
    }
}
