//! Makes one answer in a task of its own, so that a client that leaves takes nobody's answer with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::board::{Flight, Terms, Waiter};
use super::reason::Reason;
use super::record::{CONTENT_TYPE, Record};
use super::replay_buffer::OfUsage;
use super::telling::{Phase, Streamed, Whole};
use super::{Answers, Asked};
use crate::byte_budget::UNCOUNTED_BYTES;
use crate::cache::{Held, Policy, Stamp, TierName};
use crate::domain::{Codec, Entry, EntryMeta, Key, Subject};
use crate::error::{Error, Kind, Result};
use crate::metrics::ReasonLabels;
use crate::upstream::{Answer, Assembly, Call, Event, Events, Reply, Unfit, Usage};

/// How long the end of a stream is waited for that has said that it is over.
const END_WITHIN: Duration = Duration::from_millis(50);

/// How long a stream that is not collected any more waits for the slowest of those who hear it.
const ROOM_WITHIN: Duration = Duration::from_secs(60);

/// As much is told of an error in a stream.
const FAULT_CHARS_MAX: usize = 500;

/// What is needed to make an answer.
pub(super) struct Making {
    pub(super) answers: Arc<Answers>,
    pub(super) asked: Asked,
    /// When it began, in the order of invalidations.
    pub(super) stamp: Stamp,
    /// What is asked; none once it has been.
    pub(super) call: Option<Call>,
    /// Whether a stream was asked for.
    pub(super) streams: bool,
    /// Why the answer is not to be stored, whatever it is; none if it may be.
    pub(super) not_stored: Option<Reason>,
}

/// An answer that is found from now on, but would not be after a restart.
pub(super) struct Kept<'a> {
    key: Key,
    entry: Arc<Entry>,
    /// Nobody replaces it before it is on the disk.
    _held: Held<'a>,
}

/// An answer that was given to be kept, or made.
pub(super) struct Draft<'a> {
    pub(super) record: Record<'a>,
    pub(super) terms: Terms,
    pub(super) stamp: Stamp,
    pub(super) cost_us: u32,
}

impl Making {
    /// Makes the answer, and tells whether it is kept. `refreshes` holds a place for those who will ask later: such a flight
    /// is never abandoned.
    pub(super) async fn run(mut self, flight: Flight, refreshes: Option<Waiter>) -> bool {
        let finishes = refreshes.is_some() || self.answers.options.finish_abandoned;
        // Nothing of a large question is held while its answer streams.
        let call = self.call.take().expect("an answer is made once: this is a bug");
        let kept = tokio::select! {
            biased;
            kept = self.make(call, &flight) => kept,
            () = flight.abandoned(), if !finishes => {
                self.answers.metrics.answers_abandoned.inc();
                self.count_not_kept(Reason::Abandoned);
                return false;
            }
        };
        if let Some(kept) = &kept
            && let Err(error) = self.answers.write(&self.asked, kept).await
        {
            tracing::warn!(%error, "an answer is kept in memory only");
            self.count_not_kept(Reason::Disk);
            // Or the one before it would come back from the disk. If the disk takes not even this, no later start reads it.
            let _ = self.answers.cache.remove_many(&[kept.key]).await;
            self.answers.remember(&self.asked, kept);
        }
        flight.leave();
        kept.is_some()
    }

