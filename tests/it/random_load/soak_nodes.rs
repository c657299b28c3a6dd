//! Two nodes that share a Redis under mixed requests at a steady rate: no request fails by a fault of a server, and memory and
//! descriptors of each node are flat.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Fixture;
use super::soak::{BUDGETS, FLAT_AFTER, MEMORY_BYTES_MAX, WARM_UP_SHARE, load};
use crate::program::{MACHINE, Server};
use crate::redis::servers::{Program, RedisServer, free_port};

/// Requests each second, of both nodes together; fewer if the machine cannot.
const PER_SECOND: u32 = 1_000;
const CLIENTS: u32 = 16;
/// What the memory may grow by in an hour, after the warm-up.
const GROWTH_PER_HOUR_MAX: f64 = 0.01;
/// Segments of stores and connections between the nodes come and go.
const DESCRIPTORS_GROWTH_MAX: usize = 32;
/// Parts of a run, each with its least memory and its most descriptors.
const WINDOWS: u32 = 36;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Redis makes room by itself, as in production.
const REDIS_ARGUMENTS: [&str; 4] = ["--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru"];

/// What a node held in a part of a run.
#[derive(Debug, Clone, Copy)]
struct Window {
    least_bytes: u64,
    most_descriptors: usize,
}

async fn windows(server: &Server, lasts: Duration) -> Vec<Window> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let (mut seen, start) = (Vec::new(), Instant::now());
    for number in 1..=WINDOWS {
        let mut window = Window { least_bytes: u64::MAX, most_descriptors: 0 };
        let end = start + lasts / WINDOWS * number;
        loop {
            looks.tick().await;
            window.least_bytes = window.least_bytes.min(server.private_bytes());
            window.most_descriptors = window.most_descriptors.max(server.descriptors());
            if Instant::now() >= end {
                break;
            }
        }
        seen.push(window);
    }
    seen
}

/// By which share of its median the memory grows in an hour: the median of the slopes between all pairs (Theil-Sen).
fn growth_per_hour(windows: &[Window], window: Duration) -> f64 {
    let bytes: Vec<f64> = windows.iter().map(|window| window.least_bytes as f64).collect();
    let pairs = (0..bytes.len()).flat_map(|from| (from + 1..bytes.len()).map(move |to| (from, to)));
    let hours = window.as_secs_f64() / 3600.0;
    let slopes = pairs.map(|(from, to)| (bytes[to] - bytes[from]) / ((to - from) as f64 * hours));
    median(slopes.collect()) / median(bytes.clone())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn growth_is_the_share_of_an_hour() {
    let window = |n: u64| Window { least_bytes: 1000 + n, most_descriptors: 0 };
    let windows: Vec<Window> = (0..9).map(window).collect();
    let growth = growth_per_hour(&windows, Duration::from_secs(360));
    assert!((growth - 10.0 / 1004.0).abs() < 1e-9, "{growth}");
}

async fn node(redis: &RedisServer) -> Fixture {
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let shared = [
        ("LIKEWISE__REDIS__URL", redis.url()),
        // Servers share two processors with the load.
        ("LIKEWISE__REDIS__CONNECT_MS_MAX", "2000"),
        ("LIKEWISE__REDIS__RESPONSE_MS_MAX", "1000"),
        ("LIKEWISE__NODES__ADVERTISE", &url),
    ];
    Fixture::start_at(&address, &[&BUDGETS[..], &shared].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_are_flat_under_a_steady_mixed_load() {
    let _machine = MACHINE.lock().await;
    let seconds = std::env::var("LIKEWISE_SOAK_SECONDS").map_or(9, |text| text.parse().unwrap());
    let lasts = Duration::from_secs(seconds);
    let arguments = |_, _: &Path| REDIS_ARGUMENTS.map(String::from).to_vec();
    let redis = RedisServer::start_with(Program::Redis, arguments);
    let nodes = [node(&redis).await, node(&redis).await];
    let end = Instant::now() + lasts;
    let pace = Duration::from_secs(1) * CLIENTS / PER_SECOND;
    let loads = (0..CLIENTS).map(|client| {
        let url = nodes[client as usize % nodes.len()].server.url();
        load(url, 700 + u64::from(client), end, Some(pace))
    });
    let watched = join_all(nodes.iter().map(|node| windows(&node.server, lasts)));
    let (sent, watched) = tokio::join!(join_all(loads), watched);
    println!("{:.0} requests/s for {seconds} s", sent.iter().sum::<u64>() as f64 / lasts.as_secs_f64());
    for (node, windows) in nodes.iter().zip(watched) {
        assert!(windows.iter().all(|window| window.least_bytes < MEMORY_BYTES_MAX), "{windows:?}");
        let flat = &windows[(WINDOWS / WARM_UP_SHARE) as usize..];
        let growth = growth_per_hour(flat, lasts / WINDOWS);
        let mib: Vec<_> = windows.iter().map(|window| window.least_bytes >> 20).collect();
        let descriptors: Vec<_> = windows.iter().map(|window| window.most_descriptors).collect();
        println!("MiB: {mib:?}, {:.2} %/h after the warm-up; descriptors: {descriptors:?}", growth * 100.0);
        if lasts >= FLAT_AFTER {
            assert!(growth < GROWTH_PER_HOUR_MAX, "the memory grows by {growth} in an hour");
            let (first, last) = (flat[0].most_descriptors, flat[flat.len() - 1].most_descriptors);
            assert!(last < first + DESCRIPTORS_GROWTH_MAX, "descriptors: {descriptors:?}");
        }
        node.assert_sound().await;
    }
}
