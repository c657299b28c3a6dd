//! Keeps this node and the shared log equal: a follower a shard applies what other nodes changed, and two senders send what waits in
//! the outbox.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::inflight_writes::CopyDrop;
use super::key_changes::KeyChanges;
use super::key_events::KeyEvent;
use super::metrics::ReplicationMetrics;
use super::node_state::NodeState;
use super::shared_tier::SharedTier;
use super::waiting_invalidations::InvalidationBatch;
use super::waiting_keys::{KeyState, NextKey};
use crate::cache::change_log::{Gap, LogCursor, LogEvent, NewToken, ShardState, SharedChange};
use crate::cache::disk::ObjectTier;
use crate::cache::invalidation_tokens::{Applied, InvalidationTokens, Subject, TokenChange, record_of};
use crate::cache::memory::MemoryTier;
use crate::cache::random::random_id;
use crate::cache::redis::{DedicatedConnection, NoneBehind, Replaces, SharedWrite, TOKENS_SHARD, Written};
use crate::cache::tier::Tier as _;
use crate::domain::{Codec, Key};
use crate::error::{Error, Kind, Result};
use crate::storage::Change;

/// How long a follower waits for the next event.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// The pauses after a failure: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a sender waits for Redis.
const SEND_WITHIN: Duration = Duration::from_secs(1);
/// Subjects of one invalidation that is made once more.
const SETTLED_AT_ONCE: usize = 256;
/// Keys that are sent at the same time.
const KEYS_AT_ONCE: usize = 16;

/// The copies of this node, which the changes of other nodes concern.
pub(super) struct LocalCopies {
    pub(super) memory: Arc<MemoryTier>,
    pub(super) disk: Arc<ObjectTier>,
    pub(super) changes: Arc<KeyChanges>,
}

/// What keeps this node and the shared log equal.
pub(super) struct Replicator {
    shared: Arc<SharedTier>,
    tokens: Arc<InvalidationTokens>,
    copies: LocalCopies,
    node: NodeState,
    suspect_after: Duration,
    metrics: Arc<ReplicationMetrics>,
}

/// The tasks of a replicator. Dropping it ends them.
#[derive(Debug)]
pub struct Replication(Vec<JoinHandle<()>>);

impl Drop for Replication {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Replicator {
    pub(super) fn new(
        shared: Arc<SharedTier>,
        tokens: Arc<InvalidationTokens>,
        copies: LocalCopies,
        node: NodeState,
        suspect_after: Duration,
        metrics: Arc<ReplicationMetrics>,
    ) -> Replicator {
        tokens.table().expect(shared.outbox.subjects().into_iter());
        Replicator { shared, tokens, copies, node, suspect_after, metrics }
    }

    /// Starts the tasks. Blocks shortly, to read the cursors.
    ///
    /// # Errors
    /// `Io`, `Corrupt` from the small records.
    pub(super) fn start(self) -> Result<Replication> {
        let replicator = Arc::new(self);
        let mut tasks = Vec::new();
        for shard in 0..replicator.shared.log.shards() {
            let known = replicator.node.cursor(shard)?;
            let cursor = known.map(|known| known.cursor);
            let known = known.unwrap_or_default();
            replicator.shared.log.set_state(shard, known);
            if shard == TOKENS_SHARD {
                replicator.shared.positions.restart(known.position());
            }
            tasks.push(tokio::spawn(Arc::clone(&replicator).follow(shard, cursor)));
        }
        tasks.push(tokio::spawn(Arc::clone(&replicator).send_invalidations()));
        tasks.push(tokio::spawn(Arc::clone(&replicator).send_keys()));
        tasks.push(tokio::spawn(Arc::clone(&replicator).drop_given_up()));
        Ok(Replication(tasks))
    }

