//! What became of the lines of a file.

use std::process::ExitCode;

use likewise::error::{Error, Kind, Result};

use super::sender::{LineAnswer, Served};
use crate::cli::line_faults::LineFaults;

/// Counts of lines. All but empty ones are in one of them.
#[derive(Debug, Default)]
pub(in crate::cli) struct LineReport {
    cached: usize,
    computed: usize,
    repeated: usize,
    skipped: usize,
    faults: LineFaults,
}

impl LineReport {
    /// Counts an answer.
    ///
    /// # Errors
    /// `Unauthorized` if the server refuses the key and has answered nothing yet: it would refuse all lines.
    pub(super) fn take(&mut self, number: usize, answer: &LineAnswer) -> Result<()> {
        if !answer.is_success() {
            if answer.status == 401 && self.answered() == 0 {
                return Err(Error::new(Kind::Unauthorized, answer.message()).with("line", number));
            }
            self.refuse(number, &format!("{} {}", answer.status, answer.message()));
            return Ok(());
        }
        match answer.served {
            Served::Cache => self.cached += 1,
            Served::Repeated => self.repeated += 1,
            Served::Computed => self.computed += 1,
        }
        Ok(())
    }

    /// Counts a line for which nothing is to be done.
    pub(super) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Counts a line that failed.
    pub(super) fn refuse(&mut self, number: usize, fault: &str) {
        self.faults.add("line", number, fault);
    }

    fn answered(&self) -> usize {
        self.cached + self.computed + self.repeated
    }

    /// Lines for which nothing was to be done.
    pub(in crate::cli) fn skipped(&self) -> usize {
        self.skipped
    }

    /// What is wrong with lines that failed, a line each.
    pub(in crate::cli) fn faults(&self) -> String {
        self.faults.report()
    }

    /// The counts of a run; `made` says what was done for lines that no cache had.
    pub(in crate::cli) fn summary(&self, made: &str) -> String {
        let LineReport { cached, computed, repeated, .. } = self;
        let failed = self.faults.count();
        format!(
            "{} lines: {cached} from the cache, {computed} {made}, {repeated} repeated, {failed} failed",
            self.answered() + failed
        )
    }

    /// The exit code: whether a line failed.
    pub(in crate::cli) fn exit_code(&self) -> ExitCode {
        self.faults.exit_code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, served: Served) -> LineAnswer {
        LineAnswer { status, request_id: String::new(), body: b"why".to_vec(), served }
    }

    #[test]
    fn lines_are_counted_by_what_became_of_them() {
        let mut report = LineReport::default();
        assert_eq!(report.take(1, &answer(401, Served::Computed)).unwrap_err().kind(), Kind::Unauthorized);
        for (number, served) in [Served::Cache, Served::Computed, Served::Repeated].into_iter().enumerate() {
            report.take(number, &answer(200, served)).unwrap();
        }
        assert_eq!(report.exit_code(), ExitCode::SUCCESS);
        report.take(4, &answer(401, Served::Computed)).unwrap();
        report.skip();
        let counts = "4 lines: 1 from the cache, 1 by the model, 1 repeated, 1 failed";
        assert_eq!(report.summary("by the model"), counts);
        assert_eq!((report.faults(), report.skipped()), ("line 4: 401 why\n".to_owned(), 1));
        assert_ne!(report.exit_code(), ExitCode::SUCCESS);
    }
}
