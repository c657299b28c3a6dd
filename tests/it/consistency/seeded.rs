//! Bugs put in on purpose, which the judge must find. None of them is in the program: they are in what it is connected to.

use std::time::Duration;

use super::client::Client;
use super::field::{Field, Settings, address};
use super::history::{Change, History};
use super::judge::Verdicts;
use super::load::Rates;
use super::replay::ReplayingProxy;
use super::{KEYS, micros, record};
use crate::program::until;

const RATES: Rates = Rates { reads: 400, writes: 40, sets: 20 };
const SUSPECT_AFTER: Duration = Duration::from_millis(500);
/// Long enough that what is stale is stale for longer than the suspicion time.
const RUN: Duration = Duration::from_millis(2_500);
/// So many that nodes that share nothing have different values of more than ten keys.
const PUTS_MIN: usize = 80;
const SETTINGS: Settings =
    Settings { suspect_after: SUSPECT_AFTER, redis: &[], is_cluster: false, skewed: None, alone: &[] };

/// What the judge finds, and its row.
async fn judge(field: Field, act: impl AsyncFnOnce(&mut Field, &Client)) -> (Verdicts, String) {
    let found = judged(&record(field, RATES, act).await);
    let row = found.row("seeded");
    println!("\n{row}");
    (found, row)
}

fn judged(history: &History) -> Verdicts {
    Verdicts::of(history, micros(SUSPECT_AFTER))
}

/// Nodes that do not know of each other do everything wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_nothing_are_found() {
    let field = Field::start(&Settings { alone: &[0, 1, 2], ..SETTINGS }, 1).await;
    let (found, row) = judge(field, async |_, client| {
        tokio::time::sleep(RUN).await;
        let has_enough = |history: &History| {
            let puts = history.writes.iter().filter(|write| matches!(write.change, Change::Put(_))).count();
            let found = judged(history);
            // Those behind the first ones of each key are at any node.
            puts > KEYS as usize + PUTS_MIN && found.stale_share() > 0.1 && found.stale_late > 20
        };
        until("enough was written and enough stale values were read", async || has_enough(&client.history()))
            .await;
    })
    .await;
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
    let (found, row) = judge(field, async |field, client| {
        tokio::time::sleep(RUN / 2).await;
        field.redis.ask::<()>("XTRIM {likewise:0}:events MAXLEN 0");
        tokio::time::sleep(RUN / 2).await;
        let has_enough = |history: &History| judged(history).stale_late > 5;
        until("enough stale values were read", async || has_enough(&client.history())).await;
        until("the follower was answered often enough", async || replaying.replayed() > 10).await;
    })
    .await;
    assert!(replaying.replayed() > 10, "the follower was answered {} times", replaying.replayed());
    assert!(found.stale_late > 5 && found.faults().len() > 1, "{row}");
}
