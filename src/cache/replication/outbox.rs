//! Changes of this node that have not reached the shared log. They wait in the small records.
//!
//! Invalidations leave in their order, many in one call; keys leave beside them, in any order: a value that is sent late carries tokens
//! that an invalidation has outdated.
//!
//! A record of the table `outbox` has eight big-endian bytes of its place in the order as its key. Its value:
//!
//! ```text
//! kind 1, 2  0[8] (mode[1], subject length[1], subject, token[8])*   invalidations; kind 2 forgets all invalidation ids first
//! kind 3     key[32]                                                 the value of a key was replaced or removed
//! ```
//! Eight bytes are 0, or what earlier programs have written there; a token is not what is sent.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::waiting_invalidations::{InvalidationBatch, WaitingInvalidations};
use super::waiting_keys::{KeyState, NextKey, WaitingKeys};
use crate::cache::change_log::NewToken;
use crate::cache::invalidation_tokens::{Mode, Subject, TokenChange};
use crate::domain::Key;
use crate::error::{Error, Kind, Result};
use crate::storage::le_bytes::{array_at, u64_at};
use crate::storage::{Change, Records};
use crate::sync::lock;

const TABLE: &str = "outbox";
/// Keys and subjects of invalidations that wait at most; more are refused.
const WAITING_MAX: usize = 1 << 20;
/// Records read at a time when opening.
const CHUNK: usize = 4096;
const KIND_TOKENS: u8 = 1;
const KIND_START_OVER: u8 = 2;
const KIND_KEY: u8 = 3;

/// A change on its way to the shared log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache) enum Outgoing {
    /// An invalidation.
    Tokens { starts_over: bool, tokens: Vec<NewToken> },
    /// The value of a key was replaced or removed while the shared log could not be reached.
    Key(Key),
}

#[derive(Debug, Default)]
struct State {
    next_place: u64,
    invalidations: WaitingInvalidations,
    keys: WaitingKeys,
}

/// The changes that wait. Shared by `Arc`.
#[derive(Debug)]
pub(in crate::cache) struct Outbox {
    records: Arc<Records>,
    state: Mutex<State>,
    /// Wakes the sender of invalidations, and that of keys.
    invalidations_changed: Notify,
    keys_changed: Notify,
}

