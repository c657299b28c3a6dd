//! Requests about collections that cost more than they should: refused before the cost, or bounded; and answers that are long.
//!
//! While each of them runs, `/healthz` is answered within a gross bound.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::program::{Answer, Server};

/// What a probe may take on a machine that is busy with other tests, in a build that is not optimised.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// How often a collection is made and dropped.
const ROUNDS: usize = 30;

struct Collections {
    server: Server,
    _dir: TempDir,
    _endpoint: Endpoint,
}

impl Collections {
    async fn start() -> Collections {
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
        Collections { server, _dir: dir, _endpoint: endpoint }
    }

    async fn make(&self, name: &str, dimensions: usize) {
        let spec = json!({ "dimensions": dimensions }).to_string();
        let made = self.server.ask("PUT", &format!("/v1/collections/{name}"), &[], spec).await;
        assert_eq!(made.status, 201, "{}", made.body);
    }

    /// A request, with probes beside it.
    async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        let (path, body) = (format!("/v1/collections/{path}"), body.into());
        let answer = self.server.ask("POST", &path, &[], body);
        let probes = async { while self.is_probed(&path).await {} };
        tokio::select! {
            answer = answer => answer,
            () = probes => unreachable!("probes go on"),
        }
    }

    async fn is_probed(&self, beside: &str) -> bool {
        let started = Instant::now();
        assert_eq!(self.server.get("/healthz").await.status, 200);
        assert!(started.elapsed() < PROBE_MAX, "{beside}: {:?}", started.elapsed());
        true
    }

    async fn make_and_drop(&self, name: &str) {
        for _ in 0..ROUNDS {
            let path = format!("/v1/collections/{name}");
            let made = self.server.ask("PUT", &path, &[], r#"{"dimensions":2}"#).await;
            assert_eq!(made.status, 201, "{}", made.body);
            let body = r#"{"documents":[{"id":"1","vector":[1,2]}]}"#;
            let stored = self.server.ask("POST", &format!("{path}/documents"), &[], body).await;
            assert_eq!(stored.status, 200, "{}", stored.body);
            let dropped = self.server.ask("DELETE", &path, &[], "").await;
            assert_eq!(dropped.status, 204, "{}", dropped.body);
        }
    }
}

fn list(element: &str, count: usize) -> String {
    vec![element; count].join(",")
}

