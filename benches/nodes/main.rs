//! What do several nodes cost that share a Redis, and what does a client see of it?
//!
//! Two servers and a Redis of their own. From an invalidation to its effect; hits beside a server without Redis; processor time of one
//! node and of two; who asks the upstream, and what is served while one node is cut off from Redis, beside LiteLLM's proxy with a Redis cache; hits while
//! Redis is silent.
//! `LIKEWISE_PARTS=effect,hits` runs only these.

mod effect;
mod hits;
mod identical;
mod link;
mod partition;
mod silence;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use likewise_benches::beside::Server;
use likewise_benches::load::{Connection, get, post};
use likewise_benches::print_circumstances;
use likewise_benches::redis_server::RedisServer;
use likewise_benches::upstream::{self, ask};
use tempfile::TempDir;

const UPSTREAM_TAKES: Duration = Duration::from_millis(300);
/// As product data of a shop.
const OBJECT_BYTES: usize = 1500;

#[tokio::main]
async fn main() {
    upstream::serve_if_upstream().await;
    print_circumstances("nodes");
    let parts = std::env::var("LIKEWISE_PARTS")
        .unwrap_or_else(|_| "effect,hits,cpu,identical,partition,silence".into());
    for part in parts.split(',') {
        let setting = Setting::start();
        match part {
            "effect" => effect::print(&setting).await,
            "hits" => hits::print_without_and_with(&setting).await,
            "cpu" => hits::print_one_and_two(&setting).await,
            "identical" => identical::print(&setting).await,
            "partition" => partition::print(&setting).await,
            "silence" => silence::print(&setting).await,
            other => panic!("{other} is no part"),
        }
    }
}

/// What nodes need: an upstream, a Redis that is empty, and a directory.
struct Setting {
    upstream: Server,
    redis: RedisServer,
    dir: TempDir,
}

impl Setting {
    fn start() -> Setting {
        Setting {
            upstream: upstream::start(UPSTREAM_TAKES),
            redis: RedisServer::start(),
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A node that shares the Redis.
    async fn node(&self, name: &str, environment: &[(&str, &str)]) -> Server {
        self.node_at(self.redis.port(), name, environment).await
    }

    /// A node that shares the Redis behind this port.
    async fn node_at(&self, port: u16, name: &str, environment: &[(&str, &str)]) -> Server {
        let url = format!("redis://127.0.0.1:{port}");
        let mut command = program(&self.dir.path().join(name), self.upstream.address);
        let node = Server::start(command.args(["--redis", &url]).envs(environment.iter().copied()));
        let mut connection = Connection::open(node.address).await;
        while state(&mut connection, node.address).await["redis"]["trusted"] != true {
            tokio::task::yield_now().await;
        }
        node
    }

    /// The same server without Redis.
    fn alone(&self, name: &str) -> Server {
        Server::start(&mut program(&self.dir.path().join(name), self.upstream.address))
    }
}

fn program(data: &Path, upstream: SocketAddr) -> Command {
    let binary = std::env::var("LIKEWISE_BINARY").expect("run this by `make bench NAME=nodes`");
    let model = std::env::var("LIKEWISE_TEST_MODEL").expect("run this by `make bench NAME=nodes`");
    let mut command = Command::new(binary);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--model", &model, "--data-dir"])
        .arg(data)
        .args(["--upstream", &format!("http://{upstream}/v1")])
        .env("LIKEWISE__MODEL__NAME", "all-MiniLM-L6-v2")
        .env("LIKEWISE_LOG", "error");
    command
}

/// How a node stands to Redis.
async fn state(connection: &mut Connection, address: SocketAddr) -> serde_json::Value {
    let (_, body) = connection.ask(&get(address, "/readyz?verbose")).await;
    serde_json::from_slice(&body).expect("JSON")
}

/// What is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedding,
    Answer,
    Object,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Embedding, Kind::Answer, Kind::Object];

    fn name(self) -> &'static str {
        match self {
            Kind::Embedding => "embedding",
            Kind::Answer => "answer",
            Kind::Object => "object",
        }
    }

    /// A request that is a hit in memory once it was [`cached`].
    fn request(self, address: SocketAddr) -> Arc<[u8]> {
        let embedding =
            r#"{"model":"all-MiniLM-L6-v2","input":"una camiseta azul","encoding_format":"base64"}"#;
        match self {
            Kind::Embedding => post(address, "/v1/embeddings", embedding),
            Kind::Answer => ask(address, "¿Tenéis camisetas azules?", false),
            Kind::Object => get(address, "/v1/cache/products/42"),
        }
        .into()
    }
}

/// Makes a request of each kind a hit in the memory of a node.
async fn cached(node: &Server) {
    let mut connection = Connection::open(node.address).await;
    assert_eq!(connection.ask(&put(node.address, "42", "product:42")).await.0, 204);
    for kind in Kind::ALL {
        for _ in 0..2 {
            assert_eq!(connection.ask(&kind.request(node.address)).await.0, 200);
        }
    }
}

/// The bytes of a PUT of an object that has one tag.
fn put(address: SocketAddr, key: &str, tag: &str) -> Vec<u8> {
    let value = "producto ".repeat(OBJECT_BYTES / 9);
    format!(
        "PUT /v1/cache/products/{key} HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/plain\r\n\
         x-cache-tags: {tag}\r\ncontent-length: {}\r\n\r\n{value}",
        value.len()
    )
    .into_bytes()
}
