//! What those who wait for an answer hear of it: its bytes as they come, from the first one on, and how it ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use crate::upstream::{Answer, Headers, Usage};

/// What an event costs beside its bytes.
pub(super) const EVENT_BYTES: usize = size_of::<Frame>();

/// About as much is handed out at once: whoever comes late to a long answer gets no copy of all of it.
const HANDED_BYTES: usize = 64 * 1024;

/// How far the making of an answer has come.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The upstream has said nothing.
    Waiting,
    /// Events are coming; these were the headers.
    Streaming(Arc<Headers>),
    /// The last event has come.
    Streamed(Arc<Headers>, Streamed),
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
}

/// The voice of whoever makes an answer.
#[derive(Debug)]
pub(super) struct Telling {
    progress: watch::Sender<Progress>,
    frames: Mutex<Vec<Frame>>,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    frames: usize,
}

#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    /// The same for those who have not asked what was used, if it is not the same.
    without_usage: Option<Bytes>,
}

/// The ear of one who waits. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Listener {
    telling: Arc<Telling>,
    progress: watch::Receiver<Progress>,
}

/// The events of an answer, from the first one on.
pub struct Live {
    listener: Listener,
    at: usize,
    wants_usage: bool,
    /// What is done with what the answer used, once it has been heard to its end.
    at_end: Option<Box<dyn FnOnce(Usage) + Send + Sync>>,
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
    pub(super) fn new() -> (Arc<Telling>, Listener) {
        let (progress, receiver) = watch::channel(Progress { phase: Phase::Waiting, frames: 0 });
        let telling = Arc::new(Telling { progress, frames: Mutex::default() });
        let listener = Listener { telling: Arc::clone(&telling), progress: receiver };
        (telling, listener)
    }

    /// One more who listens.
    pub(super) fn listener(self: &Arc<Self>) -> Listener {
        Listener { telling: Arc::clone(self), progress: self.progress.subscribe() }
    }

    /// Events will come.
    pub(super) fn begin(&self, headers: Arc<Headers>) {
        self.settle(Phase::Streaming(headers));
    }

    /// An event has come; for those who have not asked what was used it may be another, or nothing.
    pub(super) fn push(&self, bytes: Bytes, without_usage: Option<Bytes>) {
        if bytes.is_empty() {
            return;
        }
        let mut frames = lock(&self.frames);
        frames.push(Frame { bytes, without_usage });
        let count = frames.len();
        drop(frames);
        self.progress.send_modify(|progress| progress.frames = count);
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

impl Listener {
    /// Waits until something has come.
    pub(super) async fn begun(&mut self) -> Phase {
        self.until(|phase| !matches!(phase, Phase::Waiting)).await
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
        Live { listener: self, at: 0, wants_usage, at_end }
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
            if let Some(bytes) = self.take(frames) {
                return Ok(Some(bytes));
            }
            match phase {
                Phase::Waiting | Phase::Streaming(_) => {}
                Phase::Streamed(_, streamed) => {
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

    /// The next bytes of the events before `until`; none if nothing of them is for this one.
    fn take(&mut self, until: usize) -> Option<Bytes> {
        let new = self.wanted(until);
        match &new[..] {
            [] => None,
            [one] => Some(one.clone()),
            many => {
                let mut joined = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
                many.iter().for_each(|bytes| joined.extend_from_slice(bytes));
                Some(joined.freeze())
            }
        }
    }

    fn wanted(&mut self, until: usize) -> Vec<Bytes> {
        let frames = lock(&self.listener.telling.frames);
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        while self.at < until && bytes < HANDED_BYTES {
            let frame = &frames[self.at];
            self.at += 1;
            let own = match &frame.without_usage {
                Some(own) if !self.wants_usage => own,
                Some(_) | None => &frame.bytes,
            };
            bytes += own.len();
            wanted.extend((!own.is_empty()).then(|| own.clone()));
        }
        wanted
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("at", &self.at).finish_non_exhaustive()
    }
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
    use futures_util::poll;
    use std::pin::pin;

    #[tokio::test]
    async fn whoever_listens_late_gets_every_event_from_the_first_one() {
        let (telling, first) = Telling::new();
        telling.begin(Arc::default());
        telling.push("a".into(), None);
        let mut early = first.into_live(false, None);
        assert_eq!(early.next().await.unwrap().unwrap(), "a");
        telling.push("b".into(), Some("p".into()));
        telling.push("u".into(), Some(Bytes::new()));
        let (heard, sum) = std::sync::mpsc::channel();
        let at_end = move |usage: Usage| heard.send(usage.prompt_tokens).unwrap();
        let mut late = telling.listener().into_live(true, Some(Box::new(at_end)));
        let mut plain = telling.listener().into_live(false, None);
        assert_eq!(late.next().await.unwrap().unwrap(), "abu");
        assert_eq!(plain.next().await.unwrap().unwrap(), "ap", "usage is for those who want it");
        assert!(poll!(pin!(plain.next())).is_pending());
        let usage = Usage { prompt_tokens: 7, completion_tokens: 1 };
        telling.settle(Phase::Streamed(Arc::default(), Streamed::Uncertain(Some(usage))));
        assert!(sum.try_recv().is_err(), "not heard to its end");
        assert!(plain.next().await.unwrap().is_none() && late.next().await.unwrap().is_none());
        assert_eq!(sum.recv().unwrap(), 7);
    }

    #[tokio::test]
    async fn a_long_answer_is_handed_out_in_pieces() {
        let (telling, listener) = Telling::new();
        let event = Bytes::from(vec![b'a'; HANDED_BYTES / 4]);
        (0..9).for_each(|_| telling.push(event.clone(), None));
        telling.settle(Phase::Streamed(Arc::default(), Streamed::Uncertain(None)));
        let (mut live, mut pieces) = (listener.into_live(false, None), Vec::new());
        while let Some(piece) = live.next().await.unwrap() {
            pieces.push(piece.len());
        }
        assert_eq!(pieces, [HANDED_BYTES, HANDED_BYTES, HANDED_BYTES / 4]);
    }

    #[tokio::test]
    async fn a_break_is_told_after_what_came_before_it() {
        let (telling, listener) = Telling::new();
        telling.begin(Arc::default());
        telling.push("a".into(), None);
        telling.settle(Phase::Failed(Error::new(Kind::Upstream, "cut")));
        let mut live = listener.into_live(false, None);
        assert_eq!(live.next().await.unwrap().unwrap(), "a");
        assert_eq!(live.next().await.unwrap_err().kind(), Kind::Upstream);
    }
}
