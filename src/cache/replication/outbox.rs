//! Changes of this node that have not reached the shared log. They wait in the small records, and leave in their order.
//!
//! A record of the table `outbox` has eight big-endian bytes of its place in the order as its key. Its value:
//!
//! ```text
//! kind 1, 2  nonce[8] (mode[1], subject length[1], subject, token[8])*   invalidations; kind 2 forgets all invalidation ids first
//! kind 3     key[32]                                                     the value of a key was replaced or removed
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};

use crate::cache::change_log::NewToken;
use crate::cache::invalidation_tokens::{Mode, Subject, TokenChange};
use crate::domain::{ByPrefix, Key};
use crate::error::{Error, Kind, Result};
use crate::storage::le_bytes::{array_at, u64_at};
use crate::storage::{Change, Records};
use crate::sync::lock;

const TABLE: &str = "outbox";
/// Changes that wait at most; more are refused.
const CHANGES_MAX: usize = 1 << 20;
/// Records read at a time when opening.
const CHUNK: usize = 4096;
const KIND_TOKENS: u8 = 1;
const KIND_START_OVER: u8 = 2;
const KIND_KEY: u8 = 3;

/// A change on its way to the shared log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache) enum Outgoing {
    /// An invalidation.
    Tokens { starts_over: bool, nonce: u64, tokens: Vec<NewToken> },
    /// The value of a key was replaced or removed while the shared log could not be reached.
    Key(Key),
}

/// The first change of the order.
#[derive(Debug, Clone)]
pub(in crate::cache) struct NextChange {
    pub(in crate::cache) place: u64,
    pub(in crate::cache) change: Outgoing,
    /// Changes of its key so far.
    pub(in crate::cache) key_changes: u64,
}

/// What is known of a key whose change waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cache) enum KeyState {
    /// No other node has changed it.
    #[default]
    Uncontested,
    /// Another node has changed it: neither is known to be the later one.
    Contested,
    /// A later change of this node is in the log.
    Superseded,
}

#[derive(Debug)]
struct WaitingChange {
    place: u64,
    change: Outgoing,
    /// Notified when the change is in the log.
    sent: Option<oneshot::Sender<()>>,
}

/// A key among them.
#[derive(Debug, Clone, Copy, Default)]
struct WaitingKey {
    state: KeyState,
    /// Changes of the key so far; the first change must not be taken for sent if there was one since it was read.
    changes: u64,
}

impl WaitingKey {
    /// Another node has changed the key. A later change of this node that is in the log stands.
    fn contest(&mut self) {
        if self.state == KeyState::Uncontested {
            self.state = KeyState::Contested;
        }
    }
}

#[derive(Debug, Default)]
struct State {
    next_place: u64,
    waiting: VecDeque<WaitingChange>,
    /// The keys among them.
    keys: HashMap<Key, WaitingKey, ByPrefix>,
}

