//! A collection's generations in the catalogue: making one, serving it in the place of another, removing it.

use std::sync::Arc;

use super::catalog::Catalog;
use super::collection::{Collection, PausedWrites};
use super::generation::{StoredSettings, stored_name};
use super::settings::Settings;
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use crate::sync::ignore_poison;

impl Catalog {
    /// The generations of a collection that are not served, with their numbers. Those that cannot be opened are left out.
    ///
    /// # Errors
    /// As [`Catalog::get`].
    pub fn other_generations(&self, tenant: &TenantId, name: &str) -> Result<Vec<Arc<Collection>>> {
        let served = self.get(tenant, name)?;
        let table = ignore_poison(self.table.read());
        let generations = table.get(tenant, name).into_iter().flat_map(|generations| generations.opened());
        let others = generations.filter(|(number, _)| *number != served.number());
        Ok(others.map(|(_, opened)| Arc::clone(opened)).collect())
    }

    /// A new generation of a collection, without documents, that is not served.
    ///
    /// # Errors
    /// As [`Catalog::get`]; `InvalidInput` if the index of the settings cannot be built of vectors of their length; `Io`, `DiskFull`.
    pub async fn add_generation(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: Settings,
    ) -> Result<Arc<Collection>> {
        let _changing = self.changing.lock().await;
        self.get(tenant, name)?;
        self.index_builder.check(&settings)?;
        let number = {
            let table = ignore_poison(self.table.read());
            table.get(tenant, name).map_or(1, |generations| generations.next_number())
        };
        let stored = StoredSettings::of_draft(settings);
        let made = self.make(stored_name(tenant, name, number), number, stored).await?;
        ignore_poison(self.table.write()).entry(tenant, name).insert(number, Ok(Arc::clone(&made)));
        Ok(made)
    }

    /// Serves another generation of a collection from now on, durably. A change that waits for the former one gets `Unavailable` from it, and
    /// finds that it [is superseded](Collection::is_superseded).
    ///
    /// # Errors
    /// As [`Catalog::get`]; `NotFound` if it is no generation of the collection; `Conflict` if writes are paused of a generation that is
    /// not served any more; `Io`, `DiskFull`: it is not known which generation the next start will serve, so that the collection takes no
    /// changes until then.
    pub async fn activate(
        &self,
        tenant: &TenantId,
        name: &str,
        paused: PausedWrites,
        number: u32,
    ) -> Result<Arc<Collection>> {
        let _changing = self.changing.lock().await;
        let served = self.get(tenant, name)?;
        if !Arc::ptr_eq(&served, &paused.collection) {
            return Err(Error::new(Kind::Conflict, "another generation of the collection is served by now"));
        }
        let next = {
            let table = ignore_poison(self.table.read());
            table.get(tenant, name).and_then(|generations| generations.get(number)).map(Arc::clone)
        };
        let next =
            next.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no generation {number}")))?;
        // Before the disk knows: nothing is written to the former generation that the next start might not find.
        served.supersede();
        next.activate(served.activation().map_or(1, |activation| activation + 1)).await?;
        Ok(next)
    }

    /// Removes a generation that is not served, with its bytes.
    ///
    /// # Errors
    /// As [`Catalog::get`]; `Conflict` if it is served; `Io`: the next start may find it again.
    pub async fn drop_generation(&self, tenant: &TenantId, name: &str, number: u32) -> Result<()> {
        let _changing = self.changing.lock().await;
        if self.get(tenant, name)?.number() == number {
            return Err(Error::new(Kind::Conflict, format!("generation {number} is served")));
        }
        let dropped = {
            let mut table = ignore_poison(self.table.write());
            let generations = table.entry(tenant, name);
            let opened = generations.get(number).map(Arc::clone);
            generations.remove(number);
            opened
        };
        match dropped {
            Some(collection) => collection.drop_collection().await,
            None => Ok(()),
        }
    }
}
