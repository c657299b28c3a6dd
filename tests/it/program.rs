//! Starts, asks and ends the real program.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::MissedTickBehavior;

use crate::model;

/// Nothing that a test waits for may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(3);

/// A question in other words waits for its vector and for the verifier as long as an option allows: with the defaults it is a miss on a
/// busy machine.
pub(crate) const SEMANTIC_WAITS: [(&str, &str); 2] = [
    ("LIKEWISE__ANSWERS__SEMANTIC__EMBED_MS_MAX", "60000"),
    ("LIKEWISE__ANSWERS__SEMANTIC__VERIFY_MS_MAX", "60000"),
];

/// Held by tests that measure memory, and by those that keep all processors busy for long, so that they do not run at the same time.
pub(crate) static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until something is so. Asks a few hundred times a second: asking without a pause starves the processes that build indexes, which
/// have a low priority.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let mut turns = tokio::time::interval(BETWEEN_QUESTIONS);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let wait = async {
        while !is_so().await {
            turns.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

/// The program with the model of the tests and `dir` as its data directory.
pub(crate) fn likewise(command: &str, dir: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.arg(command).arg("--data-dir").arg(dir).arg("--model").arg(model::dir());
    program
        .env("LIKEWISE__MODEL__NAME", model::NAME)
        .env("LIKEWISE__CACHE__DISK__SEGMENT_BYTES", "1048576")
        .env("LIKEWISE_LOG", "warn")
        .envs(SEMANTIC_WAITS);
    program
}

/// The server without a model, and `dir` as its data directory.
pub(crate) fn without_model(dir: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(["serve", "--model", "none", "--data-dir"]).arg(dir);
    program.env("LIKEWISE__CACHE__DISK__SEGMENT_BYTES", "1048576").env("LIKEWISE_LOG", "warn");
    program
}

/// Runs the program to its end.
pub(crate) fn output(program: &mut Command) -> Output {
    program.stdin(Stdio::null()).output().expect("the program starts")
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    url: String,
    client: reqwest::Client,
    own_dir: Option<TempDir>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are ASCII"))
    }

    /// Hits, misses and coalesced texts.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let count = |name| self.header(name).parse().expect("the count of texts is a number");
        (count("x-likewise-hits"), count("x-likewise-misses"), count("x-likewise-coalesced"))
    }

    /// The vectors, in the order of the answer, whose `index` must count from 0.
    pub(crate) fn vectors(&self) -> Vec<Vec<f32>> {
        let data = self.body["data"].as_array().unwrap_or_else(|| panic!("no data in {}", self.body));
        let numbers = |value: &Value| value.as_array().expect("a list").iter().map(number).collect();
        data.iter()
            .enumerate()
            .map(|(place, object)| {
                assert_eq!(object["index"], place);
                numbers(&object["embedding"])
            })
            .collect()
    }

    /// `error.code` and `error.param`.
    pub(crate) fn error(&self) -> (&str, Option<&str>) {
        let error = &self.body["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", self.body);
        assert!(error["type"].is_string(), "{}", self.body);
        (error["code"].as_str().expect("every error has a code"), error["param"].as_str())
    }
}

fn number(value: &Value) -> f32 {
    value.as_f64().expect("a number") as f32
}

impl Server {
    /// A server on a data directory of its own.
    pub(crate) fn start() -> Server {
        let dir = TempDir::new().expect("a temporary directory");
        let mut server = Server::start_in(dir.path(), &[]);
        server.own_dir = Some(dir);
        server
    }

    /// A server on `dir`, with more environment.
    pub(crate) fn start_in(dir: &Path, environment: &[(&str, &str)]) -> Server {
        let mut program = likewise("serve", dir);
        program.envs(environment.iter().copied());
        Server::spawn(&mut program)
    }

    pub(crate) fn spawn(program: &mut Command) -> Server {
        Server::spawn_at(program, "127.0.0.1:0")
    }

    /// As [`Server::spawn`], on an address that must be known before.
    pub(crate) fn spawn_at(program: &mut Command, address: &str) -> Server {
        let client = client();
        program.args(["--listen", address]).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = program.spawn().expect("the program starts");
        // From here on the program ends with the test, however that ends.
        let mut server = Server { child, url: String::new(), client, own_dir: None };
        let mut line = String::new();
        let stdout = server.child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("stdout is readable");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("said {line:?}"));
        server.url = url.to_owned();
        server
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        read(self.client.get(format!("{}{path}", self.url))).await
    }

    /// Any request.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request).await
    }

    pub(crate) async fn post_raw(&self, body: impl Into<reqwest::Body>) -> Answer {
        read(self.client.post(format!("{}/v1/embeddings", self.url)).body(body)).await
    }

    /// Posts `fields` and the model's name to `/v1/embeddings`.
    pub(crate) async fn post(&self, mut fields: Value) -> Answer {
        fields["model"] = model::NAME.into();
        self.post_raw(fields.to_string()).await
    }

    /// Embeds texts and expects success.
    pub(crate) async fn embed(&self, texts: &[&str]) -> Answer {
        let answer = self.post(json!({ "input": texts })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    /// A number of `/v1/stats`, by its JSON pointer.
    pub(crate) async fn stat(&self, pointer: &str) -> u64 {
        let stats = self.get("/v1/stats").await.body;
        stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {stats}"))
    }

    /// Bytes of its memory that no file backs.
    pub(crate) fn private_bytes(&self) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says so");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// How many files and sockets it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs_err::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// SIGTERM, then the exit status.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the server is running");
        self.child.wait().expect("the server ends");
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        let (pid, alive) = (self.child.id().to_string(), mpsc::channel::<()>());
        // A process that does not end is killed, which shows in the status.
        let watch = std::thread::spawn(move || {
            if alive.1.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        });
        let status = self.child.wait().expect("the server ends");
        drop(alive.0);
        watch.join().expect("the watch ends");
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    // Fails only if another test was faster, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(PATIENCE).build().expect("a client")
}

async fn read(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("the answer ends");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}
