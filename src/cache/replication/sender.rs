//! Sends what waits in the outbox to the shared log: invalidations in their order, and keys beside them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::inflight_writes::EventPlace;
use super::replicator::{PAUSE, PAUSE_MAX, Replicator};
use super::waiting_invalidations::InvalidationBatch;
use super::waiting_keys::{KeyState, NextKey};
use crate::cache::change_log::{EntryFingerprint, NewToken};
use crate::cache::invalidation_tokens::record_of;
use crate::cache::random::random_id;
use crate::cache::redis::{NoneBehind, Replaces, SharedWrite, TOKENS_SHARD, Written};
use crate::domain::Key;
use crate::error::{Error, Kind, Result};

/// How long a sender waits for Redis.
const SEND_WITHIN: Duration = Duration::from_secs(1);
/// Keys that are sent at the same time.
const KEYS_AT_ONCE: usize = 16;

impl Replicator {
    pub(super) async fn send_invalidations(self: Arc<Self>) {
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

    pub(super) async fn send_keys(self: Arc<Self>) {
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
                    let event = EventPlace { shard: self.shared.log.shard_of(key), number };
                    let older = if is_last { None } else { self.shared.inflight.note_foreign(key, event) };
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
        let entry = stored.as_ref().and_then(|entry| EntryFingerprint::of(&entry.meta));
        let value = stored.and_then(|entry| self.shared.sealed(key, entry));
        let value = value.as_ref().map(|(bytes, lives_ms)| (bytes.as_slice(), *lives_ms));
        let after = Some(NoneBehind { number, ignores_others: is_contested });
        let write = SharedWrite { key: *key, value, entry, replaces: Replaces::Any, after, lease: None };
        Ok(self.shared.log.write(&write, random_id()?, SEND_WITHIN).await?)
    }
}

/// What cannot be read is not there.
fn none_if_corrupt<T>(error: Error) -> Result<Option<T>> {
    if error.kind() == Kind::Corrupt { Ok(None) } else { Err(error) }
}