/// Each is refused by its field, and by an error that does not repeat what was sent.
#[tokio::test]
async fn requests_that_would_cost_more_than_they_should_are_refused() {
    let own = Collections::start().await;
    own.make("k", 2).await;
    let document = |more: &str| format!(r#"{{"documents":[{{"id":"1","vector":[1,2],{more}}}]}}"#);
    let long = "n".repeat(32_000);
    let search = |filter: &str| format!(r#"{{"vector":[1,1],"filter":{filter}}}"#);
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    let million = 1_000_000;
    let (upsert, find, delete) = ("k/documents", "k/search", "k/documents/delete");
    let cases = [
        (upsert, format!(r#"{{"documents":[{}]}}"#, list("{\"id\":\"1\"}", million)), "documents"),
        (
            upsert,
            document(&format!(r#""metadata":{{"{long}":[{}]}}"#, list("0", 10_000))),
            "documents[0].metadata",
        ),
        (upsert, document(&format!(r#""metadata":{{"n":[{}]}}"#, list("0", 1025))), "documents[0].metadata"),
        (
            upsert,
            document(&format!(r#""metadata":{{"n":[{}]}}"#, list("0", million))),
            "documents[0].metadata",
        ),
        (upsert, document(&format!(r#""metadata":{}"#, deep(r#"{"a":"#, "}"))), "documents[0].metadata"),
        (upsert, document(&format!(r#""metadata":{}"#, deep("[", "]"))), "documents[0].metadata"),
        (upsert, document(r#""metadata":{"a":1e400}"#), "documents[0].metadata"),
        (upsert, document(&format!(r#""tags":[{}]"#, list("\"a\"", million))), "documents[0].tags"),
        (upsert, document(&format!(r#""tags":[{}]"#, list("\"a\"", 65))), "documents[0].tags"),
        (upsert, document(&format!(r#""tags":["{}"]"#, "x".repeat(million))), "documents[0].tags"),
        (
            upsert,
            format!(r#"{{"documents":[{{"id":"{}","vector":[1,2]}}]}}"#, "x".repeat(million)),
            "documents[0].id",
        ),
        (
            upsert,
            format!(r#"{{"documents":[{{"id":"1","vector":[{}]}}]}}"#, list("1", million)),
            "documents[0].vector",
        ),
        (upsert, r#"{"documents":[{"id":"1","vector":[1,1e400]}]}"#.into(), ""),
        (upsert, r#"{"documents":[{"id":"1","id":"2","vector":[1,2]}]}"#.into(), "documents[0]"),
        (find, format!(r#"{{"vectors":[{}]}}"#, list("[]", million)), "vectors"),
        (find, format!(r#"{{"queries":[{}]}}"#, list("\"a\"", million)), "queries"),
        (find, format!(r#"{{"vectors":[{}]}}"#, list("[1,2]", 257)), "vectors"),
        (find, format!(r#"{{"vector":[1,2],"include":[{}]}}"#, list("\"text\"", million)), "include"),
        (find, search(&deep(r#"{"$not":"#, "}")), "filter"),
        (find, search(&deep(r#"{"a":"#, "}")), "filter"),
        (find, search(&format!(r#"{{"$or":[{}]}}"#, list(r#"{"a":1}"#, 300))), "filter.$or"),
        (find, search(&format!(r#"{{"$or":[{}]}}"#, list(r#"{"a":1}"#, million))), "filter"),
        (find, search(&format!(r#"{{"a":{{"$in":[{}]}}}}"#, list("1", 5000))), "filter.a.$in"),
        (find, search(&format!(r#"{{"{long}":1}}"#)), "filter."),
        (find, search(r#"{"a":1e400}"#), ""),
        (delete, format!(r#"{{"ids":[{}]}}"#, list("\"a\"", 4097)), "ids"),
        (delete, format!(r#"{{"ids":[{}]}}"#, list("\"a\"", million)), "ids"),
        (delete, format!(r#"{{"tags":[{}]}}"#, list("\"a\"", million)), "tags"),
        (delete, format!(r#"{{"tags":["{}"]}}"#, "x".repeat(million)), "tags"),
        (delete, format!(r#"{{"filter":{}}}"#, deep(r#"{"$not":"#, "}")), "filter"),
    ];
    for (path, body, param) in cases {
        let shown: String = body.chars().take(60).collect();
        let refused = own.post(path, body).await;
        assert_eq!(refused.status, 400, "{shown}: {}", refused.body);
        let named = refused.error().1.unwrap_or_default();
        assert!(named.starts_with(param), "{shown}: {}", refused.body);
        assert!(refused.body.to_string().len() < 4096, "{shown}: {} bytes", refused.body.to_string().len());
    }
    let described = own.server.get("/v1/collections/k").await.body;
    assert_eq!((&described["documents"], &described["version"]), (&json!(0), &json!(0)));
}

/// A field that could be left out may be `null`.
#[tokio::test]
async fn null_is_the_default_of_every_field() {
    let own = Collections::start().await;
    let put = async |name: &str, body: Value| {
        own.server.ask("PUT", &format!("/v1/collections/{name}"), &[], body.to_string()).await
    };
    let spec = json!({ "dimensions": 2, "metric": null, "model": null, "index": null });
    assert_eq!(put("k", spec).await.body["metric"], "cosine");
    let spec = json!({ "dimensions": null, "metric": null, "model": null, "index": null });
    assert_eq!(put("m", spec).await.body["dimensions"], 384);
    let nulls = json!({ "id": "1", "vector": [1, 2], "text": null, "metadata": null, "tags": null });
    let stored = own.post("k/documents", json!({ "documents": [nulls], "truncate": null }).to_string()).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let search = json!({
        "vector": [1, 2], "query": null, "queries": null, "vectors": null, "k": null, "filter": null, "min_score": null,
        "exact": null, "ef": null, "include": null, "cache": null,
    });
    let found = own.post("k/search", search.to_string()).await;
    assert_eq!((found.status, &found.body["results"][0]["id"]), (200, &json!("1")), "{}", found.body);
    let gone = json!({ "ids": ["1"], "tags": null, "filter": null });
    assert_eq!(own.post("k/documents/delete", gone.to_string()).await.body["documents"], 1);
    let gone = json!({ "ids": null, "tags": null, "filter": {} });
    assert_eq!(own.post("k/documents/delete", gone.to_string()).await.body["documents"], 0);
}

/// Answers that are written in pieces say the same as those that are written at once; and a reader who stops between two
/// pieces delays no other request.
#[tokio::test]
async fn long_answers_are_whole_and_a_slow_reader_delays_no_other_client() {
    let own = Collections::start().await;
    own.make("k", 64).await;
    let document = |n: usize| {
        let vector: Vec<usize> = (0..64).map(|at| (n * 31 + at * 17) % 97 + 1).collect();
        json!({ "id": n.to_string(), "vector": vector, "metadata": { "n": n }, "text": "x".repeat(200) })
    };
    let documents: Vec<Value> = (0..2000).map(document).collect();
    let stored = own.post("k/documents", json!({ "documents": documents }).to_string()).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let vector = |n: usize| documents[n]["vector"].clone();
    let all = json!({ "include": ["text", "metadata", "tags", "vector"], "k": 500 });
    let with = |name: &str, value: Value| {
        let mut body = all.clone();
        body[name] = value;
        body.to_string()
    };
    let batch = own.post("k/search", with("vectors", json!([vector(0), vector(1), vector(2)]))).await;
    assert_eq!(batch.status, 200, "{}", batch.body);
    for n in 0..3 {
        let single = own.post("k/search", with("vector", vector(n))).await;
        assert_eq!(single.body["results"], batch.body["results"][n]);
        assert_eq!(single.body["results"].as_array().unwrap().len(), 500);
        assert_eq!(single.body["results"][0]["id"], n.to_string());
    }

    let url = format!("{}/v1/collections/k/documents?include=vector", own.server.url());
    let mut slow = own.server.client().get(url).send().await.unwrap();
    let mut export = slow.chunk().await.unwrap().unwrap().to_vec();
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(own.server.get("/healthz").await.status, 200);
        assert!(started.elapsed() < PROBE_MAX);
    }
    // Of the moment at which it began.
    assert_eq!(own.post("k/documents/delete", r#"{"filter":{}}"#).await.body["documents"], 2000);
    while let Some(piece) = slow.chunk().await.unwrap() {
        export.extend_from_slice(&piece);
    }
    let lines: Vec<Value> =
        export.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), 2000);
    assert!(lines.iter().zip(&documents).all(|(line, document)| line["id"] == document["id"]));
}

/// Documents that an earlier version took are filtered without their names being copied for each value.
#[tokio::test]
async fn filters_find_members_of_lists_whichever_way_they_are_answered() {
    let own = Collections::start().await;
    own.make("k", 2).await;
    let document = |n: usize| {
        let members: Vec<usize> = (0..1000).map(|at| n * 1000 + at).collect();
        let metadata = json!({ "n".repeat(500): members, "o": [{ "i": n }, { "i": -1 }] });
        json!({ "id": n.to_string(), "vector": [1, n + 1], "metadata": metadata })
    };
    let documents: Vec<Value> = (0..100).map(document).collect();
    let stored = own.post("k/documents", json!({ "documents": documents }).to_string()).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let found = async |filter: Value| {
        let body = json!({ "vector": [1, 1], "k": 3, "filter": filter, "include": [] });
        let found = own.post("k/search", body.to_string()).await;
        assert_eq!(found.status, 200, "{}", found.body);
        let ids = found.body["results"].as_array().unwrap().iter();
        ids.map(|hit| hit["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(json!({ "n".repeat(500): 41_007 })).await, ["41"]);
    assert_eq!(found(json!({ "o.i": 7 })).await, ["7"]);
    // A long filter is answered by the turned fields.
    let or: Vec<Value> = (0..200).map(|n| json!({ "o.i": n + 98 })).collect();
    assert_eq!(found(json!({ "$or": or })).await, ["98", "99"]);
    assert_eq!(found(json!({ "n".repeat(500): { "$gte": 98_500 } })).await, ["98", "99"]);
}

/// Collections come and go beside one that is written to: its files are in the same directory.
#[tokio::test]
async fn collections_that_are_made_and_dropped_disturb_no_other() {
    let own = Collections::start().await;
    own.make("w", 2).await;
    let write = async || {
        for round in 0..ROUNDS {
            let documents: Vec<Value> =
                (0..50).map(|n| json!({ "id": format!("{round}-{n}"), "vector": [n + 1, 1] })).collect();
            let body = json!({ "documents": documents }).to_string();
            let stored = own.server.ask("POST", "/v1/collections/w/documents", &[], body).await;
            assert_eq!(stored.status, 200, "{}", stored.body);
            let path = "/v1/collections/w/documents/delete";
            let gone = own.server.ask("POST", path, &[], r#"{"filter":{}}"#).await;
            assert_eq!((gone.status, &gone.body["documents"]), (200, &json!(50)));
        }
    };
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| own.make_and_drop(name));
    tokio::join!(a, b, c, d, write());
    let listed = own.server.get("/v1/collections").await.body;
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
}
