//! Hits in memory: of a node with Redis and of the same program without, of two nodes and of one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise_benches::beside::Server;
use likewise_benches::load::{closed_loop, open_loop};
use likewise_benches::{median_interval, spread};

use crate::{Kind, Setting, cached};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_secs(2);
/// Requests a second of all nodes together; what both cores can do with the load beside them is five times as much.
const RATE: f64 = 8_000.0;

/// A round, with what it cost.
struct Round {
    per_second: f64,
    /// Microseconds of the processor for each request.
    cpu: f64,
}

/// Hits of a server without Redis and of one with it, in turn.
pub(crate) async fn print_without_and_with(setting: &Setting) {
    let servers = [setting.alone("alone"), setting.node("first", &[]).await];
    for server in &servers {
        cached(server).await;
    }
    println!("hits in memory, {CONNECTIONS} connections, {ROUNDS} rounds of {} s in turn", ROUND.as_secs());
    println!(
        "| hit | without Redis: requests/s | min-max | with Redis | min-max | ratio, 95 % interval | ratio of requests per second of processor, 95 % interval |"
    );
    println!("|---|---|---|---|---|---|---|");
    for kind in Kind::ALL {
        let mut rounds: [Vec<Round>; 2] = Default::default();
        for round in 0..ROUNDS {
            for at in [round % 2, 1 - round % 2] {
                rounds[at].push(closed_round(&servers[at], kind).await);
            }
        }
        let ratios = |of: fn(&Round) -> f64| {
            let pairs = rounds[0].iter().zip(&rounds[1]);
            interval(&pairs.map(|(without, with)| of(with) / of(without)).collect::<Vec<_>>())
        };
        let (speed, economy) = (ratios(|round| round.per_second), ratios(|round| 1.0 / round.cpu));
        let [without, with] = rounds.map(|rounds| {
            let own = spread(rounds.iter().map(|round| round.per_second).collect());
            format!("{:.0} | {:.0}-{:.0}", own.median, own.min, own.max)
        });
        println!("| {} | {without} | {with} | {speed} | {economy} |", kind.name());
    }
    println!();
}

async fn closed_round(server: &Server, kind: Kind) -> Round {
    let (cpu, began) = (server.cpu_seconds(), Instant::now());
    let per_second = closed_loop(server.address, &[kind.request(server.address)], CONNECTIONS, ROUND).await;
    let requests = per_second * began.elapsed().as_secs_f64();
    Round { per_second, cpu: (server.cpu_seconds() - cpu) / requests * 1e6 }
}

/// Processor time of one node, and of two that share the same load, in turn; the same without Redis shows what of it is the cost of two
/// processes.
pub(crate) async fn print_one_and_two(setting: &Setting) {
    let shared = [setting.node("first", &[]).await, setting.node("second", &[]).await];
    let apart = [setting.alone("third"), setting.alone("fourth")];
    for node in shared.iter().chain(&apart) {
        cached(node).await;
    }
    println!(
        "{RATE} hits/s in all, a third of each kind, {ROUNDS} rounds of {} s in turn; microseconds of the processor a request",
        ROUND.as_secs()
    );
    println!(
        "| | one node | min-max | two nodes | min-max | ratio, 95 % interval |\n|---|---|---|---|---|---|"
    );
    let mut rounds: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..ROUNDS {
        for at in [round % 2, 1 - round % 2] {
            for (of, nodes) in rounds.iter_mut().zip([&shared, &apart]) {
                of[at].push(cpu_of(&nodes[..=at]).await);
            }
        }
    }
    for (name, rounds) in ["with Redis", "without"].into_iter().zip(rounds) {
        let ratios: Vec<f64> = rounds[0].iter().zip(&rounds[1]).map(|(one, two)| two / one).collect();
        let [one, two] = rounds.map(|rounds| {
            let own = spread(rounds);
            format!("{:.1} | {:.1}-{:.1}", own.median, own.min, own.max)
        });
        println!("| {name} | {one} | {two} | {} |", interval(&ratios));
    }
    println!();
}

/// Microseconds of the processor for each request of a load that these nodes share.
async fn cpu_of(nodes: &[Server]) -> f64 {
    let spent = || nodes.iter().map(Server::cpu_seconds).sum::<f64>();
    let (rate, connections) = (RATE / nodes.len() as f64, CONNECTIONS / nodes.len());
    let before = spent();
    let loads = nodes.iter().map(|node| {
        let requests = Kind::ALL.map(|kind| kind.request(node.address));
        tokio::spawn(answered(node.address, requests, rate, connections))
    });
    let mut requests = 0;
    for load in loads.collect::<Vec<_>>() {
        requests += load.await.expect("the load ends");
    }
    (spent() - before) / requests as f64 * 1e6
}

async fn answered(address: SocketAddr, requests: [Arc<[u8]>; 3], rate: f64, connections: usize) -> usize {
    open_loop(address, &requests, rate, connections, ROUND).await.len()
}

fn interval(ratios: &[f64]) -> String {
    let interval = median_interval(ratios);
    format!("{:.3}, {:.3}-{:.3}", interval.median, interval.low, interval.high)
}
