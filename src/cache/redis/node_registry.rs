//! Which nodes share the Redis, and which of them has a collection.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;

use super::call_error::CallError;
use super::client::RedisClient;
use super::envelope::Envelope;
use super::keys::KeySpace;
use super::replies::number;
use super::script::LuaScript;
use crate::domain::Key;

static ANNOUNCE: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/announce.lua")));
static LOCATE: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/locate.lua")));
static HOLD: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/hold.lua")));
static RELEASE: LazyLock<LuaScript> = LazyLock::new(|| LuaScript::new(include_str!("scripts/release.lua")));

/// For calls that no request waits for.
const BACKGROUND_MAX: Duration = Duration::from_secs(1);
/// Nodes that Redis remembers; of more, those that were silent for longest are forgotten.
const NODES_MAX: usize = 256;
/// Collections of one call.
const HELD_AT_ONCE: usize = 256;

/// Which nodes share the Redis, and which of them has a collection. Clones share the connection.
#[derive(Clone)]
pub struct NodeRegistry {
    client: RedisClient,
    node: u64,
    envelope: Envelope,
}

/// A node as Redis knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredNode {
    /// Its id.
    pub id: u64,
    /// Since when it has been silent, by the clock of Redis.
    pub silent: Duration,
    /// What it has announced. Nothing if that is not authenticated, and has to be.
    pub report: Vec<u8>,
}

/// All nodes, as one that announces itself learns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredNodes {
    /// When the announcing node was seen before; 0 if it was not known. If that is earlier than Redis has said then, Redis has lost what it knew.
    pub seen_before_ms: u64,
    /// The time of Redis, in milliseconds since 1970.
    pub now_ms: u64,
    /// All nodes, the announcing one too.
    pub nodes: Vec<RegisteredNode>,
}

/// Where a collection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Whether the asking node is known. If not, Redis may have lost what it knew.
    pub is_asker_known: bool,
    /// The time of Redis, if the asking node has taken it now.
    pub taken_at_ms: Option<u64>,
    /// The node that has it.
    pub owner: Option<RegisteredNode>,
}

impl NodeRegistry {
    pub(in crate::cache) fn new(client: RedisClient, node: u64, envelope: Envelope) -> NodeRegistry {
        NodeRegistry { client, node, envelope }
    }

    /// This node.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// As [`RedisClient::server_number`].
    pub fn server_number(&self) -> u64 {
        self.client.server_number()
    }

    /// As [`RedisClient::response_max`].
    pub fn response_max(&self) -> Duration {
        self.client.response_max()
    }

