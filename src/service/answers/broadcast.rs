//! Broadcasts one generation to its subscribers: the events of its stream from the first one on, and how it ended.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

use super::reason::Reason;
use super::replay_buffer::{ReplayBuffer, StreamEvent, UsageContent};
use crate::byte_budget::ByteBudget;
use crate::dialects::{Answer, Dialect};
use crate::domain::TokenUsage;
use crate::error::{Error, Kind, Result};
use crate::sync::lock;
use crate::upstream::Headers;

/// About so many bytes are returned at once, so that a reader that joins a long answer late does not copy all of it.
const HANDED_BYTES: usize = 64 * 1024;

/// The progress of a generation.
#[derive(Debug, Clone)]
pub(super) enum GenerationState {
    /// The upstream has not answered yet.
    Pending,
    /// Events arrive; these were the headers.
    Streaming(Arc<Headers>),
    /// The last event has arrived; with the reason if the answer is not stored.
    Streamed(Arc<Headers>, Streamed, Option<Reason>),
    /// The answer arrived in one piece.
    Full(Arc<FullReply>),
    /// The reply is no answer, and is passed on as it is.
    PassedThrough(Arc<FullReply>),
    /// No reply arrived, or only a part of one.
    Failed(Error),
    /// The answer is in the cache: another generation was completed before this one began.
    AlreadyStored,
    /// The leader's task ended without a result.
    LeaderDied,
}

/// The result of a stream.
#[derive(Debug, Clone)]
pub(super) enum Streamed {
    /// A complete answer.
    Answer(Arc<Answer>),
    /// A stream that cannot be assembled into an answer; with its token usage, if it reports that.
    Uncertain(Option<TokenUsage>),
    /// A stream that ended in an error.
    Faulty(Error),
}

/// A reply with its whole body.
#[derive(Debug)]
pub(super) struct FullReply {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) answer: Option<Answer>,
    /// Why the answer is not stored.
    pub(super) not_stored: Option<Reason>,
}

/// The sending half of a generation.
#[derive(Debug)]
pub(super) struct Broadcast {
    progress: watch::Sender<Progress>,
    buffer: Mutex<ReplayBuffer>,
    /// Events were dropped from the buffer, or a reader has left.
    space_freed: Notify,
}

#[derive(Debug)]
struct Progress {
    state: GenerationState,
    /// Events that have arrived.
    events: usize,
}

/// The receiving half. Dropping it unsubscribes.
#[derive(Debug)]
pub(super) struct Subscriber {
    broadcast: Arc<Broadcast>,
    progress: watch::Receiver<Progress>,
    number: u64,
}

/// The events of an answer, from the first one on.
pub struct EventStream {
    subscriber: Subscriber,
    dialect: &'static dyn Dialect,
    at: usize,
    wants_usage: bool,
    /// Called with the token usage once all events were read.
    at_end: Option<Box<dyn FnOnce(TokenUsage) + Send + Sync>>,
    /// Why the answer is not stored; known once all events were read.
    reason: Option<Reason>,
}

impl Streamed {
    /// Its token usage, if it reports that.
    pub(super) fn usage(&self) -> Option<TokenUsage> {
        match self {
            Streamed::Answer(answer) => answer.usage,
            Streamed::Uncertain(usage) => *usage,
            Streamed::Faulty(_) => None,
        }
    }
}

impl GenerationState {
    fn is_over(&self) -> bool {
        match self {
            GenerationState::Pending | GenerationState::Streaming(_) => false,
            GenerationState::Streamed(..)
            | GenerationState::Full(_)
            | GenerationState::PassedThrough(_)
            | GenerationState::Failed(_)
            | GenerationState::AlreadyStored
            | GenerationState::LeaderDied => true,
        }
    }
}