    async fn follow(self: Arc<Self>, shard: u8, mut cursor: Option<LogCursor>) {
        let mut reader = self.shared.log.reader(shard);
        let mut pause = PAUSE;
        loop {
            let step = match cursor {
                Some(at) => self.step(&mut reader, at).await,
                None => self.join(shard, None, false).await,
            };
            match step {
                Ok(at) => (cursor, pause) = (Some(at), PAUSE),
                Err(error) => {
                    self.note_disconnected(shard, &error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            self.observe();
        }
    }

    fn observe(&self) {
        self.metrics.outbox.set(i64::try_from(self.shared.outbox.len()).unwrap_or(i64::MAX));
        self.metrics.is_trusted.set(self.shared.trust.is_held().into());
    }

    fn note_disconnected(&self, shard: u8, error: &Error) {
        if self.shared.trust.is_connected(shard.into()) {
            tracing::warn!(%error, shard, "cannot follow the changes of other nodes");
        }
        self.shared.trust.disconnect(shard.into());
    }

    /// Reads once and applies what was read.
    async fn step(&self, reader: &mut DedicatedConnection, at: LogCursor) -> Result<LogCursor> {
        let shard = reader.shard();
        let is_held = self.shared.trust.is_shard_held(shard.into());
        let wait = if is_held { WAIT_MAX.min(self.suspect_after / 4) } else { Duration::ZERO };
        let sent = Instant::now();
        let reading = self.shared.log.read(reader, at, wait).await?;
        let mut next = at;
        let advanced = next.advance(&reading);
        let is_forked = advanced == Err(Gap::Forked);
        let is_of_generation = reading.generation == self.shared.log.generation(shard);
        // What a change of a kind that this program does not know concerns is not known either.
        let is_known = reading.events.iter().all(|event| event.change.is_some());
        let (Ok(is_complete), true) = (advanced, is_of_generation && is_known) else {
            self.metrics.gaps.inc();
            return self.join(shard, Some(at), is_forked).await;
        };
        self.apply(shard, &reading.events, next).await?;
        self.shared.log.set_state(shard, ShardState { cursor: next, generation: reading.generation });
        if is_complete && !self.shared.inflight.has_outdated() {
            self.shared.trust.confirm(shard.into(), sent);
        }
        Ok(next)
    }

    async fn apply(&self, shard: u8, events: &[LogEvent], cursor: LogCursor) -> Result<()> {
        let (mut outdated, mut foreign, mut applied) = (Vec::new(), Vec::new(), Applied::default());
        for event in events {
            let is_own = event.node == self.shared.log.node();
            match &event.change {
                Some(SharedChange::Key(key)) if is_own => outdated.extend(self.on_own(key, event.number)),
                Some(SharedChange::Key(key)) => {
                    outdated.extend(self.on_foreign(key, event.number));
                    foreign.push((key, KeyEvent::Changed(event.number)));
                }
                Some(SharedChange::LeaseEnded(key)) if !is_own => foreign.push((key, KeyEvent::LeaseEnded)),
                Some(SharedChange::LeaseEnded(_)) => {}
                Some(SharedChange::Tokens { starts_over, changes }) => {
                    self.shared.positions.note(event.number, self.tokens.table().stamp_as_read());
                    let own = is_own.then_some(event.nonce);
                    applied.extend(self.tokens.table().apply(*starts_over, changes.clone(), own));
                }
                // A gap, before anything is applied.
                None => {}
            }
            self.metrics.events.inc();
        }
        let records = self.settle(applied).await?;
        if !outdated.is_empty() {
            self.drop_copies(&outdated).await?;
            drop(outdated);
        }
        // What they make others look for is no longer here.
        foreign.into_iter().for_each(|(key, event)| self.shared.events.send(key, event));
        self.observe_lag(events);
        if !events.is_empty() {
            let generation = self.shared.log.generation(shard);
            self.node.write_soon(shard, ShardState { cursor, generation }, records).await?;
        }
        Ok(())
    }

    /// How long the changes of other nodes have taken until here.
    fn observe_lag(&self, events: &[LogEvent]) {
        let now = self.shared.log.redis_micros();
        for event in events.iter().filter(|event| event.node != self.shared.log.node()) {
            let lag = Duration::from_micros(now.saturating_sub(event.written_at_micros));
            self.metrics.lag.observe(lag.as_secs_f64());
        }
    }

    /// Another node has changed a key. Returns the right to drop the copy on disk if there is an older one.
    fn on_foreign(&self, key: &Key, number: u64) -> Option<CopyDrop<'_>> {
        let older = self.shared.inflight.note_foreign(key, number);
        self.shared.outbox.contest(key);
        self.drop_from_memory(key);
        older.filter(|_| self.copies.disk.contains(key))
    }

    /// A write of this node is in the log. Returns the right to drop the copy on disk if that is older.
    fn on_own(&self, key: &Key, number: u64) -> Option<CopyDrop<'_>> {
        let older = self.shared.inflight.note_own(key, number)?;
        self.drop_from_memory(key);
        // A copy that waits in the outbox is what this node has stored since, or what it sends once more after a restart.
        Some(older).filter(|_| !self.shared.outbox.holds(key) && self.copies.disk.contains(key))
    }

    fn drop_from_memory(&self, key: &Key) {
        self.copies.changes.add(key);
        self.copies.memory.remove(key);
    }

    /// The records of applied changes. What this node has invalidated at the same time is invalidated once more.
    async fn settle(&self, applied: Applied) -> Result<Vec<Change>> {
        let id = |subject: &Subject| match subject {
            Subject::Id(id) => Some(*id),
            Subject::Everything => None,
        };
        let ids: Vec<_> = applied.contested.iter().filter_map(id).collect();
        for ids in ids.chunks(SETTLED_AT_ONCE) {
            self.tokens.bump_again(ids).await?;
        }
        if applied.contested.contains(&Subject::Everything) {
            self.tokens.bump_everything_again().await?;
        }
        Ok(applied.changes.iter().map(record_of).collect())
    }

    /// Begins to follow a shard: for the first time, or after a gap. Everything that may have been changed unseen is hidden. If the log
    /// went back, its values may have too: they are hidden from all nodes.
    async fn join(&self, shard: u8, before: Option<LogCursor>, is_forked: bool) -> Result<LogCursor> {
        self.shared.trust.revoke(shard.into());
        let all = || self.tokens.table().all();
        let known = self.shared.log.generation(shard);
        let (mut state, was_begun) = self.shared.log.open(shard, random_id()?, all).await?;
        // Of nodes that notice the same loss the first one gives the values a new generation.
        if is_forked && !was_begun && state.generation == known {
            let generation = random_id()?;
            if !self.shared.log.fork(shard, state, generation).await? {
                // The cursor stays where it is, so that the next reading finds the fork again.
                return Err(Error::new(Kind::Conflict, "other nodes write to Redis, which has lost changes"));
            }
            state.generation = generation;
        }
        let mut records = Vec::new();
        if shard == TOKENS_SHARD {
            self.shared.positions.restart(state.position());
            if !was_begun {
                let has_lost_changes = before.is_some() && state.generation != known;
                records = self.reload_tokens(has_lost_changes).await?;
            }
        }
        if before.is_some() || !was_begun {
            self.hide_copies().await?;
        }
        self.shared.log.set_state(shard, state);
        tracing::info!(shard, was_begun, is_gap = before.is_some(), "following the changes of other nodes");
        self.node.write(shard, state, records).await?;
        Ok(state.cursor)
    }

    /// Takes over the tokens of Redis. If Redis may have lost changes, what differs is invalidated once more: an invalidation that only this
    /// node knows may be among them. If this node has only missed events, Redis has all invalidations.
    async fn reload_tokens(&self, has_lost_changes: bool) -> Result<Vec<Change>> {
        let loaded = self.shared.log.load_tokens().await?.ok_or_else(|| {
            Error::new(Kind::Unavailable, "the tokens in Redis are lost; they are written again")
        })?;
        let mut applied = self.tokens.table().reload(loaded);
        if has_lost_changes {
            applied.contested.extend(applied.changes.iter().filter_map(TokenChange::subject));
        }
        self.settle(applied).await
    }

    /// Hides the copies of all entries that other nodes may have changed. Costs a write on disk, and a visit of each entry in memory.
    async fn hide_copies(&self) -> Result<()> {
        self.shared.outbox.contest_all();
        self.shared.inflight.forget();
        self.copies.disk.set_salt(self.node.renew_salt().await?);
        // Counted after the disk is hidden, so that no copy that was read there before is kept in memory after it is cleared.
        self.copies.changes.add_all();
        self.copies.memory.remove_where(&|meta| meta.codec != Codec::F32);
        Ok(())
    }

    async fn send_invalidations(self: Arc<Self>) {
        let (outbox, mut pause) = (&self.shared.outbox, PAUSE);
        loop {
            outbox.invalidated().await;
            self.shared.trust.connected(TOKENS_SHARD.into()).await;
            let Some(batch) = outbox.take_invalidations() else { continue };
            match self.send_tokens(&batch).await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    outbox.untake_invalidations();
                    tracing::debug!(%error, "invalidations for other nodes wait");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Sends invalidations, with tokens that no entry carries: entries that were made here meanwhile carry the tokens that this node has
    /// drawn, and an invalidation of another node may have come in between, or this one may be in the log already.
    async fn send_tokens(&self, batch: &InvalidationBatch) -> Result<()> {
        let redraw = |token: &NewToken| Ok(NewToken { token: random_id()?, ..*token });
        let tokens = batch.tokens.iter().map(redraw).collect::<Result<Vec<_>>>()?;
        let (table, subjects) = (self.tokens.table(), || tokens.iter().map(|token| token.subject));
        let nonce = random_id()?;
        table.mark_sent(subjects(), nonce);
        let sent = self.shared.log.invalidate(batch.starts_over, nonce, &tokens, SEND_WITHIN).await;
        let changes = sent.inspect_err(|_| table.mark_unsent(subjects(), nonce))?;
        let applied = table.publish(changes, nonce);
        self.node.write_records_soon(applied.iter().map(record_of).collect()).await?;
        self.shared.outbox.complete_invalidations(batch).await
    }

    async fn send_keys(self: Arc<Self>) {
        loop {
            let next = self.shared.outbox.next_keys(KEYS_AT_ONCE).await;
            join_all(next.iter().map(|next| self.send_or_defer(next))).await;
        }
    }

    async fn send_or_defer(&self, next: &NextKey) {
        let shard = self.shared.log.shard_of(&next.key).into();
        let sent = match tokio::time::timeout(SEND_WITHIN, self.shared.trust.connected(shard)).await {
            Ok(()) => self.send_key(next).await,
            Err(_) => Err(Error::new(Kind::Unavailable, "Redis is not reachable")),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "the change of a key waits");
            self.shared.outbox.defer_key(&next.key);
        }
    }

    /// Sends the change of a key: the value that this node has, unless another node has changed it too.
    async fn send_key(&self, next: &NextKey) -> Result<()> {
        let (outbox, key) = (&self.shared.outbox, &next.key);
        // Before the state of the key: an event up to this one that contests it is noted there.
        let number = self.shared.applied(key);
        let state = outbox.key_state(key);
        if state != Some(KeyState::Superseded) {
            if self.shared.inflight.is_open(key) {
                return Err(Error::new(Kind::Conflict, "the key is being written"));
            }
            let write = self.shared.begin(*key).await;
            let is_contested = state == Some(KeyState::Contested);
            match self.send_value(key, number, is_contested).await? {
                Written::Done(number) => {
                    // The removal of a contested key counts as if another node had made it.
                    let is_last = !is_contested && write.end(number);
                    drop(write);
                    let older = if is_last { None } else { self.shared.inflight.note_foreign(key, number) };
                    if let Some(older) = older {
                        self.drop_copies(&[older]).await?;
                    }
                }
                Written::Contested => {
                    outbox.contest(key);
                    return Ok(());
                }
                Written::Conflict | Written::Behind | Written::LeaseEnded => {
                    return Err(Error::new(Kind::Conflict, "this node has not read what came in between"));
                }
            }
        }
        outbox.complete_key(next).await
    }

    /// Writes the value of a key that this node has; a contested one is removed.
    async fn send_value(&self, key: &Key, number: u64, is_contested: bool) -> Result<Written> {
        let stored =
            if is_contested { None } else { self.copies.disk.stored(*key).await.or_else(none_if_corrupt)? };
        let value = stored.and_then(|entry| self.shared.sealed(key, entry));
        let value = value.as_ref().map(|(bytes, lives_ms)| (bytes.as_slice(), *lives_ms));
        let after = Some(NoneBehind { number, ignores_others: is_contested });
        let write = SharedWrite { key: *key, value, replaces: Replaces::Any, after, lease: None };
        Ok(self.shared.log.write(&write, random_id()?, SEND_WITHIN).await?)
    }

    /// Drops copies. Those in memory last: until it is removed, a lookup may read one on disk and keep it in memory.
    async fn drop_copies(&self, drops: &[CopyDrop<'_>]) -> Result<()> {
        self.copies.disk.remove_many(drops.iter().map(|one| one.key).collect()).await?;
        drops.iter().for_each(|one| self.drop_from_memory(&one.key));
        Ok(())
    }

    /// Drops the copies of keys whose writes were given up after they have kept the follower from dropping them.
    async fn drop_given_up(self: Arc<Self>) {
        loop {
            let given_up = self.shared.inflight.given_up().await.into_iter();
            // A copy that waits in the outbox is what is sent: without it a removal would be.
            let drops: Vec<_> = given_up.filter(|one| !self.shared.outbox.holds(&one.key)).collect();
            if let Err(error) = self.drop_copies(&drops).await {
                tracing::warn!(%error, "cannot drop copies that other nodes have replaced");
                self.shared.inflight.drop_later(drops);
                tokio::time::sleep(PAUSE_MAX).await;
            }
        }
    }
}

/// What cannot be read is not there.
fn none_if_corrupt<T>(error: Error) -> Result<Option<T>> {
    if error.kind() == Kind::Corrupt { Ok(None) } else { Err(error) }
}