    /// Announces this node, and returns all.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn announce(
        &self,
        report: Vec<u8>,
        forget_after: Duration,
    ) -> Result<RegisteredNodes, CallError> {
        let keys = self.client.keys();
        let (nodes, reports) = (keys.nodes(), keys.node_reports());
        let (id, forget_after_ms) = (hex(self.node), forget_after.as_millis().to_string());
        let (nodes_max, report) = (NODES_MAX.to_string(), self.envelope.seal_report(self.node, report));
        let arguments = [id.as_bytes(), &report, forget_after_ms.as_bytes(), nodes_max.as_bytes()];
        let reply = self.client.script(&ANNOUNCE, &[&nodes, &reports], &arguments, BACKGROUND_MAX).await?;
        self.registered(&reply).ok_or(CallError::NotConnected)
    }

    /// The node that has a collection. With `takes`, this node takes one that no node has.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn locate(&self, collection: &Key, takes: bool, limit: Duration) -> Result<Located, CallError> {
        let keys = self.client.keys();
        let names = [keys.collections(), keys.nodes(), keys.node_reports()];
        let id = hex(self.node);
        let takes: &[u8] = if takes { b"1" } else { b"0" };
        let arguments = [&collection.0[..], id.as_bytes(), takes];
        let names = names.each_ref().map(String::as_str);
        let reply = self.client.script(&LOCATE, &names, &arguments, limit).await?;
        self.located(&reply).ok_or(CallError::NotConnected)
    }

    /// Records the collections that this node has. Returns how many of them another node has too.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn hold(&self, collections: &[Key]) -> Result<u64, CallError> {
        let keys = self.client.keys();
        let (names, id) = ([keys.collections(), keys.nodes()], hex(self.node));
        let mut others = 0;
        for chunk in collections.chunks(HELD_AT_ONCE) {
            let arguments: Vec<&[u8]> =
                std::iter::once(id.as_bytes()).chain(chunk.iter().map(|key| &key.0[..])).collect();
            let names = names.each_ref().map(String::as_str);
            let reply = self.client.script(&HOLD, &names, &arguments, BACKGROUND_MAX).await?;
            others += unsigned(&reply).unwrap_or(0);
        }
        Ok(others)
    }

    /// Records that this node has a collection no longer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn release(&self, collection: &Key) -> Result<(), CallError> {
        let (names, id) = (self.client.keys().collections(), hex(self.node));
        let arguments = [id.as_bytes(), &collection.0[..]];
        self.client.script(&RELEASE, &[&names], &arguments, BACKGROUND_MAX).await.map(|_| ())
    }

    /// Publishes the keys that this node uses most, for so long.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn publish_hot_keys(&self, keys: &[u8], held: Duration) -> Result<(), CallError> {
        let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::cmd("SET");
        set.arg(self.client.keys().hot_keys(self.node)).arg(keys).arg("PX").arg(held_ms);
        self.client.command(&set, BACKGROUND_MAX).await.map(|_| ())
    }

    /// The keys that a node has published; nothing if there are none.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn hot_keys(&self, node: u64) -> Result<Vec<u8>, CallError> {
        let mut get = redis::cmd("GET");
        get.arg(self.client.keys().hot_keys(node));
        let reply = self.client.command(&get, BACKGROUND_MAX).await?;
        Ok(if let Value::BulkString(keys) = reply { keys } else { Vec::new() })
    }

    /// The number of the last event of each shard; none of a shard that cannot be read.
    pub async fn newest(&self) -> Vec<Option<u64>> {
        let keys: &KeySpace = self.client.keys();
        let read = |shard| {
            let mut get = redis::cmd("HGET");
            get.arg(keys.state(shard)).arg("seq");
            get
        };
        let replies = self.client.batch((0..keys.shards()).map(read).collect(), BACKGROUND_MAX).await;
        replies.into_iter().map(|reply| reply.ok().as_ref().and_then(unsigned)).collect()
    }
}

fn hex(node: u64) -> String {
    format!("{node:016x}")
}

fn unsigned(value: &Value) -> Option<u64> {
    number(value).and_then(|number| u64::try_from(number).ok())
}

impl NodeRegistry {
    /// A node of these three replies. A clock that was set back shows no silence.
    fn read_node(&self, id: &Value, silent_ms: &Value, report: &Value) -> Option<RegisteredNode> {
        let (Value::BulkString(id), Value::BulkString(report)) = (id, report) else { return None };
        let id = u64::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()?;
        let silent = Duration::from_millis(unsigned(silent_ms).unwrap_or(0));
        let report = self.envelope.open_report(id, report).unwrap_or_default().to_vec();
        Some(RegisteredNode { id, silent, report })
    }

    fn registered(&self, reply: &Value) -> Option<RegisteredNodes> {
        let Value::Array(parts) = reply else { return None };
        let [seen_before, now, Value::Array(nodes)] = parts.as_slice() else { return None };
        let of_reply = |reply: &Value| {
            let Value::Array(parts) = reply else { return None };
            let [id, silent_ms, report] = parts.as_slice() else { return None };
            self.read_node(id, silent_ms, report)
        };
        let nodes = nodes.iter().filter_map(of_reply).collect();
        Some(RegisteredNodes { seen_before_ms: unsigned(seen_before)?, now_ms: unsigned(now)?, nodes })
    }

    fn located(&self, reply: &Value) -> Option<Located> {
        let Value::Array(parts) = reply else { return None };
        let [is_known, taken_at, owner @ ..] = parts.as_slice() else { return None };
        let owner = match owner {
            [id, silent_ms, report] => Some(self.read_node(id, silent_ms, report)?),
            _ => None,
        };
        let taken_at_ms = unsigned(taken_at).filter(|&taken_at| taken_at > 0);
        Some(Located { is_asker_known: unsigned(is_known) == Some(1), taken_at_ms, owner })
    }
}
