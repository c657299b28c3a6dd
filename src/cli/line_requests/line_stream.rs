//! The lines of a file, read by a thread: a slow pipe holds up no answer.

use std::path::Path;

use likewise::error::{Error, Result};
use tokio::sync::mpsc;

use crate::cli::json_lines::{count, is_standard_input, lines_of, open_lines};

/// Lines that are read ahead.
const AHEAD: usize = 4;

/// Lines with their numbers, which count from 1. Empty ones are left out.
pub(super) struct LineStream(mpsc::Receiver<(usize, Result<String>)>);

impl LineStream {
    /// How many lines a file has; `None` where that is not known before they are read.
    ///
    /// # Errors
    /// `Config` if the file cannot be opened.
    pub(super) fn count(file: &Path) -> Result<Option<usize>> {
        let is_counted = !is_standard_input(file) && file.is_file();
        is_counted.then(|| count(file)).transpose()
    }

    /// Opens a file, or with `-` standard input.
    ///
    /// # Errors
    /// `Config` if it cannot be opened, `InvalidInput` if it does not hold lines.
    pub(super) fn open(file: &Path) -> Result<LineStream> {
        let reader = open_lines(file)?;
        let (sender, lines) = mpsc::channel(AHEAD);
        let read = move || {
            for line in lines_of(reader) {
                // The command has ended.
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        };
        // A thread of its own: the runtime would wait at its end for one that reads a pipe.
        std::thread::Builder::new()
            .name("lines".into())
            .spawn(read)
            .map_err(|error| Error::io("cannot start a thread", error))?;
        Ok(LineStream(lines))
    }

    /// The next line; `None` behind the last one. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<(usize, Result<String>)> {
        self.0.recv().await
    }
}