impl Broadcast {
    /// A pending broadcast and its first subscriber. What is held for readers is reserved of `budget`.
    pub(super) fn new(budget: &Arc<ByteBudget>) -> (Arc<Broadcast>, Subscriber) {
        let (progress, receiver) = watch::channel(Progress { state: GenerationState::Pending, events: 0 });
        let buffer = Mutex::new(ReplayBuffer::new(budget.empty()));
        let broadcast = Arc::new(Broadcast { progress, buffer, space_freed: Notify::new() });
        let number = lock(&broadcast.buffer).subscribe();
        let subscriber = Subscriber { broadcast: Arc::clone(&broadcast), progress: receiver, number };
        (broadcast, subscriber)
    }

    /// One more subscriber.
    pub(super) fn subscribe(self: &Arc<Self>) -> Subscriber {
        let number = lock(&self.buffer).subscribe();
        Subscriber { broadcast: Arc::clone(self), progress: self.progress.subscribe(), number }
    }

    /// Starts a stream.
    pub(super) fn begin(&self, headers: Arc<Headers>) {
        self.set_state(GenerationState::Streaming(headers));
    }

    /// Appends an event.
    pub(super) fn push(&self, bytes: Bytes, usage_content: UsageContent) {
        if bytes.is_empty() {
            return;
        }
        let count = lock(&self.buffer).push(StreamEvent { bytes, usage_content });
        self.progress.send_modify(|progress| progress.events = count);
    }

    /// Whether more is held for readers than `bytes_max`, or than the budget of all requests in flight allows.
    pub(super) fn is_over_limit(&self, bytes_max: usize) -> bool {
        let buffer = lock(&self.buffer);
        buffer.bytes() > bytes_max || buffer.is_over_budget()
    }

    /// Whether more is held than the budget of all requests in flight allows.
    pub(super) fn is_over_budget(&self) -> bool {
        lock(&self.buffer).is_over_budget()
    }

    /// From here on no reader joins: what all have read is dropped.
    pub(super) fn close(&self) {
        lock(&self.buffer).close();
    }

    /// Whether any reader reads the events.
    pub(super) fn has_readers(&self) -> bool {
        lock(&self.buffer).has_readers()
    }

    /// Goes on without the readers that are furthest behind: their stream ends with an error.
    pub(super) fn drop_slowest(&self) {
        self.with_buffer(ReplayBuffer::drop_slowest);
    }

    /// Waits until no more is held than `bytes_max` and the budget allow: until readers have read enough.
    pub(super) async fn wait_for_space(&self, bytes_max: usize) {
        while self.is_over_limit(bytes_max) {
            self.space_freed.notified().await;
        }
    }

    /// Changes the buffer, which may make space in it.
    fn with_buffer<R>(&self, change: impl FnOnce(&mut ReplayBuffer) -> R) -> R {
        let changed = change(&mut lock(&self.buffer));
        // At most one task waits, and finds this also if it comes too early.
        self.space_freed.notify_one();
        changed
    }

    /// Notifies all subscribers of a new state.
    pub(super) fn set_state(&self, state: GenerationState) {
        self.progress.send_modify(|progress| progress.state = state);
    }

    /// Reports to subscribers that the leader is gone, unless the generation has ended.
    pub(super) fn end_without_leader(&self) {
        self.progress.send_if_modified(|progress| {
            let is_over = progress.state.is_over();
            if !is_over {
                progress.state = GenerationState::LeaderDied;
            }
            !is_over
        });
    }

    /// Whether there is any subscriber.
    pub(super) fn has_subscribers(&self) -> bool {
        self.progress.receiver_count() > 0
    }

    /// Returns once there is no subscriber. Another may have subscribed by then.
    pub(super) async fn without_subscribers(&self) {
        self.progress.closed().await;
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.skip_events();
    }
}

impl Subscriber {
    /// Waits until the upstream has answered.
    pub(super) async fn begun(&mut self) -> GenerationState {
        self.until(|state| !matches!(state, GenerationState::Pending)).await
    }