impl Outbox {
    /// The changes among `records`. Blocks.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub(in crate::cache) fn open(records: Arc<Records>) -> Result<Outbox> {
        let (mut state, mut from) = (State::default(), Vec::new());
        loop {
            let chunk = records.range(TABLE, &from, CHUNK)?;
            let Some((last, _)) = chunk.last() else { break };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &chunk {
                let corrupt = || Error::new(Kind::Corrupt, "cannot read the changes for other nodes");
                let place = place_of(key).ok_or_else(corrupt)?;
                state.push(place, Outgoing::decode(value).ok_or_else(corrupt)?);
            }
        }
        let (state, [invalidations_changed, keys_changed]) = (Mutex::new(state), Default::default());
        Ok(Outbox { records, state, invalidations_changed, keys_changed })
    }

    /// Refuses further changes once too many wait.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(in crate::cache) fn check_room(&self) -> Result<()> {
        let state = self.state();
        if state.invalidations.subjects() + state.keys.len() < WAITING_MAX {
            return Ok(());
        }
        Err(Error::new(Kind::Overloaded, "too many changes wait for Redis; try again once it is reachable"))
    }

    /// Adds an invalidation. Returns a receiver of its arrival, and the record that makes it durable; none if a waiting one that has its
    /// record covers it.
    pub(in crate::cache) fn push_invalidation(
        &self,
        starts_over: bool,
        tokens: Vec<NewToken>,
    ) -> (Option<Change>, oneshot::Receiver<()>) {
        let (sent, arrival) = oneshot::channel();
        let mut state = self.state();
        let covering = if starts_over { None } else { state.invalidations.covering(&tokens) };
        let record = match covering {
            Some(place) => {
                state.invalidations.add_waiter(place, sent);
                None
            }
            None => {
                let place = state.next_place;
                let change = Outgoing::Tokens { starts_over, tokens };
                let record = record(place, &change);
                state.push(place, change);
                state.invalidations.add_waiter(place, sent);
                Some(record)
            }
        };
        drop(state);
        self.invalidations_changed.notify_one();
        (record, arrival)
    }

    /// Adds the change of a key and returns when it is durable. Keys that wait already are not added twice.
    ///
    /// # Errors
    /// `Overloaded`; `Io`, `DiskFull`, `Unavailable` from the records.
    pub(in crate::cache) async fn push_key(&self, key: Key) -> Result<()> {
        if self.key_state(&key).is_none() {
            self.check_room()?;
        }
        let room = self.records.reserve(record(0, &Outgoing::Key(key)).bytes()).await?;
        let pending = {
            let mut state = self.state();
            let place = state.keys.wait_again(&key).unwrap_or(state.next_place);
            state.push(place, Outgoing::Key(key));
            // Under the lock, so that no deletion of the record overtakes it. One that waits already may not be durable yet.
            self.records.submit(room, vec![record(place, &Outgoing::Key(key))])?
        };
        self.keys_changed.notify_one();
        pending.durable().await
    }

    /// What is known of a key whose change waits.
    pub(in crate::cache) fn key_state(&self, key: &Key) -> Option<KeyState> {
        self.state().keys.state(key)
    }

    /// Whether a change of the key waits: what Redis holds under it is not the value of this node.
    pub(in crate::cache) fn holds(&self, key: &Key) -> bool {
        self.key_state(key).is_some_and(|state| state != KeyState::Superseded)
    }

    /// Another node has changed the key.
    pub(in crate::cache) fn contest(&self, key: &Key) {
        self.state().keys.contest(key);
    }

    /// Other nodes may have changed every key.
    pub(in crate::cache) fn contest_all(&self) {
        self.state().keys.contest_all();
    }

    /// A later change of the key is in the log: the one that waits is not to be made.
    pub(in crate::cache) fn supersede(&self, key: &Key) {
        self.state().keys.supersede(key);
    }

    /// What the invalidations that wait concern.
    pub(in crate::cache) fn subjects(&self) -> Vec<Subject> {
        self.state().invalidations.all_subjects()
    }

    /// Changes that wait.
    pub(in crate::cache) fn len(&self) -> usize {
        let state = self.state();
        state.invalidations.len() + state.keys.len()
    }

    /// Returns when an invalidation waits.
    pub(in crate::cache) async fn invalidated(&self) {
        loop {
            let changed = self.invalidations_changed.notified();
            if self.state().invalidations.len() > 0 {
                return;
            }
            changed.await;
        }
    }

    /// The first invalidations, to be sent in one call. What is added from now on is sent after them.
    pub(in crate::cache) fn take_invalidations(&self) -> Option<InvalidationBatch> {
        self.state().invalidations.take()
    }

    /// Those that were taken are still to be sent.
    pub(in crate::cache) fn untake_invalidations(&self) {
        self.state().invalidations.untake();
    }

    /// Those that were taken are in the log.
    ///
    /// # Errors
    /// `Unavailable` once the records are closed.
    pub(in crate::cache) async fn complete_invalidations(&self, sent: &InvalidationBatch) -> Result<()> {
        let record = deletion(0).bytes();
        let room = self.records.reserve(record * sent.invalidations).await?;
        let (places, waiters) = self.state().invalidations.complete(sent);
        // Callers that do not wait any more have answered that the change is pending.
        waiters.into_iter().for_each(|waiter| _ = waiter.send(()));
        // No record of these places is written again. If the deletions are lost with the power, the change is made once more, which hides
        // more and shows nothing.
        let _ = self.records.submit(room, places.into_iter().map(deletion).collect())?;
        Ok(())
    }

    /// Up to `limit` keys to be sent now; returns when there is one.
    ///
    /// Cancel safety: takes nothing.
    pub(in crate::cache) async fn next_keys(&self, limit: usize) -> Vec<NextKey> {
        loop {
            let changed = self.keys_changed.notified();
            let (next, due) = {
                let state = self.state();
                (state.keys.due(Instant::now(), limit), state.keys.next_due())
            };
            if !next.is_empty() {
                return next;
            }
            match due {
                // A key that was added is due at once.
                Some(due) => _ = tokio::time::timeout_at(due, changed).await,
                None => changed.await,
            }
        }
    }

    /// A key could not be sent: it waits behind the others.
    pub(in crate::cache) fn defer_key(&self, key: &Key) {
        self.state().keys.defer(key, Instant::now());
    }

    /// The change of a key is in the log. If it was changed since it was read, it stays.
    ///
    /// # Errors
    /// `Unavailable` once the records are closed.
    pub(in crate::cache) async fn complete_key(&self, sent: &NextKey) -> Result<()> {
        let room = self.records.reserve(deletion(0).bytes()).await?;
        let mut state = self.state();
        if let Some(place) = state.keys.complete(sent) {
            // Under the lock: see `push_key`.
            let _ = self.records.submit(room, vec![deletion(place)])?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn push(&mut self, place: u64, change: Outgoing) {
        self.next_place = self.next_place.max(place + 1);
        match change {
            Outgoing::Key(key) => self.keys.push(key, place, Instant::now()),
            Outgoing::Tokens { starts_over, tokens } => self.invalidations.push(place, starts_over, tokens),
        }
    }
}

/// The key of a record: the most significant byte first, so that records are in the order of their places.
fn key_of(place: u64) -> [u8; 8] {
    let mut key = place.to_le_bytes();
    key.reverse();
    key
}

fn place_of(key: &[u8]) -> Option<u64> {
    let mut key = <[u8; 8]>::try_from(key).ok()?;
    key.reverse();
    Some(u64::from_le_bytes(key))
}

fn record(place: u64, change: &Outgoing) -> Change {
    Change::put(TABLE, key_of(place), change.encode())
}

fn deletion(place: u64) -> Change {
    Change::delete(TABLE, key_of(place))
}

impl Outgoing {
    fn encode(&self) -> Vec<u8> {
        match self {
            Outgoing::Key(key) => [&[KIND_KEY][..], &key.0].concat(),
            Outgoing::Tokens { starts_over, tokens } => {
                let mut bytes = vec![if *starts_over { KIND_START_OVER } else { KIND_TOKENS }];
                bytes.extend([0; 8]);
                for token in tokens {
                    let subject = token.subject.bytes();
                    bytes.extend([u8::from(token.mode == Mode::Soft), subject.len() as u8]);
                    bytes.extend(subject);
                    bytes.extend(token.token.to_le_bytes());
                }
                bytes
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Outgoing> {
        match bytes.split_first()? {
            (&KIND_KEY, key) => Some(Outgoing::Key(Key(key.try_into().ok()?))),
            (kind @ (&KIND_TOKENS | &KIND_START_OVER), rest) => {
                let (mut rest, mut tokens) = (rest.get(8..)?, Vec::new());
                while !rest.is_empty() {
                    let [mode, subject_bytes] = array_at(rest, 0)?;
                    let (subject, after) = rest[2..].split_at_checked(subject_bytes.into())?;
                    let subject = Subject::of_bytes(subject)?;
                    let mode = if mode == 0 { Mode::Hard } else { Mode::Soft };
                    tokens.push(NewToken { subject, token: u64_at(after, 0)?, mode });
                    rest = &after[8..];
                }
                Some(Outgoing::Tokens { starts_over: *kind == KIND_START_OVER, tokens })
            }
            _ => None,
        }
    }
}

/// The invalidation that has made these changes of the table: whether it forgets all invalidation ids first, and its tokens.
pub(super) fn invalidation_of(changes: &[TokenChange]) -> (bool, Vec<NewToken>) {
    let starts_over = changes.iter().any(|change| matches!(change, TokenChange::Forget(_)));
    (starts_over, changes.iter().filter_map(NewToken::of_change).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InvalidationId;

    const KEY: Key = Key([1; 32]);
    const OTHER_KEY: Key = Key([2; 32]);

    fn token(subject: Subject, mode: Mode) -> NewToken {
        NewToken { subject, token: 7, mode }
    }

    fn tokens() -> Vec<NewToken> {
        vec![token(Subject::Everything, Mode::Hard), token(Subject::Id(InvalidationId(9)), Mode::Soft)]
    }

    fn outbox(dir: &tempfile::TempDir) -> Outbox {
        Outbox::open(Arc::new(Records::open(dir.path()).unwrap())).unwrap()
    }

    #[test]
    fn changes_come_back_as_they_were_and_cut_ones_do_not() {
        let of = |starts_over| Outgoing::Tokens { starts_over, tokens: tokens() };
        for change in [of(false), of(true), Outgoing::Key(KEY)] {
            let bytes = change.encode();
            assert_eq!(Outgoing::decode(&bytes).as_ref(), Some(&change));
            for cut in 0..bytes.len() {
                assert_ne!(Outgoing::decode(&bytes[..cut]).as_ref(), Some(&change), "cut at {cut}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_invalidation_waits_for_no_key_and_a_key_that_fails_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(&dir);
        outbox.push_key(KEY).await.unwrap();
        outbox.push_key(OTHER_KEY).await.unwrap();
        let (record, arrival) = outbox.push_invalidation(false, tokens());
        outbox.records.write(record.into_iter().collect()).await.unwrap();
        let (record, again) = outbox.push_invalidation(false, tokens());
        assert_eq!((record, outbox.len()), (None, 3), "the waiting one covers it");
        let batch = outbox.take_invalidations().unwrap();
        let (record, _) = outbox.push_invalidation(false, tokens());
        assert!(record.is_some(), "the waiting one may be in the log already");
        outbox.complete_invalidations(&batch).await.unwrap();
        arrival.await.unwrap();
        again.await.unwrap();
        let keys = |next: Vec<NextKey>| next.into_iter().map(|next| next.key).collect::<Vec<_>>();
        assert_eq!(keys(outbox.next_keys(9).await), [KEY, OTHER_KEY]);
        outbox.defer_key(&KEY);
        assert_eq!(keys(outbox.next_keys(9).await), [OTHER_KEY]);
        let next = outbox.next_keys(1).await.remove(0);
        outbox.complete_key(&next).await.unwrap();
        assert_eq!(keys(outbox.next_keys(9).await), [KEY], "after a pause");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_survive_a_restart_until_they_are_sent() {
        let dir = tempfile::tempdir().unwrap();
        let first = outbox(&dir);
        let (record, _) = first.push_invalidation(true, tokens());
        first.records.write(record.into_iter().collect()).await.unwrap();
        first.push_key(KEY).await.unwrap();
        first.push_key(KEY).await.unwrap();
        assert_eq!((first.len(), first.holds(&KEY)), (2, true), "a key waits once");
        first.contest(&KEY);
        assert_eq!(first.key_state(&KEY), Some(KeyState::Contested));
        first.supersede(&KEY);
        first.contest(&KEY);
        assert_eq!(first.key_state(&KEY), Some(KeyState::Superseded));
        let next = first.next_keys(1).await.remove(0);
        first.push_key(KEY).await.unwrap();
        first.complete_key(&next).await.unwrap();
        assert_eq!((first.len(), first.holds(&KEY)), (2, true), "changed since it was read");
        first.records.shutdown();
        drop(first);
        let second = outbox(&dir);
        let batch = second.take_invalidations().unwrap();
        assert_eq!((batch.starts_over, batch.tokens.as_slice()), (true, tokens().as_slice()));
        second.complete_invalidations(&batch).await.unwrap();
        let next = second.next_keys(1).await.remove(0);
        second.complete_key(&next).await.unwrap();
        second.records.shutdown();
        drop(second);
        assert_eq!(outbox(&dir).len(), 0);
    }
}
