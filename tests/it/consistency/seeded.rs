//! Bugs put in on purpose, which the judge must find. None of them is in the program: they are in what it is connected to.

use std::time::Duration;

use super::field::{Field, Settings, address};
use super::judge::Verdicts;
use super::load::Rates;
use super::replay::ReplayingProxy;
use super::{micros, record};

const RATES: Rates = Rates { reads: 400, writes: 40, sets: 20 };
const SUSPECT_AFTER: Duration = Duration::from_millis(500);
/// Long enough that what is stale is stale for longer than the suspicion time.
const RUN: Duration = Duration::from_millis(2_500);
const SETTINGS: Settings =
    Settings { suspect_after: SUSPECT_AFTER, redis: &[], is_cluster: false, skewed: None, alone: &[] };

/// What the judge finds, and its row.
async fn judge(field: Field, act: impl AsyncFnOnce(&mut Field)) -> (Verdicts, String) {
    let found = Verdicts::of(&record(field, RATES, act).await, micros(SUSPECT_AFTER));
    let row = found.row("seeded");
    println!("\n{row}");
    (found, row)
}

/// Nodes that do not know of each other do everything wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_nothing_are_found() {
    let field = Field::start(&Settings { alone: &[0, 1, 2], ..SETTINGS }, 1).await;
    let (found, row) = judge(field, async |_| tokio::time::sleep(RUN).await).await;
    assert!(found.stale_share() > 0.1 && found.stale_late > 20 && found.diverged > 10, "{row}");
    let own = (found.went_back, found.own_write_missed, found.foreign);
    assert_eq!(own, (0, 0, 0), "each is right alone: {row}");
    assert!(found.faults().len() > 3, "{:?}", found.faults());
}

/// The follower of one node sees no events, and not that those it has not seen are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_applies_no_events_and_ignores_a_gap_is_found() {
    let field = Field::start(&SETTINGS, 1).await;
    let replaying = ReplayingProxy::start(address(&field.redis)).await;
    field.proxy(0).lead_to(replaying.address());
    replaying.freeze().await;
    let (found, row) = judge(field, async |field| {
        tokio::time::sleep(RUN / 2).await;
        field.redis.ask::<()>("XTRIM {likewise:0}:events MAXLEN 0");
        tokio::time::sleep(RUN / 2).await;
    })
    .await;
    assert!(replaying.replayed() > 10, "the follower was answered {} times", replaying.replayed());
    assert!(found.stale_late > 5 && found.faults().len() > 1, "{row}");
}
