//! What is used most: published for nodes that begin with an empty memory, and read by this one when it begins.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use super::directory::{Nodes, RegistryParts};
use crate::cache::{HotKey, ReadPace, WarmUp};
use crate::domain::TierName;
use crate::error::Result;

/// Keys without a use in the last minutes are in no list.
const USES_MIN: u8 = 1;
/// Heartbeats between two lists.
const HEARTBEATS_PER_LIST: u32 = 30;
/// For how many such times Redis holds a list: a node that has ended is remembered for as long.
const LISTS_HELD: u32 = 20;
/// Nodes whose lists are read: those that were seen last.
const LISTS_MAX: usize = 8;

impl Nodes {
    /// Takes into memory what other nodes use most, and publishes what this one does, until the last owner drops these nodes.
    /// Must be called within a runtime. Requests are served meanwhile.
    pub fn warm_up(self: &Arc<Self>, warm_up: WarmUp) {
        if self.shared.is_some() && self.options.warm_keys_max > 0 {
            warm_up.tiers.count_uses();
            tokio::spawn(run(Arc::downgrade(self), warm_up));
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

    async fn publish_hot(&self, shared: &RegistryParts, warm_up: &WarmUp) {
        let keys = warm_up.hottest(self.options.warm_keys_max, TierName::Redis, USES_MIN).await;
        let held = self.options.heartbeat() * HEARTBEATS_PER_LIST * LISTS_HELD;
        if keys.is_empty() {
            return;
        }
        if let Err(error) = shared.registry.publish_hot_keys(&HotKey::encode(&keys), held).await {
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

async fn run(nodes: Weak<Nodes>, warm_up: WarmUp) {
    let (mut heartbeats, mut is_warm) = (0, false);
    loop {
        let Some(nodes) = nodes.upgrade() else { return };
        let Some(shared) = &nodes.shared else { return };
        // A failure is tried again with the next heartbeat.
        if !is_warm && let Ok(Some(keys)) = nodes.hot_keys(shared).await {
            let found = warm_up.fetch(&keys, ReadPace::REDIS, &nodes.metrics.warmed_entries).await;
            tracing::info!(keys = keys.len(), found, "took into memory what other nodes use most");
            is_warm = true;
        }
        heartbeats += 1;
        if heartbeats % HEARTBEATS_PER_LIST == 0 {
            nodes.publish_hot(shared, &warm_up).await;
        }
        let pause = nodes.options.heartbeat();
        drop(nodes);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Key, NamespaceId};

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
