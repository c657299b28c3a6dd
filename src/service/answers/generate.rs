//! Generates one answer: calls the upstream, broadcasts its reply, and stores it if it may be stored.
//!
//! A generation runs in a task of its own, so that a leader that disconnects does not take the answer from its followers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Answers;
use super::broadcast::{FullReply, GenerationState, Streamed};
use super::inflight::{Generation, Waiter};
use super::misses::PendingRequest;
use super::reason::Reason;
use super::replay::record_for;
use super::replay_buffer::UsageContent;
use super::request::{ResolvedRequest, ResponseForm};
use super::store::{PendingWrite, StoreRequest, begin_store};
use super::stored_answer::StoredAnswer;
use super::stream_progress::StreamProgress;
use crate::byte_budget::UNCOUNTED_BYTES;
use crate::cache::{HeldLease, Stamp};
use crate::dialects::{Answer, Dialect, Unstorable};
use crate::domain::TokenUsage;
use crate::error::{Error, Kind, Result};
use crate::service::Directives;
use crate::sse::Event;
use crate::upstream::{Reply, UpstreamCall};

/// What each byte of half an event takes: the buffer that it is collected in doubles, its former halves stay with the allocator for a
/// while, and the connection to the upstream reads ahead of it.
const HALF_EVENT_COST: usize = 12;

/// The data of the event that some APIs end a stream with, behind the one that ends its answer.
const DONE: &str = "[DONE]";

/// How long a stream that is no longer collected waits for its slowest reader.
const SPACE_WITHIN: Duration = Duration::from_secs(60);

/// The task that generates an answer.
pub(super) struct Generator {
    pub(super) answers: Arc<Answers>,
    pub(super) resolved: ResolvedRequest,
    /// When it began, in the order of invalidations.
    pub(super) stamp: Stamp,
    /// The lease of this node, without which the answer must not be stored.
    pub(super) lease: Option<HeldLease>,
    /// The call of the upstream. `None` once it was made.
    pub(super) call: Option<UpstreamCall>,
    /// The request, as others that miss are compared with it.
    pub(super) pending: Option<Arc<PendingRequest>>,
    pub(super) dialect: &'static dyn Dialect,
    /// Whether the call requests a stream.
    pub(super) streams: bool,
    /// Why the answer must not be stored. `None` if it may be.
    pub(super) not_stored: Option<Reason>,
}

impl Generator {
    /// Generates the answer and returns whether it was stored. A refresh has a `waiter` of its own, so that it is never
    /// abandoned.
    pub(super) async fn run(mut self, generation: Generation, refreshes: Option<Waiter>) -> bool {
        let finishes = refreshes.is_some() || self.answers.options.finish_abandoned;
        // The body of the request is not held while its answer streams.
        let call = self.call.take().expect("an answer is generated once: this is a bug");
        let stored = tokio::select! {
            biased;
            stored = self.generate(call, &generation) => stored,
            () = generation.abandoned(), if !finishes => {
                self.answers.metrics.abandoned.inc();
                self.count_not_stored(Reason::Abandoned);
                return false;
            }
        };
        if let Some(stored) = &stored
            && let Err(error) = stored.finish().await
        {
            self.on_not_written(stored, &error).await;
        }
        generation.remove();
        stored.is_some()
    }

    async fn on_not_written(&self, stored: &PendingWrite<'_>, error: &Error) {
        if error.kind() == Kind::Conflict {
            // The lease has ended: another node has replaced or removed the answer.
            self.count_not_stored(Reason::Superseded);
            return stored.forget();
        }
        tracing::warn!(%error, "failed to write an answer to disk; it is in memory only");
        self.count_not_stored(Reason::Disk);
        stored.keep_in_memory_only().await;
    }

