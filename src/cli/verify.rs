//! `likewise verify DIR`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use likewise::error::Result;
use likewise::storage::verify::{repair, verify};

use super::terminal;

/// The exit code for damage, apart from those of commands that could not do their work.
const DAMAGED: u8 = 3;

/// Check everything in a data directory that no server uses.
///
/// Exit code: 0 if it is whole (with --repair: whole now), 3 if something is damaged, 2 if it is in use or of a newer
/// format, 1 if it could not be read.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The data directory.
    dir: PathBuf,
    /// Move damaged files into `damaged-<time>/` inside the directory, and rebuild those that can be derived from the rest.
    #[arg(long)]
    repair: bool,
}

impl Verify {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let report = if self.repair {
            let (before, after) = repair(&self.dir)?;
            terminal::say(&format!("before:\n{before}\n\nafter:\n"));
            after
        } else {
            verify(&self.dir)?
        };
        terminal::say(&format!("{report}\n"));
        Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
    }
}
