//! Answers of language models: whatever was asked before, in the same words and the same scope, is not asked again.
//!
//! The walk: fingerprint → memory, then disk → one flight per fingerprint to the upstream, whose bytes go to all who wait as
//! they come → the answer, if it is whole and may be kept, to memory, then to all who wait, then to disk. What is not known to
//! be an answer is passed on as it came, to everybody who waits, and kept by nobody.

mod board;
mod finding;
mod given;
mod joining;
mod making;
mod pauses;
mod reason;
mod record;
mod replay_buffer;
mod served;
mod telling;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use finding::REPLAYED_BYTES;
pub use given::{Known, Question};
pub use reason::Reason;
pub use record::Record;
pub use served::{Age, Body, Outcome, Saved, Served};
pub use telling::Live;

use self::board::{Asker, Board, Terms};
use self::making::tags_of;
use self::pauses::Pauses;
use super::{Directives, check_tags};
use crate::byte_budget::ByteBudget;
use crate::cache::{Cache, Found, Namespace, Namespaces, Policy, Stripes, Verdict};
use crate::domain::{Credential, Subject, Tag, Tenant};
use crate::error::{Error, Kind, Result};
use crate::matching::{Chat, Identity, Partition, Spellings};
use crate::metrics::{Metrics, OutcomeLabels};
use crate::upstream::{self, Headers, Origin, Prices, Usage};

/// What may become of answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Requests above this temperature want another answer each time: they are neither found nor kept nor joined.
    pub temperature_max: f64,
    /// Whether answers that call tools are kept, and requests that offer tools are joined.
    pub keeps_tool_calls: bool,
    /// Whether questions are one that closed lists of words show to ask the same: the capital of some first words, the mark of
    /// what asks without it, the full stop of an order. Without it only composed letters and the space around a question are.
    pub normalize_questions: bool,
    /// Whether requests with different credentials share answers.
    pub shares_between_keys: bool,
    /// Whether an answer is made to its end, and kept, when all who wanted it have left.
    pub finish_abandoned: bool,
    /// Stale answers that are made anew at the same time; more stay stale for the moment.
    pub refreshes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            temperature_max: 1.0,
            keeps_tool_calls: false,
            normalize_questions: false,
            shares_between_keys: false,
            finish_abandoned: false,
            refreshes_max: 64,
        }
    }
}

/// A request for an answer.
#[derive(Debug)]
pub struct Ask {
    /// The request, read.
    pub chat: Arc<Chat>,
    /// Its body.
    pub body: Bytes,
    /// The query of its address, which is passed on and part of what is asked.
    pub query: Option<String>,
    /// Whose it is.
    pub tenant: Tenant,
    /// The credential that it came with.
    pub credential: Option<Credential>,
    /// Headers that are passed on and part of what is asked.
    pub headers: Vec<(String, String)>,
    /// Headers that are passed on only.
    pub traces: Headers,
    /// What it says about the cache.
    pub directives: Directives,
    /// What the answer depends on.
    pub tags: Vec<Tag>,
}

/// What is asked, as the cache sees it.
#[derive(Debug, Clone)]
struct Asked {
    identity: Identity,
    namespace: Namespace,
    model: Arc<str>,
    question: Option<Arc<str>>,
    terms: Terms,
    asker: Asker,
    /// Flights that had left the board before the cache was asked.
    departures: u64,
}

/// In which form an answer is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Form {
    streams: bool,
    wants_usage: bool,
}

/// The use case. Shared by `Arc`.
pub struct Answers {
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    origin: Arc<dyn Origin>,
    prices: Prices,
    board: Arc<Board>,
    /// What all requests in flight may hold.
    budget: Arc<ByteBudget>,
    stripes: Stripes,
    refreshes: Arc<Semaphore>,
    pauses: Pauses,
    options: Options,
    answer_bytes_max: usize,
    asks_for_usage: bool,
    /// Whether upstreams see the credentials of clients.
    passes_keys: bool,
    outcomes: Outcomes,
    metrics: Arc<Metrics>,
}

struct Outcomes {
    hits: Counter,
    stale: Counter,
    misses: Counter,
    coalesced: Counter,
    bypassed: Counter,
}

