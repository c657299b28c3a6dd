//! What is used most: published for nodes that begin with an empty memory, and read by this one when it begins.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::directory::{Nodes, RegistryParts};
use crate::cache::{Cache, HotKey, HotKeys, Namespaces, Tiers};
use crate::domain::{Key, TierName};
use crate::error::Result;

/// Hits that are sampled between two heartbeats.
const SAMPLED_HITS: usize = 256;
/// Heartbeats between two lists.
const HEARTBEATS_PER_LIST: u32 = 30;
/// For how many such times Redis holds a list: a node that has ended is remembered for as long.
const LISTS_HELD: u32 = 20;
/// Nodes whose lists are read: those that were seen last.
const LISTS_MAX: usize = 8;
/// Keys that are looked up at once, and the pause behind them: clients' requests come first.
const KEYS_AT_ONCE: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Where hot entries are, and where they are looked for.
#[derive(Clone)]
pub struct WarmUp {
    /// Whose hits are sampled.
    pub tiers: Arc<Tiers>,
    /// The cache of embeddings.
    pub embeddings: Arc<Cache>,
    /// The cache of objects and answers.
    pub objects: Arc<Cache>,
    /// The policies of entries.
    pub namespaces: Arc<Namespaces>,
}

impl Nodes {
    /// Takes into memory what other nodes use most, and publishes what this one does, until the last owner drops these nodes.
    /// Must be called within a runtime. Requests are served meanwhile.
    pub fn warm_up(self: &Arc<Self>, parts: WarmUp) {
        if self.shared.is_some() && self.options.warm_keys_max > 0 {
            tokio::spawn(run(Arc::downgrade(self), parts));
        }
    }

    /// The keys that other nodes use most, those of all ranks first that are first on any list. `None` while these cannot be known.
    async fn hot_keys(&self, shared: &RegistryParts) -> Result<Option<Vec<HotKey>>> {
        // Before it is trusted, a node does not believe what Redis has.
        if !shared.is_trusted() {
            return Ok(None);
        }
        let Some(nodes) = self.seen_last(LISTS_MAX) else { return Ok(None) };
        let mut lists = Vec::new();
        for node in nodes {
            lists.push(HotKey::decode(&shared.registry.hot_keys(node).await?));
        }
        Ok(Some(merged(&lists, self.options.warm_keys_max)))
    }

    /// Looks entries up, at a bounded rate; those that are found are in memory then. Returns how many these are.
    async fn fetch_hot(&self, parts: &WarmUp, keys: &[HotKey]) -> usize {
        let mut found = 0;
        for chunk in keys.chunks(KEYS_AT_ONCE) {
            let mut groups: BTreeMap<_, Vec<Key>> = BTreeMap::new();
            for hot in chunk {
                groups.entry((hot.is_embedding, hot.namespace)).or_default().push(hot.key);
            }
            for ((is_embedding, namespace), keys) in groups {
                let cache = if is_embedding { &parts.embeddings } else { &parts.objects };
                let Some(namespace) = parts.namespaces.of_id(namespace, is_embedding) else { continue };
                found += cache.fetch(&namespace, &keys).await.iter().flatten().count();
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.metrics.warmed_entries.inc_by(found as u64);
        found
    }

    async fn publish_hot(&self, shared: &RegistryParts, parts: &WarmUp, hot: &mut HotKeys) {
        let is_shared = |hot: &HotKey| {
            let namespace = parts.namespaces.of_id(hot.namespace, hot.is_embedding);
            namespace.is_some_and(|namespace| namespace.policy.uses(TierName::Redis))
        };
        let keys: Vec<HotKey> = hot.rank(usize::MAX).into_iter().filter(is_shared).collect();
        let keys = &keys[..keys.len().min(self.options.warm_keys_max)];
        let held = self.options.heartbeat() * HEARTBEATS_PER_LIST * LISTS_HELD;
        if keys.is_empty() {
            return;
        }
        if let Err(error) = shared.registry.publish_hot_keys(&HotKey::encode(keys), held).await {
            tracing::debug!(%error, "the keys that this node uses most are not published");
        }
    }
}

/// One list of several, each key once: the first of each, the second of each, and so on.
fn merged(lists: &[Vec<HotKey>], keys_max: usize) -> Vec<HotKey> {
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let by_rank = (0..longest).flat_map(|rank| lists.iter().filter_map(move |list| list.get(rank)));
    let mut seen = HashSet::new();
    by_rank.filter(|hot| seen.insert(**hot)).take(keys_max).copied().collect()
}

async fn run(nodes: Weak<Nodes>, parts: WarmUp) {
    let (mut hot, mut heartbeats, mut is_warm) = (HotKeys::default(), 0, false);
    loop {
        let Some(nodes) = nodes.upgrade() else { return };
        let Some(shared) = &nodes.shared else { return };
        // A failure is tried again with the next heartbeat.
        if !is_warm && let Ok(Some(keys)) = nodes.hot_keys(shared).await {
            let found = nodes.fetch_hot(&parts, &keys).await;
            tracing::info!(keys = keys.len(), found, "took into memory what other nodes use most");
            is_warm = true;
        }
        hot.add(parts.tiers.sample_hits(SAMPLED_HITS));
        heartbeats += 1;
        if heartbeats % HEARTBEATS_PER_LIST == 0 {
            nodes.publish_hot(shared, &parts, &mut hot).await;
        }
        let pause = nodes.options.heartbeat();
        drop(nodes);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NamespaceId;

    fn hot(n: u8) -> HotKey {
        HotKey { key: Key([n; 32]), namespace: NamespaceId::default(), is_embedding: true }
    }

    #[test]
    fn lists_are_merged_by_rank_and_each_key_is_there_once() {
        let lists = [vec![hot(1), hot(2), hot(3)], vec![hot(4), hot(1)], vec![]];
        assert_eq!(merged(&lists, 9), [1, 4, 2, 3].map(hot));
        assert_eq!(merged(&lists, 2), [1, 4].map(hot));
        assert!(merged(&[], 9).is_empty());
    }
}
