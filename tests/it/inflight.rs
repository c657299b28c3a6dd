//! The memory of requests in flight: under each kind of load that multiplies what single requests may hold, the resident set
//! grows by at most 1.25 times the budget, and small requests are still answered.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::MutexGuard;

use crate::endpoint::{Endpoint, remote};
use crate::program::{MACHINE, Server, until};

const BUDGET: u64 = 64 << 20;
/// What a connection takes that waits for its next request: the buffers that hyper begins with, and what describes it.
const CONNECTION_BYTES: u64 = 24 * 1024;
/// A probe waits longer only if others starve it.
const PROBE: Duration = Duration::from_secs(5);
/// Clients of a load, far more than fit the budget together.
const CLIENTS: usize = 96;
const BODY_BYTES: usize = 4 << 20;
/// An answer has 2,048 vectors of 384 numbers.
const TEXTS: usize = 2_048;
/// Long streams, and what each has in all, less than an answer that is held may have.
const STREAMS: usize = 24;
const STREAM_BYTES: usize = 4 << 20;

pub(crate) const RESERVED: &str = "likewise_inflight_bytes";
pub(crate) const REFUSED: &str = "likewise_inflight_refused_total";

pub(crate) struct Fixture {
    _dir: TempDir,
    _endpoint: Endpoint,
    pub(crate) server: Server,
    idle_bytes: u64,
    /// What the resident set may grow by.
    growth_bytes_max: u64,
    /// A server that starves holds longer what it has reserved no more.
    _machine: MutexGuard<'static, ()>,
}

impl Fixture {
    async fn start() -> Fixture {
        Fixture::start_with(BUDGET, 0, &long_streams().await).await
    }

    /// A server with a budget and a model behind it, for a load of so many connections.
    pub(crate) async fn start_with(budget: u64, connections: u64, upstream: &str) -> Fixture {
        let machine = MACHINE.lock().await;
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        let mut program = remote(&dir.path().join("data"), &endpoint.url);
        program.arg("--upstream").arg(upstream).env("OPENAI_API_KEY", "sk-ours");
        program.env("LIKEWISE__HTTP__INFLIGHT_BYTES_MAX", budget.to_string());
        program.env("LIKEWISE__CACHE__MEMORY__BUDGET", "8MiB").env("LIKEWISE__MODEL__NAME", "mock");
        let server = Server::spawn(&mut program);
        // What a first request of each kind loads once is no growth.
        let count = TEXTS * budget as usize / BUDGET as usize;
        let texts = json!({ "model": "mock", "input": texts(count) }).to_string();
        assert_eq!(server.post_raw(texts).await.status, 200);
        let idle_bytes = server.private_bytes();
        let growth_bytes_max = budget + budget / 4 + connections * CONNECTION_BYTES;
        Fixture { _dir: dir, _endpoint: endpoint, server, idle_bytes, growth_bytes_max, _machine: machine }
    }

    pub(crate) fn address(&self) -> &str {
        self.server.url().trim_start_matches("http://")
    }

    /// Fails if memory grows too far while `load` goes on. Returns what the load returns.
    pub(crate) async fn within_budget<T>(&self, load: impl Future<Output = T>) -> T {
        let mut load = std::pin::pin!(load.fuse());
        let mut most = 0;
        let result = loop {
            most = most.max(self.server.private_bytes());
            let asked = Instant::now();
            let probe = self.server.get("/healthz");
            tokio::select! {
                result = &mut load => break result,
                answer = probe => assert_eq!(answer.status, 200),
            }
            assert!(asked.elapsed() < PROBE, "a probe took {:?}", asked.elapsed());
        };
        most = most.max(self.server.private_bytes());
        let growth = most.saturating_sub(self.idle_bytes);
        let allowed = self.growth_bytes_max;
        println!("idle {} MiB, growth {} of {} MiB", self.idle_bytes >> 20, growth >> 20, allowed >> 20);
        assert!(growth <= allowed, "memory grew by {growth} bytes, {allowed} are allowed");
        result
    }

    /// Whether small requests are answered.
    pub(crate) async fn assert_open(&self) {
        let small = json!({ "model": "mock", "input": "a small text" }).to_string();
        assert_eq!(self.server.post_raw(small).await.status, 200);
    }

    /// Sends a request without reading its answer.
    async fn send(&self, method: &str, path: &str, headers: &str, length: usize, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A request that is refused may end the connection before its body is sent.
        let sent = stream.write_all(body).await;
        assert!(sent.is_ok_and(|()| true) || !body.is_empty());
        stream
    }
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("text {n}")).collect()
}

/// The status of an answer, or 0 if the connection was closed without one.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    match stream.read_exact(&mut head).await {
        Ok(_) => String::from_utf8_lossy(&head[9..]).parse().unwrap(),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
            0
        }
    }
}

/// A model that answers with streams of many events. It ends with the runtime of its test.
async fn long_streams() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(async move { _ = long_stream(connection).await });
        }
    });
    url
}

