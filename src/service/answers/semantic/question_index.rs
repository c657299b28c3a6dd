//! The vectors of stored questions, by scope: int8 rows in the order in which they were stored.
//!
//! Derived from the stored answers and never the truth: a row whose answer is gone is found and dropped. Rows stand in buckets, which are
//! dropped as a whole, the oldest first, when the budget or the limit of a scope is reached.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use likewise_index::{Codes, Metric, Neighbor};

use crate::domain::{ByPrefix, Key};
use crate::sync::lock;

const SHARDS: usize = 64;
/// Rows of a bucket.
const BUCKET_ROWS: usize = 1024;
/// What a row takes beside its codes and its key in the bucket: its place by its key, with the spare room of that table.
const ROW_BYTES: usize = 80;
/// What a scope with one bucket takes beside its rows.
const BUCKET_BYTES: usize = 512;

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
    /// The key of its answer.
    pub(super) key: Key,
    /// Its cosine similarity, some 0.001 off.
    pub(super) similarity: f32,
}

/// The rows of scopes.
type Scopes = HashMap<Key, ScopeRows, ByPrefix>;

/// The index. Shared by `Arc`.
#[derive(Debug)]
pub(super) struct QuestionIndex {
    dim: usize,
    limits: IndexLimits,
    shards: Box<[Mutex<Scopes>]>,
    order: Mutex<BucketOrder>,
}

/// The scopes of all buckets by their number, which is the order in which they were added, and the bytes that they take. Locked after a
/// shard, never before.
#[derive(Debug, Default)]
struct BucketOrder {
    scopes: BTreeMap<u64, Key>,
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
    rows: Arc<QuestionRows>,
    /// What the bucket takes, as [`BucketOrder`] counts it.
    bytes: usize,
}

/// Keys of answers and the codes of their questions, in the same order.
#[derive(Debug, Clone)]
struct QuestionRows {
    keys: Vec<Key>,
    codes: Codes,
}

impl QuestionIndex {
    /// An index of vectors of `dim` numbers.
    pub(super) fn new(dim: usize, limits: IndexLimits) -> QuestionIndex {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        QuestionIndex { dim, limits, shards, order: Mutex::default() }
    }

    /// Adds a question. One whose answer has a row already is left as it is.
    pub(super) fn add(&self, scope: Key, key: Key, vector: &[f32]) {
        let Some(vector) = self.prepared(vector) else { return };
        let over_limit = {
            let mut shard = self.shard(&scope);
            let rows = shard.entry(scope).or_default();
            if rows.places.contains_key(&key) {
                return;
            }
            self.push(rows, scope, key, &vector);
            rows.over_limit(self.limits.scope_rows_max)
        };
        over_limit.into_iter().for_each(|number| self.drop_bucket(&scope, number));
        while let Some((number, scope)) = self.over_budget() {
            self.drop_bucket(&scope, number);
        }
    }

    /// The `k` nearest questions of a scope, the nearest first.
    ///
    /// Cost: the bytes of the codes of the scope are read, on the calling thread: 7.7 MB for 20,000 questions of 384 numbers.
    pub(super) fn nearest(&self, scope: &Key, vector: &[f32], k: usize) -> Vec<NearQuestion> {
        let Some(vector) = self.prepared(vector) else { return Vec::new() };
        // The lock is not held while rows are read: that would hold up all scopes of the shard.
        let buckets: Vec<Arc<QuestionRows>> = {
            let shard = self.shard(scope);
            let Some(rows) = shard.get(scope) else { return Vec::new() };
            rows.buckets.iter().map(|bucket| Arc::clone(&bucket.rows)).collect()
        };
        let of_bucket = |rows: &Arc<QuestionRows>| -> Vec<NearQuestion> {
            let found = rows.codes.view().nearest(&vector, k).into_iter();
            let near = |found: Neighbor| NearQuestion {
                key: rows.keys[found.row as usize],
                similarity: found.score.clamp(-1.0, 1.0),
            };
            found.map(near).collect()
        };
        let mut near: Vec<NearQuestion> = buckets.iter().flat_map(of_bucket).collect();
        near.sort_by(|one, other| other.similarity.total_cmp(&one.similarity));
        near.truncate(k);
        near
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
    fn prepared(&self, vector: &[f32]) -> Option<Vec<f32>> {
        let mut vector = vector.to_vec();
        (vector.len() == self.dim && Metric::Cosine.prepare(&mut vector).is_ok()).then_some(vector)
    }

    /// Appends a row to the newest bucket of a scope, or to a new one. The shard of the scope is locked.
    fn push(&self, rows: &mut ScopeRows, scope: Key, key: Key, vector: &[f32]) {
        if rows.buckets.back().is_none_or(|bucket| bucket.rows.keys.len() >= BUCKET_ROWS) {
            let number = lock(&self.order).begin(scope);
            let empty =
                Arc::new(QuestionRows { keys: Vec::new(), codes: Codes::new(Metric::Cosine, self.dim) });
            rows.buckets.push_back(RowBucket { number, rows: empty, bytes: 0 });
        }
        let Some(bucket) = rows.buckets.back_mut() else { return };
        // Copied only while a search reads it.
        let own = Arc::make_mut(&mut bucket.rows);
        own.keys.push(key);
        own.codes.push(vector);
        rows.places.insert(key, bucket.number);
        let before = std::mem::replace(&mut bucket.bytes, own.taken());
        let mut order = lock(&self.order);
        order.bytes = order.bytes - before + bucket.bytes;
    }

    /// The oldest bucket, if the budget is exceeded.
    fn over_budget(&self) -> Option<(u64, Key)> {
        let order = lock(&self.order);
        if order.bytes <= self.limits.bytes_max {
            return None;
        }
        order.scopes.first_key_value().map(|(number, scope)| (*number, *scope))
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
        order.scopes.remove(&number);
        order.bytes -= bucket.bytes;
    }
}

impl BucketOrder {
    /// Counts a new bucket of a scope. Returns its number.
    fn begin(&mut self, scope: Key) -> u64 {
        self.last += 1;
        self.scopes.insert(self.last, scope);
        self.last
    }
}

impl QuestionRows {
    /// The bytes of memory that their bucket takes.
    fn taken(&self) -> usize {
        let keys = self.keys.capacity() * size_of::<Key>();
        BUCKET_BYTES + keys + self.codes.memory_bytes() + self.keys.len() * ROW_BYTES
    }
}

impl ScopeRows {
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

