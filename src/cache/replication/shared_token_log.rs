//! The log of tokens of a node that shares a Redis: its own small records first, then the outbox.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::outbox::{Outbox, invalidation_of};
use super::trust::Trust;
use crate::cache::invalidation_tokens::{
    CHANGE_BYTES, LoadedTokens, LocalTokenLog, Propagation, QueueChanges, Queued, TokenChange, TokenLog,
    record_of,
};
use crate::cache::redis::TOKENS_SHARD;
use crate::error::Result;
use crate::storage::Records;

/// Tokens in the small records, with the outbox behind them.
#[derive(Debug)]
pub(super) struct SharedTokenLog {
    local: LocalTokenLog,
    records: Arc<Records>,
    outbox: Arc<Outbox>,
    trust: Arc<Trust>,
    /// How long an invalidation waits until it is in Redis.
    wait: Duration,
}

impl SharedTokenLog {
    pub(super) fn new(
        records: Arc<Records>,
        outbox: Arc<Outbox>,
        trust: Arc<Trust>,
        wait: Duration,
    ) -> SharedTokenLog {
        SharedTokenLog { local: LocalTokenLog::new(Arc::clone(&records)), records, outbox, trust, wait }
    }
}

impl TokenLog for SharedTokenLog {
    fn is_shared(&self) -> bool {
        true
    }

    fn load(&self) -> BoxFuture<'_, Result<LoadedTokens>> {
        self.local.load()
    }

    fn check_room(&self) -> Result<()> {
        self.outbox.check_room()
    }

    fn append(&self, changes: usize) -> BoxFuture<'_, Result<QueueChanges>> {
        Box::pin(async move {
            // Each change is in the record of the outbox too.
            let room = self.records.reserve((2 * changes + 1) * CHANGE_BYTES).await?;
            let (records, outbox) = (Arc::clone(&self.records), Arc::clone(&self.outbox));
            let (trust, wait) = (Arc::clone(&self.trust), self.wait);
            Ok(Box::new(move |changes: Vec<TokenChange>| {
                let (starts_over, tokens) = invalidation_of(&changes);
                let (record, arrival) = outbox.push_invalidation(starts_over, tokens);
                let written = changes.iter().map(record_of).chain(record).collect();
                let pending = records.submit(room, written)?;
                let queued = async move {
                    pending.durable().await?;
                    let wait = if trust.is_connected(TOKENS_SHARD.into()) { wait } else { Duration::ZERO };
                    let has_arrived = matches!(tokio::time::timeout(wait, arrival).await, Ok(Ok(())));
                    Ok(if has_arrived { Propagation::Complete } else { Propagation::Pending })
                };
                Ok(Box::pin(queued) as Queued)
            }) as QueueChanges)
        })
    }
}
