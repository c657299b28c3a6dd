//! What this node announces, and what it knows of the others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::metrics::NodeMetrics;
use super::options::Options;
use super::places::{Owners, WAITING_MAX};
use super::report::{NodeNumbers, NodeReport};
use super::transport::Transport;
use crate::cache::{NodeRegistry, RegisteredNode, SharedTier};
use crate::domain::{Clock as _, SystemClock, TenantId, UnixSeconds};
use crate::error::{Error, Result};
use crate::sync::lock;

/// What a node has, measured when it announces itself.
pub trait LocalNode: Send + Sync {
    /// What it announces.
    fn numbers(&self) -> NodeNumbers;

    /// The tenants and names of its collections.
    fn collections(&self) -> Vec<(TenantId, String)>;
}

/// The nodes that share a Redis, or this node alone. Shared by `Arc`.
pub struct Nodes {
    pub(super) id: u64,
    pub(super) options: Options,
    pub(super) shared: Option<RegistryParts>,
    started_at: UnixSeconds,
    local: OnceLock<Arc<dyn LocalNode>>,
    known: Mutex<Known>,
    /// Held while this node announces itself.
    announced: tokio::sync::Mutex<Announced>,
    /// When this node was seen, as Redis has acknowledged last. 0 before.
    acknowledged_ms: AtomicU64,
    pub(super) owners: Owners,
    /// Requests that wait for Redis to say where a collection is.
    pub(super) waiting: Semaphore,
    pub(super) transport: Transport,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// Where nodes meet.
pub(super) struct RegistryParts {
    pub(super) registry: NodeRegistry,
    tier: Arc<SharedTier>,
}

impl RegistryParts {
    /// Whether this node is known to have applied all changes of other nodes.
    pub(super) fn is_trusted(&self) -> bool {
        self.tier.status().is_trusted
    }
}

/// What is known of other nodes.
#[derive(Debug, Default)]
struct Known {
    nodes: Vec<RegisteredNode>,
    /// When Redis has named them.
    as_of: Option<Instant>,
    /// When it was noticed that Redis may have lost what it knew.
    lost: Option<Instant>,
    /// The number of the server of Redis that was asked last.
    server: u64,
}

/// What this node has announced.
#[derive(Debug, Default)]
struct Announced {
    /// The number of the server of Redis that was given the names of its collections. 0 before.
    held_by: u64,
}

/// A node as others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// Its id.
    pub id: u64,
    /// Whether it is this node.
    pub is_self: bool,
    /// Whether it was seen lately.
    pub is_alive: bool,
    /// When it was seen.
    pub seen_ago: Duration,
    /// The address at which other nodes reach it.
    pub address: Option<String>,
    /// The version of its program.
    pub version: String,
    /// When it was started.
    pub started_at: UnixSeconds,
    /// What it has.
    pub numbers: NodeNumbers,
    /// Changes in Redis that it has not applied, if that is known.
    pub events_behind: Option<u64>,
    /// All changes of other nodes that are older are applied.
    pub behind_ms: u64,
    /// Changes of its own that wait.
    pub outbox: u64,
}

impl Nodes {
    /// The nodes that share what `shared` reaches; this node alone without it.
    ///
    /// # Errors
    /// `Config` about the options.
    pub fn new(
        options: Options,
        shared: Option<(NodeRegistry, Arc<SharedTier>)>,
        metrics: Arc<NodeMetrics>,
    ) -> Result<Nodes> {
        metrics.nodes.set(1);
        let transport = Transport::new(&options)?;
        let shared = shared.map(|(registry, tier)| RegistryParts { registry, tier });
        // Without Redis no other node can mistake it.
        let id = shared.as_ref().map_or(0, |shared| shared.registry.node());
        Ok(Nodes {
            id,
            options,
            shared,
            started_at: SystemClock.now(),
            local: OnceLock::new(),
            known: Mutex::default(),
            announced: tokio::sync::Mutex::default(),
            acknowledged_ms: AtomicU64::new(0),
            owners: Owners::default(),
            waiting: Semaphore::new(WAITING_MAX),
            transport,
            metrics,
        })
    }

    /// Announces this node from now on, until the last owner drops these nodes. Must be called once, within a runtime.
    pub fn announce(self: &Arc<Self>, local: Arc<dyn LocalNode>) {
        _ = self.local.set(local);
        if self.shared.is_some() {
            tokio::spawn(keep_announcing(Arc::downgrade(self)));
        }
    }

    /// All nodes, this one first, and whether Redis has named them lately.
    pub fn all(&self) -> (Vec<NodeStatus>, bool) {
        let own = status(self.id, Duration::ZERO, self.report(None), true, true);
        let Some(_) = &self.shared else { return (vec![own], true) };
        let known = lock(&self.known);
        let as_of = known.as_of.map_or(Duration::MAX, |as_of| as_of.elapsed());
        let events_behind = |node: &RegisteredNode| NodeReport::decode(&node.report).events_behind;
        let is_own = |node: &&RegisteredNode| node.id == self.id;
        let own =
            NodeStatus { events_behind: known.nodes.iter().find(is_own).and_then(events_behind), ..own };
        let others = known.nodes.iter().filter(|node| node.id != self.id);
        let others = others.map(|node| self.status_of(node, as_of));
        let mut all: Vec<NodeStatus> = std::iter::once(own).chain(others).collect();
        all[1..].sort_by_key(|node| node.id);
        (all, as_of <= self.options.alive_within())
    }

