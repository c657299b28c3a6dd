//! Random and ordinary requests for a long time: the memory of the server is flat once its budgets are full.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use super::requests::{Random, request, valid};
use super::wire::Client;
use super::{CLIENTS, Fixture, is_fault, shown};
use crate::program::Server;

/// Budgets that fill within the first part of a run.
pub(super) const BUDGETS: [(&str, &str); 5] = [
    ("LIKEWISE__CACHE__MEMORY__BUDGET", "16MiB"),
    ("LIKEWISE__CACHE__DISK__BYTES_MAX", "33554432"),
    ("LIKEWISE__CACHE__OBJECTS__BYTES_MAX", "16777216"),
    ("LIKEWISE__CACHE__INVALIDATED_TAGS_MAX", "4096"),
    ("LIKEWISE__HTTP__INFLIGHT_BYTES_MAX", "33554432"),
];
/// The first part of a run fills budgets and is not measured.
pub(super) const WARM_UP_SHARE: u32 = 3;
/// What the memory may grow by afterwards: the noise of the allocator.
const GROWTH_BYTES_MAX: u64 = 24 << 20;
/// Shorter runs do not fill the budgets, so their memory still grows.
pub(super) const FLAT_AFTER: Duration = Duration::from_secs(1200);
/// What the server holds at most, whatever the run: the budgets above, and with fixed limits 40 MiB of requests that were read
/// before, 16 MiB of pages of records, the tables of the stores, and the program itself.
pub(super) const MEMORY_BYTES_MAX: u64 = 288 << 20;

/// Sends requests until `end`, two of three as an ordinary client would, one each `pace` or as fast as they are answered. Returns
/// how many.
pub(super) async fn load(url: &str, seed: u64, end: Instant, pace: Option<Duration>) -> u64 {
    let (mut random, mut client, mut sent) = (Random::new(seed), Client::new(url), 0);
    let mut ticks = pace.map(tokio::time::interval);
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    }
    while Instant::now() < end {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let is_valid = random.below(3) > 0;
        let request = if is_valid { valid(&mut random) } else { request(&mut random) };
        let answer = client.send(&request, &mut random).await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", shown(&request)));
        assert!(
            !answer.as_ref().is_some_and(|answer| is_fault(&request, answer)),
            "{answer:?}: {}",
            shown(&request)
        );
        sent += 1;
    }
    sent
}

/// The least memory of several looks: what is in flight comes and goes.
async fn memory(server: &Server, lasts: Duration, looks: u32) -> Vec<u64> {
    let mut seen = Vec::new();
    for _ in 0..looks {
        let mut least = u64::MAX;
        let end = Instant::now() + lasts / looks;
        while Instant::now() < end {
            least = least.min(server.private_bytes());
            // A request of its own paces the looks.
            server.get("/v1/stats").await;
        }
        seen.push(least);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_under_a_random_mixed_load() {
    let seconds = std::env::var("LIKEWISE_SOAK_SECONDS").map_or(6, |text| text.parse().unwrap());
    let lasts = Duration::from_secs(seconds);
    let fixture = Fixture::start(&BUDGETS).await;
    let (url, end) = (fixture.server.url(), Instant::now() + lasts);
    let watched = async {
        let before = memory(&fixture.server, lasts / WARM_UP_SHARE, 4).await;
        let after = memory(&fixture.server, lasts - lasts / WARM_UP_SHARE, 8).await;
        (before, after)
    };
    let loads = join_all((0..CLIENTS as u64).map(|client| load(url, 77 + client, end, None)));
    let ((before, after), sent) = tokio::join!(watched, loads);
    let mib = |bytes: &[u64]| bytes.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>();
    println!("{} requests, MiB: {:?}, then {:?}", sent.iter().sum::<u64>(), mib(&before), mib(&after));
    let (first, last) = (before[before.len() - 1], after[after.len() - 1]);
    assert!(after.iter().all(|bytes| *bytes < MEMORY_BYTES_MAX), "{after:?} bytes");
    if lasts >= FLAT_AFTER {
        assert!(last < first + GROWTH_BYTES_MAX, "memory grew from {first} to {last} bytes");
    }
    fixture.assert_sound().await;
}
