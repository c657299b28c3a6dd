//! Requests of a run, each of which is recorded.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::history::{Change, History, Key, Node, Outcome, Read, RunClock, Seen, Version, Write};

/// How long a client waits. A node that is stopped does not answer.
const WAITED: Duration = Duration::from_secs(2);
/// Keys that share a tag.
const KEYS_PER_TAG: Key = 8;

/// The clients of a run.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    /// The addresses of the nodes.
    nodes: Vec<String>,
    keys: Key,
    clock: RunClock,
    next_version: AtomicU64,
    history: Mutex<History>,
    /// The tag by which a value can be replaced, as its node named it.
    etags: Mutex<HashMap<Version, String>>,
}

impl Client {
    pub(super) fn new(nodes: Vec<String>, keys: Key) -> Client {
        // Fails only if another test was faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client {
            http: reqwest::Client::builder().timeout(WAITED).build().expect("a client"),
            nodes,
            keys,
            clock: RunClock::start(),
            next_version: AtomicU64::new(1),
            history: Mutex::default(),
            etags: Mutex::default(),
        }
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn keys(&self) -> Key {
        self.keys
    }

    pub(super) fn history(&self) -> History {
        self.history.lock().unwrap().clone()
    }

    /// Whether something is so of what was recorded so far.
    pub(super) fn has_recorded(&self, is_so: impl FnOnce(&History) -> bool) -> bool {
        is_so(&self.history.lock().unwrap())
    }

    /// Records what the nodes answer for each key at the end.
    pub(super) fn record_last(&self, last: Vec<Read>) {
        let mut history = self.history.lock().unwrap();
        history.reads.extend(&last);
        history.last = last;
    }

    pub(super) async fn read(&self, key: Key, node: Node) -> Seen {
        let read = self.look(key, node).await;
        self.history.lock().unwrap().reads.push(read);
        read.seen
    }

    /// A read that is not recorded.
    pub(super) async fn look(&self, key: Key, node: Node) -> Read {
        let start = self.clock.now();
        let (seen, is_flagged) = self.found(key, node).await;
        Read { key, node, start, end: self.clock.now(), seen, is_flagged }
    }

    /// What a node has for a key, and whether the response says that it may be an old value.
    async fn found(&self, key: Key, node: Node) -> (Seen, bool) {
        let Ok(response) = self.request(Method::GET, key, node).send().await else {
            return (Seen::Failed, false);
        };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let status = header("cache-status").unwrap_or_default();
        let is_flagged = ["stale", "unverified"].iter().any(|word| status.contains(word));
        let etag = header("etag").unwrap_or_default().to_owned();
        let code = response.status().as_u16();
        let Ok(text) = response.text().await else { return (Seen::Failed, false) };
        match code {
            200 => {}
            404 => return (Seen::Miss, false),
            _ => return (Seen::Failed, false),
        }
        let Some(version) = version_in(&text, key) else { return (Seen::Foreign, is_flagged) };
        self.etags.lock().unwrap().insert(version, etag);
        (Seen::Value(version), is_flagged)
    }

    pub(super) async fn put(&self, key: Key, node: Node) -> Outcome {
        let version = self.next_version();
        let request = self.put_request(key, node, version);
        self.write(&[key], node, Change::Put(version), request).await
    }

    /// Replaces the value that a node has by another at a second node, if nothing has come between.
    pub(super) async fn compare_and_set(&self, key: Key, read_at: Node, node: Node) -> Outcome {
        let Seen::Value(from) = self.read(key, read_at).await else { return self.put(key, node).await };
        let to = self.next_version();
        let etag = self.etags.lock().unwrap()[&from].clone();
        let request = self.put_request(key, node, to).header("if-match", etag);
        self.write(&[key], node, Change::CompareAndSet { from, to }, request).await
    }

    pub(super) async fn delete(&self, key: Key, node: Node) -> Outcome {
        let request = self.request(Method::DELETE, key, node);
        self.write(&[key], node, Change::Delete, request).await
    }

    /// Invalidates the key and all that share its tag.
    pub(super) async fn invalidate(&self, key: Key, node: Node) -> Outcome {
        let body = json!({ "tags": [tag(key)] }).to_string();
        let request = self.http.post(format!("{}/v1/invalidate", self.nodes[node])).body(body);
        let keys = Vec::from_iter((0..self.keys).filter(|other| tag(*other) == tag(key)));
        self.write(&keys, node, Change::Invalidate, request).await
    }

    fn next_version(&self) -> Version {
        self.next_version.fetch_add(1, Ordering::Relaxed)
    }

    /// Keys of both policies take turns: what is not known to be up to date is a miss, or served and flagged.
    fn request(&self, method: Method, key: Key, node: Node) -> RequestBuilder {
        let namespace = if key.is_multiple_of(2) { "products" } else { "pages" };
        self.http.request(method, format!("{}/v1/cache/{namespace}/{key}", self.nodes[node]))
    }

    fn put_request(&self, key: Key, node: Node, version: Version) -> RequestBuilder {
        self.request(Method::PUT, key, node).header("x-cache-tags", tag(key)).body(value(key, version))
    }

    async fn write(&self, keys: &[Key], node: Node, change: Change, request: RequestBuilder) -> Outcome {
        let start = self.clock.now();
        let outcome = outcome(request).await;
        let end = self.clock.now();
        let write = |key: &Key| Write { key: *key, change, node, start, end, outcome };
        self.history.lock().unwrap().writes.extend(keys.iter().map(write));
        outcome
    }
}

async fn outcome(request: RequestBuilder) -> Outcome {
    let Ok(response) = request.send().await else { return Outcome::Unknown };
    let is_pending = response.headers().contains_key("x-likewise-propagation");
    match response.status().as_u16() {
        202 => Outcome::Pending,
        200..=299 if is_pending => Outcome::Pending,
        200..=299 => Outcome::Propagated,
        404 | 409 | 412 => Outcome::Refused,
        // Whether Redis has done what it did not answer for is not known.
        429 | 500..=599 => Outcome::Unknown,
        status => panic!("{status}: {}", response.text().await.unwrap_or_default()),
    }
}

fn tag(key: Key) -> String {
    format!("group:{}", key / KEYS_PER_TAG)
}

/// The value names its key and its version. Some are long.
fn value(key: Key, version: Version) -> String {
    let padding = if version.is_multiple_of(16) { 4_000 } else { 60 };
    format!("{key}:{version}:{}", "x".repeat(padding))
}

fn version_in(text: &str, key: Key) -> Option<Version> {
    let (own, rest) = text.split_once(':')?;
    let (version, _) = rest.split_once(':')?;
    let version = version.parse().ok()?;
    (own == key.to_string() && text == value(key, version)).then_some(version)
}
