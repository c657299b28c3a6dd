//! The load that an autoscaler reads: it follows what is under way, up and down again.

use serde_json::json;
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::program::{Server, until};
use crate::upstream::Upstream;

/// Limits so small that few requests fill them.
const LIMITS: [(&str, &str); 5] = [
    ("LIKEWISE__EMBED__REMOTE__REQUESTS_MAX", "1"),
    ("LIKEWISE__HTTP__REQUESTS_MAX", "8"),
    ("LIKEWISE__HTTP__CONNECTIONS_MAX", "64"),
    ("LIKEWISE__EMBED__QUEUE_TEXTS_MAX", "2048"),
    ("LIKEWISE__UPSTREAM__REQUESTS_MAX", "4"),
];
/// Connections that ask for the load are busy, too: two of 64 at a time.
const IDLE_MAX: f64 = 0.05;

async fn load(server: &Server, share: &str) -> f64 {
    let stats = server.get("/v1/stats").await.body;
    stats["load"][share].as_f64().unwrap_or_else(|| panic!("no load {share} in {stats}"))
}

async fn exported(server: &Server) -> f64 {
    let metrics = server.get("/metrics").await.body;
    let mut lines = metrics.as_str().unwrap().lines();
    let ratio = lines.find_map(|line| line.strip_prefix("likewise_load_ratio "));
    ratio.expect("the load is exported").parse().unwrap()
}

/// Sends a request, and returns its status once it is answered.
fn post(server: &Server, path: &str, body: &serde_json::Value) -> tokio::task::JoinHandle<u16> {
    let request = server.client().post(format!("{}{path}", server.url())).body(body.to_string());
    tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
}

#[tokio::test]
async fn the_load_rises_with_what_is_under_way_and_falls_afterwards() {
    let (dir, endpoint, upstream) =
        (TempDir::new().unwrap(), Endpoint::start().await, Upstream::start().await);
    let mut program = remote(dir.path(), &endpoint.url);
    program.arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours").envs(LIMITS);
    let server = Server::spawn(program.env("LIKEWISE__MODEL__NAME", "mock"));
    assert!(load(&server, "ratio").await < IDLE_MAX && exported(&server).await < IDLE_MAX);

    let held = endpoint.hold().await;
    let embeddings =
        |texts: Vec<String>| post(&server, "/v1/embeddings", &json!({ "model": "mock", "input": texts }));
    let texts = endpoint.texts();
    let mut asked = vec![embeddings(vec!["first".into()])];
    let is_called = async || endpoint.texts() == texts + 1 && load(&server, "requests").await == 0.125;
    until("the one call that may be under way is", is_called).await;
    asked.extend((1..4).map(|n| embeddings(vec![format!("text {n}")])));
    until("half of the requests are worked on", async || load(&server, "requests").await == 0.5).await;
    until("their connections are busy", async || load(&server, "connections").await >= 4.0 / 64.0).await;
    assert_eq!((load(&server, "ratio").await, exported(&server).await), (0.5, 0.5));
    asked.push(embeddings((3..1536).map(|n| format!("queued {n}")).collect()));
    until("texts are queued", async || load(&server, "queued_texts").await == 0.75).await;
    assert_eq!((load(&server, "ratio").await, exported(&server).await), (0.75, 0.75));
    drop(held);
    for asked in asked {
        assert_eq!(asked.await.unwrap(), 200);
    }
    until("the load has fallen", async || load(&server, "ratio").await < IDLE_MAX).await;

    let held = upstream.hold().await;
    let chat = |text: &str| {
        let question = json!({ "model": "m", "messages": [{ "role": "user", "content": text }] });
        post(&server, "/v1/chat/completions", &question)
    };
    let asked = [chat("one"), chat("two")];
    until("calls are under way", async || load(&server, "upstream_requests").await == 0.5).await;
    assert_eq!((load(&server, "requests").await, exported(&server).await), (0.0, 0.5));
    drop(held);
    for asked in asked {
        assert_eq!(asked.await.unwrap(), 200);
    }
    until("the load has fallen", async || exported(&server).await < IDLE_MAX).await;
}
