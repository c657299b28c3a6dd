//! The table of all collections: by tenant and name the generations of each, and which of them is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::collection::Collection;
use super::generation::FIRST;
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};

/// The generations of one collection.
#[derive(Debug, Default)]
pub(super) struct CollectionGenerations(BTreeMap<u32, Result<Arc<Collection>>>);

impl CollectionGenerations {
    pub(super) fn insert(&mut self, number: u32, opened: Result<Arc<Collection>>) {
        self.0.insert(number, opened);
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.0.remove(&number);
    }

    /// The generation that is served.
    ///
    /// # Errors
    /// Why it cannot be served. One that cannot be opened may be the one that was activated last: then none is served.
    pub(super) fn served(&self) -> Result<&Arc<Collection>> {
        if let Some(damaged) = self.0.values().find_map(|opened| opened.as_ref().err()) {
            return Err(damaged.clone());
        }
        let activated = self.0.values().flatten().filter(|opened| opened.activation().is_some());
        activated
            .max_by_key(|opened| opened.activation())
            .ok_or_else(|| Error::new(Kind::Corrupt, "no generation of the collection was ever activated"))
    }

    /// A generation, if it is open.
    pub(super) fn get(&self, number: u32) -> Option<&Arc<Collection>> {
        self.0.get(&number)?.as_ref().ok()
    }

    /// Those that are open.
    pub(super) fn opened(&self) -> impl Iterator<Item = (u32, &Arc<Collection>)> {
        self.0.iter().filter_map(|(number, opened)| Some((*number, opened.as_ref().ok()?)))
    }

    /// All numbers, the one that is served last: removed in this order, no other one is ever served.
    pub(super) fn removal_order(&self) -> Vec<u32> {
        let served = self.served().ok().map(|served| served.number());
        let mut numbers: Vec<u32> = self.0.keys().copied().collect();
        numbers.sort_by_key(|number| Some(*number) == served);
        numbers
    }

    /// The number of the next generation.
    pub(super) fn next_number(&self) -> u32 {
        self.0.keys().max().map_or(FIRST, |last| last + 1)
    }
}

/// The collections of one tenant by name.
type TenantCollections = BTreeMap<String, CollectionGenerations>;

/// The collections of all tenants.
#[derive(Debug, Default)]
pub(super) struct CollectionTable(BTreeMap<TenantId, TenantCollections>);

impl CollectionTable {
    pub(super) fn get(&self, tenant: &TenantId, name: &str) -> Option<&CollectionGenerations> {
        self.0.get(tenant)?.get(name)
    }

    /// The generations of a collection; none yet if it is new.
    pub(super) fn entry(&mut self, tenant: &TenantId, name: &str) -> &mut CollectionGenerations {
        self.0.entry(tenant.clone()).or_default().entry(name.to_owned()).or_default()
    }

    pub(super) fn remove(&mut self, tenant: &TenantId, name: &str) -> Option<CollectionGenerations> {
        self.0.get_mut(tenant)?.remove(name)
    }

    /// Those of a tenant.
    pub(super) fn of_tenant(
        &self,
        tenant: &TenantId,
    ) -> impl Iterator<Item = (&str, &CollectionGenerations)> {
        self.0.get(tenant).into_iter().flatten().map(|(name, generations)| (&**name, generations))
    }

    /// Those of all tenants.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TenantId, &str, &CollectionGenerations)> {
        self.0.iter().flat_map(|(tenant, collections)| {
            collections.iter().map(move |(name, generations)| (tenant, &**name, generations))
        })
    }

    /// Collections of all tenants.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}