    async fn make(&self, call: Call, flight: &Flight) -> Option<Kept<'_>> {
        let started = Instant::now();
        let mut reply = match self.answers.origin.ask(call).await {
            Ok(reply) => reply,
            Err(error) => {
                flight.end(Phase::Failed(error));
                return None;
            }
        };
        if reply.is_success() {
            reply.forget_bytes();
        }
        match self.is_stream(&mut reply).await {
            Ok(true) => self.stream(reply, flight, started).await,
            Ok(false) => self.whole(reply, flight, started).await,
            Err(error) => {
                self.count_not_kept(Unfit::Incomplete.into());
                flight.end(Phase::Failed(error));
                None
            }
        }
    }

    /// Whether a reply is the stream that was asked for. Some servers do not say the type of one, or another.
    async fn is_stream(&self, reply: &mut Reply) -> Result<bool> {
        if !self.streams || !reply.is_success() || reply.is_compressed() {
            return Ok(false);
        }
        Ok(reply.is_events() || reply.begins_events().await?)
    }

    /// A reply that comes at once.
    async fn whole(&self, mut reply: Reply, flight: &Flight, started: Instant) -> Option<Kept<'_>> {
        let body = match reply.whole(self.answers.answer_bytes_max).await {
            Ok(body) => body,
            Err(error) => {
                self.count_not_kept(Unfit::Incomplete.into());
                flight.end(Phase::Failed(error));
                return None;
            }
        };
        let answer = if reply.is_success() { Answer::read(&body) } else { None };
        let reason = match (reply.is_success(), reply.is_compressed()) {
            (false, _) => Reason::Status,
            (true, true) => Reason::Encoding,
            (true, false) => Reason::NoAnswer,
        };
        let (status, headers) = (reply.status, reply.headers);
        let Some(answer) = answer else {
            self.count_not_kept(self.not_stored.unwrap_or(reason));
            let passed = Whole { status, headers, body, answer: None, not_kept: Some(reason) };
            flight.end(Phase::Passed(Arc::new(passed)));
            return None;
        };
        let kept = self.ready(&answer, flight, started).await;
        self.count_spent(answer.usage);
        let not_kept = kept.as_ref().err().copied();
        let whole = Whole { status, headers, body, answer: Some(answer), not_kept };
        let kept = kept.ok();
        tell(flight, kept.as_ref(), Phase::Whole(Arc::new(whole)));
        kept
    }

    /// A reply that comes in events.
    async fn stream(&self, mut reply: Reply, flight: &Flight, started: Instant) -> Option<Kept<'_>> {
        let mut headers = std::mem::take(&mut reply.headers);
        // Who reads it, or a whole answer made of it, is told the type of that.
        headers.retain(|(name, _)| name != "content-type");
        let headers = Arc::new(headers);
        flight.telling().begin(Arc::clone(&headers));
        let mut course = Course::default();
        if let Err(error) = self.follow(&mut reply, flight, &mut course).await {
            self.count_not_kept(Unfit::Incomplete.into());
            // What is told of a break that is ours stands for itself, and not behind half an event.
            if error.kind() == Kind::Upstream {
                flight.telling().push(course.events.rest(), OfUsage::Nothing);
            }
            flight.end(Phase::Failed(error));
            return None;
        }
        let (streamed, unfit, last) = course.finish();
        let kept = match (&streamed, unfit) {
            (Streamed::Answer(answer), None) => self.ready(answer, flight, started).await,
            (Streamed::Answer(_) | Streamed::Uncertain(_) | Streamed::Faulty(_), unfit) => {
                let reason = self.not_stored.unwrap_or(unfit.unwrap_or(Unfit::Uncertain).into());
                self.count_not_kept(reason);
                Err(reason)
            }
        };
        let reason = kept.as_ref().err().copied();
        let kept = kept.ok();
        self.count_spent(streamed.usage());
        // Whoever has read the last event and asks again finds the answer.
        last.into_iter().for_each(|last| flight.telling().push(last, OfUsage::Nothing));
        tell(flight, kept.as_ref(), Phase::Streamed(headers, streamed, reason));
        kept
    }

    /// Passes events on as they come, but for the last one, and reads along.
    async fn follow(&self, reply: &mut Reply, flight: &Flight, course: &mut Course) -> Result<()> {
        let bytes_max = self.answers.answer_bytes_max;
        let mut unread = self.answers.budget.empty();
        while let Some(bytes) = course.next_of(reply).await? {
            course.events.push(&bytes);
            while let Some(event) = course.events.next_event() {
                self.hear(event, flight, course);
            }
            if course.events.unread_bytes() > bytes_max {
                let message = "read the upstream's stream: an event is too long (upstream.answer_bytes_max)";
                return Err(Error::new(Kind::Upstream, message).with("bytes_max", bytes_max));
            }
            // Half an event is held here until the rest of it has come.
            unread.shrink_to(course.events.unread_bytes());
            if course.events.unread_bytes() > UNCOUNTED_BYTES {
                unread.try_cover(course.events.unread_bytes())?;
            }
            if flight.telling().holds_too_much(bytes_max) {
                self.hold_less(flight, course).await?;
            }
        }
        if let Some(event) = course.events.last_event() {
            self.hear(event, flight, course);
        }
        course.assembly.end();
        Ok(())
    }

    /// Goes on with a stream that has become too long to be collected: it is for those who listen, at the pace of the slowest.
    async fn hold_less(&self, flight: &Flight, course: &mut Course) -> Result<()> {
        let telling = flight.telling();
        if !course.is_too_long {
            course.is_too_long = true;
            course.assembly.give_up();
            flight.close();
            telling.close();
        }
        if !telling.has_readers() {
            let kind = if telling.is_over_budget() { Kind::Overloaded } else { Kind::Upstream };
            return Err(Error::new(
                kind,
                "the stream is too long to be held, and no client reads its events",
            ));
        }
        while tokio::time::timeout(ROOM_WITHIN, telling.room(self.answers.answer_bytes_max)).await.is_err() {
            telling.drop_slowest();
        }
        Ok(())
    }

    /// Reads an event and passes it on, unless it is the one that ends the answer: that one takes the place of the last.
    fn hear(&self, event: Event, flight: &Flight, course: &mut Course) {
        let telling = flight.telling();
        course.last.take().into_iter().for_each(|last| telling.push(last, OfUsage::Nothing));
        let was_done = course.assembly.is_done();
        if event.is_garbled {
            course.assembly.doubt(Unfit::Garbled);
        }
        let said = event.data.as_deref().filter(|_| !event.is_keepalive());
        let note = said.map(|data| course.assembly.push(data)).unwrap_or_default();
        let of_usage = match &event.data {
            Some(_) if note.is_usage && self.asked.terms.tells_usage => OfUsage::All,
            // Most chunks do not speak of it, and are not read for it.
            Some(data) if data.contains("\"usage\"") && self.asked.terms.tells_usage => OfUsage::Perhaps,
            Some(_) | None => OfUsage::Nothing,
        };
        if note.is_error || event.is_error {
            course.fault = Some(event.data.unwrap_or_default());
        }
        if course.assembly.is_done() && !was_done {
            course.last = Some(event.bytes);
        } else {
            telling.push(event.bytes, of_usage);
        }
    }

    /// Puts an answer where it is found, if it may be kept, or says why it may not.
    async fn ready(&self, answer: &Answer, flight: &Flight, started: Instant) -> Result<Kept<'_>, Reason> {
        let kept = match self.not_stored {
            Some(reason) => Err(reason),
            None => self.admitted(answer, flight, started).await,
        };
        kept.inspect_err(|reason| self.count_not_kept(*reason))
    }

    async fn admitted(&self, answer: &Answer, flight: &Flight, started: Instant) -> Result<Kept<'_>, Reason> {
        let record = Record {
            usage: answer.usage,
            was_asked_for_usage: self.asked.terms.tells_usage,
            is_text: false,
            is_ttl_asked: false,
            scope: self.asked.identity.scope,
            question: self.asked.question.as_deref().unwrap_or_default(),
            answer: &answer.json,
        };
        if let Some(reason) = self.refusal(answer, &record) {
            return Err(reason);
        }
        // Whoever deletes holds it too: what is deleted before the terms are closed is not kept, and what is deleted later
        // is there to be removed.
        let held = self.answers.stripes.lock(&[self.asked.identity.key]).await;
        let terms = flight.close_terms()?;
        let record = Record { is_ttl_asked: terms.is_ttl_asked, ..record };
        let cost_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        let draft = Draft { record, terms, stamp: self.stamp, cost_us };
        let kept = self.answers.keep(&self.asked, draft, held).await.ok_or(Reason::Invalidated)?;
        flight.kept_with(&kept.tags());
        Ok(kept)
    }

    /// Why an answer is not to be kept.
    fn refusal(&self, answer: &Answer, record: &Record<'_>) -> Option<Reason> {
        if let Some(unfit) = answer.unfit {
            Some(unfit.into())
        } else if answer.calls_tools && !self.answers.options.keeps_tool_calls {
            Some(Reason::ToolCalls)
        } else if record.bytes() > self.asked.namespace.policy.value_bytes_max {
            Some(Reason::TooLarge)
        } else {
            None
        }
    }

    fn count_spent(&self, usage: Option<Usage>) {
        usage.into_iter().for_each(|usage| self.answers.spent(&self.asked.model, usage));
    }

    fn count_not_kept(&self, reason: Reason) {
        let reason = reason.label();
        self.answers.metrics.answers_not_kept.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// A stream as it is read.
#[derive(Default)]
struct Course {
    events: Events,
    assembly: Assembly,
    /// The event that ends the stream, held back until the answer is kept.
    last: Option<Bytes>,
    /// What the stream says has gone wrong.
    fault: Option<String>,
    /// How long a stream that has said that it is over is waited for.
    end: Option<Instant>,
    /// Whether it is too long to be collected.
    is_too_long: bool,
}

impl Course {
    /// The next bytes of a stream. One that is over is read to its end, so that its connection can serve again, but not
    /// waited for, and what becomes of the connection then is nobody's fault.
    async fn next_of(&mut self, reply: &mut Reply) -> Result<Option<Bytes>> {
        if !self.assembly.is_done() {
            return reply.next().await;
        }
        let end = *self.end.get_or_insert_with(|| Instant::now() + END_WITHIN);
        Ok(tokio::time::timeout_at(end, reply.next()).await.ok().and_then(Result::ok).flatten())
    }

    /// What the stream has become, why it is no answer if it is none, and the event that was held back.
    fn finish(self) -> (Streamed, Option<Unfit>, Option<Bytes>) {
        let Course { assembly, last, fault, .. } = self;
        let (usage, is_over) = (assembly.usage(), assembly.is_done() || assembly.has_ended());
        let faulty = |message: String| Streamed::Faulty(Error::new(Kind::Upstream, message));
        let answer = assembly.finish().and_then(|json| Answer::read(&json).ok_or(Unfit::Uncertain));
        let (streamed, unfit) = match (fault, answer) {
            (Some(fault), _) => {
                let fault: String = fault.chars().take(FAULT_CHARS_MAX).collect();
                (faulty(format!("the upstream's stream ended in an error: {fault}")), Some(Unfit::Error))
            }
            (None, Ok(answer)) => (Streamed::Answer(Arc::new(answer)), None),
            (None, Err(unfit)) if is_over => (Streamed::Uncertain(usage), Some(unfit)),
            (None, Err(_)) => {
                let message = "the upstream's stream ended before its answer did";
                (faulty(message.into()), Some(Unfit::Incomplete))
            }
        };
        (streamed, unfit, last)
    }
}

/// Tells all who wait. Those who come while the answer is on its way to the disk have it too; if it is not, they fly anew.
fn tell(flight: &Flight, kept: Option<&Kept<'_>>, phase: Phase) {
    if kept.is_some() { flight.telling().settle(phase) } else { flight.end(phase) }
}

impl Kept<'_> {
    fn tags(&self) -> Vec<Subject> {
        tags_of(&self.entry)
    }
}

