//! Staleness across nodes, measured: real nodes, a real Redis, and a network between them that fails.
//!
//! Writers and readers record each operation with its start, its end and what they saw (`history`); a judge that knows
//! nothing of the server finds in the records what no cache may do (`judge`). Each scenario is short here; `make consistency`
//! runs the long form. `docs/consistency.md` says what is measured and shows the table.

mod client;
mod field;
mod history;
mod judge;
mod judge_tests;
mod kill_nodes;
mod load;
mod proxy;
mod replay;
mod report;
mod scenarios;
mod seeded;

use std::sync::Arc;
use std::time::Duration;

use self::client::Client;
use self::field::Field;
use self::history::{History, Key};
use self::judge::Verdicts;
use self::load::{Load, Rates};
use self::scenarios::{Form, Scenario};
use crate::program::{MACHINE, until};

const SHORT: Form = Form {
    before: Duration::from_millis(500),
    fault: Duration::from_millis(1_500),
    after: Duration::from_millis(1_000),
    stop: Duration::from_millis(1_200),
    suspect_after: Duration::from_millis(500),
    quiet_suspect_after: Duration::from_secs(5),
};
const LONG: Form = Form {
    before: Duration::from_secs(10),
    fault: Duration::from_secs(30),
    after: Duration::from_secs(20),
    stop: Duration::from_secs(10),
    suspect_after: Duration::from_secs(2),
    quiet_suspect_after: Duration::from_secs(2),
};
const RATES: Rates = Rates { reads: 400, writes: 40, sets: 20 };
const LONG_RATES: Rates = Rates { reads: 800, writes: 60, sets: 40 };
const KEYS: Key = 200;
/// More reads of a run find a value.
const HITS_MIN: usize = 400;

fn is_long() -> bool {
    std::env::var_os("LIKEWISE_CONSISTENCY").is_some_and(|form| form == "long")
}

fn seed() -> u64 {
    std::env::var("LIKEWISE_CONSISTENCY_SEED").map_or(1, |text| text.parse().expect("a number"))
}

/// Runs a load while something happens, and returns what was recorded.
async fn record(mut field: Field, rates: Rates, act: impl AsyncFnOnce(&mut Field, &Client)) -> History {
    let _machine = MACHINE.lock().await;
    let client = Arc::new(Client::new(field.urls(), KEYS));
    let load = Load::start(&client, rates, seed()).await;
    act(&mut field, client.as_ref()).await;
    load.stop().await;
    load::settle(&client).await;
    client.history()
}

async fn judge(scenario: Scenario) {
    let (form, rates) = if is_long() { (&LONG, LONG_RATES) } else { (&SHORT, RATES) };
    let field = Field::start(&scenario.settings(form), seed()).await;
    let history = record(field, rates, async |field, client| {
        scenario.act(field, form, client).await;
        let hits = |history: &History| history.reads.iter().filter(|read| read.version().is_some()).count();
        let are_enough = async || client.has_recorded(|history| hits(history) > HITS_MIN);
        until("enough reads have found something", are_enough).await;
    })
    .await;
    let found = Verdicts::of(&history, micros(scenario.suspect_after(form)));
    let (row, faults) = (found.row(scenario.name()), found.faults());
    println!("\n{row}");
    assert!(faults.is_empty(), "seed {}: {row}\n{}", seed(), faults.join("\n"));
    scenario.check(&history);
    assert!(found.hits > found.reads / 5, "too few reads find something: {row}");
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a short time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet() {
    judge(Scenario::Quiet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss() {
    judge(Scenario::Loss).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partition() {
    judge(Scenario::Partition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_with_data() {
    judge(Scenario::RestartWithData).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_empty() {
    judge(Scenario::RestartEmpty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover() {
    judge(Scenario::Failover).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed() {
    judge(Scenario::Trimmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped() {
    judge(Scenario::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skewed() {
    judge(Scenario::Skewed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_moved() {
    judge(Scenario::SlotMoved).await;
}
