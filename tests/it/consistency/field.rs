//! The nodes of a run, each behind a proxy of its own, and the Redis that they share.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::history::Node;
use super::proxy::{Fault, Proxy};
use crate::endpoint::{Endpoint, remote};
use crate::program::Server;
use crate::redis::servers::{Program, RedisServer};
use crate::redis::topologies::RedisCluster;

pub(super) const NODES: usize = 3;
/// By how much a clock may be wrong here.
pub(super) const SKEW_SECONDS: u64 = 300;
/// Fakes the time of day of a program, here not its monotonic clock.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// How the nodes of a run are started.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) suspect_after: Duration,
    /// Options of the Redis server.
    pub(super) redis: &'static [&'static str],
    /// A cluster instead of one server; its nodes are reached without a proxy, at the addresses that it names.
    pub(super) is_cluster: bool,
    /// A node whose clock is wrong.
    pub(super) skewed: Option<Node>,
    /// Nodes that do not know of Redis: a bug, put in on purpose.
    pub(super) alone: &'static [Node],
}

pub(super) struct Field {
    // Before what they are connected to, so that they end first.
    nodes: Vec<NodeUnderTest>,
    pub(super) redis: RedisServer,
    pub(super) cluster: Option<RedisCluster>,
    _endpoint: Endpoint,
}

struct NodeUnderTest {
    server: Server,
    proxy: Proxy,
    _dir: TempDir,
}

impl Field {
    pub(super) async fn start(settings: &Settings, seed: u64) -> Field {
        let options = |_, _: &_| settings.redis.iter().map(|option| (*option).to_owned()).collect();
        let (endpoint, redis) = (Endpoint::start().await, RedisServer::start_with(Program::Redis, options));
        let cluster = settings.is_cluster.then(|| RedisCluster::start(Program::Valkey));
        let mut nodes = Vec::new();
        for node in 0..NODES {
            let proxy = Proxy::start(address(&redis), seed + node as u64).await;
            let dir = TempDir::new().expect("a temporary directory");
            let mut program = remote(&dir.path().join("data"), &endpoint.url);
            program.env("LIKEWISE__CACHE__NAMESPACES__PRODUCTS__UNVERIFIED", "miss");
            if !settings.alone.contains(&node) {
                let seed = cluster.as_ref().map_or(proxy.address(), |cluster| address(&cluster.nodes[node]));
                connect(&mut program, seed, settings);
            }
            if settings.skewed == Some(node) {
                skew(&mut program);
            }
            nodes.push(NodeUnderTest { server: Server::spawn(&mut program), proxy, _dir: dir });
        }
        Field { redis, cluster, nodes, _endpoint: endpoint }
    }

    pub(super) fn server(&self, node: Node) -> &Server {
        &self.nodes[node].server
    }

    pub(super) fn proxy(&self, node: Node) -> &Proxy {
        &self.nodes[node].proxy
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.server.url().to_owned()).collect()
    }

    /// Leads all nodes to another Redis.
    pub(super) fn lead_to(&mut self, redis: RedisServer) {
        self.nodes.iter().for_each(|node| node.proxy.lead_to(address(&redis)));
        self.redis = redis;
    }

    /// The same fault between each node and Redis.
    pub(super) fn set_all(&self, fault: Fault) {
        self.nodes.iter().for_each(|node| node.proxy.set(fault));
    }
}

pub(super) fn address(redis: &RedisServer) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, redis.port()).into()
}

fn connect(program: &mut Command, redis: SocketAddr, settings: &Settings) {
    program.args(["--redis", &format!("redis://{redis}")]);
    if settings.is_cluster {
        program.env("LIKEWISE__REDIS__MODE", "cluster");
    }
    // More than the default: the tests share a machine with others.
    program.env("LIKEWISE__REDIS__RESPONSE_MS_MAX", "200");
    program.env("LIKEWISE__REDIS__SUSPECT_AFTER_MS", settings.suspect_after.as_millis().to_string());
}

fn skew(program: &mut Command) {
    let library = format!("/usr/lib/{}-linux-gnu/{FAKETIME}", std::env::consts::ARCH);
    assert!(std::path::Path::new(&library).exists(), "{library} is missing: install libfaketime");
    program.env("LD_PRELOAD", library).env("FAKETIME", format!("+{SKEW_SECONDS}s"));
    program.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
}
