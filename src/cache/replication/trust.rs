//! Until when this node is known to have seen every change of the nodes that it shares entries with.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, ignore_poison};

/// The end of what is trusted without an end.
const FOREVER: u64 = u64::MAX;

/// Until when local copies may be served as fresh. Shared by `Arc`.
///
/// Each shard of the shared log is read by a follower. A reading that finds nothing unapplied proves that everything from before
/// it was sent is applied; from then on this node is trusted for [`Trust::suspect_after`]. The time is monotonic and goes on
/// while the process is stopped, so a process that is continued trusts nothing that it missed.
#[derive(Debug)]
pub struct Trust {
    since: Instant,
    suspect_after: Duration,
    /// The earliest end of all shards, in nanoseconds after `since`.
    until: AtomicU64,
    /// The end of each shard. Held while the earliest is computed, so that no follower undoes what another has revoked.
    shards: Mutex<Box<[u64]>>,
    /// Which shards of the shared log answer, a bit each, and wakes those who wait for it.
    connected: watch::Sender<u64>,
    all_connected: u64,
}

impl Trust {
    /// Of a node that shares nothing: it makes all changes itself.
    pub fn of_single_node() -> Trust {
        Trust::new(0, Duration::MAX, FOREVER)
    }

    /// Of a node that follows `shards` shards of a shared log and has read none of them.
    pub fn of_follower(shards: usize, suspect_after: Duration) -> Trust {
        Trust::new(shards, suspect_after, 0)
    }

    fn new(shards: usize, suspect_after: Duration, until: u64) -> Trust {
        Trust {
            since: Instant::now(),
            suspect_after,
            until: AtomicU64::new(until),
            shards: Mutex::new(vec![0; shards].into()),
            connected: watch::Sender::new(0),
            all_connected: (0..shards).fold(0, |all, shard| all | bit(shard)),
        }
    }

    /// Whether local copies may be served as fresh. Costs one atomic load, and with a shared log the reading of a clock.
    pub fn is_held(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || self.nanos() < until
    }

    /// How long local copies have not been trusted.
    pub fn lapsed(&self) -> Duration {
        let until = self.until.load(Ordering::Acquire);
        Duration::from_nanos(self.nanos().saturating_sub(until))
    }

    /// The age from which on all changes of all shards are applied.
    pub fn behind(&self) -> Duration {
        match self.until.load(Ordering::Acquire) {
            FOREVER => Duration::ZERO,
            until => {
                let confirmed = Duration::from_nanos(until).saturating_sub(self.suspect_after);
                Duration::from_nanos(self.nanos()).saturating_sub(confirmed)
            }
        }
    }

    /// All changes of a shard from before `as_of` are applied.
    pub fn confirm(&self, shard: usize, as_of: Instant) {
        let until = as_of.saturating_duration_since(self.since).saturating_add(self.suspect_after);
        self.set_end(shard, u64::try_from(until.as_nanos()).unwrap_or(FOREVER - 1));
        self.connected.send_modify(|connected| *connected |= bit(shard));
    }

    /// Local copies are not trusted until a shard is confirmed again.
    pub fn revoke(&self, shard: usize) {
        self.set_end(shard, 0);
    }

    /// Whether a shard is confirmed.
    pub fn is_shard_held(&self, shard: usize) -> bool {
        self.nanos() < ignore_poison(self.shards.lock())[shard]
    }

    /// Whether a shard of the shared log has answered last.
    pub fn is_connected(&self, shard: usize) -> bool {
        *self.connected.borrow() & bit(shard) != 0
    }

    /// Whether all shards have answered last.
    pub fn is_all_connected(&self) -> bool {
        *self.connected.borrow() == self.all_connected
    }

    /// Returns once a shard answers.
    pub async fn connected(&self, shard: usize) {
        let mut connected = self.connected.subscribe();
        // The sender lives as long as this value.
        let _ = connected.wait_for(|&connected| connected & bit(shard) != 0).await;
    }

    /// A shard does not answer: it is useless to wait for it.
    pub fn disconnect(&self, shard: usize) {
        self.connected.send_modify(|connected| *connected &= !bit(shard));
    }

    fn set_end(&self, shard: usize, end: u64) {
        let mut ends = ignore_poison(self.shards.lock());
        ends[shard] = end;
        self.until.store(ends.iter().copied().min().unwrap_or(FOREVER), Ordering::Release);
    }

    /// Returns whether local copies are trusted, after a wait of at most `limit` for the followers if they are not.
    pub async fn verify(&self, limit: Duration) -> bool {
        if self.is_held() {
            return true;
        }
        let mut connected = self.connected.subscribe();
        let renewed = async {
            while *connected.borrow_and_update() == self.all_connected {
                if self.is_held() || connected.changed().await.is_err() {
                    break;
                }
            }
        };
        // Past the limit the entry is judged as it stands.
        let _ = tokio::time::timeout(limit, renewed).await;
        self.is_held()
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(FOREVER - 1)
    }
}

fn bit(shard: usize) -> u64 {
    1 << shard
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPECT_AFTER: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_single_node_is_always_trusted_and_a_follower_from_its_first_reading_on() {
        assert!(Trust::of_single_node().is_held());
        let trust = Trust::of_follower(2, SUSPECT_AFTER);
        assert!(!trust.is_held());
        trust.confirm(0, Instant::now());
        assert!(!trust.is_held(), "one of two shards");
        trust.confirm(1, Instant::now());
        assert!(trust.is_held());
        trust.revoke(0);
        assert!(!trust.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn trust_ends_by_itself_and_counts_from_when_the_reading_was_sent() {
        let trust = Trust::of_follower(1, SUSPECT_AFTER);
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        trust.confirm(0, sent);
        assert!(trust.is_held());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!trust.is_held());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(trust.lapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_verifies_waits_for_a_reading_and_not_for_a_log_that_does_not_answer() {
        let trust = std::sync::Arc::new(Trust::of_follower(1, SUSPECT_AFTER));
        let before = Instant::now();
        assert!(!trust.verify(Duration::from_secs(60)).await);
        assert_eq!(Instant::now(), before, "not connected");
        trust.confirm(0, Instant::now());
        trust.revoke(0);
        let waiting = tokio::spawn({
            let trust = std::sync::Arc::clone(&trust);
            async move { trust.verify(Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        trust.confirm(0, Instant::now());
        assert!(waiting.await.unwrap());
        trust.revoke(0);
        assert!(!trust.verify(Duration::from_millis(100)).await, "the limit");
    }
}
