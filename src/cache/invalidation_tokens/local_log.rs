//! The log of tokens of a node of its own: a table of the small records, of which there is a copy.

use std::collections::HashMap;
use std::collections::hash_map::Entry::Vacant;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::history::TokenHistory;
use super::token_log::{
    InvalidationIds, LoadedTokens, OTHER_TENANTS, Propagation, QueueChanges, Queued, TokenChange, TokenLog,
};
use crate::cache::random::random_id;
use crate::domain::InvalidationId;
use crate::error::{Error, Kind, Result};
use crate::storage::{Change, Records};

const TABLE: &str = "versions";
/// The record of everything; those of invalidation ids have keys of eight bytes.
const EVERYTHING: &[u8] = b"everything";
/// Records read at a time when opening.
const CHUNK: usize = 4096;
/// About what a change costs in the queue of the records.
pub(in crate::cache) const CHANGE_BYTES: usize = 128;

/// Tokens in the small records of this node.
#[derive(Debug)]
pub struct LocalTokenLog(Arc<Records>);

impl LocalTokenLog {
    /// The tokens among `records`.
    pub fn new(records: Arc<Records>) -> LocalTokenLog {
        LocalTokenLog(records)
    }
}

impl TokenLog for LocalTokenLog {
    fn load(&self) -> BoxFuture<'_, Result<LoadedTokens>> {
        Box::pin(async {
            let (mut everything, mut invalidation_ids) = read_all(&self.0)?;
            if let Some(copy) = self.0.take_mirrored() {
                let changes = reconcile(copy, &mut everything, &mut invalidation_ids)?;
                if !changes.is_empty() {
                    tracing::warn!(
                        invalidation_ids = changes.len(),
                        "invalidations were taken from their copy"
                    );
                    self.0.write(changes).await?;
                }
            }
            let everything = match everything {
                Some(history) => history,
                None => {
                    let history = TokenHistory::starting(random_id()?);
                    self.0.put(TABLE, EVERYTHING, &history.encode()).await?;
                    history
                }
            };
            if let Vacant(missing) = invalidation_ids.entry(OTHER_TENANTS) {
                let history = missing.insert(TokenHistory::starting(random_id()?));
                self.0.put(TABLE, &OTHER_TENANTS.0.to_le_bytes(), &history.encode()).await?;
            }
            Ok(LoadedTokens { everything, invalidation_ids })
        })
    }

    fn append(&self, changes: usize) -> BoxFuture<'_, Result<QueueChanges>> {
        Box::pin(async move {
            let room = self.0.reserve(changes * CHANGE_BYTES).await?;
            let records = Arc::clone(&self.0);
            Ok(Box::new(move |changes: Vec<TokenChange>| {
                let pending = records.submit(room, changes.iter().map(record_of).collect())?;
                let durable = async { pending.durable().await.map(|()| Propagation::Complete) };
                Ok(Box::pin(durable) as Queued)
            }) as QueueChanges)
        })
    }
}

/// The record of a change.
pub(in crate::cache) fn record_of(change: &TokenChange) -> Change {
    match change {
        TokenChange::Everything(history) => Change::put(TABLE, EVERYTHING, history.encode()),
        TokenChange::InvalidationId(invalidation_id, history) => {
            Change::put(TABLE, invalidation_id.0.to_le_bytes(), history.encode())
        }
        TokenChange::Forget(invalidation_id) => Change::delete(TABLE, invalidation_id.0.to_le_bytes()),
    }
}

/// The tokens of everything, if they are there, and those of invalidation ids.
fn read_all(records: &Records) -> Result<(Option<TokenHistory>, InvalidationIds)> {
    let (mut everything, mut invalidation_ids) = (None, InvalidationIds::default());
    let mut from = Vec::new();
    loop {
        let chunk = records.range(TABLE, &from, CHUNK)?;
        let Some((last, _)) = chunk.last() else { return Ok((everything, invalidation_ids)) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &chunk {
            let corrupt = || Error::new(Kind::Corrupt, "cannot read the tokens of tags");
            let history = TokenHistory::decode(value).ok_or_else(corrupt)?;
            if key == EVERYTHING {
                everything = Some(history);
            } else {
                let invalidation_id = key.as_slice().try_into().map_err(|_| corrupt())?;
                invalidation_ids.insert(InvalidationId(u64::from_le_bytes(invalidation_id)), history);
            }
        }
    }
}

/// Sets right what differs from the copy of the tokens, and returns what is to be written for it.
///
/// Without a token of everything the table was lost, and the copy takes its place. Where both differ, an invalidation got
/// into one of them only: a new token makes it hold, whichever was the later one.
fn reconcile(
    mut copy: HashMap<Vec<u8>, Vec<u8>>,
    everything: &mut Option<TokenHistory>,
    invalidation_ids: &mut InvalidationIds,
) -> Result<Vec<Change>> {
    let is_lost = everything.is_none() && copy.contains_key(EVERYTHING);
    let renewed = |copied: Option<&Vec<u8>>| match copied.and_then(|bytes| TokenHistory::decode(bytes)) {
        Some(history) if is_lost => Ok(history),
        _ => random_id().map(TokenHistory::starting),
    };
    let mut changes = Vec::new();
    let copied = copy.remove(EVERYTHING);
    if everything.as_ref().map(TokenHistory::encode) != copied {
        let history = renewed(copied.as_ref())?;
        changes.push(Change::put(TABLE, EVERYTHING, history.encode()));
        *everything = Some(history);
    }
    for (invalidation_id, history) in invalidation_ids.iter_mut() {
        let key = invalidation_id.0.to_le_bytes();
        let copied = copy.remove(&key[..]);
        if copied.as_ref() != Some(&history.encode()) {
            *history = renewed(copied.as_ref())?;
            changes.push(Change::put(TABLE, key, history.encode()));
        }
    }
    for (key, copied) in copy {
        let Ok(invalidation_id) = <[u8; 8]>::try_from(key.as_slice()) else { continue };
        let history = renewed(Some(&copied))?;
        changes.push(Change::put(TABLE, invalidation_id, history.encode()));
        invalidation_ids.insert(InvalidationId(u64::from_le_bytes(invalidation_id)), history);
    }
    Ok(changes)
}
