//! Goal: each caller receives a vector or an error for every behaviour of an endpoint, and no wrong vector. Method: an endpoint of a
//! few lines over a plain socket, scripted answer by answer; waits are one millisecond.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::domain::Embedding;
use crate::embed::Priority;
use crate::metrics::unexported;

/// What the endpoint does with one request.
#[derive(Clone)]
enum Act {
    /// Answers with the vectors, in reverse order of their places.
    Vectors,
    /// Answers with a status, a header line (may be empty) and a body.
    Answer(u16, &'static str, &'static str),
    /// Answers with the vectors, compressed by gzip; cut behind so many bytes.
    Gzip(usize),
    /// Answers with so many spaces, compressed.
    GzippedBlank(usize),
    /// Closes the connection.
    HangUp,
    /// Never answers.
    Hang,
    /// Waits for the gate, then answers with the vectors.
    Wait,
    /// From here on: answers so where a text says `BAD`, otherwise with the vectors.
    Bad(u16, &'static str),
}

/// An endpoint with the requests that it has received.
struct Endpoint {
    url: String,
    asked: Arc<StdMutex<Vec<serde_json::Value>>>,
    heads: Arc<StdMutex<Vec<String>>>,
    /// Counts requests that have arrived.
    arrivals: watch::Receiver<usize>,
    gate: Arc<Semaphore>,
}

/// Answers by the script, and with vectors once it has ended.
async fn endpoint(script: impl IntoIterator<Item = Act>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let script = Arc::new(StdMutex::new(script.into_iter().collect::<VecDeque<_>>()));
    let (arrived, arrivals) = watch::channel(0);
    let arrived = Arc::new(arrived);
    let endpoint = Endpoint {
        url: format!("http://{}/v1/", listener.local_addr().unwrap()),
        asked: Arc::default(),
        heads: Arc::default(),
        arrivals,
        gate: Arc::new(Semaphore::new(0)),
    };
    let (asked, heads, gate) =
        (Arc::clone(&endpoint.asked), Arc::clone(&endpoint.heads), Arc::clone(&endpoint.gate));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (script, arrived) = (Arc::clone(&script), Arc::clone(&arrived));
            let (asked, heads, gate) = (Arc::clone(&asked), Arc::clone(&heads), Arc::clone(&gate));
            tokio::spawn(async move {
                let (head, request) = read_request(&mut stream).await;
                let count = request["input"].as_array().unwrap().len();
                asked.lock().unwrap().push(request.clone());
                heads.lock().unwrap().push(head);
                let act = next_act(&mut script.lock().unwrap());
                arrived.send_modify(|count| *count += 1);
                let answer = match act {
                    Act::Vectors => answer(200, "", &vectors(&request)),
                    Act::Answer(status, header, body) => answer(status, header, body),
                    Act::Bad(status, body) if request["input"].to_string().contains("BAD") => {
                        answer(status, "", body)
                    }
                    Act::Bad(..) => answer(200, "", &vectors(&request)),
                    Act::Gzip(length) => {
                        let body = gzip(&vectors(&request), length);
                        [answer_head(200, "content-encoding: gzip\r\n", body.len()), body].concat()
                    }
                    Act::GzippedBlank(length) => {
                        let body = gzip(&" ".repeat(length), usize::MAX);
                        [answer_head(200, "content-encoding: gzip\r\n", body.len()), body].concat()
                    }
                    Act::HangUp => return,
                    Act::Hang => return std::future::pending().await,
                    Act::Wait => {
                        gate.acquire().await.unwrap().forget();
                        answer(200, "", &vectors(&request))
                    }
                };
                assert!(count > 0);
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    endpoint
}

fn next_act(script: &mut VecDeque<Act>) -> Act {
    match script.front() {
        Some(act @ Act::Bad(..)) => act.clone(),
        Some(_) | None => script.pop_front().unwrap_or(Act::Vectors),
    }
}

async fn read_request(stream: &mut TcpStream) -> (String, serde_json::Value) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn answer(status: u16, header: &str, body: &str) -> Vec<u8> {
    [answer_head(status, header, body.len()), body.into()].concat()
}

fn answer_head(status: u16, header: &str, length: usize) -> Vec<u8> {
    let header = header.trim_end();
    let line_end = if header.is_empty() { "" } else { "\r\n" };
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{header}{line_end}\r\n")
        .into_bytes()
}

/// The first `length` bytes of a compressed text.
fn gzip(text: &str, length: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    let mut compressed = encoder.finish().unwrap();
    compressed.truncate(length);
    compressed
}

/// The vector of a text is its length and one.
fn vectors(request: &serde_json::Value) -> String {
    let texts = request["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().len());
    let data: Vec<_> = texts
        .enumerate()
        .map(|(index, length)| serde_json::json!({"index": index, "embedding": [length as f32, 1.0]}))
        .rev()
        .collect();
    serde_json::json!({"object": "list", "data": data, "usage": {"prompt_tokens": 10}}).to_string()
}

fn options(endpoint: &Endpoint) -> Options {
    let remote = RemoteOptions {
        base_url: Some(endpoint.url.clone()),
        model: Some("m".to_owned()),
        dim: Some(2),
        backoff_ms: 1,
        backoff_ms_max: 1,
        retries_max: 2,
        batch_texts_max: 3,
        batch_bytes_max: 1024,
        ..RemoteOptions::default()
    };
    Options { remote, ..Options::default() }
}

struct Bench {
    embedder: RemoteEmbedder,
    metrics: Arc<EmbedMetrics>,
}

fn bench(options: &Options) -> Bench {
    let metrics = unexported();
    Bench { embedder: RemoteEmbedder::connect(None, options, Arc::clone(&metrics)).unwrap(), metrics }
}

fn work(text: &str, priority: Priority, reply: oneshot::Sender<Result<Embedding>>) -> EmbedJob {
    let is_abandoned = Arc::new(AtomicBool::new(false));
    EmbedJob { text: text.to_owned(), priority, reply, is_abandoned, since: Instant::now(), place: None }
}

type Reply = oneshot::Receiver<Result<Embedding>>;

impl Bench {
    fn submit(&self, texts: &[&str]) -> Vec<Reply> {
        let (work, replies) = texts
            .iter()
            .map(|text| {
                let (reply, receiver) = oneshot::channel();
                (work(text, Priority::Interactive, reply), receiver)
            })
            .unzip();
        self.embedder.submit(work).unwrap();
        replies
    }

    async fn embed(&self, texts: &[&str]) -> Vec<Result<Vec<f32>>> {
        let mut results = Vec::new();
        for reply in self.submit(texts) {
            results.push(reply.await.unwrap().map(|embedding| embedding.vector.to_vec()));
        }
        results
    }

    async fn refusal(&self) -> Error {
        self.embed(&["a"]).await.remove(0).unwrap_err()
    }
}

#[tokio::test]
async fn vectors_return_to_their_texts_across_batches() {
    let endpoint = endpoint([]).await;
    let bench = bench(&options(&endpoint));
    let texts = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg"];
    let results: Vec<_> = bench.embed(&texts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, (1..=7u8).map(|n| vec![f32::from(n), 1.0]).collect::<Vec<_>>());
    let asked = endpoint.asked.lock().unwrap();
    assert!(asked.iter().all(|request| request["input"].as_array().unwrap().len() <= 3));
    assert!(asked.iter().all(|request| request["model"] == "m" && request["encoding_format"] == "base64"));
    assert!(endpoint.heads.lock().unwrap()[0].starts_with("POST /v1/embeddings "));
    assert_eq!(bench.embedder.queued(), 0);
}

#[tokio::test]
async fn a_long_text_rides_alone() {
    let endpoint = endpoint([]).await;
    let bench = bench(&options(&endpoint));
    let long = "x".repeat(5000);
    let results = bench.embed(&[&long, "a"]).await;
    assert_eq!(results[0].as_ref().unwrap(), &[5000.0, 1.0]);
    assert_eq!(endpoint.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_reply_that_asks_to_slow_down_is_not_a_failure() {
    let pace = [
        Act::Answer(429, "retry-after-ms: 1\r\n", ""),
        Act::Answer(429, "retry-after: 0\r\n", ""),
        Act::Answer(429, "", "not even JSON"),
        Act::Answer(429, "", ""),
    ];
    let endpoint = endpoint(pace).await;
    let bench = bench(&options(&endpoint));
    assert!(bench.embed(&["a"]).await[0].is_ok());
    assert_eq!(bench.metrics.retries.get(), 4);
}

#[tokio::test]
async fn a_rate_limit_ends_at_the_deadline() {
    let endpoint = endpoint([Act::Answer(429, "retry-after: 60\r\n", "")]).await;
    let mut options = options(&endpoint);
    options.remote.deadline_ms = 5_000;
    // It fails at once, since the endpoint asks for more than there is.
    let error = bench(&options).refusal().await;
    assert_eq!(
        (error.kind(), error.retry_after_seconds().is_some_and(|seconds| seconds >= 60)),
        (Kind::Overloaded, true)
    );
}

#[tokio::test]
async fn transient_failures_are_retried_and_others_reach_every_waiter() {
    let endpoint = endpoint([
        Act::Answer(503, "", ""),
        Act::HangUp,
        Act::Vectors,
        Act::Answer(500, "", ""),
        Act::HangUp,
    ])
    .await;
    let bench = bench(&options(&endpoint));
    assert!(bench.embed(&["a"]).await[0].is_ok());
    assert!(bench.embed(&["a"]).await[0].is_ok());
    assert_eq!(bench.metrics.retries.get(), 4);
    let down = self::endpoint(std::iter::repeat_n(Act::Answer(502, "", ""), 3)).await;
    let bench = self::bench(&options(&down));
    let kinds: Vec<_> =
        bench.embed(&["a", "b", "c"]).await.into_iter().map(|r| r.unwrap_err().kind()).collect();
    assert_eq!(kinds, [Kind::Upstream; 3]);
    assert_eq!(down.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_final_and_the_endpoints_words_are_for_the_operator() {
    let refusals = [
        Act::Answer(401, "", r#"{"error": {"message": "bad\nkey"}}"#),
        Act::Answer(429, "", r#"{"error": {"message": "pay", "code": "insufficient_quota"}}"#),
        Act::Answer(302, "location: http://127.0.0.1:1/\r\n", ""),
    ];
    let endpoint = endpoint(refusals).await;
    let bench = bench(&options(&endpoint));
    for status in ["401", "429", "302"] {
        let error = bench.refusal().await;
        assert_eq!(
            (error.kind(), error.to_string()),
            (Kind::Upstream, format!("cannot embed by the remote model (status: {status})"))
        );
    }
    assert_eq!(bench.metrics.retries.get(), 0);
}

#[tokio::test]
async fn a_bad_text_fails_alone() {
    let too_long = r#"{"error": {"message": "the input is too long, see http://docs.internal/x"}}"#;
    let nan = r#"{"data": [{"index": 0, "embedding": [NaN, 1]}]}"#;
    for (status, body, kind, words) in [
        (400, too_long, Kind::InvalidInput, "is too long, see ***"),
        (413, too_long, Kind::TooLarge, "is too long, see ***"),
        (422, "", Kind::Unprocessable, "refused the text"),
        (451, too_long, Kind::Upstream, "status: 451"),
        (500, "out of memory", Kind::Upstream, "status: 500"),
        (200, r#"{"data": []}"#, Kind::Upstream, "number of vectors"),
        (200, nan, Kind::Upstream, "reply"),
    ] {
        let endpoint = endpoint([Act::Bad(status, body)]).await;
        let mut options = options(&endpoint);
        options.remote.batch_texts_max = 16;
        let bench = bench(&options);
        let texts = ["a", "bb", "BAD", "dddd", "eeeee", "ffffff", "ggggggg"];
        let results = bench.embed(&texts).await;
        for (text, result) in texts.iter().zip(results) {
            match result {
                Ok(vector) => assert_eq!(vector, [text.len() as f32, 1.0], "{status} {text}"),
                Err(error) => {
                    assert_eq!((*text, error.kind()), ("BAD", kind), "{status} {error}");
                    assert!(error.to_string().contains(words), "{status} {error}");
                }
            }
        }
        // A part that answers 500 is tried again.
        let requests = endpoint.asked.lock().unwrap().len();
        assert!(requests <= if status == 500 { 15 } else { 7 }, "{status}: {requests} requests");
    }
}

#[tokio::test]
async fn a_fault_of_the_operators_is_not_searched_for_in_the_texts() {
    for (status, body) in
        [(401, ""), (403, ""), (404, ""), (400, r#"{"error": {"message": "API key not valid"}}"#), (302, "")]
    {
        let endpoint = endpoint([Act::Answer(status, "", body)]).await;
        let bench = bench(&options(&endpoint));
        for result in bench.embed(&["a", "b", "c"]).await {
            assert_eq!(
                result.unwrap_err().to_string(),
                format!("cannot embed by the remote model (status: {status})")
            );
        }
        assert_eq!(endpoint.asked.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_long_wait_is_cut_and_one_request_probes_after_it() {
    let limited = Act::Answer(429, "retry-after: 1000000000\r\n", "");
    let mut endpoint = endpoint([limited, Act::Wait]).await;
    let mut options = options(&endpoint);
    options.remote.retry_after_ms_max = 20;
    options.remote.batch_texts_max = 1;
    let bench = bench(&options);
    let replies = bench.submit(&["a", "bb", "ccc"]);
    // All three may be in flight when the first is limited; afterwards one probe is.
    endpoint.arrivals.wait_for(|count| *count >= 2).await.unwrap();
    endpoint.gate.add_permits(3);
    for (place, reply) in replies.into_iter().enumerate() {
        let vector = reply.await.unwrap().unwrap().vector;
        assert_eq!(*vector, [place as f32 + 1.0, 1.0]);
    }
}

#[tokio::test]
async fn nonsense_is_an_error_and_never_a_vector() {
    let nonsense = [
        Act::Answer(200, "", r#"{"data": []}"#),
        Act::Answer(200, "", r#"{"data": [{"index": 0, "embedding": [1, 2, 3]}]}"#),
        Act::Answer(200, "", r#"{"data": [{"index": 0, "embedding": [0, 0]}]}"#),
        Act::Answer(200, "", r#"{"data": [{"index": 0, "embedding": [1e39, 1]}]}"#),
        Act::Answer(200, "", r#"{"data": [{"index": 1, "embedding": [1, 1]}]}"#),
        Act::Answer(200, "", "<html>"),
    ];
    let endpoint = endpoint(nonsense.clone()).await;
    let bench = bench(&options(&endpoint));
    for _ in nonsense {
        assert_eq!(bench.refusal().await.kind(), Kind::Upstream);
    }
    assert!(bench.embed(&["a"]).await[0].is_ok());
}

#[tokio::test]
async fn what_comes_compressed_is_read_within_the_same_limits() {
    let unknown = Act::Answer(200, "content-encoding: br", "x");
    let endpoint =
        endpoint([Act::Gzip(usize::MAX), Act::Gzip(20), unknown, Act::GzippedBlank(1 << 20)]).await;
    let bench = bench(&options(&endpoint));
    assert_eq!(bench.embed(&["abc"]).await[0].as_ref().unwrap(), &vec![3.0, 1.0]);
    for message in ["decompress", "content-encoding", "too long"] {
        assert!(bench.refusal().await.message().contains(message), "{message}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let body = Box::leak(" ".repeat(1 << 20).into_boxed_str());
    let endpoint = endpoint([Act::Answer(200, "", body)]).await;
    assert!(bench(&options(&endpoint)).refusal().await.message().contains("too long"));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_tried_again() {
    let endpoint = endpoint([Act::Hang]).await;
    let mut options = options(&endpoint);
    options.remote.timeout_ms = 50;
    assert!(bench(&options).embed(&["a"]).await[0].is_ok());
}

#[tokio::test]
async fn unwanted_work_is_dropped_and_a_full_queue_refuses() {
    let mut endpoint = endpoint([Act::Wait]).await;
    let mut options = options(&endpoint);
    options.remote.requests_max = 1;
    options.queue_texts_max = 2048;
    let bench = bench(&options);
    let first = bench.submit(&["first"]);
    endpoint.arrivals.wait_for(|count| *count == 1).await.unwrap();
    drop(bench.submit(&["unwanted"]));
    let kept = bench.submit(&["kept"]);
    let (work, _replies): (Vec<_>, Vec<_>) = (0..2047)
        .map(|_| {
            let (reply, receiver) = oneshot::channel();
            (work("a", Priority::Bulk, reply), receiver)
        })
        .unzip();
    assert_eq!(bench.embedder.submit(work).unwrap_err().kind(), Kind::Overloaded);
    assert_eq!(bench.embedder.queued(), 2);
    endpoint.gate.add_permits(1);
    for reply in first.into_iter().chain(kept) {
        assert!(reply.await.unwrap().is_ok());
    }
    assert_eq!(bench.metrics.dropped_texts.get(), 1);
    let texts: Vec<_> = endpoint.asked.lock().unwrap().iter().map(|r| r["input"].to_string()).collect();
    assert_eq!(texts, [r#"["first"]"#, r#"["kept"]"#]);
}

#[tokio::test]
async fn dropping_the_embedder_ends_every_wait() {
    let mut endpoint = endpoint([Act::Hang]).await;
    let mut options = options(&endpoint);
    options.remote.requests_max = 1;
    let bench = bench(&options);
    let mut replies = bench.submit(&["in flight"]);
    endpoint.arrivals.wait_for(|count| *count == 1).await.unwrap();
    replies.extend(bench.submit(&["queued"]));
    drop(bench.embedder);
    for reply in replies {
        assert_eq!(reply.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    }
}

#[tokio::test]
async fn the_card_and_the_options_are_checked() {
    let endpoint = endpoint([]).await;
    let options = options(&endpoint);
    let of = |change: &dyn Fn(&mut RemoteOptions)| {
        let mut options = options.clone();
        change(&mut options.remote);
        RemoteEmbedder::connect(Some("remote"), &options, unexported())
    };
    let base = of(&|_| {}).unwrap();
    assert_eq!((base.card().name.as_str(), base.card().dim), ("remote", 2));
    assert_eq!(base.count_tokens(vec!["a".to_owned()]).await.unwrap(), None);
    assert!(base.card().fingerprint != of(&|r| r.dim = Some(3)).unwrap().card().fingerprint);
    assert!(base.card().fingerprint != of(&|r| r.model = Some("n".to_owned())).unwrap().card().fingerprint);
    let refused = |change: &dyn Fn(&mut RemoteOptions), key: &str| {
        let error = of(change).err().expect("it is refused");
        assert!(error.kind() == Kind::Config && error.to_string().contains(key), "{error}");
    };
    refused(&|r| r.dim = Some(0), "remote.dim");
    refused(&|r| r.retry_after_ms_max = 0, "remote.retry_after_ms_max");
    refused(&|r| r.base_url = Some("ftp://x".to_owned()), "remote.base_url");
    refused(&|r| r.base_url = Some("http://user:secret@x".to_owned()), "api_key_env");
    refused(&|r| r.api_key_env = Some("LIKEWISE_NO_SUCH_VARIABLE".to_owned()), "LIKEWISE_NO_SUCH_VARIABLE");
}
