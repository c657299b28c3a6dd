//! `kill -9` under concurrent writers: what was acknowledged is found again, bit for bit, in both modes.
//!
//! Each round starts the real server on the same directory, lets writers embed new texts over HTTP, and kills the
//! server up to 60 ms after the round's first acknowledgement. The ledger of acknowledged vectors is kept here, outside
//! the server. Every start checks the round before; the end checks everything.
//!
//! `LIKEWISE_KILL_ROUNDS` and `LIKEWISE_KILL_ACKNOWLEDGED` say how many rounds and acknowledgements at least.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64_simd::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::endpoint::{Endpoint, remote, vector};
use crate::program::Server;

const WRITERS: usize = 8;
const TEXTS_PER_REQUEST: u64 = 4;
const CHECKED_AT_ONCE: usize = 256;
const KILLED_WITHIN_MS: u64 = 60;

/// An acknowledged vector: its text, and its place among all that the endpoint made.
#[derive(Debug, Clone, PartialEq)]
struct Acknowledged {
    text: String,
    place: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let rounds_min = number_from("LIKEWISE_KILL_ROUNDS", 100);
    let acknowledged_min = number_from("LIKEWISE_KILL_ACKNOWLEDGED", 5_000);
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "moment of death");
    let dir = TempDir::new().unwrap();
    let endpoint = Endpoint::start().await;
    let next_text = Arc::new(AtomicU64::new(0));
    let mut ledger: Vec<Acknowledged> = Vec::new();
    let (mut rounds, mut checked, mut lost) = (0, 0, 0);
    while rounds < rounds_min || (ledger.len() as u64) < acknowledged_min {
        let server = start(dir.path(), &endpoint, rounds);
        lost += count_lost(&server, &ledger[checked..]).await;
        checked = ledger.len();
        let after = splitmix(seed + rounds) % (KILLED_WITHIN_MS * 1000);
        ledger.extend(write_until_killed(server, &next_text, Duration::from_micros(after)).await);
        rounds += 1;
    }
    let server = start(dir.path(), &endpoint, rounds);
    lost += count_lost(&server, &ledger).await;
    println!("{rounds} rounds (seed {seed}): {} acknowledged, {lost} lost", ledger.len());
    assert_eq!(lost, 0, "of {} acknowledged, seed {seed}", ledger.len());
}

/// Both modes promise the same here, so rounds take turns.
fn start(dir: &Path, endpoint: &Endpoint, round: u64) -> Server {
    let durability = if round.is_multiple_of(2) { "async" } else { "sync" };
    Server::spawn(remote(dir, &endpoint.url).env("LIKEWISE__CACHE__DISK__DURABILITY", durability))
}

/// Lets writers write, kills the server, and returns what was acknowledged before.
async fn write_until_killed(
    server: Server,
    next_text: &Arc<AtomicU64>,
    after: Duration,
) -> Vec<Acknowledged> {
    let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
    let url = format!("{}/v1/embeddings", server.url());
    for _ in 0..WRITERS {
        let (client, url) = (server.client().clone(), url.clone());
        let (next_text, acknowledge) = (Arc::clone(next_text), acknowledge.clone());
        tokio::spawn(async move {
            loop {
                let from = next_text.fetch_add(TEXTS_PER_REQUEST, Ordering::Relaxed);
                let texts = (from..from + TEXTS_PER_REQUEST).map(|n| format!("text {n}")).collect();
                let Some(all) = embed(&client, &url, texts).await else { break };
                all.into_iter().for_each(|one| _ = acknowledge.send(one));
            }
        });
    }
    drop(acknowledge);
    let first = acknowledged.recv().await.expect("the first request of a round is answered");
    let mut all = vec![first];
    let writing = async {
        while let Some(one) = acknowledged.recv().await {
            all.push(one);
        }
    };
    let outcome = tokio::time::timeout(after, writing).await;
    assert!(outcome.is_err(), "the writers ended before the server was killed");
    server.kill();
    // What was answered before the end, and heard only now.
    while let Some(one) = acknowledged.recv().await {
        all.push(one);
    }
    all
}

/// Embeds texts; none once the server is gone.
async fn embed(client: &reqwest::Client, url: &str, texts: Vec<String>) -> Option<Vec<Acknowledged>> {
    let (status, answer) = ask(client, url, &texts, false).await?;
    assert_eq!(status, 200, "{answer}");
    let vectors = vectors(&answer);
    assert_eq!(vectors.len(), texts.len());
    let read = |(text, numbers): (String, Vec<f32>)| {
        let place = numbers[0] as u32;
        assert_eq!(numbers, vector(&text, place), "another text's vector was answered to {text:?}");
        Acknowledged { text, place }
    };
    Some(texts.into_iter().zip(vectors).map(read).collect())
}

/// How many of the ledger's vectors the server does not have, or has otherwise.
async fn count_lost(server: &Server, ledger: &[Acknowledged]) -> usize {
    let mut lost = 0;
    for chunk in ledger.chunks(CHECKED_AT_ONCE) {
        if !has_all(server, chunk).await {
            for one in chunk {
                lost += usize::from(!has_all(server, std::slice::from_ref(one)).await);
            }
        }
    }
    lost
}

async fn has_all(server: &Server, acknowledged: &[Acknowledged]) -> bool {
    let url = format!("{}/v1/embeddings", server.url());
    let texts: Vec<String> = acknowledged.iter().map(|one| one.text.clone()).collect();
    let (status, answer) = ask(server.client(), &url, &texts, true).await.expect("this server is not killed");
    match status {
        200 => vectors(&answer)
            .iter()
            .zip(acknowledged)
            .all(|(numbers, one)| *numbers == vector(&one.text, one.place)),
        504 => false,
        _ => panic!("{status}: {answer}"),
    }
}

async fn ask(
    client: &reqwest::Client,
    url: &str,
    texts: &[String],
    only_if_cached: bool,
) -> Option<(u16, Value)> {
    let body = json!({
        "model": "mock", "input": texts, "encoding_format": "base64",
        "cache": { "only-if-cached": only_if_cached },
    });
    let response = client.post(url).body(body.to_string()).send().await.ok()?;
    let status = response.status().as_u16();
    let text = response.text().await.ok()?;
    Some((status, serde_json::from_str(&text).expect("answers are JSON")))
}

fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    let read = |object: &Value| {
        let text = object["embedding"].as_str().expect("base64");
        let bytes = STANDARD.decode_to_vec(text).expect("base64");
        bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    };
    answer["data"].as_array().expect("a list").iter().map(read).collect()
}

pub(crate) fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Sebastiano Vigna's SplitMix64.
pub(crate) fn splitmix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
