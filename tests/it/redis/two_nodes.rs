//! Several servers over one Redis.

use std::path::Path;

use tempfile::TempDir;

use super::servers::{Program, RedisServer};
use crate::endpoint::{Endpoint, remote};
use crate::program::{Answer, Server, until};
use crate::upstream::Upstream;

/// Two nodes with what they share. Fields end in their order.
pub(crate) struct TwoNodes {
    pub(crate) nodes: [Option<Server>; 2],
    pub(crate) redis: RedisServer,
    pub(crate) upstream: Upstream,
    pub(crate) endpoint: Endpoint,
    _dirs: [TempDir; 2],
}

impl TwoNodes {
    pub(crate) async fn start(environment: &[(&str, &str)]) -> TwoNodes {
        let redis = RedisServer::start(Program::Redis);
        let (upstream, endpoint) = (Upstream::start().await, Endpoint::start().await);
        let dirs = [(); 2].map(|()| TempDir::new().expect("a temporary directory"));
        let start = |dir: &Path| {
            let mut program = remote(&dir.join("data"), &endpoint.url);
            program
                .args(["--redis", redis.url(), "--upstream", &upstream.url])
                .env("OPENAI_API_KEY", "sk-ours");
            // More than the default: the tests share a machine with others.
            program
                .env("LIKEWISE__REDIS__CONNECT_MS_MAX", "2000")
                .env("LIKEWISE__REDIS__RESPONSE_MS_MAX", "1000")
                .env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1");
            Server::spawn(program.envs(environment.iter().copied()))
        };
        let nodes = [Some(start(dirs[0].path())), Some(start(dirs[1].path()))];
        let started = TwoNodes { nodes, redis, upstream, endpoint, _dirs: dirs };
        for node in 0..2 {
            until("the node follows the others", async || {
                started.node(node).get("/readyz?verbose").await.body["redis"]["trusted"] == true
            })
            .await;
        }
        started
    }

    pub(crate) fn node(&self, node: usize) -> &Server {
        self.nodes[node].as_ref().expect("it was not killed")
    }

    /// Ends a node without notice.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].take().expect("it was not killed before").kill();
    }

    pub(crate) async fn get(&self, node: usize, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.node(node).ask("GET", path, headers, "").await
    }

    pub(crate) async fn put(&self, node: usize, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.node(node).ask("PUT", path, headers, body.to_owned()).await
    }
}