impl Answers {
    /// A use case over `cache`, for the upstreams behind `origin`, which `upstream` configures.
    pub fn new(
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        origin: Arc<dyn Origin>,
        upstream: &upstream::Options,
        options: Options,
        budget: &Arc<ByteBudget>,
        metrics: &Arc<Metrics>,
    ) -> Answers {
        let counter = |outcome| metrics.answers.get_or_create(&OutcomeLabels { outcome }).clone();
        Answers {
            cache,
            namespaces,
            origin,
            prices: Prices::new(&upstream.prices),
            board: Board::new(Arc::clone(budget)),
            budget: Arc::clone(budget),
            stripes: Stripes::new(),
            refreshes: Arc::new(Semaphore::new(options.refreshes_max)),
            pauses: Pauses::default(),
            options,
            answer_bytes_max: upstream.answer_bytes_max,
            asks_for_usage: upstream.asks_for_usage,
            passes_keys: upstream.passes_any_key(),
            outcomes: Outcomes {
                hits: counter("hit"),
                stale: counter("stale"),
                misses: counter("miss"),
                coalesced: counter("coalesced"),
                bypassed: counter("bypass"),
            },
            metrics: Arc::clone(metrics),
        }
    }

    /// Which spellings of a question are one. Requests are to be read by it.
    pub fn spellings(&self) -> Spellings {
        if self.options.normalize_questions { Spellings::Normalised } else { Spellings::Composed }
    }

    /// Answers now being made.
    pub fn in_flight(&self) -> usize {
        self.board.len()
    }

    /// Waits until all that was told is on the disk: whoever keeps an answer holds its stripe until then.
    pub async fn close(&self) {
        self.stripes.wait().await;
    }

    /// Answers a request: from the cache, with whoever is asking the same, or by asking.
    ///
    /// # Errors
    /// `InvalidInput` for a lifetime past its limit and too many tags; `ModelNotFound` if no upstream answers the model;
    /// `NotCached` with `only_if_cached`; `Loop` for what has come from here; `Upstream`, `Timeout`, `Overloaded` as the
    /// upstream's failure is told to all who wait. What the upstream refuses is an answer here, not an error.
    ///
    /// Cancel safety: whoever leaves takes nobody's answer with him; what nobody waits for any more is stopped.
    pub async fn ask(self: &Arc<Self>, ask: Ask) -> Result<Served> {
        let started = Instant::now();
        let (asked, form) = (self.asked(&ask)?, Form::of(&ask.chat));
        let (served, missed) = match self.bypass(&ask.chat) {
            Some(reason) => {
                let served = self.ask_only(&ask, &asked, form, reason, started).await;
                (served.map(|served| Served { reason: Some(reason), ..served }), Outcome::Bypass)
            }
            None => (self.find_or_make(&ask, asked, form, started).await, Outcome::Miss),
        };
        self.outcomes.count(served.as_ref().map_or(&missed, |served| &served.outcome));
        served
    }

    /// Asks without looking and keeps nothing.
    async fn ask_only(
        self: &Arc<Self>,
        ask: &Ask,
        asked: &Asked,
        form: Form,
        reason: Reason,
        started: Instant,
    ) -> Result<Served> {
        if ask.directives.only_if_cached {
            return Err(not_cached());
        }
        let waiter = self.lead_alone(ask, asked, Some(reason))?;
        Ok(self.served(waiter, form, asked, Outcome::Bypass, started).await??)
    }

    async fn find_or_make(
        self: &Arc<Self>,
        ask: &Ask,
        mut asked: Asked,
        form: Form,
        started: Instant,
    ) -> Result<Served> {
        asked.departures = self.board.departures(&asked.identity.key);
        let found = self.look(&asked.namespace, &asked.identity.key).await;
        if let Some(found) = found.as_ref().filter(|found| self.accepts(found, &asked, &ask.directives))
            && let Some(served) = self.hit(found, &asked, form, started)
        {
            if found.verdict != Verdict::Fresh && !ask.directives.only_if_cached {
                asked.carry_on(Some(found.clone()), &ask.directives);
                self.refresh(ask, &asked);
            }
            return Ok(served);
        }
        if ask.directives.only_if_cached {
            return Err(not_cached());
        }
        let looked = started.elapsed();
        let stands_in = found.as_ref().is_some_and(|found| self.may_stand_in(found, &asked, &ask.directives));
        // Whoever has something in hand does not wait; another address may still be asked.
        asked.asker.may_wait = !stands_in;
        asked.carry_on(found, &ask.directives);
        // A hit does not carry the room that this takes.
        let made = Box::pin(self.made(ask, &asked, form, started)).await;
        let fails = stands_in && is_failure(&made);
        let stand_in = if fails { self.stand_in(ask, &asked, form, &made, started).await } else { None };
        let served = stand_in.map_or(made, Ok)?;
        Ok(Served { lookup: looked, upstream: Some(started.elapsed() - looked), ..served })
    }

