//! Several servers over one Redis.

use tempfile::TempDir;

use super::servers::{Program, RedisServer};
use crate::endpoint::{Endpoint, remote};
use crate::program::{Answer, SEMANTIC_WAITS, Server, until};
use crate::upstream::Upstream;

/// Two nodes with what they share. Fields end in their order.
pub(crate) struct TwoNodes {
    pub(crate) nodes: [Option<Server>; 2],
    pub(crate) redis: RedisServer,
    pub(crate) upstream: Upstream,
    pub(crate) endpoint: Endpoint,
    environment: Vec<(&'static str, &'static str)>,
    dirs: [TempDir; 2],
}

impl TwoNodes {
    pub(crate) async fn start(environment: &[(&'static str, &'static str)]) -> TwoNodes {
        let redis = RedisServer::start(Program::Redis);
        let (upstream, endpoint) = (Upstream::start().await, Endpoint::start().await);
        let dirs = [(); 2].map(|()| TempDir::new().expect("a temporary directory"));
        let environment = environment.to_vec();
        let mut started = TwoNodes { nodes: [None, None], redis, upstream, endpoint, environment, dirs };
        for node in 0..2 {
            started.nodes[node] = Some(started.spawn(node));
        }
        for node in 0..2 {
            started.until_trusted(node).await;
        }
        started
    }

    fn spawn(&self, node: usize) -> Server {
        let mut program = remote(&self.dirs[node].path().join("data"), &self.endpoint.url);
        program
            .args(["--redis", self.redis.url(), "--upstream", &self.upstream.url])
            .env("OPENAI_API_KEY", "sk-ours");
        // More than the default: the tests share a machine with others.
        program
            .env("LIKEWISE__REDIS__CONNECT_MS_MAX", "2000")
            .env("LIKEWISE__REDIS__RESPONSE_MS_MAX", "1000")
            .env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1")
            .envs(SEMANTIC_WAITS);
        Server::spawn(program.envs(self.environment.iter().copied()))
    }

    async fn until_trusted(&self, node: usize) {
        until("the node follows the others", async || {
            self.node(node).get("/readyz?verbose").await.body["redis"]["trusted"] == true
        })
        .await;
    }

    /// Starts a node again that was killed.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.nodes[node] = Some(self.spawn(node));
        self.until_trusted(node).await;
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
