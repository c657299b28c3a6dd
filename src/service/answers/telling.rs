//! What those who wait for an answer hear of it: its bytes as they come, from the first one on, and how it ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

use super::reason::Reason;
use super::replay_buffer::{OfUsage, ReplayBuffer, StreamEvent};
use crate::byte_budget::ByteBudget;
use crate::error::{Error, Kind, Result};
use crate::upstream::{Answer, Headers, Usage};

/// About as much is handed out at once: a reader that joins a long answer late gets no copy of all of it.
const HANDED_BYTES: usize = 64 * 1024;

/// How far the making of an answer has come.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The upstream has said nothing.
    Waiting,
    /// Events are coming; these were the headers.
    Streaming(Arc<Headers>),
    /// The last event has come; with why the answer is not stored, if it is not.
    Streamed(Arc<Headers>, Streamed, Option<Reason>),
    /// The answer came at once.
    Whole(Arc<Whole>),
    /// Something came that is no answer, and is passed on.
    Passed(Arc<Whole>),
    /// Nothing came, or not all.
    Failed(Error),
    /// The answer is in the cache: another flight has landed before this one began.
    Landed,
    /// Whoever made the answer is gone.
    Died,
}

/// What a stream has become.
#[derive(Debug, Clone)]
pub(super) enum Streamed {
    /// A whole answer.
    Answer(Arc<Answer>),
    /// A stream that can be read only as such; with what it used, if it says so.
    Uncertain(Option<Usage>),
    /// A stream that is no answer.
    Faulty(Error),
}

/// A reply with its whole body.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) answer: Option<Answer>,
    /// Why the answer is not kept.
    pub(super) not_kept: Option<Reason>,
}

/// The voice of whoever makes an answer.
#[derive(Debug)]
pub(super) struct Telling {
    progress: watch::Sender<Progress>,
    buffer: Mutex<ReplayBuffer>,
    /// Something has left the buffer, or a reader has.
    eased: Notify,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    /// Events that have come.
    events: usize,
}

/// The ear of one who waits. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Listener {
    telling: Arc<Telling>,
    progress: watch::Receiver<Progress>,
    number: u64,
}

/// The events of an answer, from the first one on.
pub struct Live {
    listener: Listener,
    at: usize,
    wants_usage: bool,
    /// What is done with what the answer used, once it has been heard to its end.
    at_end: Option<Box<dyn FnOnce(Usage) + Send + Sync>>,
    /// Why the answer is not stored, once it has been heard to its end.
    reason: Option<Reason>,
}

impl Streamed {
    /// What it used, if it says so.
    pub(super) fn usage(&self) -> Option<Usage> {
        match self {
            Streamed::Answer(answer) => answer.usage,
            Streamed::Uncertain(usage) => *usage,
            Streamed::Faulty(_) => None,
        }
    }
}

impl Phase {
    fn is_over(&self) -> bool {
        match self {
            Phase::Waiting | Phase::Streaming(_) => false,
            Phase::Streamed(..)
            | Phase::Whole(_)
            | Phase::Passed(_)
            | Phase::Failed(_)
            | Phase::Landed
            | Phase::Died => true,
        }
    }
}

impl Telling {
    /// Nothing said, and the first who listens.
    pub(super) fn new(budget: &Arc<ByteBudget>) -> (Arc<Telling>, Listener) {
        let (progress, receiver) = watch::channel(Progress { phase: Phase::Waiting, events: 0 });
        let buffer = Mutex::new(ReplayBuffer::new(budget.empty()));
        let telling = Arc::new(Telling { progress, buffer, eased: Notify::new() });
        let number = lock(&telling.buffer).subscribe();
        let listener = Listener { telling: Arc::clone(&telling), progress: receiver, number };
        (telling, listener)
    }

    /// One more who listens.
    pub(super) fn listener(self: &Arc<Self>) -> Listener {
        let number = lock(&self.buffer).subscribe();
        Listener { telling: Arc::clone(self), progress: self.progress.subscribe(), number }
    }

