//! What is cached: the namespaces, the entries of one, and the entries that carry a tag.
//!
//! Listing reads the tiers that store names, which is the disk; it looks into memory for counts only. It lists what a lookup would
//! serve: each entry passes the one judge of freshness, and none of another tenant is read. A page reads a bounded number of records.

mod counts;
mod kind;
mod namespaces;
mod page;
mod statistics;

use std::sync::Arc;

use tracing::instrument;

pub(super) use counts::{CountedGroups, count_groups};
pub use counts::{EntryGroup, TierCounts};
pub use kind::EntryKind;
pub use namespaces::{NAMESPACES_MAX, NamespaceSummary, TenantNamespaces};
pub use page::{ENTRIES_MAX, ListedEntry, Page, PageRequest};

pub use statistics::NamespaceStatistics;

use super::objects::Address;
pub use crate::cache::Position;
use crate::cache::{
    EntryScan, Freshness, Namespace, Namespaces, ScanRequest, ScanScope, ScannedEntry, Tiers, Verdict,
};
use crate::domain::{InvalidationId, NamespaceId, Principal, Tag, TenantId};
use crate::error::Result;

/// Records that one page reads at most.
const RECORDS_MAX: usize = 10_000;
/// Records that are read at a time: lookups of other requests come in between.
const PART_RECORDS: usize = 512;
/// The same of a page with a small limit.
const PART_RECORDS_MIN: usize = 64;
/// Bytes that a page has at most, but for its last entry.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The use case. Shared by `Arc`.
pub struct Listing {
    tiers: Arc<Tiers>,
    namespaces: Arc<Namespaces>,
    freshness: Freshness,
}

impl Listing {
    /// A use case over all tiers.
    pub fn new(tiers: Arc<Tiers>, namespaces: Arc<Namespaces>, freshness: Freshness) -> Listing {
        Listing { tiers, namespaces, freshness }
    }

    /// The entries of a namespace whose key begins with `prefix`, in the order of the disk. Answers have no key: an empty prefix
    /// lists them.
    ///
    /// # Errors
    /// `InvalidInput` for a bad name of a namespace, a limit out of range and a position elsewhere; `NotFound` for an unknown
    /// namespace where namespaces are closed; `Overloaded` if too many pages are being read; `Io`, `Corrupt`, `Unavailable` if the
    /// disk cannot be read.
    ///
    /// Cost: reads 10,000 records at most.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn keys(
        &self,
        principal: &Principal,
        namespace: &str,
        prefix: &str,
        request: &PageRequest,
    ) -> Result<Page> {
        let id = self.namespaces.resolve(&principal.tenant, namespace)?.id;
        let begins = |entry: &ScannedEntry| entry.names.key.starts_with(prefix);
        self.page(principal, ScanScope::Namespace(id), request, begins).await
    }

    /// The entry of an object. `None` if it is not on disk under its name, or would not be served.
    ///
    /// # Errors
    /// As [`Listing::keys`].
    pub async fn key(&self, principal: &Principal, address: &Address) -> Result<Option<ListedEntry>> {
        let found = self.tiers.named(address.key()).await?;
        Ok(found.and_then(|entry| self.judged(&principal.tenant, entry)))
    }

    /// The entries of a tenant that carry a tag.
    ///
    /// # Errors
    /// As [`Listing::keys`].
    ///
    /// Cost: reads 10,000 records at most, of all entries of the tenant.
    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    pub async fn tagged(&self, principal: &Principal, tag: &Tag, request: &PageRequest) -> Result<Page> {
        let id = InvalidationId::tag(&principal.tenant, tag);
        let scope = ScanScope::Tenant(NamespaceId::tenant_id_bits(&principal.tenant));
        let carries = |entry: &ScannedEntry| entry.meta.tags.iter().any(|version| version.tag == id);
        self.page(principal, scope, request, carries).await
    }

    /// Reads a page of those entries within `scope` that `is_wanted` and that would be served.
    async fn page(
        &self,
        principal: &Principal,
        scope: ScanScope,
        request: &PageRequest,
        is_wanted: impl Fn(&ScannedEntry) -> bool,
    ) -> Result<Page> {
        request.check(&scope)?;
        let mut page = Page { entries: Vec::new(), scanned: 0, bytes: 0, next: request.after };
        let records = request.limit.clamp(PART_RECORDS_MIN, PART_RECORDS);
        while page.scanned < RECORDS_MAX {
            let part = self.read(ScanRequest { scope, after: page.next, records }).await?;
            page.scanned += part.records;
            page.next = part.last;
            let mut entries = part.entries.into_iter();
            while let Some(entry) = entries.next() {
                let position = entry.position;
                let listed = if is_wanted(&entry) { self.judged(&principal.tenant, entry) } else { None };
                page.bytes += listed.as_ref().map_or(0, ListedEntry::bytes);
                page.entries.extend(listed);
                if page.entries.len() == request.limit || page.bytes >= PAGE_BYTES_MAX {
                    let is_end = page.next.is_none() && entries.len() == 0;
                    page.next = (!is_end).then_some(position);
                    return Ok(page);
                }
            }
            if page.next.is_none() {
                break;
            }
        }
        Ok(page)
    }

    /// The entry as a lookup would serve it now. `None` if no lookup would.
    fn judged(&self, tenant: &TenantId, entry: ScannedEntry) -> Option<ListedEntry> {
        let kind = EntryKind::of_named(&entry.names);
        let namespace = self.namespace_of(tenant, kind, &entry)?;
        let verdict = self.freshness.judge_within(&entry.meta, &namespace.policy);
        let now = self.freshness.now();
        match verdict {
            Verdict::Fresh | Verdict::Stale | Verdict::Unverified => Some(ListedEntry {
                kind,
                is_stale: verdict != Verdict::Fresh,
                age_seconds: now.since(entry.meta.created),
                ttl_seconds: entry.meta.expires.since(now),
                entry,
            }),
            Verdict::Expired | Verdict::Gone => None,
        }
    }

    /// The namespace in which a lookup finds the entry. `None` if there is none: the name is an alias by now, or unknown.
    fn namespace_of(&self, tenant: &TenantId, kind: EntryKind, entry: &ScannedEntry) -> Option<Namespace> {
        let name = &entry.names.namespace;
        let namespace = match kind {
            EntryKind::Answer => self.namespaces.of_answers(tenant, Some(name)),
            EntryKind::Object | EntryKind::Embedding | EntryKind::SearchResult => {
                self.namespaces.resolve(tenant, name)
            }
        };
        namespace.ok().filter(|namespace| namespace.id == entry.position.namespace())
    }

    async fn read(&self, request: ScanRequest) -> Result<EntryScan> {
        Ok(self.tiers.scan(request).await?.unwrap_or_default())
    }
}
