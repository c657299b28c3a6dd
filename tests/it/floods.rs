//! Loads of many connections that each take little: bodies without an end, long heads, answers that no client reads. The
//! resident set stays within a small budget, and probes are answered.

use std::io::Write as _;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::inflight::{Fixture, REFUSED, RESERVED, metric, read_request};
use crate::program::until;

const BUDGET: u64 = 16 << 20;
const CLIENTS: usize = 500;
const STREAMS: usize = 48;
/// Bytes that a client's kernel takes for a client that does not read.
const UNREAD_BYTES: u32 = 4096;
/// Words of an answer of 900 kB.
const WORDS: usize = 180_000;

async fn start() -> Fixture {
    start_before(&long_answers().await).await
}

/// A server before this model.
async fn start_before(upstream: &str) -> Fixture {
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
    Fixture::start_with(BUDGET, CLIENTS as u64, upstream).await
}

/// A model whose every answer has 900 kB. It ends with the runtime of its test.
async fn long_answers() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let message = json!({ "role": "assistant", "content": "word ".repeat(WORDS) });
    let answer = json!({ "id": "a", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] });
    let answer = Arc::new(answer.to_string());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move { _ = give(connection, &answer).await });
        }
    });
    url
}

async fn give(mut connection: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut request = vec![0; 64 * 1024];
    loop {
        read_request(&mut connection, &mut request).await?;
        let length = answer.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        connection.write_all(head.as_bytes()).await?;
        connection.write_all(answer.as_bytes()).await?;
    }
}

/// A model whose every stream is these bytes, and then silence.
async fn stalls_behind(events: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let events = Arc::new(events);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let events = Arc::clone(&events);
            tokio::spawn(async move { _ = stall(connection, &events).await });
        }
    });
    url
}

async fn stall(mut connection: TcpStream, events: &str) -> std::io::Result<()> {
    let mut request = vec![0; 64 * 1024];
    read_request(&mut connection, &mut request).await?;
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await?;
    connection.write_all(events.as_bytes()).await?;
    // Until the server gives up.
    connection.read(&mut request).await.map(drop)
}

fn head(method: &str, path: &str, lines: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}\r\n")
        .into()
}

fn post(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut request = head("POST", path, &format!("{lines}content-length: {}\r\n", body.len()));
    request.extend_from_slice(body);
    request
}

/// Chunks of `body`, of which more could come.
fn chunked(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = head(method, path, "transfer-encoding: chunked\r\n");
    for piece in body.chunks(16 * 1024) {
        write!(request, "{:x}\r\n", piece.len()).unwrap();
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A connection that has sent what the server took of a request, and reads no more than a status.
struct Client {
    stream: TcpStream,
    status: Option<u16>,
}

impl Client {
    async fn send(address: &str, request: &[u8]) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(UNREAD_BYTES).unwrap();
        let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
        // A request that is refused may end the connection, and a client that does not read may not be read.
        let whole = stream.write_all(request);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(10), whole).await;
        Client { stream, status: None }
    }

    /// The status that has come, if any has.
    fn status(&mut self) -> Option<u16> {
        if self.status.is_none() {
            let mut head = [0; 12];
            let read = self.stream.read_exact(&mut head).now_or_never()?;
            self.status = read.ok().map(|_| String::from_utf8_lossy(&head[9..]).parse().unwrap());
        }
        self.status
    }
}

/// Sends each client's request within the budget, and holds the connections until some client has one of these statuses.
async fn flood(fixture: &Fixture, requests: &[Vec<u8>], clients: usize, expected: &[u16]) {
    let answered = async |sent: &mut [Client]| {
        let is_expected = |status: u16| expected.contains(&status);
        until("a client has an expected status", async || {
            sent.iter_mut().any(|client| client.status().is_some_and(is_expected))
        })
        .await;
    };
    flood_until(fixture, requests, clients, answered).await;
}

/// As [`flood`], but holds the connections until something else is so of them. Returns the statuses that have come.
async fn flood_until(
    fixture: &Fixture,
    requests: &[Vec<u8>],
    clients: usize,
    is_so: impl AsyncFnOnce(&mut [Client]),
) -> Vec<u16> {
    let load = async {
        let send = |client: usize| Client::send(fixture.address(), &requests[client % requests.len()]);
        let mut sent = join_all((0..clients).map(send)).await;
        fixture.assert_open().await;
        is_so(&mut sent).await;
        sent.iter_mut().filter_map(Client::status).collect()
    };
    let statuses: Vec<u16> = fixture.within_budget(load).await;
    assert!(statuses.iter().all(|status| *status < 500), "{statuses:?}");
    until("what was reserved is given back", async || metric(&fixture.server, RESERVED).await == 0).await;
    statuses
}

