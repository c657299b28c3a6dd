//! Answers to questions in other words: the vector of a question, the nearest stored questions of its scope, and the guard.
//!
//! Nearness alone decides nothing: `how do I pause my plan` and `how do I cancel my plan` are near. A candidate is served only if it is near
//! enough, its answer is fresh and has the tags of the request, and the guard finds no difference that matters. Each can only refuse.

mod options;
mod question;
mod question_index;
mod rebuild;
mod report;
mod search;

pub use options::SemanticOptions;
pub use report::{SemanticOutcome, SemanticReport};
pub use search::SemanticLookup;

pub(super) use question::{Asked, SemanticQuestion};
pub(super) use report::REQUEST;