    fn asked(&self, ask: &Ask) -> Result<Asked> {
        check_tags(&ask.tags)?;
        self.origin.refuse_own(&ask.traces)?;
        let upstream = self.origin.name(&ask.chat.model)?;
        let namespace = self.namespaces.of_answers(&ask.tenant, ask.directives.namespace.as_deref());
        let namespace = namespace.map_err(|error| error.param("cache.namespace"))?;
        let partition = Partition {
            tenant: &ask.tenant,
            namespace: &namespace.name,
            credential: ask
                .credential
                .as_ref()
                .filter(|_| !self.options.shares_between_keys)
                .map(Credential::as_bytes),
            upstream: &upstream,
            query: ask.query.as_deref(),
            headers: &ask.headers,
        };
        let identity = ask.chat.identity(&partition);
        let tags = ask.tags.iter().map(|tag| Subject::tag(&ask.tenant, tag)).collect();
        // A whole answer always tells what it used; of streams that is asked.
        let tells_usage = !ask.chat.streams || ask.chat.wants_usage || self.asks_for_usage;
        Ok(Asked {
            identity,
            asker: Asker {
                credential: ask.credential.clone().filter(|_| self.passes_keys),
                streams: ask.chat.streams,
                asks_usage: tells_usage,
                may_wait: true,
            },
            model: Arc::clone(&ask.chat.model),
            question: ask.chat.question.clone(),
            terms: Terms {
                tags,
                tells_usage,
                ttl_seconds: super::ttl_seconds(&namespace.policy, ask.directives.ttl_seconds, "cache.ttl")?,
                is_ttl_asked: ask.directives.ttl_seconds.is_some(),
                inherits_ttl: false,
            },
            departures: 0,
            namespace,
        })
    }

    /// Why a request has no place in the cache.
    fn bypass(&self, chat: &Chat) -> Option<Reason> {
        if chat.temperature.is_some_and(|temperature| temperature > self.options.temperature_max) {
            Some(Reason::Temperature)
        } else if !chat.is_exact {
            Some(Reason::Number)
        } else {
            None
        }
    }

    fn price(&self, model: &str, usage: Usage) -> Saved {
        let tokens = u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens);
        Saved { tokens, usd: self.prices.cost_usd(model, usage) }
    }

    /// Counts what an answer would have cost again.
    fn saved(&self, model: &str, usage: Usage) -> Saved {
        let saved = self.price(model, usage);
        self.metrics.saved_tokens.inc_by(saved.tokens);
        self.metrics.saved_usd.inc_by(saved.usd.unwrap_or_default());
        saved
    }

    /// Counts what an answer has cost.
    fn spent(&self, model: &str, usage: Usage) {
        let spent = self.price(model, usage);
        self.metrics.spent_tokens.inc_by(spent.tokens);
        self.metrics.spent_usd.inc_by(spent.usd.unwrap_or_default());
    }
}

impl Asked {
    /// What takes the place of an answer depends on what that one depends on, and lives as long as somebody has asked for that
    /// one: whoever asks for it may not say it again.
    fn carry_on(&mut self, before: Option<Found>, directives: &Directives) {
        let Some(before) = before else { return };
        self.terms.depend_on(tags_of(&before.entry));
        let was_asked = Record::decode(&before.entry.value).is_some_and(|record| record.is_ttl_asked);
        if directives.ttl_seconds.is_none() && was_asked {
            let meta = &before.entry.meta;
            self.terms.ttl_seconds = meta.expires.since(meta.created).max(1);
            self.terms.is_ttl_asked = true;
            self.terms.inherits_ttl = true;
        }
    }
}

impl Form {
    fn of(chat: &Chat) -> Form {
        Form { streams: chat.streams, wants_usage: chat.wants_usage }
    }
}

impl Outcomes {
    fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Hit(age) if age.is_stale => &self.stale,
            Outcome::Hit(_) => &self.hits,
            Outcome::StaleIfError(..) => &self.stale,
            Outcome::Miss | Outcome::Anew => &self.misses,
            Outcome::Coalesced => &self.coalesced,
            Outcome::Bypass => &self.bypassed,
        };
        counter.inc();
    }
}

fn not_cached() -> Error {
    Error::new(Kind::NotCached, "the answer is not in the cache")
}

/// Whether the upstream failed, in a way in which it may not fail again.
fn is_failure(made: &Result<Served>) -> bool {
    match made {
        Ok(served) => {
            served.status >= 500 || served.status == 429 || served.reason.is_some_and(Reason::is_no_answer)
        }
        Err(error) => {
            matches!(error.kind(), Kind::Upstream | Kind::Timeout | Kind::Overloaded | Kind::Internal)
        }
    }
}

fn check_size(bytes: usize, policy: &Policy) -> Result<()> {
    if bytes <= policy.value_bytes_max {
        return Ok(());
    }
    let max = policy.value_bytes_max;
    Err(Error::new(Kind::TooLarge, format!("the answer has {bytes} bytes, at most {max} are allowed")))
}
