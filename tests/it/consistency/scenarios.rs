//! What goes wrong in a run, and the proof that it did.

use std::time::Duration;

use super::client::Client;
use super::field::{Field, NODES, SKEW_SECONDS, Settings, address};
use super::history::{History, Outcome};
use super::proxy::{Fault, Proxy};
use crate::program::until;
use crate::redis::servers::{Program, RedisServer};

/// The lengths of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) before: Duration,
    pub(super) fault: Duration,
    pub(super) after: Duration,
    pub(super) stop: Duration,
    pub(super) suspect_after: Duration,
    /// The same for a run in which no hit may be flagged: on a busy machine a node may not run for longer than `suspect_after`.
    pub(super) quiet_suspect_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scenario {
    Quiet,
    /// 10 % of what nodes and Redis say to each other is lost, and with it the connection.
    Loss,
    /// Nothing passes between one node and Redis.
    Partition,
    RestartWithData,
    RestartEmpty,
    /// To a replica that has not seen the last writes.
    Failover,
    /// One node is cut off while the events that it has not seen are dropped.
    Trimmed,
    /// One node does not run for a while.
    Stopped,
    /// The clock of one node is wrong.
    Skewed,
    /// Slots of a cluster move to another master while they are written and read.
    SlotMoved,
}

const LOST_PER_MILLE: u64 = 100;
const REPLICA_BEHIND: Duration = Duration::from_millis(1_000);
/// Of 16; the first has the tokens, too.
const SHARDS_MOVED: u32 = 4;
/// The node to which something happens.
const VICTIM: usize = 0;

impl Scenario {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::Quiet => "quiet",
            Scenario::Loss => "10 % loss between nodes and Redis",
            Scenario::Partition => "partition of one node",
            Scenario::RestartWithData => "Redis restarted with persistence",
            Scenario::RestartEmpty => "Redis restarted without persistence",
            Scenario::Failover => "failover to a replica that lags",
            Scenario::Trimmed => "stream trimmed past a node",
            Scenario::Stopped => "node stopped (SIGSTOP)",
            Scenario::Skewed => "clock of one node 5 minutes off",
            Scenario::SlotMoved => "cluster slots moved under load",
        }
    }

    pub(super) fn settings(self, form: &Form) -> Settings {
        let redis: &[&str] = if self == Scenario::RestartWithData { &["--appendonly", "yes"] } else { &[] };
        let skewed = (self == Scenario::Skewed).then_some(VICTIM);
        let is_cluster = self == Scenario::SlotMoved;
        Settings { suspect_after: self.suspect_after(form), redis, is_cluster, skewed, alone: &[] }
    }

    pub(super) fn suspect_after(self, form: &Form) -> Duration {
        if self == Scenario::Quiet { form.quiet_suspect_after } else { form.suspect_after }
    }

    /// Lets happen what the scenario says, and heals it.
    pub(super) async fn act(self, field: &mut Field, form: &Form, client: &Client) {
        match self {
            Scenario::Quiet => elapse(form.before + form.fault + form.after).await,
            Scenario::Loss => lose(field, form).await,
            Scenario::Partition => part(field, form, client).await,
            Scenario::RestartWithData | Scenario::RestartEmpty => restart(field, form, client).await,
            Scenario::Failover => fail_over(field, form).await,
            Scenario::Trimmed => trim(field, form).await,
            Scenario::Stopped => stop(field, form).await,
            Scenario::Skewed => run_skewed(field, form).await,
            Scenario::SlotMoved => move_slots(field, form).await,
        }
    }
}

impl Scenario {
    /// Fails unless the records show what the scenario is for.
    pub(super) fn check(self, history: &History) {
        let (pending, flagged) = (pending(history), flagged(history));
        let hits =
            |node| history.reads.iter().filter(|read| read.node == node && read.version().is_some()).count();
        match self {
            Scenario::Partition => {
                assert!(pending > 0 && flagged > 0, "{pending} writes were pending, {flagged} hits flagged");
            }
            Scenario::RestartWithData | Scenario::RestartEmpty => {
                assert!(pending > 0, "writes went on without Redis");
            }
            Scenario::Skewed => {
                let (skewed, other) = (hits(VICTIM), hits(VICTIM + 1));
                assert!(skewed > other / 2, "{skewed} hits where the clock is wrong, {other} elsewhere");
            }
            Scenario::Quiet => {
                assert_eq!(flagged, 0);
                let found = history.reads.iter().filter(|read| read.version().is_some()).count();
                assert!(found > history.reads.len() * 3 / 4, "{found} hits of {}", history.reads.len());
            }
            Scenario::Loss
            | Scenario::Failover
            | Scenario::Trimmed
            | Scenario::Stopped
            | Scenario::SlotMoved => {}
        }
    }
}

/// Writes that were acknowledged and wait to be passed on.
fn pending(history: &History) -> usize {
    history.writes.iter().filter(|write| write.outcome == Outcome::Pending).count()
}