    /// Whether the answer was stored since the request was looked up, fit for a response in this form.
    pub(super) async fn has_completed(&self, form: ResponseForm, directives: &Directives) -> bool {
        let lookup = &self.answers.lookup;
        let found = lookup.find(&self.resolved).await;
        found.is_some_and(|found| {
            lookup.is_new(&found, &self.resolved, directives) && record_for(&found, form).is_some()
        })
    }

    async fn generate(&self, call: UpstreamCall, generation: &Generation) -> Option<PendingWrite<'_>> {
        let started = Instant::now();
        let mut reply = match self.answers.origin.ask(call).await {
            Ok(reply) => reply,
            Err(error) => {
                generation.end(GenerationState::Failed(error));
                return None;
            }
        };
        if reply.is_success() {
            reply.forget_bytes();
        }
        match self.is_stream(&mut reply).await {
            Ok(true) => self.stream(reply, generation, started).await,
            Ok(false) => self.whole(reply, generation, started).await,
            Err(error) => {
                self.count_not_stored(Unstorable::Incomplete.into());
                generation.end(GenerationState::Failed(error));
                None
            }
        }
    }

    /// Whether a reply is the requested stream. Some servers send one without its content type, or with another.
    async fn is_stream(&self, reply: &mut Reply) -> Result<bool> {
        if !self.streams || !reply.is_success() || reply.is_compressed() {
            return Ok(false);
        }
        Ok(reply.is_events() || reply.begins_events().await?)
    }

    /// Reads a reply that is no stream.
    async fn whole(
        &self,
        mut reply: Reply,
        generation: &Generation,
        started: Instant,
    ) -> Option<PendingWrite<'_>> {
        let body = match reply.whole(self.answers.answer_bytes_max).await {
            Ok(body) => body,
            Err(error) => {
                self.count_not_stored(Unstorable::Incomplete.into());
                generation.end(GenerationState::Failed(error));
                return None;
            }
        };
        let may_be_answer =
            reply.is_success() && self.dialect.may_be_answer(reply.status, reply.content_type());
        let answer = if may_be_answer { self.dialect.read_reply(&body) } else { None };
        let reason = match (reply.is_success(), reply.is_compressed()) {
            (false, _) => Reason::Status,
            (true, true) => Reason::Encoding,
            (true, false) => Reason::NoAnswer,
        };
        let (status, headers) = (reply.status, reply.headers);
        let Some(answer) = answer else {
            self.count_not_stored(self.not_stored.unwrap_or(reason));
            let passed = FullReply { status, headers, body, answer: None, not_stored: Some(reason) };
            generation.end(GenerationState::PassedThrough(Arc::new(passed)));
            return None;
        };
        let stored = self.try_store(&answer, generation, started).await;
        self.count_spent(answer.usage);
        let not_stored = stored.as_ref().err().copied();
        let whole = FullReply { status, headers, body, answer: Some(answer), not_stored };
        let stored = stored.ok();
        publish(generation, stored.as_ref(), GenerationState::Full(Arc::new(whole)));
        stored
    }

    /// Reads a reply that is a stream.
    async fn stream(
        &self,
        mut reply: Reply,
        generation: &Generation,
        started: Instant,
    ) -> Option<PendingWrite<'_>> {
        let mut headers = std::mem::take(&mut reply.headers);
        // Each client gets the content type of the form that it requested.
        headers.retain(|(name, _)| name != "content-type");
        let headers = Arc::new(headers);
        generation.broadcast().begin(Arc::clone(&headers));
        let mut progress = StreamProgress::new(self.dialect);
        if let Err(error) = self.follow(&mut reply, generation, &mut progress).await {
            self.count_not_stored(Unstorable::Incomplete.into());
            // An error of this server is an event of its own and must not follow half an event.
            if error.kind() == Kind::Upstream {
                generation.broadcast().push(progress.events.rest(), UsageContent::Absent);
            }
            generation.end(GenerationState::Failed(error));
            return None;
        }
        let (streamed, unstorable, last) = progress.finish();
        let stored = match (&streamed, unstorable) {
            (Streamed::Answer(answer), None) => self.try_store(answer, generation, started).await,
            (Streamed::Answer(_) | Streamed::Uncertain(_) | Streamed::Faulty(_), unstorable) => {
                let reason = self.not_stored.unwrap_or(unstorable.unwrap_or(Unstorable::Uncertain).into());
                self.count_not_stored(reason);
                Err(reason)
            }
        };
        let reason = stored.as_ref().err().copied();
        let stored = stored.ok();
        self.count_spent(streamed.usage());
        // The last events are sent after the answer was stored, so that a client that has read them and asks again gets a hit.
        last.into_iter().for_each(|last| generation.broadcast().push(last, UsageContent::Absent));
        publish(generation, stored.as_ref(), GenerationState::Streamed(headers, streamed, reason));
        stored
    }

    /// Broadcasts events as they arrive, except the last one, and assembles the answer.
    async fn follow(
        &self,
        reply: &mut Reply,
        generation: &Generation,
        progress: &mut StreamProgress,
    ) -> Result<()> {
        let bytes_max = self.answers.answer_bytes_max;
        let mut unread = self.answers.budget.empty();
        while let Some(bytes) = progress.next_of(reply).await? {
            progress.events.push(&bytes);
            while let Some(event) = progress.events.next_event() {
                self.on_event(event, generation, progress);
            }
            if progress.events.unread_bytes() > bytes_max {
                let message =
                    "cannot read the upstream's stream: an event is too long (upstream.answer_bytes_max)";
                return Err(Error::new(Kind::Upstream, message).with("bytes_max", bytes_max));
            }
            // A part of an event is held here until the rest of it has arrived.
            let half = progress.events.unread_bytes().saturating_mul(HALF_EVENT_COST);
            unread.shrink_to(half);
            if half > UNCOUNTED_BYTES {
                unread.try_cover(half)?;
            }
            if generation.broadcast().is_over_limit(bytes_max) {
                self.throttle(generation, progress).await?;
            }
        }
        if let Some(event) = progress.events.last_event() {
            self.on_event(event, generation, progress);
        }
        progress.assembler.end();
        Ok(())
    }

    /// Continues a stream that is too long to be collected: it takes no more readers and goes at the pace of the slowest.
    async fn throttle(&self, generation: &Generation, progress: &mut StreamProgress) -> Result<()> {
        let broadcast = generation.broadcast();
        if !progress.is_too_long {
            progress.is_too_long = true;
            progress.assembler.give_up();
            generation.close();
            broadcast.close();
        }
        if !broadcast.has_readers() {
            let kind = if broadcast.is_over_budget() { Kind::Overloaded } else { Kind::Upstream };
            return Err(Error::new(
                kind,
                "the stream is too long to be held, and no client reads its events",
            ));
        }
        while tokio::time::timeout(SPACE_WITHIN, broadcast.wait_for_space(self.answers.answer_bytes_max))
            .await
            .is_err()
        {
            broadcast.drop_slowest();
        }
        Ok(())
    }

    /// Assembles an event and broadcasts it. The event that ends the answer, and `[DONE]` behind it, are held back until the answer is stored.
    fn on_event(&self, event: Event, generation: &Generation, progress: &mut StreamProgress) {
        let broadcast = generation.broadcast();
        let was_done = progress.assembler.is_done();
        let is_terminator = event.data.as_deref().is_some_and(|data| data.trim() == DONE);
        let note = progress.assembler.push(&event);
        progress.ends_with_done = is_terminator && progress.assembler.is_done();
        let usage_content = if !self.resolved.store_policy.reports_usage {
            UsageContent::Absent
        } else if note.is_usage {
            UsageContent::Only
        } else if progress.assembler.may_report_usage(&event) {
            UsageContent::Mixed
        } else {
            UsageContent::Absent
        };
        if note.is_error {
            progress.fault = Some(event.data.unwrap_or_default());
        }
        let ends = progress.assembler.is_done() && (!was_done || (is_terminator && progress.last.len() == 1));
        if ends {
            progress.last.push(event.bytes);
        } else {
            progress.last.drain(..).for_each(|last| broadcast.push(last, UsageContent::Absent));
            broadcast.push(event.bytes, usage_content);
        }
    }

    /// Stores an answer in memory, or returns the reason why it may not be stored.
    async fn try_store(
        &self,
        answer: &Answer,
        generation: &Generation,
        started: Instant,
    ) -> Result<PendingWrite<'_>, Reason> {
        let stored = match self.not_stored {
            Some(reason) => Err(reason),
            None => self.store(answer, generation, started).await,
        };
        stored.inspect_err(|reason| self.count_not_stored(*reason))
    }

    async fn store(
        &self,
        answer: &Answer,
        generation: &Generation,
        started: Instant,
    ) -> Result<PendingWrite<'_>, Reason> {
        let record = StoredAnswer {
            dialect: self.dialect.record_code(),
            usage: answer.usage,
            was_usage_requested: self.resolved.store_policy.reports_usage,
            is_text: false,
            is_ttl_requested: false,
            is_semantic: self.resolved.semantic.is_some(),
            calls_tools: answer.calls_tools,
            is_truncated: answer.is_truncated,
            ends_with_done: answer.ends_with_done,
            scope: self.resolved.scope(),
            question: self.resolved.question.as_deref().unwrap_or_default(),
            answer: &answer.json,
        };
        if let Some(reason) = self.reason_against(answer, &record) {
            return Err(reason);
        }
        // A delete holds the stripe too: before the policy is closed it prevents the store, and later it removes the entry.
        let held = self.answers.lookup.lock(&self.resolved.identity.key).await;
        let store_policy = generation.close_store_policy()?;
        let record = StoredAnswer { is_ttl_requested: store_policy.is_ttl_requested, ..record };
        let cost_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        let upstream_id = self.dialect.kept_id(&answer.json);
        let store_request = StoreRequest {
            record,
            store_policy,
            stamp: self.stamp,
            lease: self.lease,
            cost_us,
            upstream_id: upstream_id.as_deref(),
        };
        let stored = begin_store(&self.answers.lookup, &self.resolved, store_request, held)
            .await
            .ok_or(Reason::Invalidated)?;
        generation.mark_stored(&stored.tags(), &stored.inherited_tags());
        self.answers.add_question(&self.resolved);
        if let (Some(misses), Some(pending)) = (&self.answers.misses, &self.pending) {
            misses.stored(pending, stored.meta());
        }
        Ok(stored)
    }

    /// Why an answer may not be stored.
    fn reason_against(&self, answer: &Answer, record: &StoredAnswer<'_>) -> Option<Reason> {
        if let Some(unstorable) = answer.unstorable {
            Some(unstorable.into())
        } else if let Some(reason) = self.resolved.reason_against_features(answer.hosted) {
            Some(reason)
        } else if let Some(reason) =
            self.resolved.kinds.reason_against(answer.calls_tools, answer.is_truncated)
        {
            Some(reason)
        } else if record.bytes() > self.resolved.namespace.policy.value_bytes_max {
            Some(Reason::TooLarge)
        } else {
            None
        }
    }

    fn count_spent(&self, usage: Option<TokenUsage>) {
        usage.into_iter().for_each(|usage| self.answers.costs.spent(&self.resolved.model, usage));
    }

    fn count_not_stored(&self, reason: Reason) {
        self.answers.metrics.not_stored.with(reason).inc();
    }
}

/// Notifies all waiters. A stored answer can be joined until it is on the disk; any other generation ends here, and the next
/// request starts a new one.
fn publish(generation: &Generation, stored: Option<&PendingWrite<'_>>, state: GenerationState) {
    if stored.is_some() { generation.broadcast().set_state(state) } else { generation.end(state) }
}
