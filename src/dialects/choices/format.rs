//! How a dialect describes one choice: complete, assembled from chunks, and replayed as chunks.

use std::collections::VecDeque;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::step::Step;
use crate::dialects::Unstorable;
use crate::raw_object::RawObject;

/// How a dialect writes its replies.
pub trait ReplyFormat: fmt::Debug + Default + Send + Sync + 'static {
    /// The `object` of a complete reply.
    const REPLY_OBJECT: &'static str;
    /// The `object` of a chunk, as a replay writes it.
    const CHUNK_OBJECT: &'static str;
    /// The values of `object` that a chunk of an upstream may have.
    const CHUNK_OBJECTS: &'static [&'static str];
    /// The beginning of the ids of replays.
    const ID_PREFIX: &'static str;

    /// A choice of a complete reply.
    type Reply<'a>: ReplyChoice + Deserialize<'a>;
    /// A choice that is assembled from chunks.
    type Assembled: AssembledChoice;
    /// A choice that is replayed as chunks.
    type Replayed<'a>: ReplayedChoice<'a>;
}

/// A choice of a complete reply, as far as it decides whether the reply is stored.
pub trait ReplyChoice {
    /// Its member `index`.
    fn index(&self) -> Option<&RawValue>;

    /// Why an answer with it may not be stored.
    fn unstorable(&self) -> Option<Unstorable>;

    /// Whether it calls a tool.
    fn calls_tools(&self) -> bool;

    /// Whether it ended at the limit of tokens.
    fn is_truncated(&self) -> bool;

    /// Its text. `None` if it has none, or more than a text.
    fn text(&self) -> Option<String>;
}

/// A choice that is assembled from chunks.
pub trait AssembledChoice: fmt::Debug + Default + Send + Sync {
    /// Adds the entry of a chunk. Once `has_given_up`, only its finish reason is collected.
    ///
    /// # Errors
    /// Why there will be no complete answer.
    fn add(&mut self, entry: Map<String, Value>, has_given_up: bool) -> Result<(), Unstorable>;

    /// Whether its finish reason has arrived.
    fn has_ended(&self) -> bool;

    /// Drops everything but the finish reason.
    fn give_up(&mut self);

    /// Whether all parts of it are complete.
    fn is_whole(&self) -> bool;

    /// The choice of the complete reply.
    fn finish(self, index: u64) -> Value;
}

/// A choice that is replayed as chunks.
pub trait ReplayedChoice<'a>: Sized {
    /// Reads a choice, the one at `place`. `None` if chunks cannot represent it exactly.
    fn read(place: usize, choice: RawObject<'a>) -> Option<Self>;

    /// Adds the steps that write it in pieces.
    fn add_steps(&self, steps: &mut VecDeque<Step>);

    /// Writes it as one entry.
    fn write_whole(&self, out: &mut Vec<u8>);
}
