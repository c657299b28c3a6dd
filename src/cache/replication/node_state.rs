//! What a node that shares a Redis keeps across restarts: the table `node` of the small records.
//!
//! ```text
//! "id"                       node id[8]
//! "salt"                     salt of the entries on disk[8]
//! "cursor" shard[1]          number[8] nonce[8] of the last event that was applied, generation[8] of the values of the shard
//! ```

use std::sync::Arc;

use crate::cache::change_log::{NodeId, ShardState};
use crate::cache::random::random_id;
use crate::error::Result;
use crate::storage::le_bytes::u64_at;
use crate::storage::{Change, Records};

const TABLE: &str = "node";
const ID: &[u8] = b"id";
const SALT: &[u8] = b"salt";
const CURSOR: &[u8] = b"cursor";

/// The state of this node.
#[derive(Debug)]
pub(in crate::cache) struct NodeState {
    records: Arc<Records>,
    pub(in crate::cache) id: NodeId,
}

impl NodeState {
    /// The state among `records`, with a new id if there is none. Blocks.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Corrupt`.
    pub(in crate::cache) async fn open(records: Arc<Records>) -> Result<NodeState> {
        let known = records.get(TABLE, ID)?.and_then(|bytes| u64_at(&bytes, 0));
        let id = match known {
            Some(id) => id,
            None => {
                let id = random_id()?;
                records.put(TABLE, ID, &id.to_le_bytes()).await?;
                id
            }
        };
        Ok(NodeState { records, id: NodeId(id) })
    }

    /// The cursor of a shard; none if it was never followed. Blocks.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub(in crate::cache) fn cursor(&self, shard: u8) -> Result<Option<ShardState>> {
        Ok(self.records.get(TABLE, &cursor_key(shard))?.and_then(|bytes| ShardState::decode(&bytes)))
    }

    /// The salt of the entries on disk; 0 if they were never hidden. Blocks.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub(in crate::cache) fn salt(&self) -> Result<u64> {
        Ok(self.records.get(TABLE, SALT)?.and_then(|bytes| u64_at(&bytes, 0)).unwrap_or(0))
    }

    /// Draws a new salt and returns it once it is durable.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`.
    pub(in crate::cache) async fn renew_salt(&self) -> Result<u64> {
        let salt = random_id()?;
        self.records.put(TABLE, SALT, &salt.to_le_bytes()).await?;
        Ok(salt)
    }

    /// Queues changes together with the cursor as of which they are complete; waits for room in the queue. Those that are lost with the
    /// power are read again: no later cursor is durable before them.
    ///
    /// # Errors
    /// `Unavailable` once the records are closed.
    pub(in crate::cache) async fn write_soon(
        &self,
        shard: u8,
        state: ShardState,
        mut changes: Vec<Change>,
    ) -> Result<()> {
        changes.push(Change::put(TABLE, cursor_key(shard), state.encode()));
        self.write_records_soon(changes).await
    }

    /// Queues changes without a cursor; waits for room in the queue.
    ///
    /// # Errors
    /// `Unavailable` once the records are closed.
    pub(in crate::cache) async fn write_records_soon(&self, changes: Vec<Change>) -> Result<()> {
        let room = self.records.reserve(changes.iter().map(Change::bytes).sum()).await?;
        // They are made also if no caller waits.
        let _ = self.records.submit(room, changes)?;
        Ok(())
    }

    /// As [`NodeState::write_soon`], and returns when they are durable.
    ///
    /// # Errors
    /// `Io`, `DiskFull`, `Unavailable`.
    pub(in crate::cache) async fn write(
        &self,
        shard: u8,
        state: ShardState,
        mut changes: Vec<Change>,
    ) -> Result<()> {
        changes.push(Change::put(TABLE, cursor_key(shard), state.encode()));
        self.records.write(changes).await
    }
}

fn cursor_key(shard: u8) -> Vec<u8> {
    [CURSOR, &[shard]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::change_log::LogCursor;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_keeps_its_id_its_cursors_and_its_salt() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(Records::open(dir.path()).unwrap());
        let state = NodeState::open(open()).await.unwrap();
        assert_eq!((state.cursor(0).unwrap(), state.salt().unwrap()), (None, 0));
        let cursor = LogCursor { number: 3, nonce: 4 };
        let cursor = ShardState { cursor, generation: 5 };
        state.write(2, cursor, Vec::new()).await.unwrap();
        let (id, salt) = (state.id, state.renew_salt().await.unwrap());
        state.records.shutdown();
        drop(state);
        let state = NodeState::open(open()).await.unwrap();
        assert_eq!((state.id, state.salt().unwrap()), (id, salt));
        assert_eq!((state.cursor(0).unwrap(), state.cursor(2).unwrap()), (None, Some(cursor)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_cursor_covers_waits_for_room_instead_of_being_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(Records::open(dir.path()).unwrap());
        let state = NodeState::open(open()).await.unwrap();
        let all_room = state.records.reserve(usize::MAX).await.unwrap();
        let cursor = LogCursor { number: 3, nonce: 4 };
        let cursor = ShardState { cursor, generation: 5 };
        let covered = vec![Change::put("versions", *b"covered", b"it".to_vec())];
        let mut written = Box::pin(state.write_soon(0, cursor, covered));
        assert!(futures_util::poll!(&mut written).is_pending());
        drop(all_room);
        written.await.unwrap();
        state.records.shutdown();
        drop(state);
        let state = NodeState::open(open()).await.unwrap();
        assert_eq!(state.cursor(0).unwrap(), Some(cursor));
        assert_eq!(state.records.get("versions", b"covered").unwrap().as_deref(), Some(&b"it"[..]));
    }
}
