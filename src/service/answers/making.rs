//! Makes one answer in a task of its own, so that a client that leaves takes nobody's answer with it.

use std::sync::Arc;

use tokio::time::Instant;

use super::flight::{Flight, Phase, Reply, Streamed, Waiter};
use super::record::{CONTENT_TYPE, Record};
use super::{Answers, Asked};
use crate::cache::Stamp;
use crate::domain::{Codec, Entry, EntryMeta, Subject};
use crate::error::{Error, Kind};
use crate::metrics::ReasonLabels;
use crate::service::objects::TAGS_MAX;
use crate::upstream::{Answer, Assembly, Call, Events, Reply as Head};

/// What is needed to make an answer.
pub(super) struct Making {
    pub(super) answers: Arc<Answers>,
    pub(super) asked: Asked,
    /// When it began, in the order of invalidations.
    pub(super) stamp: Stamp,
    pub(super) call: Call,
    /// Whether a stream was asked for.
    pub(super) streams: bool,
    /// Whether the answer may be kept.
    pub(super) keeps: bool,
}

/// An answer that is to be kept.
struct Made {
    answer: Arc<Answer>,
    cost_us: u32,
}

/// An answer that was given to be kept, or made.
pub(super) struct Draft<'a> {
    pub(super) record: Record<'a>,
    pub(super) tags: Vec<Subject>,
    pub(super) stamp: Stamp,
    pub(super) cost_us: u32,
}

impl Making {
    /// Makes the answer. `refreshes` holds a place for those who will ask later: such a flight is never abandoned.
    pub(super) async fn run(self, flight: Flight, refreshes: Option<Waiter>) {
        let finishes = refreshes.is_some() || self.answers.options.finish_abandoned;
        let made = tokio::select! {
            biased;
            made = self.make(&flight) => made,
            () = flight.abandoned(), if !finishes => {
                self.answers.metrics.answers_abandoned.inc();
                return;
            }
        };
        if let Some(made) = made {
            self.keep(made, &flight).await;
        }
        flight.leave();
    }

    async fn make(&self, flight: &Flight) -> Option<Made> {
        let started = Instant::now();
        let mut head = match self.answers.origin.ask(self.call.clone()).await {
            Ok(head) => head,
            Err(error) => {
                flight.end(Phase::Failed(error));
                return None;
            }
        };
        let answer = if self.streams && head.is_success() && head.is_events() {
            self.stream(head, flight).await?
        } else {
            self.whole(&mut head, flight).await?
        };
        let cost_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.answers.count_spent(&self.asked.model, answer.usage, flight.followers());
        self.is_kept(&answer, flight).then_some(Made { answer, cost_us })
    }

    /// A reply that comes at once; its answer, if it is one.
    async fn whole(&self, head: &mut Head, flight: &Flight) -> Option<Arc<Answer>> {
        let body = match head.whole(self.answers.answer_bytes_max).await {
            Ok(body) => body,
            Err(error) => {
                flight.end(Phase::Failed(error));
                return None;
            }
        };
        let answer = if head.is_success() { Answer::read(&body) } else { None };
        let headers = std::mem::take(&mut head.headers);
        let reply = Arc::new(Reply { status: head.status, headers, body, answer: answer.clone() });
        match answer.map(Arc::new) {
            None => {
                flight.end(Phase::Passed(reply));
                None
            }
            Some(answer) => {
                self.settle(flight, &answer, Phase::Whole(reply));
                Some(answer)
            }
        }
    }

    /// A reply that comes in events; the answer that they add up to.
    async fn stream(&self, mut head: Head, flight: &Flight) -> Option<Arc<Answer>> {
        flight.begin(std::mem::take(&mut head.headers));
        let (mut events, mut assembly) = (Events::default(), Assembly::default());
        let mut left = self.answers.answer_bytes_max;
        let mut fault = None;
        loop {
            let bytes = match head.next().await {
                Ok(Some(bytes)) if bytes.len() <= left => bytes,
                Ok(Some(_)) => {
                    let error = Error::new(Kind::Upstream, "read the upstream's stream: it is too long");
                    flight.end(Phase::Failed(error.with("bytes_max", self.answers.answer_bytes_max)));
                    return None;
                }
                Ok(None) => break,
                Err(error) => {
                    self.push_rest(&mut events, flight);
                    flight.end(Phase::Failed(error));
                    return None;
                }
            };
            left -= bytes.len();
            events.push(&bytes);
            while let Some(event) = events.next_event() {
                let note = event.data.as_deref().map(|data| assembly.push(data)).unwrap_or_default();
                if note.is_error {
                    fault = Some(event.data.unwrap_or_default());
                }
                flight.push(event.bytes, note.is_usage && self.asked.terms.tells_usage);
            }
        }
        self.push_rest(&mut events, flight);
        let is_done = assembly.is_done();
        let answer = assembly.finish().and_then(|json| Answer::read(&json)).map(Arc::new);
        match (answer, fault) {
            (Some(answer), None) => {
                let streamed = Phase::Streamed(Streamed::Answer(Arc::clone(&answer)));
                self.settle(flight, &answer, streamed);
                return Some(answer);
            }
            (_, Some(fault)) => {
                let error =
                    Error::new(Kind::Upstream, format!("the upstream's stream ended in an error: {fault}"));
                flight.end(Phase::Streamed(Streamed::Faulty(error)));
            }
            (None, None) if is_done => flight.end(Phase::Streamed(Streamed::Uncertain)),
            (None, None) => {
                let error = Error::new(Kind::Upstream, "the upstream's stream ended before its answer did");
                flight.end(Phase::Streamed(Streamed::Faulty(error)));
            }
        }
        self.not_kept("incomplete");
        None
    }

