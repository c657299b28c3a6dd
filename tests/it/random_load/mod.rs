//! The whole HTTP surface under random requests: whatever a client sends, the server answers it, and none of its answers says
//! that the fault is the server's. `make fuzz` sends 200,000 requests, `make soak` goes on for an hour,
//! and for another with two nodes.

mod model;
mod requests;
mod soak;
mod soak_nodes;
mod wire;

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

pub(crate) use self::requests::Random;
use self::requests::{Request, request};
use self::wire::{Answer, Client};
use crate::endpoint::{Endpoint, remote};
use crate::program::Server;

/// Requests of the short run.
const REQUESTS: usize = 4_000;
/// Clients that send at the same time.
const CLIENTS: usize = 8;
/// Every request of these runs is small, so that an answer that takes as long is one that never comes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A server before an embedding model and a language model that do not fail, with its log in a file.
struct Fixture {
    dir: TempDir,
    _endpoint: Endpoint,
    server: Server,
}

impl Fixture {
    async fn start(environment: &[(&str, &str)]) -> Fixture {
        Fixture::start_at("127.0.0.1:0", environment).await
    }

    async fn start_at(address: &str, environment: &[(&str, &str)]) -> Fixture {
        let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
        let mut program = remote(&dir.path().join("data"), &endpoint.url);
        let log = fs_err::File::create(dir.path().join("log")).unwrap();
        program.arg("--upstream").arg(model::start().await).env("OPENAI_API_KEY", "sk-ours");
        program.env("LIKEWISE__MODEL__NAME", "mock").envs(environment.iter().copied());
        program.stderr(Stdio::from(log.into_file()));
        let server = Server::spawn_at(&mut program, address);
        Fixture { dir, _endpoint: endpoint, server }
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Fails if the server has met a fault of its own.
    async fn assert_sound(&self) {
        assert_eq!(self.server.get("/readyz").await.status, 200);
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Whether an answer says that the server is at fault. A request may ask for a cached value only, and get the answer that there is
/// none (RFC 9111, section 5.2.1.7), which an answer to HEAD says by its status alone.
fn is_fault(request: &Request, answer: &Answer) -> bool {
    let says_so = String::from_utf8_lossy(&answer.body).contains("not_cached");
    let is_not_cached = answer.status == 504 && (says_so || request.method == "HEAD");
    answer.status >= 500 && !is_not_cached
}

fn shown(request: &Request) -> String {
    let body = String::from_utf8_lossy(&request.body);
    let body: String = body.chars().take(2_000).collect();
    format!("{} {} {:?}\n{body}", request.method, request.path, request.headers)
}

/// Sends `count` random requests one after the other.
async fn send(url: &str, seed: u64, count: usize) {
    let (mut random, mut client) = (Random::new(seed), Client::new(url));
    for _ in 0..count {
        let request = request(&mut random);
        let answer = tokio::time::timeout(ANSWERED_WITHIN, client.send(&request, &mut random)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer: {}", shown(&request)));
        match answer {
            Ok(Some(answer)) if is_fault(&request, &answer) => {
                panic!("{answer:?}\n{}\n{}", String::from_utf8_lossy(&answer.body), shown(&request))
            }
            Ok(_) => {}
            Err(error) => panic!("{error}: {}", shown(&request)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_is_answered_and_no_answer_is_a_fault_of_the_server() {
    let requests = std::env::var("LIKEWISE_FUZZ_REQUESTS").map_or(REQUESTS, |text| text.parse().unwrap());
    let seed = std::env::var("LIKEWISE_FUZZ_SEED").map_or(1, |text| text.parse().unwrap());
    let fixture = Fixture::start(&[]).await;
    let url = fixture.server.url();
    join_all((0..CLIENTS as u64).map(|client| send(url, seed * 1_000 + client, requests / CLIENTS))).await;
    fixture.assert_sound().await;
    let answered = fixture.server.get("/metrics").await.body;
    println!("{requests} requests with seed {seed}");
    let panics = "likewise_http_requests_total{route=\"none\",status=\"500\"}";
    assert!(!answered.as_str().unwrap().contains(panics));
    assert!(fixture.server.stop().success());
}
