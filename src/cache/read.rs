//! Looks entries up in the tiers, and judges what it finds.

use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Found, Freshness, Namespace, Policy, Verdict, WhenUnverified};
use crate::domain::{Entry, EntryMeta, Key, TierName};

/// How long a lookup waits for the changes of other nodes.
const VERIFY_WITHIN: Duration = Duration::from_millis(100);

/// How often a key is read below memory while other nodes change it.
const READS_MAX: usize = 3;

impl Cache {
    /// Looks in memory only. Never blocks; costs one hash probe, one reference count and the judge's probes.
    pub fn peek(&self, key: &Key) -> Option<Found> {
        self.peek_judged(key, |freshness, meta| freshness.judge(meta))
    }

    /// As [`Cache::peek`], for entries whose end is moved when they are used: it must be one that `policy` allows.
    pub fn peek_within(&self, key: &Key, policy: &Policy) -> Option<Found> {
        self.peek_judged(key, |freshness, meta| freshness.judge_within(meta, policy))
    }

    fn peek_judged(&self, key: &Key, judge: impl FnOnce(&Freshness, &EntryMeta) -> Verdict) -> Option<Found> {
        let entry = self.memory.get(key)?;
        let verdict = judge(&self.freshness, &entry.meta);
        if verdict == Verdict::Gone {
            self.memory.remove_same(key, &entry);
            return None;
        }
        Some(Found { entry, tier: TierName::Memory, verdict })
    }

    /// As [`Cache::peek`]. If it is not known whether other nodes have changed the entry, waits for the changes at most [`VERIFY_WITHIN`];
    /// then it is not found. Not for callers that hold the lock of the key: others wait for that.
    pub async fn peek_verified(&self, key: &Key) -> Option<Found> {
        let found = self.peek(key)?;
        if found.is_verified() {
            return Some(found);
        }
        self.freshness.trust().verify(VERIFY_WITHIN).await;
        self.peek(key).filter(Found::is_verified)
    }

    /// Looks in memory, then in the tiers below.
    pub async fn find(&self, namespace: &Namespace, key: &Key) -> Option<Found> {
        match self.peek(key) {
            Some(found) => self.admit_unverified(namespace, found),
            None => self.fetch(namespace, std::slice::from_ref(key)).await.pop().flatten(),
        }
    }

    /// An entry of which it is not known whether it was changed is found only if its policy allows it.
    fn admit_unverified(&self, namespace: &Namespace, found: Found) -> Option<Found> {
        let policy = &namespace.policy;
        let may_serve = || {
            policy.unverified == WhenUnverified::Stale
                && self.freshness.trust().lapsed().as_secs() < u64::from(policy.stale_if_error_seconds)
        };
        (found.is_verified() || may_serve()).then_some(found)
    }

    /// Looks in the tiers below memory, in order, and promotes what it finds. The results stand in the order of
    /// `keys`. A tier that fails is counted by itself and answers with misses.
    pub async fn fetch(&self, namespace: &Namespace, keys: &[Key]) -> Vec<Option<Found>> {
        let mut found: Vec<Option<Found>> = vec![None; keys.len()];
        let mut open: Vec<usize> = (0..keys.len()).collect();
        for _ in 0..READS_MAX {
            open = self.read_below(namespace, keys, open, &mut found).await;
            if open.is_empty() {
                break;
            }
        }
        found
    }

    /// Reads the keys at the places `open`. Returns those that other nodes have changed meanwhile.
    async fn read_below(
        &self,
        namespace: &Namespace,
        keys: &[Key],
        mut open: Vec<usize>,
        found: &mut [Option<Found>],
    ) -> Vec<usize> {
        let changes: Vec<u64> = keys.iter().map(|key| self.changes_of(key)).collect();
        let mut overtaken = Vec::new();
        for tier in self.below_for(namespace) {
            if open.is_empty() {
                break;
            }
            let wanted: Vec<Key> = open.iter().map(|&i| keys[i]).collect();
            let entries = tier.get_many(namespace, wanted).await;
            let mut missing = Vec::new();
            for (i, entry) in open.into_iter().zip(entries) {
                let judged = entry
                    .map(|entry| (self.freshness.judge_within(&entry.meta, &namespace.policy), entry))
                    .filter(|(verdict, _)| *verdict != Verdict::Gone);
                match judged {
                    None => missing.push(i),
                    Some((verdict, entry)) if self.promote(namespace, keys[i], &entry, changes[i]) => {
                        let read = Found { entry, tier: tier.name(), verdict };
                        found[i] = self.admit_unverified(namespace, read);
                        if found[i].is_none() {
                            missing.push(i);
                        }
                    }
                    Some(_) => overtaken.push(i),
                }
            }
            open = missing;
        }
        overtaken
    }

    /// The entries on disk, neither judged nor kept in memory, in the order of `keys`: for what is derived from stored entries.
    pub async fn read_stored(&self, namespace: &Namespace, keys: Vec<Key>) -> Vec<Option<Arc<Entry>>> {
        match self.below_for(namespace).find(|tier| tier.name() == TierName::Disk) {
            Some(disk) => disk.get_many(namespace, keys).await,
            None => vec![None; keys.len()],
        }
    }

    /// Keeps an entry that was read below memory. Returns whether no other node has changed it since `changes` were counted.
    fn promote(&self, namespace: &Namespace, key: Key, entry: &Arc<Entry>, changes: u64) -> bool {
        if namespace.policy.uses(TierName::Memory) {
            self.memory.put(key, Arc::clone(entry));
        }
        // Compared after it was kept: the follower counts a change and then removes what is kept.
        let is_unchanged = self.changes_of(&key) == changes;
        if !is_unchanged {
            self.memory.remove_same(&key, entry);
        }
        is_unchanged
    }

    fn changes_of(&self, key: &Key) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.changes.count(key))
    }
}