    fn push_rest(&self, events: &mut Events, flight: &Flight) {
        let rest = events.rest();
        if !rest.is_empty() {
            flight.push(rest, false);
        }
    }

    /// Lets those who come while the answer is being kept have it too, if it will be.
    fn settle(&self, flight: &Flight, answer: &Answer, phase: Phase) {
        if self.keeps && self.refusal(answer).is_none() { flight.settle(phase) } else { flight.end(phase) }
    }

    fn is_kept(&self, answer: &Answer, flight: &Flight) -> bool {
        let refusal = self.refusal(answer);
        if let Some(reason) = refusal.filter(|_| self.keeps) {
            self.not_kept(reason);
        }
        self.keeps && refusal.is_none() && flight.may_keep()
    }

    /// Why an answer is not to be kept.
    fn refusal(&self, answer: &Answer) -> Option<&'static str> {
        if !answer.has_ended {
            Some("unfinished")
        } else if answer.calls_tools && !self.answers.options.keeps_tool_calls {
            Some("tool_calls")
        } else if answer.json.len() > self.asked.namespace.policy.value_bytes_max {
            Some("too_large")
        } else {
            None
        }
    }

    fn not_kept(&self, reason: &'static str) {
        self.answers.metrics.answers_not_kept.get_or_create(&ReasonLabels { reason }).inc();
    }

    async fn keep(&self, made: Made, flight: &Flight) {
        let Some(tags) = flight.close_terms() else { return self.not_kept("deleted") };
        let record = Record {
            usage: made.answer.usage,
            is_text: false,
            scope: self.asked.identity.scope,
            question: self.asked.question.as_deref().unwrap_or_default(),
            answer: &made.answer.json,
        };
        let draft = Draft { record, tags, stamp: self.stamp, cost_us: made.cost_us };
        if let Err(error) = self.answers.keep(&self.asked, draft).await {
            self.not_kept(if error.kind() == Kind::Conflict { "invalidated" } else { "disk" });
        }
    }
}

impl Answers {
    /// Keeps an answer in the place of the one before it, whose tags it carries on.
    ///
    /// # Errors
    /// `Conflict` if something that it depends on was invalidated since its making began. Whatever the disk says: then
    /// the answer is in memory only.
    pub(super) async fn keep(&self, asked: &Asked, draft: Draft<'_>) -> crate::error::Result<()> {
        let key = asked.identity.key;
        let _held = self.stripes.lock(&[key]).await;
        let mut tags = draft.tags;
        if let Some(before) = self.look_locked(&asked.namespace, &key).await {
            let more = before.entry.meta.tags.iter().map(|version| version.tag);
            let more: Vec<Subject> = more.filter(|tag| !tags.contains(tag)).collect();
            tags.extend(more.into_iter().take(TAGS_MAX - tags.len().min(TAGS_MAX)));
        }
        let tokens = self.cache.freshness().versions().admit(draft.stamp, asked.namespace.subject, &tags);
        let tokens = tokens.ok_or_else(|| {
            let message = "something that the answer depends on was invalidated while it was made";
            Error::new(Kind::Conflict, message)
        })?;
        let lifetime = self.cache.freshness().lifetime(&asked.namespace.policy, asked.ttl_seconds);
        let usage = draft.record.usage.unwrap_or_default();
        let meta = EntryMeta {
            soft_expires: lifetime.soft_expires,
            stale_until: lifetime.stale_until,
            cost_us: draft.cost_us,
            tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            namespace: asked.namespace.subject,
            epoch: tokens.epoch,
            tags: tokens.tags,
            content_type: CONTENT_TYPE.into(),
            validator: asked.identity.exact.half(),
            ..EntryMeta::ending(Codec::Raw, lifetime.created, lifetime.expires)
        };
        let entry = Arc::new(Entry { meta, value: draft.record.encode().into() });
        let stored = self.cache.put_many(&asked.namespace, vec![(key, Arc::clone(&entry))]).await;
        if stored.is_err() {
            self.cache.keep(key, entry);
        }
        stored
    }
}
