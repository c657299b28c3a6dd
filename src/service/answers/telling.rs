//! What those who wait for an answer hear of it: its bytes as they come, from the first one on, and how it ended.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

use super::reason::Reason;
use crate::byte_budget::{ByteBudget, Reservation, UNCOUNTED_BYTES};
use crate::error::{Error, Kind, Result};
use crate::upstream::{Answer, Headers, Usage, without_usage};

/// What an event costs beside its bytes.
const EVENT_BYTES: usize = size_of::<Frame>();

/// What each byte of the events may hold: itself, its place in buffers that grow, its part of the answer that is assembled, and the
/// buffers of the connections that it goes through.
const EVENT_COST: usize = 6;

/// About as much is handed out at once: whoever comes late to a long answer gets no copy of all of it.
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
    tape: Mutex<Tape>,
    /// Something has left the tape.
    eased: Notify,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    frames: usize,
}

/// The events that somebody may still want to hear: all of them, for as long as somebody may come.
#[derive(Debug)]
struct Tape {
    frames: VecDeque<Frame>,
    /// Events before the first of these.
    gone: usize,
    bytes: usize,
    /// What the bytes have reserved of the budget of all requests in flight.
    reservation: Reservation,
    /// How far each one has heard, by his number. Who hears no events has no place here.
    heard: HashMap<u64, usize>,
    /// Those who have come.
    came: u64,
    /// Whether nobody will come any more, so that what all have heard can go.
    is_closed: bool,
}

#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    of_usage: OfUsage,
}

