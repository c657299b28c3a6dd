//! The identity of a request: which requests share an answer.
//!
//! Contains: canonical JSON, the normalization of questions, the hashes of scope and question. Must not contain: I/O, a clock, an async
//! function. The one idea: every difference counts unless it is known not to. The scope holds everything that must be equal for two
//! questions to share an answer, unknown members included; only the last words of the user are compared by more than their bytes.

mod composition;
mod difference;
mod identity;
mod json;
mod member_path;
mod normalization;
mod normalize;
mod parts;
mod question_detection;
mod rules;
mod text_operations;

pub use difference::{MemberDifference, MemberDifferences, differences};
pub use identity::{Identity, Partition, of_cache_key, of_request, of_text};
pub use json::{Json, parsed_bytes_max};
pub use member_path::MemberPath;
pub use normalization::{Normalization, NormalizedQuestion};
pub use normalize::mentions_text_operations_within;
pub use parts::{IdentityParts, QuestionPart};
pub use rules::IdentityRules;
