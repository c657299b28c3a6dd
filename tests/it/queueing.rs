//! Goal: large requests that come at the same time wait for the model and are not refused, and what a client left behind is not
//! embedded. Method: the program before an endpoint that is held, with one request to it at a time.

use serde_json::json;
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::inflight::metric;
use crate::program::{Answer, Server, until};

const TEXTS: usize = 2048;
/// Texts in a batch for the endpoint.
const BATCH: usize = 256;

async fn embed(server: &Server, name: &str, texts: usize) -> Answer {
    let texts: Vec<String> = (0..texts).map(|text| format!("{name} {text}")).collect();
    let body = json!({ "model": "mock", "input": texts, "encoding_format": "base64" }).to_string();
    server.ask("POST", "/v1/embeddings", &[], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_wait_and_a_single_text_does_not_wait_for_them() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let mut program = remote(dir.path(), &endpoint.url);
    program
        .env("LIKEWISE__EMBED__QUEUE_TEXTS_MAX", TEXTS.to_string())
        .env("LIKEWISE__EMBED__REMOTE__REQUESTS_MAX", "1")
        .env("LIKEWISE__CACHE__MEMORY__BUDGET", "256MiB");
    let server = Server::spawn(&mut program);
    let held = endpoint.hold().await;
    let names: Vec<String> = (0..8).map(|name| format!("bulk{name}")).collect();
    let bulk = futures_util::future::join_all(names.iter().map(|name| embed(&server, name, TEXTS)));
    // An eighth of the queue is for interactive texts, and one batch is under way.
    let full = (TEXTS - TEXTS / 8 - BATCH) as u64;
    let queued = async |texts| server.stat("/model/queued_texts").await == texts;
    let single = async {
        until("the queue is full", async || queued(full).await).await;
        let single = embed(&server, "single", 1);
        let released = async {
            until("the single text is queued", async || queued(full + 1).await).await;
            drop(held);
        };
        tokio::join!(single, released).0
    };
    let (bulk, single) = tokio::join!(bulk, single);
    assert_eq!(single.status, 200, "{}", single.body);
    for answer in bulk {
        assert_eq!((answer.status, answer.counts()), (200, (0, TEXTS, 0)), "{}", answer.body["error"]);
    }
    assert_eq!(endpoint.texts(), 8 * TEXTS as u64 + 1);
    assert_eq!(
        endpoint.place_of("single 0"),
        Some(BATCH),
        "behind the batch that was under way, and before all others"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_whose_client_has_left_are_not_sent() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let mut program = remote(dir.path(), &endpoint.url);
    program.env("LIKEWISE__EMBED__REMOTE__REQUESTS_MAX", "1");
    let server = Server::spawn(&mut program);
    let in_flight = async || metric(&server, "likewise_http_requests_in_flight").await;
    let before = in_flight().await;
    let held = endpoint.hold().await;
    let waiting = (TEXTS - BATCH) as u64;
    let leave = async {
        until("one batch is sent and the others wait", async || {
            server.stat("/model/queued_texts").await == waiting
        })
        .await;
    };
    tokio::select! {
        answer = embed(&server, "left", TEXTS) => panic!("answered while the endpoint is held: {}", answer.body),
        () = leave => {}
    }
    until("the server has seen that the client left", async || in_flight().await == before).await;
    drop(held);
    until("the queue is empty", async || server.stat("/model/queued_texts").await == 0).await;
    assert_eq!(server.stat("/model/dropped_texts").await, waiting);
    assert_eq!(endpoint.texts(), BATCH as u64);
}