fn question(text: &str, stream: bool) -> Value {
    json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": text }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_without_an_end_stay_within_the_budget() {
    let fixture = start().await;
    let text = question(&"x".repeat(512_000), false).to_string();
    let requests = [
        chunked("POST", "/v1/chat/completions", text.as_bytes()),
        chunked("POST", "/v1/embeddings", text.as_bytes()),
        chunked("PUT", "/v1/cache/default/k", text.as_bytes()),
        chunked("POST", "/v1/chat/completions", &text.as_bytes()[..12_000]),
    ];
    flood(&fixture, &requests, CLIENTS, &[429]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_without_a_length_stay_within_the_budget() {
    let fixture = start().await;
    let text = json!({ "model": "mock", "input": "word ".repeat(800_000) }).to_string();
    let mut whole = chunked("POST", "/v1/embeddings", text.as_bytes());
    whole.extend_from_slice(b"0\r\n\r\n");
    let mut object = chunked("PUT", "/v1/cache/default/k", &vec![b'v'; 4_000_000]);
    object.extend_from_slice(b"0\r\n\r\n");
    flood(&fixture, &[whole, object], 200, &[413, 429]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_do_not_end_stay_within_the_budget() {
    let fixture = start().await;
    let mut long = head("GET", "/healthz", &format!("x-long: {}\r\n", "y".repeat(30_000)));
    long.truncate(30_000);
    flood(&fixture, &[long], CLIENTS, &[429]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_expand_stay_within_the_budget() {
    let fixture = start().await;
    // Compresses to a fiftieth, so that its expansion is not refused for its ratio.
    let noise: String =
        (0..12_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let text = question(&format!("{noise}{}", "a".repeat(3_900_000 - noise.len())), false).to_string();
    let coded = gzip(text.as_bytes());
    let request = post("/v1/chat/completions", "content-encoding: gzip\r\n", &coded);
    let bomb = post("/v1/chat/completions", "content-encoding: gzip\r\n", &gzip(&[b'a'; 3_900_000]));
    flood(&fixture, &[request, bomb], 300, &[413, 429]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_values_are_refused_within_the_budget() {
    let fixture = start().await;
    let question = question("a", false).to_string();
    let of_values =
        |count: usize| format!("{},\"x\":[{}[]]}}", question.trim_end_matches('}'), "[],".repeat(count));
    let ids = format!("{{\"model\":\"mock\",\"input\":[{}1]}}", "[1],".repeat(900_000));
    // The second is short for the memory that its values take.
    let (many, allowed, refused) = (of_values(900_000), of_values(131_000), of_values(140_000));
    let requests = [&many, &allowed].map(|body| post("/v1/chat/completions", "", body.as_bytes()));
    let requests = [requests[0].clone(), requests[1].clone(), post("/v1/embeddings", "", ids.as_bytes())];
    let answered =
        async |sent: &mut [Client]| _ = join_all(sent.iter().map(|client| client.stream.readable())).await;
    let statuses = flood_until(&fixture, &requests, 20, answered).await;
    assert!(statuses.len() == 20 && statuses.contains(&429), "{statuses:?}");
    for (body, status) in [(refused, 400), (allowed, 200)] {
        assert_eq!(fixture.server.ask("POST", "/v1/chat/completions", &[], body).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_streams_that_are_not_read_stay_within_the_budget() {
    let fixture = start().await;
    let streamed = question("a long answer", true).to_string();
    until("the answer is stored", async || {
        let asked = fixture.server.ask("POST", "/v1/chat/completions", &[], streamed.clone()).await;
        assert_eq!(asked.status, 200);
        asked.header("cache-status").contains("hit")
    })
    .await;
    let one = post("/v1/chat/completions", "", streamed.as_bytes());
    flood(&fixture, &[one.clone(), one.repeat(50)], CLIENTS, &[200]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_hits_that_are_not_read_stay_within_the_budget() {
    let fixture = start().await;
    let texts: Vec<String> = (0..3).map(|n| format!("text {n}")).collect();
    let vectors = json!({ "model": "mock", "input": texts }).to_string();
    let vectors = post("/v1/embeddings", "", vectors.as_bytes());
    assert_eq!(fixture.server.ask("PUT", "/v1/cache/default/k", &[], "v").await.status, 204);
    // An answer without a body is nothing but a head.
    let known = head("GET", "/v1/cache/default/k", "if-none-match: *\r\n");
    let requests = [vectors.repeat(300), known.repeat(20_000)];
    let blocked = async |_: &mut [Client]| {
        let are_blocked = async || metric(&fixture.server, REFUSED).await > 0;
        until("connections that cannot be written to end", are_blocked).await;
    };
    let statuses = flood_until(&fixture, &requests, CLIENTS, blocked).await;
    assert!(statuses.contains(&200) && statuses.contains(&304), "{statuses:?}");
}

/// Streams of different questions, which are never whole.
async fn streams_that_stall(events: String) {
    let fixture = start_before(&stalls_behind(events).await).await;
    let ask = |client: usize| question(&format!("question {client}"), true).to_string();
    let requests: Vec<_> =
        (0..STREAMS).map(|client| post("/v1/chat/completions", "", ask(client).as_bytes())).collect();
    let load = async {
        let sent = join_all(requests.iter().map(|request| Client::send(fixture.address(), request))).await;
        until("the budget is used up", async || metric(&fixture.server, REFUSED).await > 0).await;
        fixture.assert_open().await;
        drop(sent);
    };
    fixture.within_budget(load).await;
    until("what was reserved is given back", async || metric(&fixture.server, RESERVED).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_of_events_stay_within_the_budget() {
    streams_that_stall(format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}", "x".repeat(1 << 20)))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tool_calls_of_streams_stay_within_the_budget() {
    let call = |index: usize| {
        let function = json!({ "name": "f", "arguments": "{}" });
        let call =
            json!({ "index": index, "id": format!("c{index}"), "type": "function", "function": function });
        let delta = json!({ "role": "assistant", "tool_calls": [call] });
        let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
        format!("data: {chunk}\n\n")
    };
    streams_that_stall((0..5_000).map(call).collect()).await;
}
