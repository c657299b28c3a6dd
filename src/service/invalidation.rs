//! Hides what is no longer true: by tags, keys, namespace, or everything.
//!
//! No tier is searched, except for keys and for counting: an entry whose stored tokens are not current is a miss.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::instrument;

use super::Objects;
use super::listing::{CountedGroups, EntryGroup, EntryKind, count_groups};
use super::objects::Address;
use crate::cache::{Freshness, Mode, Namespaces, Propagation, Tiers, Verdict};
use crate::domain::{EntryMeta, InvalidationId, NamespaceId, Principal, Tag};
use crate::error::{Error, Result};
use crate::metrics::{ByLabel, Counter, ModuleMetrics, Registry};

/// Tags or keys that one request may name.
pub const NAMES_MAX: usize = 1024;

/// What is to be hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Entries that carry any of these tags.
    Tags(Vec<Tag>),
    /// Objects under these keys of a namespace.
    Keys {
        /// The namespace.
        namespace: String,
        /// The keys.
        keys: Vec<String>,
    },
    /// All entries of a namespace.
    Namespace(String),
    /// Answers that an upstream has stored under this id, and may by now have deleted.
    UpstreamAnswer(String),
    /// All entries of the tenant.
    Everything,
}

/// Groups that one count may name.
pub const GROUPS_MAX: usize = 100;

/// Entries that an invalidation would hide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// In memory.
    pub memory: u64,
    /// On disk, as far as the disk tier can count. Entries that are in memory too are counted in both.
    pub disk: u64,
    /// The same by kind and namespace, at most [`GROUPS_MAX`] of them, the largest first; of smaller groups, those of one kind
    /// together. Objects named by their keys are in no group.
    pub groups: Vec<GroupCount>,
}

/// Entries of one kind in one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCount {
    /// Their namespace. `None` for those of several, and of one that the disk does not store.
    pub namespace: Option<NamespaceId>,
    /// What they are.
    pub kind: EntryKind,
    /// In memory.
    pub memory: u64,
    /// On disk.
    pub disk: u64,
}

/// A target with its names resolved.
enum Resolved {
    InvalidationIds(Vec<InvalidationId>),
    Namespace(NamespaceId),
    Objects(Vec<Address>),
    /// Everything of a tenant by its invalidation id, which the default tenant does not have.
    Everything(Option<InvalidationId>),
}

/// The use case. Shared by `Arc`.
pub struct Invalidation {
    objects: Arc<Objects>,
    namespaces: Arc<Namespaces>,
    tiers: Arc<Tiers>,
    freshness: Freshness,
    metrics: Arc<InvalidationMetrics>,
}

/// The metrics of invalidations.
#[derive(Debug)]
pub struct InvalidationMetrics {
    invalidations: ByLabel<Mode, Counter>,
}

impl ModuleMetrics for InvalidationMetrics {
    fn register(registry: &mut Registry) -> InvalidationMetrics {
        InvalidationMetrics { invalidations: registry.by_label("invalidations", "Invalidations", "mode") }
    }
}

impl Invalidation {
    /// A use case over all tiers.
    pub fn new(
        objects: Arc<Objects>,
        namespaces: Arc<Namespaces>,
        tiers: Arc<Tiers>,
        freshness: Freshness,
        metrics: Arc<InvalidationMetrics>,
    ) -> Invalidation {
        Invalidation { objects, namespaces, tiers, freshness, metrics }
    }