    const DIM: usize = 32;

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
        index.nearest(&scope, &vector(number), k).into_iter().map(|near| near.key).collect()
    }

    #[test]
    fn the_nearest_of_a_scope_are_found_across_buckets_and_none_of_another() {
        let index = index(1 << 30, 1 << 20);
        let (one, other) = (key(1 << 40), key(1 << 41));
        for number in 0..1500 {
            index.add(one, key(number), &vector(number));
        }
        index.add(other, key(9999), &vector(700));
        assert!([0, 500, 1025, 1200, 1499].into_iter().all(|number| finds(&index, one, number)));
        assert_eq!(keys_near(&index, other, 0, 9), [key(9999)]);
        assert!(keys_near(&index, key(5), 0, 9).is_empty());
        (1100..1300).for_each(|number| index.remove(&one, &key(number)));
        assert!(!finds(&index, one, 1200) && finds(&index, one, 900));
        let near = index.nearest(&one, &vector(3), 1)[0];
        assert!((near.similarity - 1.0).abs() < 0.01, "{near:?}");
        assert!(index.nearest(&one, &[0.0; DIM], 1).is_empty(), "no direction");
        assert!(index.nearest(&one, &[1.0; DIM + 1], 1).is_empty(), "another dimension");
    }

    #[test]
    fn a_question_that_was_removed_is_not_found_and_may_be_added_again() {
        let (index, scope) = (index(1 << 30, 1 << 20), key(7));
        index.add(scope, key(1), &vector(100));
        index.add(scope, key(2), &vector(200));
        index.add(scope, key(1), &vector(500));
        assert_eq!(keys_near(&index, scope, 100, 9).len(), 2, "a key has one row");
        index.remove(&scope, &key(1));
        index.remove(&scope, &key(1));
        assert_eq!(keys_near(&index, scope, 100, 9), [key(2)]);
        index.add(scope, key(1), &vector(100));
        assert_eq!(keys_near(&index, scope, 100, 1), [key(1)]);
        // What was removed takes no place among the nearest.
        for round in 0..100 {
            index.add(scope, key(100 + round), &vector(300));
            index.remove(&scope, &key(100 + round));
            index.add(scope, key(9), &vector(300));
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
        (0..5000).for_each(|number| limited.add(scope, key(number), &vector(number)));
        let left = keys_near(&limited, scope, 0, 5000);
        assert!((1000..=2000).contains(&left.len()), "{}", left.len());
        assert!((3000..5000).rev().take(left.len()).all(|number| left.contains(&key(number))));

        let small = index(1 << 20, 1 << 20);
        for number in 0..20_000 {
            small.add(key(number % 50 + (1 << 40)), key(number), &vector(number));
            assert!(small.bytes() <= 1 << 20);
        }
        let left: usize = (0..50).map(|scope| keys_near(&small, key(scope + (1 << 40)), 0, 4000).len()).sum();
        assert!((1000..19_000).contains(&left), "{left}");
        assert_eq!(
            lock(&small.order).scopes.len(),
            small.shards.iter().map(|shard| lock(shard).len()).sum::<usize>()
        );

        let none = index(0, 10);
        none.add(scope, key(1), &vector(1));
        assert!(none.bytes() == 0 && keys_near(&none, scope, 1, 1).is_empty());
    }
}
