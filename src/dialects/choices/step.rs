//! The steps of a replay.

use super::pieces::Text;

/// One or more chunks.
#[derive(Debug)]
pub enum Step {
    /// The entries of one chunk's `choices`.
    Entries(Vec<u8>),
    /// A text, in as many chunks as it has pieces.
    Text(Text),
}
