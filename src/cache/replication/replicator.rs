//! Keeps this node and the shared log equal: a follower a shard applies what other nodes changed, and two senders (`sender.rs`) send
//! what waits in the outbox.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::durable_cursor::DurableCursor;
use super::inflight_writes::{CopyDrop, EventPlace};
use super::key_changes::KeyChanges;
use super::key_events::KeyEvent;
use super::metrics::ReplicationMetrics;
use super::node_state::NodeState;
use super::shared_tier::SharedTier;
use super::waiting_keys::KeyState;
use crate::cache::change_log::{EntryFingerprint, Gap, LogCursor, LogEvent, ShardState, SharedChange};
use crate::cache::disk::ObjectTier;
use crate::cache::invalidation_tokens::{Applied, InvalidationTokens, Subject, TokenChange, record_of};
use crate::cache::memory::MemoryTier;
use crate::cache::random::random_id;
use crate::cache::redis::{DedicatedConnection, TOKENS_SHARD};
use crate::cache::tier::Tier as _;
use crate::domain::{Codec, EntryMeta, Key};
use crate::error::{Error, Kind, Result};
use crate::storage::Change;

/// How long a follower waits for the next event.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// The pauses after a failure: the first, and the longest.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Subjects of one invalidation that is made once more.
const SETTLED_AT_ONCE: usize = 256;

/// The copies of this node, which the changes of other nodes concern.
pub(super) struct LocalCopies {
    pub(super) memory: Arc<MemoryTier>,
    pub(super) disk: Arc<ObjectTier>,
    pub(super) changes: Arc<KeyChanges>,
}

/// What keeps this node and the shared log equal.
pub(super) struct Replicator {
    pub(super) shared: Arc<SharedTier>,
    pub(super) tokens: Arc<InvalidationTokens>,
    pub(super) copies: LocalCopies,
    pub(super) node: NodeState,
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
        let (mut reader, mut durable) = (self.shared.log.reader(shard), DurableCursor::default());
        let mut pause = PAUSE;
        loop {
            let step = match cursor {
                Some(at) => self.step(&mut reader, &mut durable, at).await,
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
    async fn step(
        &self,
        reader: &mut DedicatedConnection,
        durable: &mut DurableCursor,
        at: LogCursor,
    ) -> Result<LogCursor> {
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
            *durable = DurableCursor::default();
            return self.join(shard, Some(at), is_forked).await;
        };
        self.apply(shard, &reading.events, durable).await?;
        self.shared.log.set_state(shard, ShardState { cursor: next, generation: reading.generation });
        if is_complete && !self.shared.inflight.has_outdated() {
            self.shared.trust.confirm(shard.into(), sent);
        }
        Ok(next)
    }

    async fn apply(&self, shard: u8, events: &[LogEvent], durable: &mut DurableCursor) -> Result<()> {
        let (mut outdated, mut foreign, mut applied) = (Vec::new(), Vec::new(), Applied::default());
        // What the last event of each key announces, also where no copy is to be dropped for that event.
        let mut announced = HashMap::new();
        for event in events {
            let is_own = event.node == self.shared.log.node();
            let place = EventPlace { shard, number: event.number };
            if let Some(SharedChange::Key(key, entry)) = &event.change {
                announced.insert(*key, *entry);
            }
            match &event.change {
                Some(SharedChange::Key(key, _)) if is_own => outdated.extend(self.on_own(key, place)),
                Some(SharedChange::Key(key, _)) => {
                    outdated.extend(self.on_foreign(key, place));
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
        self.drop_outdated(outdated, &announced).await?;
        // What they make others look for is no longer here.
        foreign.into_iter().for_each(|(key, event)| self.shared.events.send(key, event));
        self.observe_lag(events);
        let cursor = |event: &LogEvent| LogCursor { number: event.number, nonce: event.nonce };
        events.iter().for_each(|event| durable.note(cursor(event)));
        match durable.advance(self.shared.inflight.first_undecided(shard)) {
            Some(cursor) => {
                let generation = self.shared.log.generation(shard);
                self.node.write_soon(shard, ShardState { cursor, generation }, records).await
            }
            None if records.is_empty() => Ok(()),
            None => self.node.write_records_soon(records).await,
        }
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
    fn on_foreign(&self, key: &Key, event: EventPlace) -> Option<CopyDrop<'_>> {
        let older = self.shared.inflight.note_foreign(key, event);
        self.shared.outbox.contest(key);
        self.drop_from_memory(key);
        older.filter(|_| self.copies.disk.contains(key))
    }

    /// A write of this node is in the log. Returns the right to drop the copy on disk if that is older.
    fn on_own(&self, key: &Key, event: EventPlace) -> Option<CopyDrop<'_>> {
        let older = self.shared.inflight.note_own(key, event)?;
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
        let undecided = self.shared.inflight.skip();
        self.copies.disk.set_salt(self.node.renew_salt().await?);
        self.shared.inflight.decide_hidden(&undecided);
        // Counted after the disk is hidden, so that no copy that was read there before is kept in memory after it is cleared.
        self.copies.changes.add_all();
        self.copies.memory.remove_where(&|meta| meta.codec != Codec::F32);
        Ok(())
    }

    /// Drops the copies that are not what the last event of their key announces. One that is was stored by an earlier process of this
    /// node, and the event is read again; Redis may not have its value.
    async fn drop_outdated(
        &self,
        outdated: Vec<CopyDrop<'_>>,
        announced: &HashMap<Key, Option<EntryFingerprint>>,
    ) -> Result<()> {
        if outdated.is_empty() {
            return Ok(());
        }
        let keys: HashSet<Key> = outdated.iter().map(|one| one.key).collect();
        let announced = keys.into_iter().filter_map(|key| Some((key, announced.get(&key).copied()??)));
        let (keys, entries): (Vec<Key>, Vec<EntryFingerprint>) = announced.unzip();
        let metas = self.copies.disk.metas(keys.clone()).await?;
        let is_announced = |(key, (entry, meta)): (Key, (EntryFingerprint, Option<EntryMeta>))| {
            (EntryFingerprint::of(&meta?) == Some(entry)).then_some(key)
        };
        let current: HashSet<Key> =
            keys.into_iter().zip(entries.into_iter().zip(metas)).filter_map(is_announced).collect();
        let drops: Vec<_> = outdated.into_iter().filter(|one| !current.contains(&one.key)).collect();
        self.drop_copies(&drops).await
    }

    /// Drops copies. Those in memory last: until it is removed, a lookup may read one on disk and keep it in memory.
    pub(super) async fn drop_copies(&self, drops: &[CopyDrop<'_>]) -> Result<()> {
        self.copies.disk.remove_many(drops.iter().map(|one| one.key).collect()).await?;
        drops.iter().for_each(|one| self.drop_from_memory(&one.key));
        Ok(())
    }

    /// Drops the copies of keys whose writes were given up after they have kept the follower from dropping them.
    async fn drop_given_up(self: Arc<Self>) {
        loop {
            let given_up = self.shared.inflight.given_up().await.into_iter();
            // A copy that waits in the outbox, and that no other node has changed, is what is sent: without it a removal would be.
            let is_sent = |key: &Key| self.shared.outbox.key_state(key) == Some(KeyState::Uncontested);
            let drops: Vec<_> = given_up.filter(|one| !is_sent(&one.key)).collect();
            if let Err(error) = self.drop_copies(&drops).await {
                tracing::warn!(%error, "cannot drop copies that other nodes have replaced");
                self.shared.inflight.drop_later(drops);
                tokio::time::sleep(PAUSE_MAX).await;
            }
        }
    }
}