    /// Unsubscribes from the events: this subscriber waits for the final state only.
    pub(super) fn skip_events(&self) {
        self.broadcast.with_buffer(|buffer| buffer.unsubscribe(self.number));
    }

    /// Waits for the final state.
    pub(super) async fn ended(&mut self) -> GenerationState {
        self.until(GenerationState::is_over).await
    }

    /// The events from the first one on. `at_end` is called with the token usage once all of them were read.
    pub(super) fn into_events(
        self,
        dialect: &'static dyn Dialect,
        wants_usage: bool,
        at_end: Option<Box<dyn FnOnce(TokenUsage) + Send + Sync>>,
    ) -> EventStream {
        EventStream { subscriber: self, dialect, at: 0, wants_usage, at_end, reason: None }
    }

    async fn until(&mut self, condition: impl Fn(&GenerationState) -> bool) -> GenerationState {
        match self.progress.wait_for(|progress| condition(&progress.state)).await {
            Ok(progress) => progress.state.clone(),
            Err(_) => GenerationState::LeaderDied,
        }
    }
}

impl EventStream {
    /// The next bytes: events that have arrived since the last call. `None` after the last one.
    ///
    /// Cancel safety: may be dropped and called again.
    ///
    /// # Errors
    /// The error that ended the stream; `Timeout` for a reader that was dropped because it was too slow.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let (state, events) = {
                let progress = self.subscriber.progress.borrow_and_update();
                (progress.state.clone(), progress.events)
            };
            if let Some(bytes) = self.take(events)? {
                return Ok(Some(bytes));
            }
            match state {
                GenerationState::Pending | GenerationState::Streaming(_) => {}
                GenerationState::Streamed(_, streamed, reason) => {
                    self.reason = reason;
                    if let (Some(at_end), Some(usage)) = (self.at_end.take(), streamed.usage()) {
                        at_end(usage);
                    }
                    return Ok(None);
                }
                GenerationState::Full(_)
                | GenerationState::PassedThrough(_)
                | GenerationState::AlreadyStored => return Ok(None),
                GenerationState::Failed(error) => return Err(error),
                GenerationState::LeaderDied => return Err(leader_died()),
            }
            if self.subscriber.progress.changed().await.is_err() {
                return Err(leader_died());
            }
        }
    }

    /// Why the answer is not stored, if it is not; known once all events were read.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The next bytes of the events before `until`. `None` if none of them is for this client.
    fn take(&mut self, until: usize) -> Result<Option<Bytes>> {
        let new = self.wanted(until)?;
        Ok(match &new[..] {
            [] => None,
            [one] => Some(one.clone()),
            many => {
                let mut joined = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
                many.iter().for_each(|bytes| joined.extend_from_slice(bytes));
                Some(joined.freeze())
            }
        })
    }

    fn wanted(&mut self, until: usize) -> Result<Vec<Bytes>> {
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        let (at, dialect, wants_usage) = (&mut self.at, self.dialect, self.wants_usage);
        if *at == until {
            return Ok(wanted);
        }
        self.subscriber.broadcast.with_buffer(|buffer| {
            for event in buffer.events_from(*at).ok_or_else(too_slow)?.take(until - *at) {
                if bytes >= HANDED_BYTES {
                    break;
                }
                let own = event.for_client(dialect, wants_usage);
                *at += 1;
                bytes += own.len();
                wanted.extend((!own.is_empty()).then_some(own));
            }
            buffer.mark_read(self.subscriber.number, *at);
            Ok(wanted)
        })
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The error of a reader that was dropped.
fn too_slow() -> Error {
    Error::new(Kind::Timeout, "the stream was read more slowly than its other readers can wait for")
}

/// The error of a request whose leaders have all died.
pub(super) fn leader_died() -> Error {
    Error::new(Kind::Internal, "internal error: the task that generated this answer ended without a result")
}

#[cfg(test)]
mod tests;
