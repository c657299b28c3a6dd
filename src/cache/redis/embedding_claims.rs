//! Which node embeds a text: a claim in Redis that ends by itself.
//!
//! Embeddings are immutable under their key, so two nodes that embed one text store the same vector: a claim that is lost costs time
//! only, and nothing has to be fenced.

use std::time::Duration;

use redis::{Cmd, Value};

use super::client::RedisClient;
use crate::domain::Key;

/// How long a claim lasts whose node has died.
const LASTS: Duration = Duration::from_secs(5);
/// Each so many keys, a call may take the time of one more answer.
const KEYS_PER_LIMIT: usize = 512;

/// The claims of this node. Shared by `Arc`.
pub struct EmbeddingClaims {
    client: RedisClient,
}

impl EmbeddingClaims {
    /// Of a node with this connection.
    pub(in crate::cache) fn new(client: RedisClient) -> EmbeddingClaims {
        EmbeddingClaims { client }
    }

    /// So often a claim has to be renewed.
    pub const RENEWED_EVERY: Duration = Duration::from_millis(1500);

    /// Claims keys. Returns, in their order, whether this node makes the embedding: also if Redis cannot be asked.
    pub async fn claim(&self, keys: &[Key]) -> Vec<bool> {
        let set = |key: &Key| {
            let mut set = redis::cmd("SET");
            set.arg(self.name(key)).arg("1").arg("NX").arg("PX").arg(millis(LASTS));
            set
        };
        let replies = self.call(keys, set).await;
        replies.into_iter().map(|reply| !matches!(reply, Some(Value::Nil))).collect()
    }

    /// Lets claims last from now on.
    pub async fn renew(&self, keys: &[Key]) {
        let expire = |key: &Key| {
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(self.name(key)).arg(millis(LASTS));
            expire
        };
        self.call(keys, expire).await;
    }

    /// Ends claims without an embedding: another node may make it at once.
    pub async fn end(&self, keys: &[Key]) {
        let unlink = |key: &Key| {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(self.name(key));
            unlink
        };
        self.call(keys, unlink).await;
    }

    fn name(&self, key: &Key) -> String {
        self.client.keys().embedding_claim(key)
    }

    async fn call(&self, keys: &[Key], command: impl Fn(&Key) -> Cmd) -> Vec<Option<Value>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let times = u32::try_from(1 + keys.len() / KEYS_PER_LIMIT).unwrap_or(u32::MAX);
        let limit = self.client.response_max() * times;
        let replies = self.client.batch(keys.iter().map(command).collect(), limit).await;
        replies.into_iter().map(Result::ok).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
