//! Do two requests ask the same thing?
//!
//! Contains: the reading of what a client asks a language model, its split into scope and question, and the
//! fingerprints of both. Must not contain: I/O, a clock, an async function. The one idea: everything that is not known to
//! make no difference does make one. The scope holds whatever must be equal for two questions to share an answer, fields
//! that nobody here understands included; only the last words of the user are ever compared by more than their bytes.

mod asking;
mod form;
mod identity;
mod json;
mod plain;
mod texts;

pub use form::{Form, Spellings};
pub use identity::{Identity, Partition, of_request, of_text};
pub use json::Json;
