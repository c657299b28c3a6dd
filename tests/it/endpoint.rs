//! An embeddings endpoint of a few lines, which stands for a remote model.
//!
//! No two of its vectors are equal, not of one call either: each encodes its text and its place among all texts embedded. So a
//! test sees when an entry was lost and embedded again, and when an entry is stored under another's key.

use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64_simd::STANDARD;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) const DIM: usize = 384;

type Answer = Response<axum::body::Body>;

/// The server with a model behind the endpoint at `url`, and `dir` as its data directory.
pub(crate) fn remote(dir: &Path, url: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.arg("serve").arg("--data-dir").arg(dir);
    program
        .env("LIKEWISE__EMBED__REMOTE__BASE_URL", url)
        .env("LIKEWISE__EMBED__REMOTE__MODEL", "mock")
        .env("LIKEWISE__EMBED__REMOTE__DIM", DIM.to_string())
        .env("LIKEWISE__EMBED__REMOTE__BACKOFF_MS", "1")
        .env("LIKEWISE__CACHE__DISK__SEGMENT_BYTES", "1048576")
        .env("LIKEWISE_LOG", "warn");
    program
}

/// The endpoint. It ends with the runtime of its test.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Vectors that were made.
    vectors: AtomicU32,
    texts: AtomicU64,
    calls: AtomicU64,
    /// The length of vectors, where it is not `DIM`.
    width: AtomicU64,
    /// Whether a text has the same vector each time.
    repeats: AtomicBool,
    /// Answers that will be an error.
    failures: AtomicU64,
    /// A word that is refused, with a status and a message.
    refused: Mutex<Option<(String, u16, String)>>,
    seen: Mutex<Vec<String>>,
    /// Each answer passes it.
    gate: Arc<tokio::sync::RwLock<()>>,
}

impl Endpoint {
    pub(crate) async fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A server that is killed breaks its connections, which is no fault of this side.
                tokio::spawn(async move { _ = connection.await });
            }
        });
        Endpoint { url, state }
    }

    /// Texts that it has been asked to embed.
    pub(crate) fn texts(&self) -> u64 {
        self.state.texts.load(Ordering::SeqCst)
    }

    /// Texts that were sent before this one.
    pub(crate) fn place_of(&self, text: &str) -> Option<usize> {
        self.state.seen.lock().unwrap().iter().position(|seen| seen == text)
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Vectors have this length from now on.
    pub(crate) fn change_width(&self, width: u64) {
        self.state.width.store(width, Ordering::SeqCst);
    }

    /// A text has the same vector each time from now on, the one that is said to be the first.
    pub(crate) fn repeat(&self) {
        self.state.repeats.store(true, Ordering::SeqCst);
    }

    /// Holds all answers until the returned guard is dropped.
    pub(crate) async fn hold(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.state.gate).write_owned().await
    }

    /// Texts with both of these that it has been asked to embed.
    pub(crate) fn texts_of(&self, word: &str, number: u16) -> usize {
        let number = number.to_string();
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|text| text.contains(word) && text.contains(&number)).count()
    }

    /// Refuses requests with a text that contains `word`.
    pub(crate) fn refuse(&self, word: &str, status: u16, message: &str) {
        *self.state.refused.lock().unwrap() = Some((word.to_owned(), status, message.to_owned()));
    }

    /// Makes the next `count` answers errors.
    pub(crate) fn fail(&self, count: u64) {
        self.state.failures.store(count, Ordering::SeqCst);
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let body = axum::body::to_bytes(axum::body::Body::new(request.into_body()), 1 << 26).await;
    let body = body.unwrap_or_else(|_| Bytes::from_static(b"null"));
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let texts = request["input"].as_array().cloned().unwrap_or_default();
    state.texts.fetch_add(texts.len() as u64, Ordering::SeqCst);
    state.calls.fetch_add(1, Ordering::SeqCst);
    let width = match state.width.load(Ordering::SeqCst) {
        0 => request["dimensions"].as_u64().unwrap_or(DIM as u64),
        width => width,
    };
    let texts_in_words = || texts.iter().filter_map(Value::as_str);
    state.seen.lock().unwrap().extend(texts_in_words().map(str::to_owned));
    let _passed = state.gate.read().await;
    let fails = state.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if fails.is_ok() {
        let error = json!({ "error": { "message": "out of order", "type": "server_error" } });
        return Ok(response(StatusCode::INTERNAL_SERVER_ERROR, &error));
    }
    let refused = state.refused.lock().unwrap().clone();
    if let Some((word, status, message)) = refused
        && texts_in_words().any(|text| text.contains(&word))
    {
        let status = StatusCode::from_u16(status).unwrap();
        return Ok(response(status, &json!({ "error": { "message": message } })));
    }
    let before = state.vectors.fetch_add(texts.len() as u32, Ordering::SeqCst);
    let object = |(index, text): (usize, &Value)| {
        let place = if state.repeats.load(Ordering::SeqCst) { 1 } else { before + 1 + index as u32 };
        let mut numbers = vector(text.as_str().unwrap_or_default(), place);
        numbers.truncate(width as usize);
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        json!({ "index": index, "embedding": STANDARD.encode_to_string(bytes) })
    };
    // Out of order, as the interface allows.
    let data: Vec<Value> = texts.iter().enumerate().rev().map(object).collect();
    let usage = json!({ "prompt_tokens": texts.len(), "total_tokens": texts.len() });
    Ok(response(StatusCode::OK, &json!({ "object": "list", "data": data, "usage": usage })))
}

fn response(status: StatusCode, body: &Value) -> Answer {
    let mut response = Response::new(axum::body::Body::from(body.to_string()));
    *response.status_mut() = status;
    response
}

/// The vector of `text` that is the `place`-th to be made: its place, then numbers that follow from the text.
pub(crate) fn vector(text: &str, place: u32) -> Vec<f32> {
    let hash = blake3::hash(text.as_bytes());
    let numbers = hash.as_bytes().iter().cycle().take(DIM - 1).map(|&byte| f32::from(byte) + 1.0);
    std::iter::once(place as f32).chain(numbers).collect()
}
