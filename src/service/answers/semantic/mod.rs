//! Answers to questions in other words: the vector of a question, the nearest stored questions of its scope, and the guard.
//!
//! Nearness alone decides nothing: `how do I pause my plan` and `how do I cancel my plan` are near. A candidate is served only if it is near
//! enough, its answer is fresh and has the tags of the request, the guard finds no difference that matters, and the verifier agrees. Each can
//! only refuse.

mod acceptance;
mod answer_comparison;
mod confirmation;
mod explanation;
mod operator_words;
mod options;
mod pair_margins;
mod question;
mod question_index;
mod reasked;
mod rebuild;
mod report;
mod search;
mod verification;

pub use acceptance::ReportedWrong;
pub use explanation::{ExplainedCandidate, ExplainedConflict, Explanation};
pub use operator_words::lexicon_with;
pub use options::{SemanticOptions, Similarities, VerifierMode};
pub use question::AcrossKeys;
pub use reasked::ReaskedAgreement;
pub use report::{SemanticOutcome, SemanticReport};
pub use search::SemanticLookup;

pub(super) use question::{SemanticQuestion, SemanticRequest};
pub(super) use reasked::Reasked;
pub(super) use report::REQUEST;
