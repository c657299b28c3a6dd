//! The lines of a file, read by a thread: a slow pipe holds up no answer.

use std::io::BufRead;

use tokio::sync::mpsc;

use super::lines_of;
use crate::error::{Error, Result};

/// Lines that are read ahead.
const AHEAD: usize = 4;

/// Lines with their numbers, which count from 1. Empty ones are left out.
pub struct LineStream(mpsc::Receiver<(usize, Result<String>)>);

impl LineStream {
    /// Reads the lines of what is open.
    ///
    /// # Errors
    /// `Io` if the thread cannot be started.
    pub fn of(reader: impl BufRead + Send + 'static) -> Result<LineStream> {
        let (sender, lines) = mpsc::channel(AHEAD);
        let read = move || {
            for line in lines_of(reader) {
                // The lines are not wanted any more.
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
    pub async fn next(&mut self) -> Option<(usize, Result<String>)> {
        self.0.recv().await
    }
}
