//! `kill -9` under clients that store, replace, patch and delete documents: after the restart nothing acknowledged is lost, and
//! nothing deleted is back.
//!
//! The ledger is kept here, outside the server. What was asked for and not acknowledged may be done or not.
//! `LIKEWISE_KILL_ROUNDS` says how many rounds at least; there are at least 5,000 acknowledgements.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::endpoint::{Endpoint, remote};
use crate::kill::{number_from, splitmix};
use crate::program::Server;

const CLIENTS: u64 = 8;
const ACKNOWLEDGED_MIN: usize = 5_000;
const KILLED_WITHIN_MS: u64 = 60;
/// Documents that each client writes, again and again.
const IDS: u64 = 40;

/// What a document may be: the versions that may be found, 0 for none.
type Ledger = BTreeMap<u64, Vec<u64>>;

/// A change as its client sees it: requested, then acknowledged.
#[derive(Debug)]
struct Report {
    /// Ids, all with one new version; 0 stands for deletion.
    ids: Vec<u64>,
    version: u64,
    is_acknowledged: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_deleted_is_back() {
    let rounds_min = number_from("LIKEWISE_KILL_ROUNDS", 100) / 2;
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "moment of death");
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let start = || {
        let mut program = remote(dir.path(), &endpoint.url);
        // Segments, compactions, new logs and indexes come all the time.
        program
            .env("LIKEWISE__SEARCH__COMPACTION__SEGMENT_BYTES", "20000")
            .env("LIKEWISE__SEARCH__COMPACTION__DEAD_ROWS_BUSY", "20")
            .env("LIKEWISE__SEARCH__INDEX__ROWS_MIN", "20")
            .env("LIKEWISE__SEARCH__INDEX__FACTORY", "HNSW4");
        Server::spawn(&mut program)
    };
    let server = start();
    let made = server.ask("PUT", "/v1/collections/points", &[], r#"{"dimensions": 4, "metric": "l2"}"#).await;
    assert_eq!(made.status, 201);
    server.kill();
    let mut ledger = Ledger::new();
    let (mut rounds, mut acknowledged, mut version) = (0, 0, 0);
    while rounds < rounds_min || acknowledged < ACKNOWLEDGED_MIN {
        let server = start();
        check(&server, &mut ledger).await;
        // A build that ends with its server several times is only begun again when it is asked for.
        let asked = server.ask("POST", "/v1/collections/points/snapshots", &[], String::new()).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        let after = Duration::from_micros(splitmix(seed + rounds) % (KILLED_WITHIN_MS * 1000));
        acknowledged += work_until_killed(server, &mut ledger, &mut version, after).await;
        rounds += 1;
    }
    let server = start();
    check(&server, &mut ledger).await;
    let documents = ledger.values().filter(|versions| versions[0] != 0).count();
    println!(
        "{rounds} rounds (seed {seed}): {acknowledged} changes acknowledged, 0 lost; {documents} documents left"
    );
}

/// Lets clients work, kills the server, and writes down what may be found; returns how many changes were acknowledged.
async fn work_until_killed(server: Server, ledger: &mut Ledger, version: &mut u64, after: Duration) -> usize {
    let (reporter, mut reports) = mpsc::unbounded_channel::<Report>();
    for client in 0..CLIENTS {
        let (http, url, reporter) = (server.client().clone(), server.url().to_owned(), reporter.clone());
        let first = *version + 1 + client * 1_000_000;
        tokio::spawn(async move {
            let mut version = first;
            while change(&http, &url, client, version, &reporter).await.is_some() {
                version += 1;
            }
        });
    }
    *version += CLIENTS * 1_000_000;
    drop(reporter);
    let mut all = Vec::new();
    while let Some(news) = reports.recv().await {
        let is_acknowledged = news.is_acknowledged;
        all.push(news);
        if is_acknowledged {
            break;
        }
    }
    let working = async {
        while let Some(news) = reports.recv().await {
            all.push(news);
        }
    };
    let outcome = tokio::time::timeout(after, working).await;
    assert!(outcome.is_err(), "the clients ended before the server was killed");
    server.kill();
    // What was answered before the end, and heard only now.
    while let Some(news) = reports.recv().await {
        all.push(news);
    }
    let mut acknowledged = 0;
    for Report { ids, version, is_acknowledged } in all {
        acknowledged += usize::from(is_acknowledged);
        for id in ids {
            let versions = ledger.entry(id).or_insert_with(|| vec![0]);
            if is_acknowledged {
                *versions = vec![version];
            } else {
                versions.push(version);
            }
        }
    }
    acknowledged
}

/// One change by one client, whose documents are its own. None once the server is gone.
async fn change(
    http: &reqwest::Client,
    url: &str,
    client: u64,
    version: u64,
    reporter: &mpsc::UnboundedSender<Report>,
) -> Option<()> {
    let random = splitmix(version);
    let ids: Vec<u64> = (0..random % 3 + 1).map(|at| client * IDS + (random / 8 + at) % IDS).collect();
    let names: Vec<String> = ids.iter().map(u64::to_string).collect();
    let (one, of_one) = (ids[..1].to_vec(), format!("documents/{}", names[0]));
    let vector = [version % 1000, 1, 2, 3];
    let (ids, version, method, path, body) = match random >> 16 & 7 {
        0 => (ids, 0, Method::POST, "documents/delete".into(), json!({ "ids": names })),
        1 => (one, 0, Method::DELETE, of_one, json!({})),
        // The version is in the text of some documents, in the metadata of others: a text without a vector would be embedded.
        2 => (one, version, Method::PATCH, of_one, json!({ "metadata": { "version": version } })),
        3 => (
            one,
            version,
            Method::PATCH,
            of_one,
            json!({ "metadata": null, "text": text(version), "vector": vector }),
        ),
        _ => {
            let document = |name| json!({ "id": name, "text": text(version), "vector": vector });
            let documents: Vec<Value> = names.into_iter().map(document).collect();
            (ids, version, Method::POST, "documents".into(), json!({ "documents": documents }))
        }
    };
    let say = |is_acknowledged| _ = reporter.send(Report { ids: ids.clone(), version, is_acknowledged });
    say(false);
    let is_patch = method == Method::PATCH;
    let request = http.request(method, format!("{url}/v1/collections/points/{path}")).body(body.to_string());
    let response = request.send().await.ok()?;
    match response.status().as_u16() {
        200 | 204 => say(true),
        // The client's documents are its own, so this one was removed by its last change, or never stored.
        404 if is_patch => {
            _ = reporter.send(Report { ids: ids.clone(), version: 0, is_acknowledged: true });
        }
        status => panic!("{status}: {}", response.text().await.unwrap_or_default()),
    }
    Some(())
}

/// Reads every document, holds it to the ledger, and writes down what it is.
async fn check(server: &Server, ledger: &mut Ledger) {
    let all = server.get("/v1/collections/points/documents").await;
    // One line is read as JSON already.
    let text = all.body.as_str().map_or_else(|| all.body.to_string(), str::to_owned);
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        let id: u64 = document["id"].as_str().unwrap().parse().unwrap();
        let of_text = || document["text"].as_str().unwrap().trim_start_matches("version ").parse().unwrap();
        let version = document["metadata"]["version"].as_u64().unwrap_or_else(of_text);
        assert!(found.insert(id, version).is_none(), "document {id} is there twice");
    }
    for (id, versions) in ledger.iter_mut() {
        let now = found.remove(id).unwrap_or(0);
        assert!(versions.contains(&now), "document {id}: {now} was found, {versions:?} may be");
        *versions = vec![now];
    }
    assert!(found.is_empty(), "documents that were never stored: {found:?}");
}

fn text(version: u64) -> String {
    format!("version {version}")
}
