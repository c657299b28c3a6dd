//! All tiers of all kinds of values, for those who count and those who stop.

use std::sync::Arc;

use super::{Cache, Choice, EntryScan, HotKey, MemoryTier, ScanRequest, ScannedEntry, TierStats};
use crate::domain::{Key, TierName};
use crate::error::Result;
use crate::storage::objects::NamespaceCount;

/// The memory tier, which all kinds share, and the caches of each kind. Shared by `Arc`.
pub struct Tiers {
    memory: Arc<MemoryTier>,
    caches: Vec<Arc<Cache>>,
}

impl Tiers {
    /// The tiers of `caches`, which stand on `memory`.
    pub fn new(memory: Arc<MemoryTier>, caches: Vec<Arc<Cache>>) -> Tiers {
        Tiers { memory, caches }
    }

    /// Numbers of every tier, memory first; those of one name are added up.
    pub fn stats(&self) -> Vec<(TierName, TierStats)> {
        let mut all = vec![(TierName::Memory, self.memory.stats())];
        for (name, stats) in self.caches.iter().flat_map(|cache| cache.stats_below()) {
            match all.iter_mut().find(|(known, _)| *known == name) {
                None => all.push((name, stats)),
                Some((_, sum)) => {
                    *sum = TierStats {
                        entries: sum.entries + stats.entries,
                        bytes: sum.bytes + stats.bytes,
                        bytes_max: sum.bytes_max + stats.bytes_max,
                        is_on: sum.is_on && stats.is_on,
                    };
                }
            }
        }
        all
    }

    /// As [`MemoryTier::count_uses`].
    pub fn count_uses(&self) {
        self.memory.count_uses();
    }

    /// As [`MemoryTier::hottest`].
    pub fn hottest(
        &self,
        keys_max: usize,
        uses_min: u8,
        choice: &mut dyn FnMut(&HotKey) -> bool,
    ) -> Vec<HotKey> {
        self.memory.hottest(keys_max, uses_min, choice)
    }

    /// Whether memory has an entry of a key, of any age. It is not counted as a lookup.
    pub fn is_in_memory(&self, key: &Key) -> bool {
        self.memory.namespace_of(key).is_some()
    }

    /// Whether entries take more than a share of the memory tier's budget.
    pub fn is_memory_filled(&self, share: f64) -> bool {
        let stats = self.memory.stats();
        stats.bytes as f64 > stats.bytes_max as f64 * share
    }

    /// How many entries in memory are chosen. Visits all of them, on a thread for blocking work.
    pub async fn count_memory(&self, choice: Choice) -> u64 {
        let memory = Arc::clone(&self.memory);
        tokio::task::spawn_blocking(move || memory.count(&*choice)).await.unwrap_or(0)
    }

    /// As [`Cache::count_below`], for all kinds.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if a tier cannot be read.
    pub async fn count_below(&self, choice: &Choice) -> Result<(u64, u64)> {
        let (mut chosen, mut unknown) = (0, 0);
        for cache in &self.caches {
            let (of_these, of_those) = cache.count_below(choice).await?;
            chosen += of_these;
            unknown += of_those;
        }
        Ok((chosen, unknown))
    }

    /// Reads a part of a scan over the first tier that stores names. `None` without such a tier.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if the tier cannot be read; `Unavailable` once it is off.
    pub async fn scan(&self, request: ScanRequest) -> Result<Option<EntryScan>> {
        for cache in &self.caches {
            if let Some(scan) = cache.scan(request).await? {
                return Ok(Some(scan));
            }
        }
        Ok(None)
    }

    /// The entry of a key as a scan meets it.
    ///
    /// # Errors
    /// As [`Tiers::scan`].
    pub async fn named(&self, key: Key) -> Result<Option<ScannedEntry>> {
        for cache in &self.caches {
            if let Some(entry) = cache.named(key).await? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The namespaces that have entries below memory, in no order.
    pub fn namespaces_below(&self) -> Vec<NamespaceCount> {
        self.caches.iter().flat_map(|cache| cache.namespaces_below()).collect()
    }

    /// Makes everything that was stored survive a loss of power.
    pub async fn flush(&self) {
        for cache in &self.caches {
            cache.flush().await;
        }
    }
}
