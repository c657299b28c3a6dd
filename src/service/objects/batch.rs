//! Several objects in one request.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};

use super::{Address, Answer, Condition, Draft, Lookup, Object, Objects, check_draft};
use crate::domain::ByPrefix;
use crate::error::{Error, Result};

/// Objects that one batch may name.
pub const BATCH_MAX: usize = 1024;

/// What is to be done; no object is named twice.
#[derive(Debug, Default)]
pub struct Batch {
    /// Objects to look up.
    pub gets: Vec<Address>,
    /// Objects to store.
    pub puts: Vec<(Address, Draft)>,
    /// Objects to remove.
    pub deletes: Vec<Address>,
}

/// What was done, in the order of the batch.
#[derive(Debug)]
pub struct Done {
    /// The objects that were found.
    pub gets: Vec<Option<Object>>,
    /// The validators of what was stored.
    pub puts: Vec<u128>,
    /// How many of the removed were there.
    pub deleted: usize,
}

impl Objects {
    /// Does a batch. Everything in it is checked before anything is changed; objects that are stored together share
    /// their flushes.
    ///
    /// # Errors
    /// As [`Objects::get`], [`Objects::put`] and [`Objects::delete`]; `InvalidInput` too for an empty batch, one past
    /// [`BATCH_MAX`], and an object named twice. After an error of the disk some may be stored and others not.
    pub async fn batch(self: &Arc<Self>, batch: Batch) -> Result<Done> {
        check(&batch)?;
        let lookup = Lookup::default();
        let gets = join_all(batch.gets.iter().map(|address| self.get(address, &lookup))).await;
        let puts =
            batch.puts.into_iter().map(|(address, draft)| async move { self.put(&address, draft).await });
        let puts = try_join_all(puts).await?;
        let deletes = batch.deletes.iter().map(|address| self.delete(address, Condition::None));
        let deleted = try_join_all(deletes).await?.into_iter().filter(|&was_there| was_there).count();
        let found = |answer| match answer {
            Answer::Hit(object) => Some(*object),
            Answer::Miss { .. } => None,
        };
        let gets = gets.into_iter().map(|answer| answer.map(found)).collect::<Result<_>>()?;
        Ok(Done { gets, puts, deleted })
    }
}

fn check(batch: &Batch) -> Result<()> {
    let count = batch.gets.len() + batch.puts.len() + batch.deletes.len();
    if !(1..=BATCH_MAX).contains(&count) {
        let message = format!("a batch names from 1 to {BATCH_MAX} objects, got {count}");
        return Err(Error::invalid("batch", message));
    }
    let mut seen = HashSet::with_capacity_and_hasher(count, ByPrefix);
    let puts = batch.puts.iter().map(|(address, _)| ("put", address));
    let all = batch.gets.iter().map(|address| ("get", address)).chain(puts);
    for (field, address) in all.chain(batch.deletes.iter().map(|address| ("delete", address))) {
        if !seen.insert(address.key) {
            return Err(Error::invalid(field, "the batch names an object twice"));
        }
    }
    for (place, (address, draft)) in batch.puts.iter().enumerate() {
        let policy = &address.namespace.policy;
        crate::service::ttl_seconds(policy, draft.ttl_seconds, "ttl")
            .and_then(|_| check_draft(draft, policy.value_bytes_max))
            .map_err(|error| error.with("put", place))?;
    }
    Ok(())
}