/// The changes that wait. Shared by `Arc`.
#[derive(Debug)]
pub(in crate::cache) struct Outbox {
    records: Arc<Records>,
    state: Mutex<State>,
    changed: Notify,
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
                let change = Outgoing::decode(value).ok_or_else(corrupt)?;
                state.push(place, change, None);
            }
        }
        Ok(Outbox { records, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Refuses further changes once too many wait.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(in crate::cache) fn check_room(&self) -> Result<()> {
        if lock(&self.state).waiting.len() < CHANGES_MAX {
            return Ok(());
        }
        Err(Error::new(Kind::Overloaded, "too many changes wait for Redis; try again once it is reachable"))
    }

    /// Adds a change behind all others. It is durable once the record is written that is returned with a receiver of its arrival.
    pub(in crate::cache) fn push(&self, change: Outgoing) -> (Change, oneshot::Receiver<()>) {
        let (sent, arrival) = oneshot::channel();
        let mut state = lock(&self.state);
        let place = state.next_place;
        let record = record(place, &change);
        state.push(place, change, Some(sent));
        drop(state);
        self.changed.notify_one();
        (record, arrival)
    }

    /// Adds the change of a key and returns when it is durable. Keys that wait already are not added twice.
    ///
    /// # Errors
    /// `Overloaded`; `Io`, `DiskFull`, `Unavailable` from the records.
    pub(in crate::cache) async fn push_key(&self, key: Key) -> Result<()> {
        if self.wait_again(&key) {
            return Ok(());
        }
        self.check_room()?;
        let (record, _) = self.push(Outgoing::Key(key));
        self.records.write(vec![record]).await
    }

    /// Whether a change of the key waits already, which is then made whatever came in between.
    fn wait_again(&self, key: &Key) -> bool {
        let mut state = lock(&self.state);
        let Some(waiting) = state.keys.get_mut(key) else { return false };
        waiting.changes += 1;
        if waiting.state == KeyState::Superseded {
            waiting.state = KeyState::Uncontested;
        }
        true
    }

    /// What is known of a key whose change waits.
    pub(in crate::cache) fn key_state(&self, key: &Key) -> Option<KeyState> {
        lock(&self.state).keys.get(key).map(|waiting| waiting.state)
    }

    /// Whether a change of the key waits: what Redis holds under it is not the value of this node.
    pub(in crate::cache) fn holds(&self, key: &Key) -> bool {
        self.key_state(key).is_some_and(|state| state != KeyState::Superseded)
    }

    /// Another node has changed the key.
    pub(in crate::cache) fn contest(&self, key: &Key) {
        lock(&self.state).keys.get_mut(key).into_iter().for_each(WaitingKey::contest);
    }

    /// Other nodes may have changed every key.
    pub(in crate::cache) fn contest_all(&self) {
        lock(&self.state).keys.values_mut().for_each(WaitingKey::contest);
    }

    /// A later change of the key is in the log: the one that waits is not to be made.
    pub(in crate::cache) fn supersede(&self, key: &Key) {
        lock(&self.state)
            .keys
            .get_mut(key)
            .into_iter()
            .for_each(|waiting| waiting.state = KeyState::Superseded);
    }

    /// The invalidations that wait: their subjects and names.
    pub(in crate::cache) fn invalidations(&self) -> Vec<(Vec<Subject>, u64)> {
        let subjects = |waiting: &WaitingChange| match &waiting.change {
            Outgoing::Tokens { nonce, tokens, .. } => {
                Some((tokens.iter().map(|token| token.subject).collect(), *nonce))
            }
            Outgoing::Key(_) => None,
        };
        lock(&self.state).waiting.iter().filter_map(subjects).collect()
    }

    /// Changes that wait.
    pub(in crate::cache) fn len(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// The first change; returns when there is one.
    ///
    /// Cancel safety: takes nothing.
    pub(in crate::cache) async fn next(&self) -> NextChange {
        loop {
            let changed = self.changed.notified();
            if let Some(next) = self.first() {
                return next;
            }
            changed.await;
        }
    }

    fn first(&self) -> Option<NextChange> {
        let state = lock(&self.state);
        let waiting = state.waiting.front()?;
        let key_changes = match &waiting.change {
            Outgoing::Key(key) => state.keys.get(key).map_or(0, |waiting| waiting.changes),
            Outgoing::Tokens { .. } => 0,
        };
        Some(NextChange { place: waiting.place, change: waiting.change.clone(), key_changes })
    }

    /// The first change is in the log. Its record goes with the next ones that are written. If its key was changed since it was read, it
    /// stays.
    pub(in crate::cache) fn pop(&self, sent: &NextChange) {
        let mut state = lock(&self.state);
        let is_changed = match &sent.change {
            Outgoing::Key(key) => {
                state.keys.get(key).is_some_and(|waiting| waiting.changes != sent.key_changes)
            }
            Outgoing::Tokens { .. } => false,
        };
        let place = sent.place;
        if is_changed || state.waiting.front().is_none_or(|first| first.place != place) {
            return;
        }
        let Some(first) = state.waiting.pop_front() else { return };
        if let Outgoing::Key(key) = &first.change {
            state.keys.remove(key);
        }
        drop(state);
        // A caller that does not wait any more has answered that the change is pending.
        first.sent.into_iter().for_each(|sent| _ = sent.send(()));
        // If it is lost, the change is made once more after the next start, which hides more and shows nothing.
        let _ = self.records.submit_now(vec![Change::delete(TABLE, key_of(place))]);
    }
}

impl State {
    fn push(&mut self, place: u64, change: Outgoing, sent: Option<oneshot::Sender<()>>) {
        self.next_place = self.next_place.max(place + 1);
        if let Outgoing::Key(key) = &change {
            self.keys.entry(*key).or_default();
        }
        self.waiting.push_back(WaitingChange { place, change, sent });
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

impl Outgoing {
    /// The invalidation that has made these changes of the table.
    pub(in crate::cache) fn of_changes(changes: &[TokenChange], nonce: u64) -> Outgoing {
        let starts_over = changes.iter().any(|change| matches!(change, TokenChange::Forget(_)));
        let tokens = changes.iter().filter_map(NewToken::of_change).collect();
        Outgoing::Tokens { starts_over, nonce, tokens }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Outgoing::Key(key) => [&[KIND_KEY][..], &key.0].concat(),
            Outgoing::Tokens { starts_over, nonce, tokens } => {
                let mut bytes = vec![if *starts_over { KIND_START_OVER } else { KIND_TOKENS }];
                bytes.extend(nonce.to_le_bytes());
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
                let (nonce, mut rest) = (u64_at(rest, 0)?, rest.get(8..)?);
                let mut tokens = Vec::new();
                while !rest.is_empty() {
                    let [mode, subject_bytes] = array_at(rest, 0)?;
                    let (subject, after) = rest[2..].split_at_checked(subject_bytes.into())?;
                    let subject = Subject::of_bytes(subject)?;
                    let mode = if mode == 0 { Mode::Hard } else { Mode::Soft };
                    tokens.push(NewToken { subject, token: u64_at(after, 0)?, mode });
                    rest = &after[8..];
                }
                Some(Outgoing::Tokens { starts_over: *kind == KIND_START_OVER, nonce, tokens })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InvalidationId;

    const KEY: Key = Key([1; 32]);

    fn tokens(nonce: u64) -> Outgoing {
        let token = |subject, mode| NewToken { subject, token: 7, mode };
        let tokens =
            vec![token(Subject::Everything, Mode::Hard), token(Subject::Id(InvalidationId(9)), Mode::Soft)];
        Outgoing::Tokens { starts_over: nonce == 2, nonce, tokens }
    }

    fn outbox(dir: &tempfile::TempDir) -> Outbox {
        Outbox::open(Arc::new(Records::open(dir.path()).unwrap())).unwrap()
    }

    #[test]
    fn changes_come_back_as_they_were_and_cut_ones_do_not() {
        for change in [tokens(1), tokens(2), Outgoing::Key(KEY)] {
            let bytes = change.encode();
            assert_eq!(Outgoing::decode(&bytes).as_ref(), Some(&change));
            for cut in 0..bytes.len() {
                assert_ne!(Outgoing::decode(&bytes[..cut]).as_ref(), Some(&change), "cut at {cut}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_leave_in_their_order_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = outbox(&dir);
        let (record, arrival) = first.push(tokens(1));
        first.records.write(vec![record]).await.unwrap();
        first.push_key(KEY).await.unwrap();
        first.push_key(KEY).await.unwrap();
        assert_eq!((first.len(), first.holds(&KEY)), (2, true), "a key waits once");
        let next = first.next().await;
        assert_eq!(next.change, tokens(1));
        first.pop(&next);
        arrival.await.unwrap();
        first.contest(&KEY);
        assert_eq!(first.key_state(&KEY), Some(KeyState::Contested));
        first.supersede(&KEY);
        first.contest(&KEY);
        assert_eq!(first.key_state(&KEY), Some(KeyState::Superseded));
        let next = first.next().await;
        first.push_key(KEY).await.unwrap();
        first.pop(&next);
        assert_eq!((first.len(), first.holds(&KEY)), (1, true), "changed since it was read");
        first.records.shutdown();
        drop(first);
        let second = outbox(&dir);
        let next = second.next().await;
        assert_eq!(next.change, Outgoing::Key(KEY));
        let (_record, _) = second.push(tokens(2));
        second.pop(&next);
        assert_eq!(second.next().await.change, tokens(2));
        assert!(!second.holds(&KEY));
    }
}
