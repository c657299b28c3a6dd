//! An answer as it leaves, and how it came about.

use std::time::Duration;

use bytes::Bytes;

use super::reason::Reason;
use super::telling::Live;
use crate::cache::TierName;
use crate::domain::Key;
use crate::upstream::{Headers, Replay};

/// An answer on its way to a client.
#[derive(Debug)]
pub struct Served {
    /// The status code.
    pub status: u16,
    /// The upstream's headers.
    pub headers: Headers,
    /// The body.
    pub body: Body,
    /// How it came about.
    pub outcome: Outcome,
    /// Why it was not looked for, or will not be kept.
    pub reason: Option<Reason>,
    /// The kept answer's name.
    pub id: Option<Key>,
    /// What was saved, where that is known already.
    pub saved: Option<Saved>,
    /// How long looking took.
    pub lookup: Duration,
    /// How long the upstream took to say something.
    pub upstream: Option<Duration>,
}

/// The bytes of an answer.
#[derive(Debug)]
pub enum Body {
    /// All of them.
    Whole(Bytes),
    /// All of them, as events.
    Events(Bytes),
    /// Events that are written as they are read, and the first of them.
    Replay(Bytes, Replay),
    /// As they come.
    Live(Live),
}

/// How an answer came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was kept.
    Hit(Age),
    /// It was not there, and asked for.
    Miss,
    /// It was asked for because the request says so.
    Anew,
    /// Somebody else had just asked for it.
    Coalesced,
    /// It was asked for without looking.
    Bypass,
    /// It was kept and has ended, and the upstream failed; with the upstream's status, if it said anything.
    StaleIfError(Age, Option<u16>),
}

/// Where a kept answer was, and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Age {
    /// Where it was.
    pub tier: TierName,
    /// Whether it is due to be made anew.
    pub is_stale: bool,
    /// Whether it was found only because two spellings of the question are one.
    pub is_joined: bool,
    /// Seconds since it was made.
    pub age_seconds: u32,
    /// Seconds until it ends; negative once it has.
    pub fresh_seconds: i64,
}

/// What an answer would have cost again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saved {
    /// Tokens, read and written.
    pub tokens: u64,
    /// Dollars, if the price is known.
    pub usd: Option<f64>,
}

impl Served {
    pub(super) fn new(status: u16, headers: Headers, body: Body, outcome: Outcome) -> Served {
        Served {
            status,
            headers,
            body,
            outcome,
            reason: None,
            id: None,
            saved: None,
            lookup: Duration::ZERO,
            upstream: None,
        }
    }
}
