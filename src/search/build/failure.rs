//! Why an index was not built.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Kind};
use crate::labels::label_enum;

label_enum! {
    /// Why an index was not built, in metrics.
    pub(in crate::search) enum FailureCause {
        /// The index is none that may be built, or FAISS refuses its rows.
        SpecError = "refused",
        /// The build took more memory than its limit.
        Memory = "memory",
        /// The build took more time than its limit.
        Time = "time",
        /// The process that built it crashed.
        Crash = "crash",
        /// The server stopped during the build, several times.
        Interrupted = "interrupted",
        /// A build before the start failed, as its record says.
        Recorded = "recorded",
        /// The disk or the system failed. This is not recorded on disk, so that the next start tries again.
        World = "system",
    }
}

/// Why an index was not built, as clients may read it.
#[derive(Debug, Clone)]
pub(in crate::search) struct BuildFailure {
    pub(in crate::search) cause: FailureCause,
    pub(in crate::search) reason: Arc<str>,
    source: Option<Error>,
}

impl BuildFailure {
    pub(in crate::search) fn new(cause: FailureCause, reason: impl Into<Arc<str>>) -> BuildFailure {
        BuildFailure { cause, reason: reason.into(), source: None }
    }

    /// With what only the log shows.
    pub(in crate::search) fn source(
        self,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> BuildFailure {
        let source = Error::new(Kind::Internal, "cannot build an index").source(error);
        BuildFailure { source: Some(source), ..self }
    }

    /// With what the process has printed, for the log.
    pub(super) fn printed(self, printed: &str) -> BuildFailure {
        let source = Error::new(Kind::Internal, "cannot build an index").with("it_printed", printed);
        BuildFailure { source: Some(source), ..self }
    }
}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            None => f.write_str(&self.reason),
            Some(source) => write!(f, "{}: {source}", self.reason),
        }
    }
}

impl From<Error> for BuildFailure {
    fn from(error: Error) -> BuildFailure {
        let failure = BuildFailure::new(FailureCause::World, "its file could not be stored");
        BuildFailure { source: Some(error), ..failure }
    }
}
