//! The vectors of stored questions, by scope: int8 rows in the order in which they were stored.
//!
//! Derived from the stored answers and never the truth: a row whose answer is gone is found and dropped. Rows stand in buckets, which are
//! dropped as a whole, the oldest first, when the budget or the limit of a scope is reached. An API key whose rows take more than half of
//! the budget loses its own ones, and those of others stay.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use likewise_index::{Codes, Metric, Neighbor, QueryCodes, SketchRadius, Sketcher, Sketches};

use super::question::RowOwner;
use crate::domain::{ByPrefix, Key};
use crate::sync::lock;

const SHARDS: usize = 64;
/// Rows of a bucket.
const BUCKET_ROWS: usize = 1024;
/// What a row takes beside its codes and its key in the bucket: its place by its key, with the spare room of that table.
const ROW_BYTES: usize = 80;
/// What a scope with one bucket takes beside its rows.
const BUCKET_BYTES: usize = 512;
/// Rows of a scope whose codes are all read by each search: some 0.2 ms. A larger scope is searched by sketches.
const CODES_READ_MAX: usize = 8192;
/// A bucket of which more than this part may be near is read whole.
const READ_WHOLE: usize = 4;

/// Limits of the index.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexLimits {
    /// Bytes of all rows.
    pub(super) bytes_max: usize,
    /// Rows of one scope.
    pub(super) scope_rows_max: usize,
}

/// A stored question that is near.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NearQuestion {
    /// The scope in which it was found.
    pub(super) scope: Key,
    /// The key of its answer.
    pub(super) key: Key,
    /// Its cosine similarity, some 0.001 off.
    pub(super) similarity: f32,
}

/// The rows of a scope at one moment.
#[derive(Debug)]
pub(super) struct ScopeSnapshot {
    scope: Key,
    buckets: Vec<Arc<QuestionRows>>,
    sketcher: Arc<Sketcher>,
}

/// The rows of scopes.
type Scopes = HashMap<Key, ScopeRows, ByPrefix>;

/// The index. Shared by `Arc`.
#[derive(Debug)]
pub(super) struct QuestionIndex {
    dim: usize,
    sketcher: Arc<Sketcher>,
    limits: IndexLimits,
    shards: Box<[Mutex<Scopes>]>,
    order: Mutex<BucketOrder>,
}

/// All buckets by their number, which is the order in which they were added, and the bytes that they take. Locked after a shard, never before.
#[derive(Debug, Default)]
struct BucketOrder {
    buckets: BTreeMap<u64, (Key, RowOwner)>,
    /// The numbers of the buckets of each owner.
    owned: BTreeSet<(RowOwner, u64)>,
    bytes_by_owner: HashMap<RowOwner, usize>,
    bytes: usize,
    /// The number of the newest bucket.
    last: u64,
}

#[derive(Debug, Default)]
struct ScopeRows {
    buckets: VecDeque<RowBucket>,
    /// The number of the bucket that has the row of a key.
    places: HashMap<Key, u64, ByPrefix>,
}

#[derive(Debug)]
struct RowBucket {
    number: u64,
    /// That of all its rows.
    owner: RowOwner,
    rows: Arc<QuestionRows>,
    /// What the bucket takes, as [`BucketOrder`] counts it.
    bytes: usize,
}

/// Keys of answers, and the codes and sketches of their questions, in the same order.
#[derive(Debug, Clone)]
struct QuestionRows {
    keys: Vec<Key>,
    codes: Codes,
    sketches: Sketches,
}

impl QuestionIndex {
    /// An index of vectors of `dim` numbers.
    pub(super) fn new(dim: usize, limits: IndexLimits) -> QuestionIndex {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        QuestionIndex { dim, sketcher: Arc::new(Sketcher::new(dim)), limits, shards, order: Mutex::default() }
    }

    /// Adds a question of an owner. One whose answer has a row already is left as it is.
    pub(super) fn add(&self, scope: Key, owner: RowOwner, key: Key, vector: &[f32]) {
        let Some(vector) = self.prepared(vector) else { return };
        let over_limit = {
            let mut shard = self.shard(&scope);
            let rows = shard.entry(scope).or_default();
            if rows.places.contains_key(&key) {
                return;
            }
            self.push(rows, (scope, owner), key, &vector);
            rows.over_limit(self.limits.scope_rows_max)
        };
        over_limit.into_iter().for_each(|number| self.drop_bucket(&scope, number));
        while let Some((number, scope)) = self.over_budget(owner) {
            self.drop_bucket(&scope, number);
        }
    }