async fn long_stream(mut connection: TcpStream) -> std::io::Result<()> {
    let mut request = vec![0; 64 * 1024];
    read_request(&mut connection, &mut request).await?;
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await?;
    let words = "word ".repeat(200);
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": { "content": words }, "finish_reason": null }] });
    let event = format!("data: {chunk}\n\n");
    for _ in 0..STREAM_BYTES / event.len() + 1 {
        connection.write_all(event.as_bytes()).await?;
    }
    connection
        .write_all(b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n")
        .await?;
    connection.write_all(b"data: [DONE]\n\n").await
}

/// Reads a request with its body and drops it.
pub(crate) async fn read_request(connection: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut left = None;
    while left != Some(0) {
        let read = connection.read(buffer).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&buffer[..read]).to_ascii_lowercase();
        left = match (left, text.split_once("\r\n\r\n")) {
            (Some(left), _) => Some(left - read.min(left)),
            (None, Some((head, body))) => {
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                Some(length.map_or(0, |length| length.parse::<usize>().unwrap()) - body.len())
            }
            (None, None) => None,
        };
    }
    Ok(())
}

/// Bodies of several shapes for several routes, all of the same size.
fn large_requests() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let long = |unit: &str| unit.repeat(BODY_BYTES / unit.len());
    let chat =
        json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": long("a b ") }] });
    let batch = json!({ "put": [{ "key": "k", "value": long("x") }] });
    let invalidate = json!({ "tags": [long("t")] });
    let embeddings = json!({ "model": "mock", "input": vec![long("word ")] });
    let mut numbers = String::from("{\"model\":\"mock\",\"input\":[");
    numbers.push_str(&long("1,"));
    numbers.push_str("1]}");
    let metadata = json!({ "documents": [{ "id": "1", "vector": [1, 2], "metadata": { "a": long("m") } }] });
    let written = |value: Value| value.to_string().into_bytes();
    vec![
        ("POST", "/v1/chat/completions", written(chat)),
        ("POST", "/v1/cache/default/batch", written(batch)),
        ("POST", "/v1/invalidate", written(invalidate)),
        ("POST", "/v1/embeddings", written(embeddings)),
        ("POST", "/v1/embeddings", numbers.into_bytes()),
        ("POST", "/v1/collections/c/documents", written(metadata)),
        ("PUT", "/v1/cache/default/key", vec![b'v'; BODY_BYTES]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_stay_within_the_budget() {
    let fixture = Fixture::start().await;
    let created = fixture.server.ask("PUT", "/v1/collections/c", &[], "{\"dimensions\":2}").await;
    assert_eq!(created.status, 201);
    let requests = large_requests();
    let load = join_all((0..CLIENTS).map(|client| {
        let (method, path, body) = &requests[client % requests.len()];
        let fixture = &fixture;
        async move {
            let mut stream = fixture.send(method, path, "", body.len(), body).await;
            // An answer's head is enough, since streams of the model go on.
            status(&mut stream).await
        }
    }));
    let statuses = fixture.within_budget(load).await;
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().any(|status| ![0, 429].contains(status)), "{statuses:?}");
    assert!(statuses.iter().all(|status| *status < 500), "{statuses:?}");
    fixture.assert_open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_stall_stay_within_the_budget_and_shut_out_no_small_request() {
    let fixture = Fixture::start().await;
    let half = vec![b' '; BODY_BYTES / 2];
    let load = async {
        let send = |client: usize| {
            let headers = if client.is_multiple_of(2) { "content-encoding: gzip\r\n" } else { "" };
            fixture.send("POST", "/v1/embeddings", headers, BODY_BYTES, &half)
        };
        let stalled = join_all((0..CLIENTS).map(send)).await;
        fixture.assert_open().await;
        until("what fits the budget is taken", async || metric(&fixture.server, REFUSED).await > 0).await;
        stalled
    };
    drop(fixture.within_budget(load).await);
    fixture.assert_open().await;
    until("what was reserved is given back", async || metric(&fixture.server, RESERVED).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_stay_within_the_budget() {
    let fixture = Fixture::start().await;
    let body = json!({ "model": "mock", "input": texts(TEXTS), "encoding_format": "float" }).to_string();
    let load = async {
        // One of three is compressed before it is sent.
        let send = |client: usize| {
            let headers = if client.is_multiple_of(3) { "accept-encoding: gzip\r\n" } else { "" };
            fixture.send("POST", "/v1/embeddings", headers, body.len(), body.as_bytes())
        };
        let mut unread = join_all((0..CLIENTS).map(send)).await;
        let statuses = join_all(unread.iter_mut().map(status)).await;
        fixture.assert_open().await;
        statuses
    };
    let statuses = fixture.within_budget(load).await;
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_streams_that_are_not_read_stay_within_the_budget() {
    let fixture = Fixture::start().await;
    let load = async {
        let mut unread = Vec::new();
        for client in 0..STREAMS {
            let messages = json!([{ "role": "user", "content": format!("question {client}") }]);
            let body = json!({ "model": "m", "stream": true, "messages": messages }).to_string();
            unread.push(fixture.send("POST", "/v1/chat/completions", "", body.len(), body.as_bytes()).await);
        }
        let statuses = join_all(unread.iter_mut().map(status)).await;
        fixture.assert_open().await;
        until("the budget is used up", async || metric(&fixture.server, REFUSED).await > 0).await;
        let lengths = join_all(unread.into_iter().map(async |mut connection| {
            let mut rest = Vec::new();
            _ = connection.read_to_end(&mut rest).await;
            rest.len()
        }));
        (statuses, lengths.await)
    };
    let (statuses, lengths) = fixture.within_budget(load).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(lengths.iter().all(|length| *length > STREAM_BYTES), "{lengths:?}");
    until("what was reserved is given back", async || metric(&fixture.server, RESERVED).await == 0).await;
}

/// A metric without labels.
pub(crate) async fn metric(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}