/// Hits that were flagged as perhaps stale.
fn flagged(history: &History) -> usize {
    history.reads.iter().filter(|read| read.is_flagged).count()
}

/// The lengths of a scenario are part of it: time passes, and the load goes on. What has to have happened by then is waited for.
async fn elapse(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn lose(field: &Field, form: &Form) {
    elapse(form.before).await;
    field.set_all(Fault::Lossy { per_mille: LOST_PER_MILLE });
    elapse(form.fault).await;
    until("connections are lost", async || field.proxy(VICTIM).resets() > 5).await;
    field.set_all(Fault::Pass);
    elapse(form.after).await;
}

async fn part(field: &Field, form: &Form, client: &Client) {
    elapse(form.before).await;
    field.proxy(VICTIM).set(Fault::HalfOpen);
    elapse(form.fault).await;
    until("the node has asked Redis", async || field.proxy(VICTIM).swallowed() > 0).await;
    let shows = |history: &History| pending(history) > 0 && flagged(history) > 0;
    until("writes are pending and hits are flagged", async || client.has_recorded(shows)).await;
    field.proxy(VICTIM).set(Fault::Pass);
    elapse(form.after).await;
}

async fn restart(field: &mut Field, form: &Form, client: &Client) {
    elapse(form.before).await;
    assert!(field.redis.ask::<u64>("DBSIZE") > 0, "the nodes store in Redis");
    field.redis.kill();
    elapse(form.fault / 4).await;
    until("writes go on without Redis", async || client.has_recorded(|history| pending(history) > 0)).await;
    field.redis.restart();
    elapse(form.fault * 3 / 4 + form.after).await;
}

async fn fail_over(field: &mut Field, form: &Form) {
    let behind = Proxy::start(address(&field.redis), 1).await;
    let port = behind.address().port().to_string();
    let options = |_, _: &_| ["--replicaof", "127.0.0.1", &port].map(String::from).into();
    let replica = RedisServer::start_with(Program::Redis, options);
    let is_synced = async || info(&replica, "master_link_status").as_deref() == Some("up");
    until("the replica has copied the primary", is_synced).await;
    elapse(form.before).await;
    behind.set(Fault::Delay { fixed: REPLICA_BEHIND, jitter: Duration::ZERO });
    elapse(form.fault).await;
    let offset = |server: &RedisServer, name: &str| -> u64 {
        info(server, name).and_then(|text| text.parse().ok()).expect("an offset")
    };
    let lags = async || offset(&field.redis, "master_repl_offset") > offset(&replica, "slave_repl_offset");
    until("the replica lags", lags).await;
    field.redis.kill();
    replica.ask::<()>("REPLICAOF NO ONE");
    field.lead_to(replica);
    elapse(form.after).await;
}

fn info(server: &RedisServer, field: &str) -> Option<String> {
    let lines = server.ask::<String>("INFO replication");
    let value = lines.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

async fn trim(field: &Field, form: &Form) {
    elapse(form.before).await;
    // Shorter than the suspicion time, then longer.
    for cut in [form.suspect_after / 2, form.fault] {
        field.proxy(VICTIM).set(Fault::Cut);
        elapse(cut).await;
        let drops = async || field.redis.ask::<u64>("XTRIM {likewise:0}:events MAXLEN 0") > 0;
        until("events are dropped", drops).await;
        field.proxy(VICTIM).set(Fault::Pass);
        elapse(form.after / 2).await;
    }
}

async fn stop(field: &Field, form: &Form) {
    elapse(form.before).await;
    field.server(VICTIM).signal("STOP");
    elapse(form.stop).await;
    field.server(VICTIM).signal("CONT");
    elapse(form.after).await;
}

async fn run_skewed(field: &Field, form: &Form) {
    let mut times = Vec::new();
    for node in [VICTIM, VICTIM + 1] {
        let answer = field.server(node).get("/healthz").await;
        times.push(httpdate::parse_http_date(answer.header("date")).expect("a date"));
    }
    let skew = times[0].duration_since(times[1]).expect("the clock of the first is ahead").as_secs();
    assert!(skew.abs_diff(SKEW_SECONDS) <= 2, "the clock is {skew} seconds ahead");
    elapse(form.before + form.fault + form.after).await;
}

async fn move_slots(field: &Field, form: &Form) {
    elapse(form.before).await;
    let cluster = field.cluster.as_ref().expect("the nodes use a cluster");
    for shard in 0..SHARDS_MOVED {
        let slot: usize = cluster.nodes[0].ask(&format!("CLUSTER KEYSLOT {{likewise:{shard}}}:state"));
        let master = cluster.master_of(slot);
        let keys: usize = cluster.nodes[master].ask(&format!("CLUSTER COUNTKEYSINSLOT {slot}"));
        assert!(keys > 2, "slot {slot} has {keys} keys");
        let pause = form.fault / SHARDS_MOVED / 2;
        cluster.move_slot(slot, (master + 1) % NODES, async || elapse(pause).await).await;
        elapse(pause).await;
    }
    elapse(form.after).await;
}