    /// The rows of a scope. They are read without a lock, which would hold up all scopes of the shard.
    pub(super) fn snapshot(&self, scope: Key) -> ScopeSnapshot {
        let shard = self.shard(&scope);
        let rows = |bucket: &RowBucket| Arc::clone(&bucket.rows);
        let buckets = shard.get(&scope).map(|scope| scope.buckets.iter().map(rows).collect());
        let sketcher = Arc::clone(&self.sketcher);
        ScopeSnapshot { scope, buckets: buckets.unwrap_or_default(), sketcher }
    }

    /// Whose row of an answer a scope has.
    pub(super) fn owner_of(&self, scope: &Key, key: &Key) -> Option<RowOwner> {
        let shard = self.shard(scope);
        let rows = shard.get(scope)?;
        let number = rows.places.get(key)?;
        rows.buckets.iter().find(|bucket| bucket.number == *number).map(|bucket| bucket.owner)
    }

    /// Whether a scope has a row of an answer.
    pub(super) fn contains(&self, scope: &Key, key: &Key) -> bool {
        self.shard(scope).get(scope).is_some_and(|rows| rows.places.contains_key(key))
    }

    /// Removes a question whose answer is gone.
    pub(super) fn remove(&self, scope: &Key, key: &Key) {
        let mut shard = self.shard(scope);
        let Some(rows) = shard.get_mut(scope) else { return };
        let Some(number) = rows.places.remove(key) else { return };
        let Some(bucket) = rows.buckets.iter_mut().find(|bucket| bucket.number == number) else { return };
        let Some(row) = bucket.rows.keys.iter().position(|known| known == key) else { return };
        let own = Arc::make_mut(&mut bucket.rows);
        own.keys.swap_remove(row);
        own.codes.swap_remove(row);
        own.sketches.swap_remove(row);
        if own.keys.is_empty() {
            self.drop_bucket_of(&mut shard, scope, number);
        }
    }

    /// Whether no further question finds room without dropping another.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() + BUCKET_BYTES + self.dim > self.limits.bytes_max
    }

    /// Bytes that the rows count.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.order).bytes
    }

    fn shard(&self, scope: &Key) -> MutexGuard<'_, Scopes> {
        lock(&self.shards[scope.prefix() as usize % SHARDS])
    }

    /// A unit vector of the right length. None for one without a direction.
    pub(super) fn prepared(&self, vector: &[f32]) -> Option<Vec<f32>> {
        let mut vector = vector.to_vec();
        (vector.len() == self.dim && Metric::Cosine.prepare(&mut vector).is_ok()).then_some(vector)
    }

    /// Appends a row to the newest bucket of its owner in a scope, or to a new one. The shard of the scope is locked.
    fn push(&self, rows: &mut ScopeRows, (scope, owner): (Key, RowOwner), key: Key, vector: &[f32]) {
        if rows.newest_of(owner).is_none_or(|bucket| bucket.rows.keys.len() >= BUCKET_ROWS) {
            let number = lock(&self.order).begin(scope, owner);
            let empty = Arc::new(QuestionRows::new(self.dim));
            rows.buckets.push_back(RowBucket { number, owner, rows: empty, bytes: 0 });
        }
        let Some(bucket) = rows.newest_of(owner) else { return };
        // Copied only while a search reads it.
        let own = Arc::make_mut(&mut bucket.rows);
        own.keys.push(key);
        own.codes.push(vector);
        own.sketches.push(self.sketcher.sketch(vector));
        let before = std::mem::replace(&mut bucket.bytes, own.taken());
        lock(&self.order).count(owner, before, bucket.bytes);
        let number = bucket.number;
        rows.places.insert(key, number);
    }

    /// The bucket that makes room for a row of an owner, if the budget is exceeded: the oldest one, or its own oldest one if it has more than
    /// half of the budget.
    fn over_budget(&self, owner: RowOwner) -> Option<(u64, Key)> {
        let order = lock(&self.order);
        if order.bytes <= self.limits.bytes_max {
            return None;
        }
        let of_owner = order.bytes_by_owner.get(&owner).copied().unwrap_or_default();
        let own = order.owned.range((owner, 0)..=(owner, u64::MAX)).next().map(|(_, number)| *number);
        let own = own.filter(|_| of_owner > self.limits.bytes_max / 2);
        let number = own.or_else(|| order.buckets.first_key_value().map(|(number, _)| *number))?;
        order.buckets.get(&number).map(|(scope, _)| (number, *scope))
    }

    fn drop_bucket(&self, scope: &Key, number: u64) {
        self.drop_bucket_of(&mut self.shard(scope), scope, number);
    }

    /// Drops a bucket, if another thread has not done so. The shard of the scope is locked.
    fn drop_bucket_of(&self, shard: &mut Scopes, scope: &Key, number: u64) {
        let Some(rows) = shard.get_mut(scope) else { return };
        let Some(at) = rows.buckets.iter().position(|bucket| bucket.number == number) else { return };
        let Some(bucket) = rows.buckets.remove(at) else { return };
        bucket.rows.keys.iter().for_each(|key| _ = rows.places.remove(key));
        if rows.buckets.is_empty() {
            shard.remove(scope);
        }
        let mut order = lock(&self.order);
        order.end(number);
        order.count(bucket.owner, bucket.bytes, 0);
    }
}

