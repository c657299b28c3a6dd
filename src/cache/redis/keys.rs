//! The names of keys in Redis. `docs/internals/redis-format.md` lists them with their types.

use std::fmt::Write as _;

use crate::domain::Key;

/// Shards of a cluster: the keys of one have one hash slot, so that a script can change them together.
const CLUSTER_SHARDS: u8 = 16;

/// The names of all keys of an installation.
#[derive(Debug, Clone)]
pub struct KeySpace {
    prefix: String,
    shards: u8,
}

impl KeySpace {
    /// Of an installation that has a cluster, or one server.
    pub(super) fn new(prefix: &str, is_cluster: bool) -> KeySpace {
        KeySpace { prefix: prefix.to_owned(), shards: if is_cluster { CLUSTER_SHARDS } else { 1 } }
    }

    /// How many shards there are: 16 in a cluster, otherwise one.
    pub fn shards(&self) -> u8 {
        self.shards
    }

    /// The shard of what is stored under a key. Other parts of a key choose its places in tables.
    pub fn shard_of(&self, key: &Key) -> u8 {
        key.0[30] % self.shards
    }

    /// Hash: sequence number and nonce of the last event of a shard.
    pub fn state(&self, shard: u8) -> String {
        self.of_shard(shard, "state")
    }

    /// Stream: the events of a shard.
    pub fn events(&self, shard: u8) -> String {
        self.of_shard(shard, "events")
    }

    /// Hash: the tokens of what was invalidated; in shard 0.
    pub fn tokens(&self) -> String {
        self.of_shard(0, "tokens")
    }

    /// Nothing is ever stored under this name: a script deletes it so that it may write when the server has reached `maxmemory`.
    pub fn unused(&self, shard: u8) -> String {
        self.of_shard(shard, "unused")
    }

    /// Sorted set: the ids of nodes by the time when they were seen.
    pub fn nodes(&self) -> String {
        self.of_shard(0, "nodes")
    }

    /// Hash: what each node has announced.
    pub fn node_reports(&self) -> String {
        self.of_shard(0, "reports")
    }

    /// Hash: the node that has each collection.
    pub fn collections(&self) -> String {
        self.of_shard(0, "collections")
    }

    /// Hash: what a client has said of a pair of questions, by the key of the pair.
    pub fn wrong_pairs(&self) -> String {
        self.of_shard(0, "pairs")
    }

    /// String: the keys that a node uses most.
    pub fn hot_keys(&self, node: u64) -> String {
        self.of_shard(0, &format!("hot:{node:016x}"))
    }

    /// String: an object or answer, in its shard.
    pub fn object(&self, key: &Key) -> String {
        self.of_shard(self.shard_of(key), &format!("o:{}", hex(key)))
    }

    /// String: the lease to make an object or answer, in its shard.
    pub fn lease(&self, key: &Key) -> String {
        self.of_shard(self.shard_of(key), &format!("l:{}", hex(key)))
    }

    /// String: an embedding. Those of a cluster are in all hash slots.
    pub fn embedding(&self, key: &Key) -> String {
        let mut name = String::with_capacity(self.prefix.len() + 3 + 64);
        _ = write!(name, "{}:v:{}", self.prefix, hex(key));
        name
    }

    /// String: the claim to make an embedding.
    pub fn embedding_claim(&self, key: &Key) -> String {
        format!("{}:f:{}", self.prefix, hex(key))
    }

    fn of_shard(&self, shard: u8, rest: &str) -> String {
        format!("{{{}:{shard}}}:{rest}", self.prefix)
    }
}

fn hex(key: &Key) -> blake3::Hash {
    blake3::Hash::from_bytes(key.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documents() {
        let (keys, key) = (KeySpace::new("p", false), Key([0xab; 32]));
        let hex = "ab".repeat(32);
        assert_eq!(keys.state(0), "{p:0}:state");
        assert_eq!(keys.events(0), "{p:0}:events");
        assert_eq!(keys.tokens(), "{p:0}:tokens");
        assert_eq!(keys.unused(0), "{p:0}:unused");
        assert_eq!(keys.nodes(), "{p:0}:nodes");
        assert_eq!(keys.node_reports(), "{p:0}:reports");
        assert_eq!(keys.hot_keys(0xab), "{p:0}:hot:00000000000000ab");
        assert_eq!(keys.collections(), "{p:0}:collections");
        assert_eq!(keys.wrong_pairs(), "{p:0}:pairs");
        assert_eq!(keys.object(&key), format!("{{p:0}}:o:{hex}"));
        assert_eq!(keys.lease(&key), format!("{{p:0}}:l:{hex}"));
        assert_eq!(keys.embedding_claim(&key), format!("p:f:{hex}"));
        assert_eq!(keys.embedding(&key), format!("p:v:{hex}"));
    }

    #[test]
    fn a_cluster_has_sixteen_shards_by_a_byte_of_the_key() {
        let keys = KeySpace::new("p", true);
        let mut key = Key([0; 32]);
        key.0[30] = 0x2f;
        assert_eq!((keys.shards(), keys.shard_of(&key)), (16, 15));
        assert!(keys.object(&key).starts_with("{p:15}:o:"));
        assert_eq!(KeySpace::new("p", false).shard_of(&key), 0);
    }
}
