//! What the dialects have in common whose replies are lists of `choices`.
//!
//! Contains: the members of requests that all of them have, the reading of replies, the assembly of chunks and the replay of stored
//! answers. Must not contain: a member of one dialect only. The one idea: a dialect describes one choice in each of three forms by a
//! [`ReplyFormat`], and everything around the choices is here.

mod assembler;
mod error;
mod format;
mod pieces;
mod plan;
mod replay;
mod reply;
pub(super) mod request;
mod rules;
mod step;
mod usage_member;

pub use assembler::{ChunkAssembler, is_ping};
pub(super) use assembler::{PARTS_MAX, has_error, place};
pub use error::{ErrorType, error_body, error_event};
pub use format::{AssembledChoice, ReplayedChoice, ReplyChoice, ReplyFormat};
pub(super) use pieces::{Text, Tokens, cut};
pub use replay::{ChunkReplay, as_json};
pub(super) use reply::{ends_at_limit, ends_by_itself, is_one_of, number, says_something};
pub use reply::{read_reply, text_of_answer};
pub(super) use rules::{Rule, Rules, Type, add, says_nothing, within};
pub use step::Step;
pub(super) use usage_member::without_usage;