    /// A node as it was when Redis named it, `as_of` ago.
    fn status_of(&self, node: &RegisteredNode, as_of: Duration) -> NodeStatus {
        let seen_ago = node.silent.saturating_add(as_of);
        let is_alive = self.is_alive(node);
        status(node.id, seen_ago, NodeReport::decode(&node.report), false, is_alive)
    }

    /// Whether a node was seen lately when Redis named it.
    pub(super) fn is_alive(&self, node: &RegisteredNode) -> bool {
        node.silent <= self.options.alive_within()
    }

    /// The ids of the nodes that were seen last; `None` before Redis has named any.
    pub(super) fn seen_last(&self, nodes_max: usize) -> Option<Vec<u64>> {
        let known = lock(&self.known);
        known.as_of?;
        let mut nodes: Vec<&RegisteredNode> = known.nodes.iter().collect();
        nodes.sort_by_key(|node| node.silent);
        Some(nodes.into_iter().take(nodes_max).map(|node| node.id).collect())
    }

    /// Whether Redis may have lost what it knew, so lately that not all nodes have given it their collections again. Another
    /// server may be a replica that has taken over and lacks the last changes.
    pub(super) fn is_recovering(&self, shared: &RegistryParts) -> bool {
        self.note_server(shared.registry.server_number());
        lock(&self.known).lost.is_some_and(|lost| lost.elapsed() <= self.options.recovered_within())
    }

    fn note_server(&self, server: u64) {
        let mut known = lock(&self.known);
        if known.server != server {
            // Before the first one nothing was known that could be lost.
            known.lost = if known.server == 0 { known.lost } else { Some(Instant::now()) };
            known.server = server;
        }
    }

    /// Redis has acknowledged that it has seen this node.
    pub(super) fn acknowledged(&self, at_ms: u64) {
        self.acknowledged_ms.store(at_ms, Ordering::Release);
    }

    /// Announces this node once.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout` if Redis cannot be reached.
    pub(super) async fn beat(&self, shared: &RegistryParts) -> Result<()> {
        let mut own = self.announced.lock().await;
        let newest = shared.registry.newest().await;
        // Read later, so that a node that has applied everything is not behind.
        let positions = shared.tier.positions();
        let behind =
            |(newest, applied): (Option<u64>, &u64)| newest.map(|newest| newest.saturating_sub(*applied));
        let events_behind: Option<u64> = newest.into_iter().zip(&positions).map(behind).sum();
        if let Some(events) = events_behind {
            self.metrics.events_behind.set(i64::try_from(events).unwrap_or(i64::MAX));
        }
        let server = shared.registry.server_number();
        self.note_server(server);
        let report = NodeReport { positions, ..self.report(events_behind) };
        // Read before Redis answers: a collection that this node takes meanwhile is acknowledged later than the time that Redis returns here.
        let acknowledged = self.acknowledged_ms.load(Ordering::Acquire);
        let announced = shared.registry.announce(report.encode(), self.options.forget_after()).await;
        let announced = announced.map_err(Error::from)?;
        let alive = announced.nodes.iter().filter(|node| self.is_alive(node)).count();
        self.metrics.nodes.set(i64::try_from(alive).unwrap_or(i64::MAX));
        self.acknowledged(announced.now_ms);
        let is_lost = announced.seen_before_ms < acknowledged;
        let is_new = is_lost || announced.seen_before_ms == 0;
        self.learn(announced.nodes, is_lost);
        if is_new || own.held_by != server {
            let names = self.local.get().map(|local| local.collections()).unwrap_or_default();
            self.hold(shared, names).await?;
            own.held_by = server;
        }
        Ok(())
    }

    fn learn(&self, nodes: Vec<RegisteredNode>, is_lost: bool) {
        if is_lost {
            tracing::warn!("Redis has lost which node has which collection; nodes announce theirs again");
        }
        let mut known = lock(&self.known);
        let now = Instant::now();
        known.nodes = nodes;
        known.as_of = Some(now);
        known.lost = if is_lost { Some(now) } else { known.lost };
    }

    fn report(&self, events_behind: Option<u64>) -> NodeReport {
        let shared = self.shared.as_ref();
        let behind = shared.map_or(Duration::ZERO, |shared| shared.tier.behind());
        NodeReport {
            address: self.options.advertise.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at.0,
            numbers: self.local.get().map(|local| local.numbers()).unwrap_or_default(),
            positions: Vec::new(),
            events_behind,
            behind_ms: u64::try_from(behind.as_millis()).unwrap_or(u64::MAX),
            outbox: shared.map_or(0, |shared| shared.tier.status().outbox as u64),
        }
    }
}

fn status(id: u64, seen_ago: Duration, report: NodeReport, is_self: bool, is_alive: bool) -> NodeStatus {
    NodeStatus {
        id,
        is_self,
        is_alive,
        seen_ago,
        address: report.address,
        version: report.version,
        started_at: UnixSeconds(report.started_at),
        numbers: report.numbers,
        events_behind: report.events_behind,
        behind_ms: report.behind_ms,
        outbox: report.outbox,
    }
}

/// Announces a node until it is dropped.
async fn keep_announcing(nodes: Weak<Nodes>) {
    let mut is_heard = true;
    loop {
        let Some(nodes) = nodes.upgrade() else { return };
        let Some(shared) = &nodes.shared else { return };
        match nodes.beat(shared).await {
            Ok(()) => is_heard = true,
            Err(error) => {
                if is_heard {
                    tracing::warn!(%error, "cannot announce this node to the others");
                }
                is_heard = false;
            }
        }
        let pause = nodes.options.heartbeat();
        drop(nodes);
        tokio::time::sleep(pause).await;
    }
}