/// What an event says of what was used, which is for those who have asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfUsage {
    /// Nothing.
    Nothing,
    /// Perhaps something, beside others that are for all.
    Perhaps,
    /// All that it says.
    All,
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
        let (progress, receiver) = watch::channel(Progress { phase: Phase::Waiting, frames: 0 });
        let tape = Mutex::new(Tape::new(budget.empty()));
        let telling = Arc::new(Telling { progress, tape, eased: Notify::new() });
        let number = lock(&telling.tape).come();
        let listener = Listener { telling: Arc::clone(&telling), progress: receiver, number };
        (telling, listener)
    }

    /// One more who listens.
    pub(super) fn listener(self: &Arc<Self>) -> Listener {
        let number = lock(&self.tape).come();
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
        let count = lock(&self.tape).push(Frame { bytes, of_usage });
        self.progress.send_modify(|progress| progress.frames = count);
    }

    /// Whether more is held for readers than `bytes_max`, or than the budget of all requests in flight allows.
    pub(super) fn holds_too_much(&self, bytes_max: usize) -> bool {
        let tape = lock(&self.tape);
        tape.bytes > bytes_max || tape.is_over_budget()
    }

    /// Whether more is held than the budget of all requests in flight allows.
    pub(super) fn is_over_budget(&self) -> bool {
        lock(&self.tape).is_over_budget()
    }

    /// Nobody will come any more: what all have heard is let go.
    pub(super) fn close(&self) {
        let mut tape = lock(&self.tape);
        tape.is_closed = true;
        tape.trim();
    }

    /// Whether anybody hears the events.
    pub(super) fn has_ears(&self) -> bool {
        !lock(&self.tape).heard.is_empty()
    }

    /// Goes on without those who are furthest behind: they are told that they are too slow.
    pub(super) fn leave_slowest_behind(&self) {
        self.with_tape(|tape| {
            let slowest = tape.heard.values().min().copied();
            tape.heard.retain(|_, heard| Some(*heard) != slowest);
            tape.trim();
        });
    }

    /// Waits until no more is held than `bytes_max` and the budget allow, as is once those who listen have heard enough.
    pub(super) async fn room(&self, bytes_max: usize) {
        while self.holds_too_much(bytes_max) {
            self.eased.notified().await;
        }
    }

    /// Does something with the tape, which may ease it.
    fn with_tape<R>(&self, act: impl FnOnce(&mut Tape) -> R) -> R {
        let done = act(&mut lock(&self.tape));
        // One waits at most, and finds this also if it comes too early.
        self.eased.notify_one();
        done
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

impl Tape {
    fn new(reservation: Reservation) -> Tape {
        Tape {
            frames: VecDeque::new(),
            gone: 0,
            bytes: 0,
            reservation,
            heard: HashMap::new(),
            came: 0,
            is_closed: false,
        }
    }

    /// What the events cost, with the answer that is assembled from them.
    fn cost(&self) -> usize {
        self.bytes.saturating_mul(EVENT_COST)
    }

    /// Whether more is held than has been reserved. A few bytes are not counted.
    fn is_over_budget(&self) -> bool {
        self.cost() > self.reservation.bytes().max(UNCOUNTED_BYTES)
    }

    fn come(&mut self) -> u64 {
        self.came += 1;
        self.heard.insert(self.came, 0);
        self.came
    }

    /// Returns how many events have come.
    fn push(&mut self, frame: Frame) -> usize {
        self.bytes += frame.cost();
        if self.is_over_budget() {
            // A refusal shows in `is_over_budget`.
            let _ = self.reservation.try_cover(self.cost());
        }
        self.frames.push_back(frame);
        let count = self.gone + self.frames.len();
        if self.heard.is_empty() {
            self.trim();
        }
        count
    }

    /// Somebody has heard so far, or hears no more. Costs a look at all others only if he was behind them.
    fn move_on(&mut self, number: u64, heard: Option<usize>) {
        let before = match heard {
            Some(heard) => self.heard.insert(number, heard),
            None => self.heard.remove(&number),
        };
        if before == Some(self.gone) {
            self.trim();
        }
    }

    /// Lets go what nobody will hear any more.
    fn trim(&mut self) {
        if !self.is_closed {
            return;
        }
        let wanted = self.heard.values().min().copied().unwrap_or(usize::MAX);
        while self.gone < wanted
            && let Some(frame) = self.frames.pop_front()
        {
            self.gone += 1;
            self.bytes -= frame.cost();
        }
        self.reservation.shrink_to(self.cost());
    }
}

impl Frame {
    fn cost(&self) -> usize {
        self.bytes.len() + EVENT_BYTES
    }

    /// What it is to somebody; empty if it is not for him.
    fn heard(&self, wants_usage: bool) -> Bytes {
        match self.of_usage {
            OfUsage::All if !wants_usage => Bytes::new(),
            OfUsage::Perhaps if !wants_usage => {
                without_usage(&self.bytes).unwrap_or_else(|| self.bytes.clone())
            }
            OfUsage::Nothing | OfUsage::Perhaps | OfUsage::All => self.bytes.clone(),
        }
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
        self.telling.with_tape(|tape| tape.move_on(self.number, None));
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
            let (phase, frames) = {
                let progress = self.listener.progress.borrow_and_update();
                (progress.phase.clone(), progress.frames)
            };
            if let Some(bytes) = self.take(frames)? {
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
        self.listener.telling.with_tape(|tape| {
            let next = at.checked_sub(tape.gone).ok_or_else(left_behind)?;
            for frame in tape.frames.iter().skip(next).take(until - *at) {
                if bytes >= HANDED_BYTES {
                    break;
                }
                let own = frame.heard(wants_usage);
                *at += 1;
                bytes += own.len();
                wanted.extend((!own.is_empty()).then_some(own));
            }
            tape.move_on(self.listener.number, Some(*at));
            Ok(wanted)
        })
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The error of those without whom a stream has gone on.
fn left_behind() -> Error {
    Error::new(Kind::Timeout, "the stream was read too slowly for the others who hear it")
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
    use super::*;
    use crate::metrics::unexported;
    use futures_util::poll;
    use std::pin::pin;

    fn budget() -> Arc<ByteBudget> {
        ByteBudget::new(usize::MAX, unexported())
    }

    fn held_bytes(telling: &Telling) -> usize {
        lock(&telling.tape).bytes
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
    async fn whoever_holds_up_all_others_is_left_behind() {
        let (telling, deaf) = Telling::new(&budget());
        let mut deaf = deaf.into_live(false, None);
        let mut quick = telling.listener().into_live(false, None);
        telling.close();
        for text in ["a", "b"] {
            telling.push(text.into(), OfUsage::Nothing);
            assert_eq!(quick.next().await.unwrap().unwrap(), text);
        }
        telling.leave_slowest_behind();
        assert_eq!(held_bytes(&telling), 0);
        assert_eq!(deaf.next().await.unwrap_err().kind(), Kind::Timeout);
        telling.push("c".into(), OfUsage::Nothing);
        assert_eq!(quick.next().await.unwrap().unwrap(), "c");
        drop(quick);
        assert!(!telling.has_ears());
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
