//! Throttles clients that guess keys, by address, and logs it.
//!
//! Only wrong keys are slowed: clients of one address, such as those behind one proxy, do not lock each other out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Over which wrong keys of one address are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// So many in a window are answered at once: a mistake, not a guess.
const FREE: u32 = 10;
/// What each further one adds to the time until it is answered.
const STEP: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(2);
/// After so many in a window, requests are refused with 429 until it ends.
const REFUSED_MAX: u32 = 100;
/// Addresses that are counted at the same time; past it, the count that is oldest is dropped.
const ADDRESSES_MAX: usize = 4096;
/// Between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How a wrong key is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Throttle {
    /// The delay of the response.
    pub(super) delay: Duration,
    /// Seconds until the window ends, if the request is refused with 429.
    pub(in crate::http) retry_after_seconds: Option<u64>,
}

/// Counts wrong keys.
#[derive(Default)]
pub(super) struct WrongKeys(Mutex<WrongKeyTable>);

#[derive(Default)]
struct WrongKeyTable {
    counts: HashMap<IpAddr, AddressCount>,
    logged: Option<Instant>,
}

#[derive(Clone, Copy)]
struct AddressCount {
    wrong: u32,
    since: Instant,
}

impl WrongKeys {
    /// Counts a wrong key that came from `peer`; returns how it is throttled.
    pub(in crate::http) fn count(&self, peer: IpAddr, now: Instant) -> Option<Throttle> {
        let address = network(peer);
        let mut table = lock(&self.0);
        if table.counts.len() >= ADDRESSES_MAX && !table.counts.contains_key(&address) {
            table.evict_oldest(now);
        }
        let count = table.counts.entry(address).or_insert(AddressCount { wrong: 0, since: now });
        if now.duration_since(count.since) >= WINDOW {
            *count = AddressCount { wrong: 0, since: now };
        }
        count.wrong = count.wrong.saturating_add(1);
        let count = *count;
        if table.logged.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL) {
            table.logged = Some(now);
            tracing::warn!(%address, count = count.wrong, "wrong API keys are presented");
        }
        let over = count.wrong.checked_sub(FREE).filter(|&over| over > 0)?;
        let left = WINDOW.saturating_sub(now.duration_since(count.since));
        let retry_after_seconds = (count.wrong > REFUSED_MAX).then_some(left.as_secs().max(1));
        Some(Throttle { delay: STEP.saturating_mul(over).min(DELAY_MAX), retry_after_seconds })
    }
}

impl WrongKeyTable {
    fn evict_oldest(&mut self, now: Instant) {
        self.counts.retain(|_, count| now.duration_since(count.since) < WINDOW);
        if self.counts.len() >= ADDRESSES_MAX {
            let oldest = self.counts.iter().min_by_key(|(_, count)| count.since).map(|(address, _)| *address);
            oldest.map(|address| self.counts.remove(&address));
        }
    }
}

/// The address, or the network of 64 bits that a client of IPv6 has for itself.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(n).into()
    }

    #[test]
    fn the_more_wrong_keys_the_longer_the_wait() {
        let (wrong_keys, now) = (WrongKeys::default(), Instant::now());
        for n in 0..FREE {
            assert_eq!(wrong_keys.count(peer(1), now), None, "{n}");
        }
        let delays: Vec<_> = (0..100).map(|_| wrong_keys.count(peer(1), now).unwrap().delay).collect();
        assert!(delays.is_sorted() && delays[0] == STEP && delays[99] == DELAY_MAX);
        let last = wrong_keys.count(peer(1), now + WINDOW / 2).unwrap();
        assert_eq!(last.retry_after_seconds, Some(30));
        assert_eq!(wrong_keys.count(peer(2), now), None, "another address");
        assert_eq!(wrong_keys.count(peer(1), now + WINDOW), None, "a new window");
    }

    #[test]
    fn the_table_is_bounded_and_drops_the_oldest() {
        let (wrong_keys, start) = (WrongKeys::default(), Instant::now());
        for n in 0..2 * ADDRESSES_MAX as u32 {
            wrong_keys.count(peer(n), start + Duration::from_millis(n.into()));
        }
        let table = wrong_keys.0.lock().unwrap();
        assert_eq!(table.counts.len(), ADDRESSES_MAX);
        assert!(!table.counts.contains_key(&peer(0)));
    }

    #[test]
    fn a_network_of_ipv6_counts_once() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
