//! Goal: after a restart, also one after `kill -9`, what was used most is in memory before it is asked for, and nothing is that has ended or
//! was invalidated. Method: the real program, killed and started on one data directory; the tier of each hit is what it says of itself.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::program::{Server, output, until, without_model};

const INTERVAL: &str = "LIKEWISE__CACHE__WARM_RESTART__INTERVAL_SECONDS";
const KEYS_MAX: &str = "LIKEWISE__CACHE__WARM_RESTART__KEYS_MAX";
const TEXTS: usize = 2000;
const OBJECTS: usize = 100;
/// Bytes of a list around its keys, and of a key.
const LIST_BYTES: usize = 28;
const KEY_BYTES: usize = 42;

fn list_path(dir: &TempDir) -> std::path::PathBuf {
    dir.path().join("HOT_KEYS")
}

/// A value of `/metrics`, by its name with its labels.
async fn metric(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let text = metrics.as_str().expect("metrics are text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse::<f64>().expect("a number") as u64)
}

async fn warmed(server: &Server) -> u64 {
    metric(server, "likewise_warm_restart_entries_total").await
}

/// Hits of the memory tier and of the disk tier.
async fn hits(server: &Server) -> (u64, u64) {
    let of = async |tier: &str| metric(server, &format!("likewise_tier_hits_total{{tier=\"{tier}\"}}")).await;
    (of("memory").await, of("disk").await)
}

/// Asks for all texts and all objects once. Returns the hits of both tiers for that.
async fn ask_for_all(server: &Server) -> (u64, u64) {
    let before = hits(server).await;
    for first in (0..TEXTS).step_by(500) {
        let texts: Vec<String> = (first..first + 500).map(|n| format!("text {n}")).collect();
        let answer = server.post_raw(json!({ "model": "mock", "input": texts }).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    for n in 0..OBJECTS {
        let found = server.get(&format!("/v1/cache/products/{n}")).await;
        assert_eq!((found.status, found.body), (200, json!(n)));
    }
    let after = hits(server).await;
    (after.0 - before.0, after.1 - before.1)
}

async fn put(server: &Server, path: &str, headers: &[(&str, &str)], value: &str) {
    let stored = server.ask("PUT", &format!("/v1/cache/{path}"), headers, value.to_owned()).await;
    assert_eq!(stored.status, 204, "{}", stored.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_memory_is_there_again_after_a_stop_and_after_a_kill() {
    let all = (TEXTS + OBJECTS) as u64;
    for is_killed in [false, true] {
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        let interval = if is_killed { "1" } else { "3600" };
        let start = || Server::spawn(remote(dir.path(), &endpoint.url).env(INTERVAL, interval));
        let server = start();
        for n in 0..OBJECTS {
            put(&server, &format!("products/{n}"), &[("content-type", "application/json")], &n.to_string())
                .await;
        }
        ask_for_all(&server).await;
        assert_eq!(ask_for_all(&server).await, (all, 0));
        if is_killed {
            until("all keys are in the list", async || {
                let length = fs_err::metadata(list_path(&dir)).map_or(0, |metadata| metadata.len());
                length == LIST_BYTES as u64 + all * KEY_BYTES as u64
            })
            .await;
            server.kill();
        } else {
            assert!(server.stop().success());
        }
        let server = start();
        until("all entries are in memory", async || warmed(&server).await == all).await;
        assert_eq!(ask_for_all(&server).await, (all, 0), "killed: {is_killed}");
        assert_eq!(endpoint.texts(), TEXTS as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_that_were_used_most_are_taken_and_the_budget_is_not_filled() {
    const BUDGET: u64 = 16 << 20;
    const ALL: usize = 140;
    for eviction in ["s3fifo", "lru"] {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("log");
        let start = |keys_max: &str| {
            let mut program = without_model(dir.path());
            program.env(KEYS_MAX, keys_max).env("LIKEWISE__CACHE__MEMORY__EVICTION", eviction);
            program.env("LIKEWISE__CACHE__MEMORY__BUDGET", "16MiB").env("LIKEWISE_LOG", "info");
            Server::spawn(program.stderr(fs_err::File::create(&log).unwrap().into_parts().0))
        };
        let has_read =
            async || fs_err::read_to_string(&log).unwrap().contains("read into memory what was used most");
        let server = start("10");
        let value = "x".repeat(100_000);
        for n in 0..40 {
            put(&server, &format!("products/{n}"), &[], &value).await;
        }
        for _ in 0..3 {
            for n in 30..40 {
                assert_eq!(server.get(&format!("/v1/cache/products/{n}")).await.status, 200);
            }
        }
        assert!(server.stop().success());
        let server = start("1000");
        until("the entries of the list are read", has_read).await;
        assert_eq!(warmed(&server).await, 10);
        for n in [39, 30, 35, 5] {
            let found = server.get(&format!("/v1/cache/products/{n}")).await;
            let tier = if n < 30 { "detail=disk" } else { "detail=memory" };
            assert!(found.header("cache-status").ends_with(tier), "{n}: {}", found.header("cache-status"));
        }
        // More than fit into memory.
        for n in 40..ALL {
            put(&server, &format!("products/{n}"), &[], &value).await;
        }
        assert!(server.stat("/tiers/0/bytes").await > BUDGET / 100 * 94);
        assert!(server.stop().success());
        let server = start("1000");
        until("memory is filled", has_read).await;
        let bytes = server.stat("/tiers/0/bytes").await;
        assert!((BUDGET / 100 * 79..BUDGET / 100 * 94).contains(&bytes), "{eviction}: {bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_or_was_invalidated_meanwhile_does_not_come_back() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let start = || Server::spawn(remote(dir.path(), &endpoint.url).env(INTERVAL, "3600"));
    let server = start();
    for (key, headers) in [
        ("kept", &[][..]),
        ("replaced", &[]),
        ("removed", &[]),
        ("hidden", &[]),
        ("tagged", &[("x-cache-tags", "gone")]),
        ("brief", &[("x-cache-ttl", "1"), ("x-cache-tags", "brief")]),
    ] {
        put(&server, &format!("products/{key}"), headers, "old").await;
    }
    let text = json!({ "model": "mock", "input": "a text", "cache": { "namespace": "texts" } }).to_string();
    assert_eq!(server.post_raw(text.clone()).await.counts(), (0, 1, 0));
    assert!(server.stop().success());
    let listed = fs_err::read(list_path(&dir)).unwrap().len();
    assert_eq!(listed, LIST_BYTES + 7 * KEY_BYTES);

    // The list still names all of them when this one is killed.
    let server = start();
    put(&server, "products/replaced", &[], "new").await;
    assert_eq!(server.ask("DELETE", "/v1/cache/products/removed", &[], "").await.status, 204);
    for target in [
        json!({ "namespace": "products", "keys": ["hidden"] }),
        json!({ "tags": ["gone"] }),
        json!({ "namespace": "texts" }),
    ] {
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], target.to_string()).await.status, 200);
    }
    until("the brief one has ended", async || server.get("/v1/cache/products/brief").await.status == 404)
        .await;
    server.kill();
    assert_eq!(fs_err::read(list_path(&dir)).unwrap().len(), listed);

    let server = start();
    until("the others are in memory", async || warmed(&server).await >= 2).await;
    let served = async |key: &str| server.get(&format!("/v1/cache/products/{key}")).await;
    for (key, value) in [("kept", "old"), ("replaced", "new")] {
        let found = served(key).await;
        assert_eq!((found.status, &found.body), (200, &json!(value)));
        assert!(found.header("cache-status").ends_with("detail=memory"), "{}", found.header("cache-status"));
    }
    for key in ["removed", "hidden", "tagged", "brief"] {
        assert_eq!(served(key).await.status, 404, "{key}");
    }
    assert_eq!(server.post_raw(text).await.counts(), (0, 1, 0));
    // The brief one may still stand in for an origin that fails.
    assert!(warmed(&server).await <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_read_is_a_warning_and_is_replaced() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log");
    let start = || {
        let file = fs_err::File::create(&log).unwrap().into_parts().0;
        Server::spawn(without_model(dir.path()).stderr(file))
    };
    let server = start();
    put(&server, "products/a", &[], "x").await;
    assert!(server.stop().success());
    let good = fs_err::read(list_path(&dir)).unwrap();
    assert_eq!(good.len(), LIST_BYTES + KEY_BYTES);
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    for bad in [&good[..good.len() - 1], &flipped, b"", b"another program's file"] {
        fs_err::write(list_path(&dir), bad).unwrap();
        let (said, is_whole) = verify(dir.path());
        assert!(said.contains("HOT_KEYS") && !is_whole, "{said}");
        let server = start();
        until("it has warned", async || {
            fs_err::read_to_string(&log).unwrap().contains("memory begins empty")
        })
        .await;
        assert_eq!(server.get("/readyz").await.status, 200);
        assert_eq!(server.get("/v1/cache/products/a").await.status, 200);
        assert!(server.stop().success());
        assert_eq!(fs_err::read(list_path(&dir)).unwrap(), good);
        let (said, is_whole) = verify(dir.path());
        assert!(said.contains("HOT_KEYS") && is_whole, "{said}");
    }
    // Under its name lies something that cannot be replaced.
    fs_err::remove_file(list_path(&dir)).unwrap();
    fs_err::create_dir(list_path(&dir)).unwrap();
    let server = start();
    assert_eq!(server.get("/v1/cache/products/a").await.status, 200);
    assert!(server.stop().success());
    assert!(fs_err::read_to_string(&log).unwrap().contains("are not written down"));
}

/// What `verify` says, and whether everything is whole.
fn verify(dir: &Path) -> (String, bool) {
    let verified = output(Command::new(env!("CARGO_BIN_EXE_likewise")).arg("verify").arg(dir));
    (String::from_utf8(verified.stdout).unwrap(), verified.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_there_is_no_list() {
    let dir = TempDir::new().unwrap();
    let start = || Server::spawn(without_model(dir.path()).env(KEYS_MAX, "0"));
    let server = start();
    put(&server, "products/a", &[], "x").await;
    assert_eq!(server.get("/v1/cache/products/a").await.body, Value::from("x"));
    assert!(server.stop().success());
    assert!(!list_path(&dir).exists());
    let server = start();
    let found = server.get("/v1/cache/products/a").await;
    assert!(found.header("cache-status").ends_with("detail=disk"), "{}", found.header("cache-status"));
}