    /// Events will come.
    pub(super) fn begin(&self, headers: Arc<Headers>) {
        self.settle(Phase::Streaming(headers));
    }

    /// An event has come.
    pub(super) fn push(&self, bytes: Bytes, of_usage: OfUsage) {
        if bytes.is_empty() {
            return;
        }
        let count = lock(&self.buffer).push(StreamEvent { bytes, of_usage });
        self.progress.send_modify(|progress| progress.events = count);
    }

    /// Whether more is held for readers than `bytes_max`, or than the budget of all requests in flight allows.
    pub(super) fn holds_too_much(&self, bytes_max: usize) -> bool {
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
    pub(super) async fn room(&self, bytes_max: usize) {
        while self.holds_too_much(bytes_max) {
            self.eased.notified().await;
        }
    }

    /// Changes the buffer, which may make room in it.
    fn with_buffer<R>(&self, change: impl FnOnce(&mut ReplayBuffer) -> R) -> R {
        let changed = change(&mut lock(&self.buffer));
        // At most one task waits, and finds this also if it comes too early.
        self.eased.notify_one();
        changed
    }

    /// It has come so far.
    pub(super) fn settle(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Whoever was to tell more is gone, unless all was told.
    pub(super) fn die(&self) {
        self.progress.send_if_modified(|progress| {
            let is_over = progress.phase.is_over();
            if !is_over {
                progress.phase = Phase::Died;
            }
            !is_over
        });
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.progress.receiver_count() > 0
    }

    /// Returns once nobody listens. Somebody may listen again by then.
    pub(super) async fn unheard(&self) {
        self.progress.closed().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.forgo_events();
    }
}

impl Listener {
    /// Waits until something has come.
    pub(super) async fn begun(&mut self) -> Phase {
        self.until(|phase| !matches!(phase, Phase::Waiting)).await
    }

    /// This one wants to hear how it ends only.
    pub(super) fn forgo_events(&self) {
        self.telling.with_buffer(|buffer| buffer.unsubscribe(self.number));
    }

    /// Waits until all has come.
    pub(super) async fn ended(&mut self) -> Phase {
        self.until(Phase::is_over).await
    }

    /// The events from the first one on. `at_end` is called with what the answer used, once it has been heard to its end.
    pub(super) fn into_live(
        self,
        wants_usage: bool,
        at_end: Option<Box<dyn FnOnce(Usage) + Send + Sync>>,
    ) -> Live {
        Live { listener: self, at: 0, wants_usage, at_end, reason: None }
    }

    async fn until(&mut self, is_it: impl Fn(&Phase) -> bool) -> Phase {
        match self.progress.wait_for(|progress| is_it(&progress.phase)).await {
            Ok(progress) => progress.phase.clone(),
            Err(_) => Phase::Died,
        }
    }
}

impl Live {
    /// The next bytes: events that have come since the last time; none after the last one.
    ///
    /// Cancel safety: what was not returned comes next time.
    ///
    /// # Errors
    /// What broke the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let (phase, events) = {
                let progress = self.listener.progress.borrow_and_update();
                (progress.phase.clone(), progress.events)
            };
            if let Some(bytes) = self.take(events)? {
                return Ok(Some(bytes));
            }
            match phase {
                Phase::Waiting | Phase::Streaming(_) => {}
                Phase::Streamed(_, streamed, reason) => {
                    self.reason = reason;
                    if let (Some(at_end), Some(usage)) = (self.at_end.take(), streamed.usage()) {
                        at_end(usage);
                    }
                    return Ok(None);
                }
                Phase::Whole(_) | Phase::Passed(_) | Phase::Landed => return Ok(None),
                Phase::Failed(error) => return Err(error),
                Phase::Died => return Err(died()),
            }
            if self.listener.progress.changed().await.is_err() {
                return Err(died());
            }
        }
    }

    /// Why the answer is not stored, if it is not; known once all events were read.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The next bytes of the events before `until`; none if nothing of them is for this one.
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
        let (at, wants_usage) = (&mut self.at, self.wants_usage);
        if *at == until {
            return Ok(wanted);
        }
        self.listener.telling.with_buffer(|buffer| {
            for event in buffer.events_from(*at).ok_or_else(too_slow)?.take(until - *at) {
                if bytes >= HANDED_BYTES {
                    break;
                }
                let own = event.for_client(wants_usage);
                *at += 1;
                bytes += own.len();
                wanted.extend((!own.is_empty()).then_some(own));
            }
            buffer.mark_read(self.listener.number, *at);
            Ok(wanted)
        })
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The error of a reader that was dropped.
fn too_slow() -> Error {
    Error::new(Kind::Timeout, "the stream was read more slowly than its other readers can wait for")
}