/// What an answer depends on.
pub(super) fn tags_of(entry: &Entry) -> Vec<Subject> {
    entry.meta.tags.iter().map(|version| version.tag).collect()
}

impl Answers {
    /// Lets an answer be found in the place of the one before it, whose tags it carries on. None if something that it
    /// depends on was invalidated since its making began. `held` is the key's stripe.
    pub(super) async fn keep<'a>(
        &'a self,
        asked: &Asked,
        draft: Draft<'_>,
        held: Held<'a>,
    ) -> Option<Kept<'a>> {
        let key = asked.identity.key;
        let mut terms = draft.terms;
        if let Some(before) = self.look_locked(&asked.namespace, &key).await {
            terms.depend_on(tags_of(&before.entry));
        }
        let versions = self.cache.freshness().versions();
        let tokens = versions.admit(draft.stamp, asked.namespace.subject, &terms.tags)?;
        let policy = &*asked.namespace.policy;
        // Shortened at random each time, it would grow shorter with every refresh.
        let jitter_share = if terms.inherits_ttl { 0.0 } else { policy.jitter_share };
        let policy = Policy { jitter_share, ..policy.clone() };
        let lifetime = self.cache.freshness().lifetime(&policy, terms.ttl_seconds);
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
        let kept = Kept { key, entry, _held: held };
        self.remember(asked, &kept);
        Some(kept)
    }

    /// Keeps an answer in memory, if such answers are kept there.
    fn remember(&self, asked: &Asked, kept: &Kept<'_>) {
        if asked.namespace.policy.uses(TierName::Memory) {
            self.cache.keep(kept.key, Arc::clone(&kept.entry));
        }
    }

    /// Lets a kept answer survive a restart.
    ///
    /// # Errors
    /// Whatever the disk says: then the answer is not in memory either.
    pub(super) async fn write(&self, asked: &Asked, kept: &Kept<'_>) -> Result<()> {
        let entries = vec![(kept.key, Arc::clone(&kept.entry))];
        self.cache.put_many(&asked.namespace, entries).await
    }
}
