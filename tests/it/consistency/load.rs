//! Readers and writers at a steady rate.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::client::Client;
use super::history::{Key, Node, Outcome, Read, Seen};
use crate::program::until;
use crate::random_load::Random;

/// Operations each second, of all nodes together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) reads: u32,
    pub(super) writes: u32,
    pub(super) sets: u32,
}

/// Tasks that share a rate, so that one slow response does not stop all.
const READERS_PER_NODE: u32 = 4;
const WRITERS: u32 = 6;
const SETTERS: u32 = 3;
/// Keys that are only replaced by compare-and-set, by all setters.
const CONTENDED: Key = 4;
const SETTLED_WITHIN: Duration = Duration::from_secs(6);
const SETTLING_ROUND: Duration = Duration::from_millis(200);

/// A load that goes on until it is stopped.
pub(super) struct Load {
    tasks: JoinSet<()>,
    is_stopped: tokio::sync::watch::Sender<bool>,
}

impl Load {
    /// Waits until the nodes are connected, stores each key once, and begins.
    pub(super) async fn start(client: &Arc<Client>, rates: Rates, seed: u64) -> Load {
        let nodes = client.nodes();
        for node in 0..nodes {
            let reaches_all = async || client.put(node as Key, node).await == Outcome::Propagated;
            until("writes of a node reach the others", reaches_all).await;
        }
        for key in 0..client.keys() {
            client.put(key, key as usize % nodes).await;
        }
        let mut load = Load { tasks: JoinSet::new(), is_stopped: tokio::sync::watch::Sender::new(false) };
        let readers = READERS_PER_NODE * nodes as u32;
        for n in 0..readers {
            load.repeat(rates.reads, readers, client, seed + u64::from(n), move |client, random| {
                read(client, random, n as usize % nodes)
            });
        }
        for n in 0..WRITERS {
            load.repeat(rates.writes, WRITERS, client, seed + 100 + u64::from(n), write);
        }
        for n in 0..SETTERS {
            load.repeat(rates.sets, SETTERS, client, seed + 200 + u64::from(n), set);
        }
        load
    }

    /// One of `tasks` tasks that act `rate` times a second together.
    fn repeat<F: Future<Output = ()> + Send>(
        &mut self,
        rate: u32,
        tasks: u32,
        client: &Arc<Client>,
        seed: u64,
        act: impl Fn(Arc<Client>, Random) -> F + Send + Sync + 'static,
    ) {
        let (client, mut random) = (Arc::clone(client), Random::new(seed));
        let mut ticks = tokio::time::interval(Duration::from_secs(1) * tasks / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut is_stopped = self.is_stopped.subscribe();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    _ = is_stopped.wait_for(|is_stopped| *is_stopped) => return,
                    _ = ticks.tick() => {}
                }
                act(Arc::clone(&client), Random::new(random.next())).await;
            }
        });
    }

    /// Lets each operation end, and ends.
    pub(super) async fn stop(mut self) {
        self.is_stopped.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client panics");
        }
    }
}

async fn read(client: Arc<Client>, mut random: Random, node: Node) {
    client.read(random.below(client.keys() as usize) as Key, node).await;
}

async fn write(client: Arc<Client>, mut random: Random) {
    let key = CONTENDED + random.below((client.keys() - CONTENDED) as usize) as Key;
    let node = random.below(client.nodes());
    match random.below(40) {
        0..3 => client.delete(key, node).await,
        3 => client.invalidate(key, node).await,
        _ => client.put(key, node).await,
    };
    // The node that wrote must know it.
    client.read(key, node).await;
}

async fn set(client: Arc<Client>, mut random: Random) {
    let key = random.below(CONTENDED as usize) as Key;
    client.compare_and_set(key, random.below(client.nodes()), random.below(client.nodes())).await;
}

/// Reads every key at every node until they agree, and records what they answer last.
pub(super) async fn settle(client: &Client) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let mut rounds = tokio::time::interval(SETTLING_ROUND);
    loop {
        rounds.tick().await;
        let mut last = Vec::new();
        for key in 0..client.keys() {
            last.extend(join_all((0..client.nodes()).map(|node| client.look(key, node))).await);
        }
        // Nodes that do not agree are for the judge to find.
        if last.chunks(client.nodes()).all(agree) || Instant::now() > deadline {
            return client.record_last(last);
        }
    }
}

fn agree(answers: &[Read]) -> bool {
    let mut found = answers.iter().map(|read| read.seen).filter(|seen| *seen != Seen::Miss);
    let first = found.next();
    first != Some(Seen::Failed) && found.all(|seen| Some(seen) == first)
}