/// The error of those whose answer's maker is gone, and who cannot ask again.
pub(super) fn died() -> Error {
    Error::new(Kind::Internal, "the task that made this answer died")
}

/// A poisoned lock is taken all the same: what it guards is whole after any of the single calls made under it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::replay_buffer::EVENT_BYTES;
    use super::*;
    use crate::byte_budget::UNCOUNTED_BYTES;
    use crate::metrics::unexported;
    use futures_util::poll;
    use std::pin::pin;

    fn budget() -> Arc<ByteBudget> {
        ByteBudget::new(usize::MAX, unexported())
    }

    fn held_bytes(telling: &Telling) -> usize {
        lock(&telling.buffer).bytes()
    }

    #[tokio::test]
    async fn whoever_listens_late_gets_every_event_from_the_first_one() {
        let (telling, first) = Telling::new(&budget());
        telling.begin(Arc::default());
        telling.push("a".into(), OfUsage::Nothing);
        let mut early = first.into_live(false, None);
        assert_eq!(early.next().await.unwrap().unwrap(), "a");
        telling.push("data: {\"b\":1,\"usage\":null}\n\n".into(), OfUsage::Perhaps);
        telling.push("u".into(), OfUsage::All);
        let (heard, sum) = std::sync::mpsc::channel();
        let at_end = move |usage: Usage| heard.send(usage.prompt_tokens).unwrap();
        let mut late = telling.listener().into_live(true, Some(Box::new(at_end)));
        let mut plain = telling.listener().into_live(false, None);
        assert_eq!(late.next().await.unwrap().unwrap(), "adata: {\"b\":1,\"usage\":null}\n\nu");
        let told = plain.next().await.unwrap().unwrap();
        assert_eq!(told, "adata: {\"b\":1}\n\n", "usage is for those who want it");
        assert!(poll!(pin!(plain.next())).is_pending());
        let usage = Usage { prompt_tokens: 7, completion_tokens: 1 };
        telling.settle(Phase::Streamed(Arc::default(), Streamed::Uncertain(Some(usage)), None));
        assert!(sum.try_recv().is_err(), "not heard to its end");
        assert!(plain.next().await.unwrap().is_none() && late.next().await.unwrap().is_none());
        assert_eq!(sum.recv().unwrap(), 7);
    }

    #[tokio::test]
    async fn a_long_answer_is_handed_out_in_pieces() {
        let (telling, listener) = Telling::new(&budget());
        let event = Bytes::from(vec![b'a'; HANDED_BYTES / 4]);
        (0..9).for_each(|_| telling.push(event.clone(), OfUsage::Nothing));
        telling.settle(Phase::Streamed(Arc::default(), Streamed::Uncertain(None), None));
        let (mut live, mut pieces) = (listener.into_live(false, None), Vec::new());
        while let Some(piece) = live.next().await.unwrap() {
            pieces.push(piece.len());
        }
        assert_eq!(pieces, [HANDED_BYTES, HANDED_BYTES, HANDED_BYTES / 4]);
    }

    #[tokio::test]
    async fn what_all_have_heard_is_let_go_once_nobody_will_come() {
        let (telling, waiting) = Telling::new(&budget());
        let (mut quick, mut slow) =
            (telling.listener().into_live(false, None), telling.listener().into_live(false, None));
        waiting.forgo_events();
        let event = |text: &'static str| telling.push(text.into(), OfUsage::Nothing);
        event("a");
        assert_eq!(quick.next().await.unwrap().unwrap(), "a");
        telling.close();
        assert_eq!(held_bytes(&telling), 1 + EVENT_BYTES, "one has not heard it");
        event("b");
        let mut room = pin!(telling.room(1 + EVENT_BYTES));
        assert!(poll!(&mut room).is_pending());
        assert_eq!(slow.next().await.unwrap().unwrap(), "ab");
        room.await;
        assert_eq!(held_bytes(&telling), 1 + EVENT_BYTES, "the other has not");
        assert_eq!(quick.next().await.unwrap().unwrap(), "b");
        assert_eq!(held_bytes(&telling), 0);
        event("c");
        drop(quick);
        assert_eq!(slow.next().await.unwrap().unwrap(), "c");
        assert_eq!(held_bytes(&telling), 0);
        drop((slow, waiting));
        event("d");
        assert_eq!(held_bytes(&telling), 0, "no reader is left");
    }

    #[tokio::test]
    async fn the_slowest_reader_is_dropped_when_it_holds_up_the_others() {
        let (telling, deaf) = Telling::new(&budget());
        let mut deaf = deaf.into_live(false, None);
        let mut quick = telling.listener().into_live(false, None);
        telling.close();
        for text in ["a", "b"] {
            telling.push(text.into(), OfUsage::Nothing);
            assert_eq!(quick.next().await.unwrap().unwrap(), text);
        }
        telling.drop_slowest();
        assert_eq!(held_bytes(&telling), 0);
        assert_eq!(deaf.next().await.unwrap_err().kind(), Kind::Timeout);
        telling.push("c".into(), OfUsage::Nothing);
        assert_eq!(quick.next().await.unwrap().unwrap(), "c");
        drop(quick);
        assert!(!telling.has_readers());
    }

    #[tokio::test]
    async fn a_break_is_told_after_what_came_before_it() {
        let (telling, listener) = Telling::new(&budget());
        telling.begin(Arc::default());
        telling.push("a".into(), OfUsage::Nothing);
        telling.settle(Phase::Failed(Error::new(Kind::Upstream, "cut")));
        let mut live = listener.into_live(false, None);
        assert_eq!(live.next().await.unwrap().unwrap(), "a");
        assert_eq!(live.next().await.unwrap_err().kind(), Kind::Upstream);
    }

    #[tokio::test]
    async fn a_stream_past_the_budget_goes_on_as_far_as_it_is_read() {
        let budget = ByteBudget::new(4 * 64 * 1024, unexported());
        let (telling, listener) = Telling::new(&budget);
        let event = Bytes::from(vec![b'a'; UNCOUNTED_BYTES / 2]);
        telling.push(event.clone(), OfUsage::Nothing);
        assert!(!telling.holds_too_much(usize::MAX));
        let other = budget.try_reserve(2 * 64 * 1024).unwrap();
        (0..5).for_each(|_| telling.push(event.clone(), OfUsage::Nothing));
        assert!(telling.holds_too_much(usize::MAX), "nothing is left of the budget");
        telling.close();
        let mut live = listener.into_live(false, None);
        let mut room = pin!(telling.room(usize::MAX));
        assert!(poll!(&mut room).is_pending());
        assert_eq!(live.next().await.unwrap().unwrap().len(), 6 * event.len());
        assert!(poll!(&mut room).is_ready());
        drop(other);
        (0..3).for_each(|_| telling.push(event.clone(), OfUsage::Nothing));
        assert!(!telling.holds_too_much(usize::MAX), "it fits again");
        assert!(budget.reserved() > 0);
        while budget.reserved() > 0 {
            live.next().await.unwrap().unwrap();
        }
    }
}
