//! What a check of a data directory found.

use std::fmt;
use std::path::{Path, PathBuf};

/// How a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it was written.
    Whole,
    /// Nothing is wrong with the data, but there is something to know.
    Note,
    /// Not what was written.
    Damaged,
}

/// One checked file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the data directory.
    pub file: PathBuf,
    /// How it was found.
    pub state: State,
    /// What was found, in words.
    pub what: String,
    /// Of a segment, the slots that are damaged or missing; the rest of the file is good.
    pub slots: Vec<u32>,
    /// Of a segment, how many slots are known to have been flushed.
    pub flushed_slots: u32,
    /// Of a segment, the entries that verify.
    pub entries: usize,
}

/// What was found in a data directory. Displayed, it is a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One finding per file, in the order of checking.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_whole(&self) -> bool {
        self.findings.iter().all(|finding| finding.state != State::Damaged)
    }

    /// How many files are damaged.
    pub fn damaged(&self) -> usize {
        self.findings.iter().filter(|finding| finding.state == State::Damaged).count()
    }

    pub(super) fn add(&mut self, file: impl AsRef<Path>, state: State, what: impl Into<String>) {
        let (file, what) = (file.as_ref().to_path_buf(), what.into());
        self.findings.push(Finding { file, state, what, slots: Vec::new(), flushed_slots: 0, entries: 0 });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |finding: &Finding| finding.file.display().to_string();
        let width = self.findings.iter().map(|finding| name(finding).len()).max().unwrap_or(0).max(4);
        writeln!(f, "{:width$}  {:7}  found", "file", "state")?;
        for finding in &self.findings {
            let state = match finding.state {
                State::Whole => "whole",
                State::Note => "note",
                State::Damaged => "DAMAGED",
            };
            writeln!(f, "{:width$}  {state:7}  {}", name(finding), finding.what)?;
        }
        write!(f, "{} files checked, {} damaged", self.findings.len(), self.damaged())
    }
}
