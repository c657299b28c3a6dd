//! Counts of entries by kind and namespace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::kind::EntryKind;
use crate::cache::{Choice, Freshness, Tiers, Verdict};
use crate::domain::{EntryMeta, NamespaceId};
use crate::error::Result;
use crate::sync::lock;

/// Entries of one kind in one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryGroup {
    /// The namespace.
    pub namespace: NamespaceId,
    /// What they are.
    pub kind: EntryKind,
}

/// How many entries there are in a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierCounts {
    /// Those that a lookup may serve, also if only for an origin that fails.
    pub served: u64,
    /// Those whose lifetime has ended.
    pub ended: u64,
    /// Those that were invalidated.
    pub invalidated: u64,
}

/// The groups of a tier.
pub(in crate::service) type Groups = HashMap<EntryGroup, TierCounts>;

/// Counts entries that are chosen, group by group.
///
/// # Errors
/// `Io`, `Corrupt` if a tier cannot be read.
///
/// Cost: visits every entry in memory and every head on disk.
pub(in crate::service) async fn count_groups(
    tiers: &Tiers,
    freshness: &Freshness,
    is_chosen: Arc<dyn Fn(&EntryMeta) -> bool + Send + Sync>,
) -> Result<CountedGroups> {
    let [memory, disk] = [(); 2].map(|()| Arc::new(Mutex::new(Groups::new())));
    let (_, unknown) = tiers.count_below(&tally(freshness, &is_chosen, &disk)).await?;
    tiers.count_memory(tally(freshness, &is_chosen, &memory)).await;
    let [memory, disk] = [memory, disk].map(|groups| std::mem::take(&mut *lock(&groups)));
    Ok(CountedGroups { memory, disk, unknown })
}

/// The groups of all tiers.
#[derive(Debug)]
pub(in crate::service) struct CountedGroups {
    pub(in crate::service) memory: Groups,
    pub(in crate::service) disk: Groups,
    /// Entries on tiers that do not store what groups are made of.
    pub(in crate::service) unknown: u64,
}

/// A choice that chooses nothing, and counts what it sees.
fn tally(
    freshness: &Freshness,
    is_chosen: &Arc<dyn Fn(&EntryMeta) -> bool + Send + Sync>,
    groups: &Arc<Mutex<Groups>>,
) -> Choice {
    let (freshness, is_chosen, groups) = (freshness.clone(), Arc::clone(is_chosen), Arc::clone(groups));
    Arc::new(move |meta| {
        if is_chosen(meta) {
            let group = EntryGroup { namespace: meta.namespace, kind: EntryKind::of(meta) };
            lock(&groups).entry(group).or_default().count(&freshness, meta);
        }
        false
    })
}

impl TierCounts {
    fn count(&mut self, freshness: &Freshness, meta: &EntryMeta) {
        let counter = match freshness.judge(meta) {
            Verdict::Fresh | Verdict::Stale | Verdict::Unverified | Verdict::Expired => &mut self.served,
            Verdict::Gone if freshness.is_revoked(meta) => &mut self.invalidated,
            Verdict::Gone => &mut self.ended,
        };
        *counter += 1;
    }
}
