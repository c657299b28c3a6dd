//! The namespaces of a tenant.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tracing::instrument;

use super::counts::{CountedGroups, TierCounts, count_groups};
use super::{Listing, PART_RECORDS};
use crate::cache::{NamespaceCount, ScanRequest, ScanScope};
use crate::domain::{EntryMeta, NamespaceId, Principal, TenantId};
use crate::error::Result;

/// Namespaces that one list may name.
pub const NAMESPACES_MAX: usize = 1000;

/// The namespaces of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantNamespaces {
    /// Those with a name, in its order: the declared ones, and those with most entries on disk.
    pub named: Vec<NamespaceSummary>,
    /// All others together: those beyond [`NAMESPACES_MAX`], and those whose name no entry on disk has. `None` without entries.
    pub others: Option<NamespaceSummary>,
}

/// The entries of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceSummary {
    /// Its name.
    pub name: Arc<str>,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// Whether the configuration or the program declares it.
    pub is_declared: bool,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Entries on disk. Embeddings there do not store their namespace.
    pub disk: TierCounts,
    /// Entries in memory; one that is also on disk is counted in both.
    pub memory: TierCounts,
}

impl NamespaceSummary {
    fn add(&mut self, other: &NamespaceSummary) {
        self.disk_bytes += other.disk_bytes;
        self.disk.add(other.disk);
        self.memory.add(other.memory);
    }
}

impl TierCounts {
    fn add(&mut self, other: TierCounts) {
        self.served += other.served;
        self.ended += other.ended;
        self.invalidated += other.invalidated;
    }

    /// All of them.
    pub fn total(self) -> u64 {
        self.served + self.ended + self.invalidated
    }
}

impl Listing {
    /// The namespaces of a tenant with their entries.
    ///
    /// # Errors
    /// `Overloaded` if too many pages are being read; `Io`, `Corrupt`, `Unavailable` if the disk cannot be read.
    ///
    /// Cost: visits every entry in memory and every head on disk, and looks up the names of at most [`NAMESPACES_MAX`].
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn namespaces(&self, principal: &Principal) -> Result<TenantNamespaces> {
        let tenant = NamespaceId::tenant_id_bits(&principal.tenant);
        let is_own = Arc::new(move |meta: &EntryMeta| meta.namespace.tenant() == tenant);
        let counted = count_groups(&self.tiers, &self.freshness, is_own).await?;
        let bytes = self.tiers.namespaces_below().into_iter().filter(|count| count.id.tenant() == tenant);
        let mut summaries = summaries(&counted, bytes);
        let mut list = TenantNamespaces::default();
        for (name, aliases) in self.namespaces.declared() {
            let id = NamespaceId::of(&principal.tenant, &name);
            let counted = summaries.remove(&id).unwrap_or_default();
            list.named.push(NamespaceSummary { name, aliases, is_declared: true, ..counted });
        }
        let mut open: Vec<_> = summaries.into_iter().collect();
        open.sort_by_key(|(id, summary)| (std::cmp::Reverse(summary.disk.total()), *id));
        for (id, summary) in open {
            let has_room = list.named.len() < NAMESPACES_MAX && summary.disk.total() > 0;
            match if has_room { self.stored_name(id, &principal.tenant).await? } else { None } {
                Some(name) => list.named.push(NamespaceSummary { name, ..summary }),
                None => list.others.get_or_insert_default().add(&summary),
            }
        }
        list.named.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// The names of namespaces, as far as they are declared or an entry on disk has them. The first name that the disk cannot be
    /// read for ends the search: the others have none.
    pub async fn names_of(
        &self,
        principal: &Principal,
        ids: impl IntoIterator<Item = NamespaceId>,
    ) -> HashMap<NamespaceId, Arc<str>> {
        let declared = self.namespaces.declared();
        let mut names: HashMap<NamespaceId, Arc<str>> =
            declared.map(|(name, _)| (NamespaceId::of(&principal.tenant, &name), name)).collect();
        for id in ids {
            if names.contains_key(&id) {
                continue;
            }
            match self.stored_name(id, &principal.tenant).await {
                Ok(name) => names.extend(name.map(|name| (id, name))),
                Err(error) => {
                    tracing::debug!(%error, "cannot look up names of namespaces");
                    break;
                }
            }
        }
        names
    }

    /// The name of a namespace as its first entry on disk has it.
    async fn stored_name(&self, id: NamespaceId, tenant: &TenantId) -> Result<Option<Arc<str>>> {
        let scope = ScanScope::Namespace(id);
        let mut records = 1;
        let mut after = None;
        loop {
            let part = self.read(ScanRequest { scope, after, records }).await?;
            let found = part.entries.into_iter().map(|entry| entry.names.namespace);
            let name = found.into_iter().find(|name| NamespaceId::of(tenant, name) == id);
            if name.is_some() || part.last.is_none() || records > PART_RECORDS {
                return Ok(name);
            }
            // The first entry may be one that is being removed.
            (after, records) = (part.last, records * 16);
        }
    }
}

fn summaries(
    counted: &CountedGroups,
    bytes: impl Iterator<Item = NamespaceCount>,
) -> BTreeMap<NamespaceId, NamespaceSummary> {
    let mut summaries: BTreeMap<NamespaceId, NamespaceSummary> = BTreeMap::new();
    for (group, counts) in &counted.disk {
        summaries.entry(group.namespace).or_default().disk.add(*counts);
    }
    for (group, counts) in &counted.memory {
        summaries.entry(group.namespace).or_default().memory.add(*counts);
    }
    for count in bytes {
        summaries.entry(count.id).or_default().disk_bytes = count.bytes;
    }
    summaries
}