impl ScopeSnapshot {
    pub(super) fn rows(&self) -> usize {
        self.buckets.iter().map(|rows| rows.keys.len()).sum()
    }

    /// The `k` questions that are nearest to a unit vector, the nearest first. With `similarity_min`, in a scope of more than 8,192 rows, those
    /// below it may be missing, and some two in a million of the others.
    ///
    /// Cost: without, or in a smaller scope, the codes of all rows are read: 3.2 MB for 8,192 rows of 384 numbers. Else 16 to 48 bytes of
    /// each row, and the codes of those that may be near enough.
    pub(super) fn nearest(&self, vector: &[f32], k: usize, similarity_min: Option<f32>) -> Vec<NearQuestion> {
        let Some(query) = QueryCodes::new(vector) else { return Vec::new() };
        let radius = similarity_min.filter(|_| self.rows() > CODES_READ_MAX).map(SketchRadius::of_cosine);
        let sketch = radius.map(|radius| (self.sketcher.sketch(vector), radius));
        let mut within = Vec::new();
        let of_bucket = |rows: &Arc<QuestionRows>| -> Vec<NearQuestion> {
            let codes = rows.codes.view();
            let found = match &sketch {
                None => codes.nearest(&query, k),
                Some((sketch, radius)) => {
                    within.clear();
                    rows.sketches.within(sketch, *radius, &mut within);
                    match within.len() <= rows.keys.len() / READ_WHOLE {
                        true => codes.nearest_of(&query, &within, k),
                        // One after the other is faster than here and there.
                        false => codes.nearest(&query, k),
                    }
                }
            };
            let near = |found: Neighbor| NearQuestion {
                scope: self.scope,
                key: rows.keys[found.row as usize],
                similarity: found.score.clamp(-1.0, 1.0),
            };
            found.into_iter().map(near).collect()
        };
        let mut near: Vec<NearQuestion> = self.buckets.iter().flat_map(of_bucket).collect();
        near.sort_by(|one, other| other.similarity.total_cmp(&one.similarity));
        near.truncate(k);
        near
    }
}

impl BucketOrder {
    /// Adds a new bucket of a scope. Returns its number.
    fn begin(&mut self, scope: Key, owner: RowOwner) -> u64 {
        self.last += 1;
        self.buckets.insert(self.last, (scope, owner));
        self.owned.insert((owner, self.last));
        self.last
    }

    /// Removes a bucket.
    fn end(&mut self, number: u64) {
        if let Some((_, owner)) = self.buckets.remove(&number) {
            self.owned.remove(&(owner, number));
        }
    }

    /// Counts that a bucket of an owner takes `after` bytes instead of `before`.
    fn count(&mut self, owner: RowOwner, before: usize, after: usize) {
        self.bytes = self.bytes - before + after;
        let of_owner = self.bytes_by_owner.entry(owner).or_default();
        *of_owner = *of_owner - before + after;
        if *of_owner == 0 {
            self.bytes_by_owner.remove(&owner);
        }
    }
}

