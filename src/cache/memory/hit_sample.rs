//! A sample of hits: of each interval the first ones. A hit outside it costs one load of a number that seldom changes.

use crate::cache::hot_keys::HotKey;
use crate::domain::{Codec, Entry, Key};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, ignore_poison};

/// The sampled hits of an interval.
#[derive(Debug)]
pub(super) struct HitSample {
    /// Hits that may still be recorded.
    open: AtomicUsize,
    hits: Mutex<Vec<HotKey>>,
}

impl HitSample {
    /// Records nothing before the first interval begins.
    pub(super) fn new() -> HitSample {
        HitSample { open: AtomicUsize::new(0), hits: Mutex::new(Vec::new()) }
    }

    /// Records a hit, if the interval has place.
    pub(super) fn note(&self, key: &Key, entry: &Entry) {
        if self.open.load(Ordering::Relaxed) > 0 {
            self.record(key, entry);
        }
    }

    #[cold]
    fn record(&self, key: &Key, entry: &Entry) {
        let mut hits = ignore_poison(self.hits.lock());
        // Under the lock, which the other hits that are recorded take too.
        let open = self.open.load(Ordering::Relaxed);
        if open == 0 {
            return;
        }
        self.open.store(open - 1, Ordering::Relaxed);
        let (namespace, is_embedding) = (entry.meta.namespace, entry.meta.codec == Codec::F32);
        hits.push(HotKey { key: *key, namespace, is_embedding });
    }

    /// The hits of the last interval. The next one begins, of at most `hits_max`.
    pub(super) fn next_interval(&self, hits_max: usize) -> Vec<HotKey> {
        let next = Vec::with_capacity(hits_max);
        let mut hits = ignore_poison(self.hits.lock());
        self.open.store(hits_max, Ordering::Relaxed);
        std::mem::replace(&mut *hits, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EntryMeta, UnixSeconds};

    #[test]
    fn of_each_interval_the_first_hits_are_recorded() {
        let sample = HitSample::new();
        let meta = EntryMeta::ending(Codec::F32, UnixSeconds(1), UnixSeconds(2));
        let entry = Entry { meta, value: [0; 4].into() };
        sample.note(&Key([1; 32]), &entry);
        assert!(sample.next_interval(2).is_empty(), "nothing is open before");
        for n in 2..6 {
            sample.note(&Key([n; 32]), &entry);
        }
        let keys: Vec<Key> = sample.next_interval(1).iter().map(|hot| hot.key).collect();
        assert_eq!(keys, [Key([2; 32]), Key([3; 32])]);
        assert!(sample.next_interval(1).is_empty());
    }
}