    /// Hides the target. What was stored before is not served once this returns, nor after any restart; what is being
    /// loaded from before is never admitted.
    ///
    /// # Errors
    /// `InvalidInput` for too many or malformed names, `NotFound` for an unknown namespace where namespaces are closed;
    /// then nothing changes. `Io`, `DiskFull`, `Unavailable` if the disk did not take it: then the target is hidden until
    /// the next start only.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn invalidate(
        &self,
        principal: &Principal,
        target: &Target,
        mode: Mode,
    ) -> Result<Propagation> {
        let tokens = self.freshness.tokens();
        let propagation = match self.resolve(principal, target)? {
            Resolved::InvalidationIds(invalidation_ids) => tokens.bump(&invalidation_ids, mode).await?,
            Resolved::Namespace(namespace) => tokens.bump(&[namespace.invalidation_id()], mode).await?,
            Resolved::Objects(addresses) => self.objects.invalidate(addresses, mode).await?,
            Resolved::Everything(None) => tokens.bump_everything(mode).await?,
            Resolved::Everything(Some(tenant)) => tokens.bump(&[tenant], mode).await?,
        };
        self.metrics.invalidations.with(mode).inc();
        Ok(propagation)
    }

    /// Counts what [`Invalidation::invalidate`] would hide, and hides nothing.
    ///
    /// Embeddings on disk do not store their namespace. They are counted for everything of the default tenant only, and
    /// then with those of other tenants.
    ///
    /// # Errors
    /// As for invalidating; `Io`, `Corrupt` if the disk cannot be read.
    ///
    /// Cost: visits every entry in memory and every object's head on disk, except for keys.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn count(&self, principal: &Principal, target: &Target) -> Result<Counts> {
        let resolved = self.resolve(principal, target)?;
        let has_unknown = matches!(resolved, Resolved::Everything(None));
        let is_meant: Arc<dyn Fn(&EntryMeta) -> bool + Send + Sync> = match resolved {
            Resolved::Objects(addresses) => {
                // The lookup promotes each entry it finds, so its former tier is not known.
                return Ok(Counts { memory: self.objects.count(&addresses).await, ..Counts::default() });
            }
            Resolved::InvalidationIds(invalidation_ids) => {
                Arc::new(move |meta| meta.tags.iter().any(|version| invalidation_ids.contains(&version.tag)))
            }
            Resolved::Namespace(namespace) => Arc::new(move |meta| meta.namespace == namespace),
            Resolved::Everything(tenant) => Arc::new(move |meta| meta.namespace.tenant() == tenant),
        };
        let freshness = self.freshness.clone();
        let is_chosen =
            Arc::new(move |meta: &EntryMeta| is_meant(meta) && freshness.judge(meta) != Verdict::Gone);
        let counted = count_groups(&self.tiers, &self.freshness, is_chosen).await?;
        Ok(Counts::of(&counted, if has_unknown { counted.unknown } else { 0 }))
    }

    fn resolve(&self, principal: &Principal, target: &Target) -> Result<Resolved> {
        let tenant = &principal.tenant;
        match target {
            Target::Tags(tags) => {
                check_count("tags", tags.len())?;
                Ok(Resolved::InvalidationIds(
                    tags.iter().map(|tag| InvalidationId::tag(tenant, tag)).collect(),
                ))
            }
            Target::Keys { namespace, keys } => {
                check_count("keys", keys.len())?;
                let address = |key: &String| self.objects.address(principal, namespace, key);
                keys.iter().map(address).collect::<Result<_>>().map(Resolved::Objects)
            }
            Target::Namespace(name) => Ok(Resolved::Namespace(self.namespaces.resolve(tenant, name)?.id)),
            Target::UpstreamAnswer(id) => {
                Ok(Resolved::InvalidationIds(vec![InvalidationId::upstream_answer(tenant, id)]))
            }
            Target::Everything => Ok(Resolved::Everything(NamespaceId::tenant_id_bits(tenant))),
        }
    }
}

impl Counts {
    /// `embeddings` are those on disk, whose namespace is not stored.
    fn of(counted: &CountedGroups, embeddings: u64) -> Counts {
        let mut sums: BTreeMap<EntryGroup, (u64, u64)> = BTreeMap::new();
        counted.memory.iter().for_each(|(group, count)| sums.entry(*group).or_default().0 += count.served);
        counted.disk.iter().for_each(|(group, count)| sums.entry(*group).or_default().1 += count.served);
        let group = |(group, (memory, disk)): (EntryGroup, (u64, u64))| GroupCount {
            namespace: Some(group.namespace),
            kind: group.kind,
            memory,
            disk,
        };
        let mut groups: Vec<GroupCount> = sums.into_iter().map(group).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.memory + group.disk));
        let mut small: BTreeMap<EntryKind, (u64, u64)> = BTreeMap::new();
        for group in groups.split_off(groups.len().min(GROUPS_MAX)) {
            let sum = small.entry(group.kind).or_default();
            *sum = (sum.0 + group.memory, sum.1 + group.disk);
        }
        if embeddings > 0 {
            small.entry(EntryKind::Embedding).or_default().1 += embeddings;
        }
        let rest = |(kind, (memory, disk))| GroupCount { namespace: None, kind, memory, disk };
        groups.extend(small.into_iter().map(rest));
        let sum = |of: fn(&GroupCount) -> u64| groups.iter().map(of).sum();
        Counts { memory: sum(|group| group.memory), disk: sum(|group| group.disk), groups }
    }
}

fn check_count(field: &'static str, count: usize) -> Result<()> {
    if (1..=NAMES_MAX).contains(&count) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{field} must have 1 to {NAMES_MAX} elements, got {count}")))
}