impl QuestionRows {
    /// None yet, of vectors of `dim` numbers.
    fn new(dim: usize) -> QuestionRows {
        QuestionRows {
            keys: Vec::new(),
            codes: Codes::new(Metric::Cosine, dim),
            sketches: Sketches::default(),
        }
    }

    /// The bytes of memory that their bucket takes.
    fn taken(&self) -> usize {
        let vectors = self.codes.memory_bytes() + self.sketches.memory_bytes();
        BUCKET_BYTES + self.keys.capacity() * size_of::<Key>() + vectors + self.keys.len() * ROW_BYTES
    }
}

impl ScopeRows {
    fn newest_of(&mut self, owner: RowOwner) -> Option<&mut RowBucket> {
        self.buckets.iter_mut().rev().find(|bucket| bucket.owner == owner)
    }

    /// The oldest bucket, if there are more rows than `rows_max`. The newest one stays, so that a limit below its size is exceeded by
    /// one bucket at most.
    fn over_limit(&self, rows_max: usize) -> Option<u64> {
        let rows: usize = self.buckets.iter().map(|bucket| bucket.rows.keys.len()).sum();
        let is_over = rows > rows_max && self.buckets.len() > 1;
        self.buckets.front().filter(|_| is_over).map(|bucket| bucket.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyId;

    const DIM: usize = 32;
    const NO_OWNER: RowOwner = RowOwner::NONE;

    fn key(number: usize) -> Key {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Key(bytes)
    }

    /// Vectors of neighbouring numbers are near each other; those of one number and the next may have the same codes.
    fn vector(number: usize) -> Vec<f32> {
        let angle = number as f32 / 300.0;
        let mut vector = vec![0.0; DIM];
        (vector[0], vector[1]) = (angle.cos(), angle.sin());
        vector
    }

    fn index(bytes_max: usize, scope_rows_max: usize) -> QuestionIndex {
        QuestionIndex::new(DIM, IndexLimits { bytes_max, scope_rows_max })
    }

    /// Whether the nearest to a number is one of its neighbours.
    fn finds(index: &QuestionIndex, scope: Key, number: usize) -> bool {
        let neighbours = number.saturating_sub(60)..number + 60;
        keys_near(index, scope, number, 1)
            .iter()
            .any(|near| neighbours.clone().map(key).any(|key| key == *near))
    }

    fn keys_near(index: &QuestionIndex, scope: Key, number: usize, k: usize) -> Vec<Key> {
        let vector = index.prepared(&vector(number)).unwrap();
        index.snapshot(scope).nearest(&vector, k, None).into_iter().map(|near| near.key).collect()
    }

    #[test]
    fn the_nearest_of_a_scope_are_found_across_buckets_and_none_of_another() {
        let index = index(1 << 30, 1 << 20);
        let (one, other) = (key(1 << 40), key(1 << 41));
        for number in 0..1500 {
            index.add(one, NO_OWNER, key(number), &vector(number));
        }
        index.add(other, NO_OWNER, key(9999), &vector(700));
        assert!([0, 500, 1025, 1200, 1499].into_iter().all(|number| finds(&index, one, number)));
        assert_eq!(keys_near(&index, other, 0, 9), [key(9999)]);
        assert!(keys_near(&index, key(5), 0, 9).is_empty());
        (1100..1300).for_each(|number| index.remove(&one, &key(number)));
        assert!(!finds(&index, one, 1200) && finds(&index, one, 900));
        let near = index.snapshot(one).nearest(&index.prepared(&vector(3)).unwrap(), 1, None)[0];
        assert!((near.similarity - 1.0).abs() < 0.01, "{near:?}");
        assert!(index.prepared(&[0.0; DIM]).is_none(), "no direction");
        assert!(index.prepared(&[1.0; DIM + 1]).is_none(), "another dimension");
    }

    #[test]
    fn in_a_large_scope_sketches_leave_out_only_what_is_not_near() {
        let (index, scope) = (index(1 << 30, 1 << 20), key(7));
        let rows = 3 * CODES_READ_MAX;
        // Once around the circle, so that most rows are far from each.
        let at = |number: usize| vector(number * (300.0 * std::f32::consts::TAU) as usize / rows);
        (0..rows).for_each(|number| index.add(scope, NO_OWNER, key(number), &at(number)));
        let snapshot = index.snapshot(scope);
        for number in (0..rows).step_by(rows / 40) {
            let query = index.prepared(&at(number)).unwrap();
            let whole = snapshot.nearest(&query, 50, None);
            assert_eq!(snapshot.nearest(&query, 50, Some(0.9)), whole, "{number}");
            let all = snapshot.nearest(&query, rows, Some(0.9)).len();
            let near =
                snapshot.nearest(&query, rows, None).iter().filter(|near| near.similarity >= 0.9).count();
            assert!(near <= all && all < rows / 2, "{number}: {near} {all}");
        }
    }

    #[test]
    fn a_question_that_was_removed_is_not_found_and_may_be_added_again() {
        let (index, scope) = (index(1 << 30, 1 << 20), key(7));
        index.add(scope, NO_OWNER, key(1), &vector(100));
        index.add(scope, NO_OWNER, key(2), &vector(200));
        index.add(scope, NO_OWNER, key(1), &vector(500));
        assert_eq!(keys_near(&index, scope, 100, 9).len(), 2, "a key has one row");
        index.remove(&scope, &key(1));
        index.remove(&scope, &key(1));
        assert_eq!(keys_near(&index, scope, 100, 9), [key(2)]);
        index.add(scope, NO_OWNER, key(1), &vector(100));
        assert_eq!(keys_near(&index, scope, 100, 1), [key(1)]);
        // What was removed takes no place among the nearest.
        for round in 0..100 {
            index.add(scope, NO_OWNER, key(100 + round), &vector(300));
            index.remove(&scope, &key(100 + round));
            index.add(scope, NO_OWNER, key(9), &vector(300));
            assert_eq!(keys_near(&index, scope, 300, 1), [key(9)]);
        }
        [1, 2, 9].into_iter().for_each(|number| index.remove(&scope, &key(number)));
        assert!(keys_near(&index, scope, 100, 9).is_empty());
        assert_eq!(index.bytes(), 0, "an empty bucket is dropped");
    }

    #[test]
    fn the_oldest_go_when_a_limit_is_reached_and_the_bytes_are_those_of_what_is_left() {
        let scope = key(7);
        let limited = index(1 << 30, 2000);
        (0..5000).for_each(|number| limited.add(scope, NO_OWNER, key(number), &vector(number)));
        let left = keys_near(&limited, scope, 0, 5000);
        assert!((1000..=2000).contains(&left.len()), "{}", left.len());
        assert!((3000..5000).rev().take(left.len()).all(|number| left.contains(&key(number))));

        let small = index(1 << 20, 1 << 20);
        for number in 0..20_000 {
            small.add(key(number % 50 + (1 << 40)), NO_OWNER, key(number), &vector(number));
            assert!(small.bytes() <= 1 << 20);
        }
        let left: usize = (0..50).map(|scope| keys_near(&small, key(scope + (1 << 40)), 0, 4000).len()).sum();
        assert!((1000..19_000).contains(&left), "{left}");
        assert_eq!(
            lock(&small.order).buckets.len(),
            small.shards.iter().map(|shard| lock(shard).len()).sum::<usize>()
        );

        let none = index(0, 10);
        none.add(scope, NO_OWNER, key(1), &vector(1));
        assert!(none.bytes() == 0 && keys_near(&none, scope, 1, 1).is_empty());
    }

    #[test]
    fn an_owner_of_more_than_half_loses_its_own_rows_and_others_none() {
        let index = index(1 << 20, 1 << 20);
        let (one, other) = (RowOwner::of(Some(KeyId(0))), RowOwner::of(Some(KeyId(1))));
        (0..200).for_each(|number| index.add(key(1 << 40), one, key(number), &vector(number)));
        // In one scope and in many.
        for number in 0..20_000 {
            index.add(key((number % 7 + 1) << 41), other, key(1000 + number), &vector(number));
        }
        assert!(index.bytes() <= 1 << 20);
        assert_eq!(keys_near(&index, key(1 << 40), 0, 1000).len(), 200);
        // Where others have less, an owner may have more than half.
        (0..20_000).for_each(|number| index.add(key(1 << 40), one, key(50_000 + number), &vector(number)));
        let order = lock(&index.order);
        assert_eq!(order.bytes, order.bytes_by_owner.values().sum::<usize>());
        assert_eq!(order.buckets.len(), order.owned.len());
        assert!(order.bytes_by_owner[&other] > 0 && order.bytes_by_owner[&one] > 0);
    }
}
