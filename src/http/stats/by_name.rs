//! Lookups by namespace and by model.

use serde::Serialize;
use utoipa::ToSchema;

use crate::cache::{CounterId, LookupCounters, OutcomeCounts};
use crate::domain::TenantId;
use crate::service::listing::NamespaceStatistics;
use crate::service::{Answers, Embeddings};

/// Lookups and entries of a namespace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NamespaceStats {
    /// Its name. Absent for all others together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    #[serde(flatten)]
    lookups: LookupStats,
    /// Entries on disk, ended and invalidated ones included; embeddings there store no namespace and are not counted.
    entries: u64,
    /// What they take of the budget.
    bytes: u64,
}

/// Requests by the model that they name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelLookups {
    /// Requested texts.
    embeddings: Vec<ModelLookup>,
    /// Requests that got an answer.
    answers: Vec<ModelLookup>,
}

/// Requests that name a model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelLookup {
    /// Its name. Absent for all others together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    #[serde(flatten)]
    lookups: LookupStats,
}

/// Lookups by outcome.
#[derive(Debug, Serialize, ToSchema)]
struct LookupStats {
    /// Found fresh.
    hits: u64,
    /// Found stale, and served.
    stale: u64,
    /// Not found.
    misses: u64,
    /// Served by work for another request.
    coalesced: u64,
    /// The cache was bypassed.
    bypassed: u64,
}

impl LookupStats {
    fn of(counts: OutcomeCounts) -> LookupStats {
        let OutcomeCounts { hits, stale, misses, coalesced, bypassed } = counts;
        LookupStats { hits, stale, misses, coalesced, bypassed }
    }
}

impl NamespaceStats {
    pub(super) fn of(statistics: NamespaceStatistics) -> NamespaceStats {
        let NamespaceStatistics { name, lookups, entries, bytes } = statistics;
        let name = name.map(|name| name.as_ref().to_owned());
        NamespaceStats { name, lookups: LookupStats::of(lookups), entries, bytes }
    }
}

impl ModelLookups {
    pub(super) fn of(tenant: &TenantId, embeddings: &Embeddings, answers: &Answers) -> ModelLookups {
        ModelLookups {
            embeddings: ModelLookup::all(tenant, embeddings.lookups_by_model()),
            answers: ModelLookup::all(tenant, answers.lookups_by_model()),
        }
    }
}

impl ModelLookup {
    /// Those of the tenant sorted by name, then those of all names without a place, of all tenants.
    fn all(tenant: &TenantId, counters: &LookupCounters) -> Vec<ModelLookup> {
        let of = |name, counts| ModelLookup { name, lookups: LookupStats::of(counts) };
        let own = counters.named().filter(|(id, name, _)| *id == CounterId::of_model(tenant, name));
        let named = own.map(|(_, name, counts)| of(Some(name.as_ref().to_owned()), counts));
        let mut all: Vec<ModelLookup> = named.collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.push(of(None, counters.others()));
        all
    }
}
