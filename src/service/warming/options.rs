//! The options of warming at the start.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// What the server warms with once it is ready.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Files whose lines are warmed with, in their order: those of `likewise warm`.
    pub files: Vec<PathBuf>,
    /// The model of texts whose line names none; by default that of the server.
    pub model: Option<String>,
    /// Requests of a minute that may be sent to models; by default no limit.
    pub requests_per_minute: Option<u64>,
    /// Tokens of a minute that may be sent to models; by default no limit.
    pub tokens_per_minute: Option<u64>,
    /// Dollars that the job may cost by `upstream.prices`; it pauses before it would cost more.
    pub cost_usd_max: Option<f64>,
}

/// What a job warms with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmSpec {
    /// The files, in their order.
    pub files: Vec<PathBuf>,
    /// The model of texts whose line names none.
    #[serde(default)]
    pub text_model: Option<String>,
}

impl Options {
    /// Checks the values. The files are not looked at.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub fn validate(&self) -> Result<()> {
        for (key, limit) in
            [("requests_per_minute", self.requests_per_minute), ("tokens_per_minute", self.tokens_per_minute)]
        {
            if limit == Some(0) {
                return Err(fault(format!("warm.{key} must be at least 1, got 0")));
            }
        }
        match self.cost_usd_max {
            Some(max) if !(max >= 0.0 && max.is_finite()) => {
                Err(fault(format!("warm.cost_usd_max must be at least 0, got {max}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that there are files to read. Blocks.
    ///
    /// # Errors
    /// `Config`, naming the option and the path.
    pub fn check_files(&self) -> Result<()> {
        for path in &self.files {
            let described = |error| fault("cannot read a file of warm.files".into()).source(error);
            let metadata = fs_err::metadata(path).map_err(described)?;
            if metadata.is_dir() {
                return Err(
                    fault("warm.files must name files, got a directory".into()).with("path", path.display())
                );
            }
        }
        Ok(())
    }

    /// What there is to warm with; `None` without files.
    pub fn spec(&self) -> Option<WarmSpec> {
        let spec = WarmSpec { files: self.files.clone(), text_model: self.model.clone() };
        (!spec.files.is_empty()).then_some(spec)
    }
}

/// Whether a file holds JSON lines, by its name; any other holds plain texts.
pub fn has_json_lines(file: &Path) -> bool {
    file.extension().is_some_and(|name| name == "jsonl" || name == "ndjson")
}

fn fault(message: String) -> Error {
    Error::new(Kind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let said = |options: Options| options.validate().unwrap_err().to_string();
        assert!(Options::default().validate().is_ok());
        assert_eq!(Options::default().spec(), None);
        let none = Options { requests_per_minute: Some(0), ..Options::default() };
        assert!(said(none).contains("warm.requests_per_minute"));
        let none = Options { tokens_per_minute: Some(0), ..Options::default() };
        assert!(said(none).contains("warm.tokens_per_minute"));
        for cost in [-1.0, f64::NAN, f64::INFINITY] {
            let wrong = Options { cost_usd_max: Some(cost), ..Options::default() };
            assert!(said(wrong).contains("warm.cost_usd_max"));
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named_with_its_option() {
        let dir = tempfile::tempdir().unwrap();
        let options = |path: PathBuf| Options { files: vec![path], ..Options::default() };
        let said = |path| options(path).check_files().unwrap_err().to_string();
        let missing = said(dir.path().join("warm.jsonl"));
        assert!(missing.contains("warm.files") && missing.contains("warm.jsonl"), "{missing}");
        assert!(said(dir.path().to_path_buf()).contains("got a directory"));
        fs_err::write(dir.path().join("a.txt"), "uno").unwrap();
        assert!(options(dir.path().join("a.txt")).check_files().is_ok());
    }
}
