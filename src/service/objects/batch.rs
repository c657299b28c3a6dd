//! Several objects in one request.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use tracing::instrument;

use super::{Address, Condition, GetOptions, GetOutcome, Object, ObjectDraft, Objects};
use crate::byte_budget::{Reservation, UNCOUNTED_BYTES};
use crate::cache::Propagation;
use crate::domain::ByPrefix;
use crate::error::{Error, Kind, Result};

/// Objects that one batch may name.
pub const BATCH_MAX: usize = 1024;

/// Lookups of a batch that are under way at the same time.
const LOOKUPS_AT_ONCE: usize = 32;

/// Bytes that each byte of a found object may need until the response is sent: the object, its text, and its copy in the response.
const FOUND_COST: usize = 3;

/// A batch. No object is named twice.
#[derive(Debug, Default)]
pub struct ObjectBatch {
    /// Objects to look up.
    pub gets: Vec<Address>,
    /// Objects to store.
    pub puts: Vec<(Address, ObjectDraft)>,
    /// Objects to remove.
    pub deletes: Vec<Address>,
    /// Bytes that the objects which are looked up may have together.
    pub answer_bytes_max: usize,
}

/// The results, in the order of the batch.
#[derive(Debug)]
pub struct BatchResult {
    /// The objects that were found.
    pub gets: Vec<Option<Object>>,
    /// The validators of the stored objects.
    pub puts: Vec<u128>,
    /// How many objects existed and were removed.
    pub deleted: usize,
    /// Whether other nodes have all changes.
    pub propagation: Propagation,
}

impl Objects {
    /// Runs a batch. All of it is checked before the first change. Objects that are stored together share their flushes.
    ///
    /// # Errors
    /// As [`Objects::get`], [`Objects::put`] and [`Objects::delete`]; `InvalidInput` too for an empty batch, one past
    /// [`BATCH_MAX`], and an object named twice; `TooLarge` if the found objects have too many bytes; `Overloaded` if `reservation`,
    /// which grows by the found objects, is refused. After an error of the disk some objects may be stored and others not.
    #[instrument(level = "debug", skip_all, fields(gets = batch.gets.len(), puts = batch.puts.len(), deletes = batch.deletes.len()), err(level = "debug"))]
    pub async fn batch(
        self: &Arc<Self>,
        batch: ObjectBatch,
        reservation: &mut Reservation,
    ) -> Result<BatchResult> {
        check(&batch)?;
        let gets = self.get_many(&batch.gets, batch.answer_bytes_max, reservation).await?;
        let puts =
            batch.puts.into_iter().map(|(address, draft)| async move { self.put(&address, draft).await });
        let puts = try_join_all(puts).await?;
        let deletes = batch.deletes.iter().map(|address| self.delete(address, Condition::default()));
        let deleted = try_join_all(deletes).await?;
        let propagations = puts.iter().map(|put| put.propagation);
        let propagations = propagations.chain(deleted.iter().map(|removed| removed.propagation));
        Ok(BatchResult {
            gets,
            propagation: propagations.max().unwrap_or(Propagation::Complete),
            puts: puts.iter().map(|put| put.validator).collect(),
            deleted: deleted.iter().filter(|removed| removed.was_there).count(),
        })
    }

    /// Looks objects up, some at a time, so that a batch of too many bytes ends before all of them are held.
    async fn get_many(
        &self,
        addresses: &[Address],
        bytes_max: usize,
        reservation: &mut Reservation,
    ) -> Result<Vec<Option<Object>>> {
        let options = GetOptions::default();
        let (mut found, mut bytes) = (Vec::with_capacity(addresses.len()), 0);
        for some in addresses.chunks(LOOKUPS_AT_ONCE) {
            for answer in join_all(some.iter().map(|address| self.get(address, &options))).await {
                let object = match answer? {
                    GetOutcome::Hit(object) => Some(*object),
                    GetOutcome::Miss { .. } => None,
                };
                bytes += object.as_ref().map_or(0, |object| object.value.len());
                found.push(object);
            }
            if bytes > bytes_max {
                let message = format!("the objects of gets must have at most {bytes_max} bytes together");
                return Err(Error::new(Kind::TooLarge, message).param("gets"));
            }
            if bytes > UNCOUNTED_BYTES {
                reservation.try_cover(bytes.saturating_mul(FOUND_COST))?;
            }
        }
        Ok(found)
    }
}

/// Refuses a batch of no or too many objects. Called before their keys are hashed.
///
/// # Errors
/// `InvalidInput`.
pub fn check_batch_len(count: usize) -> Result<()> {
    if (1..=BATCH_MAX).contains(&count) {
        return Ok(());
    }
    let message = format!("a batch must name 1 to {BATCH_MAX} objects, got {count}");
    Err(Error::invalid("batch", message))
}

fn check(batch: &ObjectBatch) -> Result<()> {
    let count = batch.gets.len() + batch.puts.len() + batch.deletes.len();
    check_batch_len(count)?;
    let mut seen = HashSet::with_capacity_and_hasher(count, ByPrefix);
    let puts = batch.puts.iter().map(|(address, _)| ("puts", address));
    let all = batch.gets.iter().map(|address| ("gets", address)).chain(puts);
    for (field, address) in all.chain(batch.deletes.iter().map(|address| ("deletes", address))) {
        if !seen.insert(address.key) {
            return Err(Error::invalid(field, format!("{field} must not repeat an object of the batch")));
        }
    }
    for (place, (address, draft)) in batch.puts.iter().enumerate() {
        let policy = &address.namespace.policy;
        crate::service::ttl_seconds(policy, draft.ttl_seconds)
            .and_then(|_| draft.check(policy.value_bytes_max))
            .map_err(|error| error.with("put", place))?;
    }
    Ok(())
}
