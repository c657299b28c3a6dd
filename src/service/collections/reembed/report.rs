//! What came of embedding a collection by another model.

use serde::{Deserialize, Serialize};

use super::verification::ReembedVerification;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReembedReport {
    /// The model whose vectors were served before.
    pub from_model: String,
    /// The model whose vectors are served now.
    pub to_model: String,
    /// The generation that was served before.
    pub former_generation: u32,
    /// The generation that is served now.
    pub generation: u32,
    /// Documents that are served now.
    pub documents: usize,
    /// Documents that are in the former generation only.
    pub refused: usize,
    /// What was found before the change.
    pub verification: ReembedVerification,
    /// Until when the former generation is kept, in seconds since 1970.
    pub former_until: u32,
}
