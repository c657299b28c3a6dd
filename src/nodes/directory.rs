//! What this node announces, and what it knows of the others.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::metrics::NodeMetrics;
use super::options::Options;
use super::report::{NodeNumbers, NodeReport};
use crate::cache::{NodeRegistry, RegisteredNode, SharedTier};
use crate::domain::{Clock as _, SystemClock, UnixSeconds};
use crate::error::{Error, Result};
use crate::sync::lock;

/// Measures what a node announces.
type Measure = Box<dyn Fn() -> NodeNumbers + Send + Sync>;

/// The nodes that share a Redis, or this node alone. Shared by `Arc`.
pub struct Nodes {
    id: u64,
    options: Options,
    shared: Option<RegistryParts>,
    started_at: UnixSeconds,
    measure: OnceLock<Measure>,
    known: Mutex<Known>,
    metrics: Arc<NodeMetrics>,
}

/// Where nodes meet.
pub(super) struct RegistryParts {
    pub(super) registry: NodeRegistry,
    tier: Arc<SharedTier>,
}

/// What is known of other nodes.
#[derive(Debug, Default)]
struct Known {
    nodes: Vec<RegisteredNode>,
    /// When Redis has named them.
    as_of: Option<Instant>,
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
    pub fn new(
        options: Options,
        shared: Option<(NodeRegistry, Arc<SharedTier>)>,
        metrics: Arc<NodeMetrics>,
    ) -> Nodes {
        metrics.nodes.set(1);
        let shared = shared.map(|(registry, tier)| RegistryParts { registry, tier });
        // Without Redis no other node can mistake it.
        let id = shared.as_ref().map_or(0, |shared| shared.registry.node());
        Nodes {
            id,
            options,
            shared,
            started_at: SystemClock.now(),
            measure: OnceLock::new(),
            known: Mutex::default(),
            metrics,
        }
    }

    /// Announces this node from now on, with what `measure` returns, until the last owner drops these nodes. Must be called
    /// once, within a runtime.
    pub fn announce(self: &Arc<Self>, measure: impl Fn() -> NodeNumbers + Send + Sync + 'static) {
        _ = self.measure.set(Box::new(measure));
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
    fn is_alive(&self, node: &RegisteredNode) -> bool {
        node.silent <= self.options.alive_within()
    }

    /// Announces this node once.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout` if Redis cannot be reached.
    async fn beat(&self, shared: &RegistryParts) -> Result<()> {
        let newest = shared.registry.newest().await;
        // Read later, so that a node that has applied everything is not behind.
        let positions = shared.tier.positions();
        let behind =
            |(newest, applied): (Option<u64>, &u64)| newest.map(|newest| newest.saturating_sub(*applied));
        let events_behind: Option<u64> = newest.into_iter().zip(&positions).map(behind).sum();
        if let Some(events) = events_behind {
            self.metrics.events_behind.set(i64::try_from(events).unwrap_or(i64::MAX));
        }
        let report = NodeReport { positions, ..self.report(events_behind) };
        let announced = shared.registry.announce(&report.encode(), self.options.forget_after()).await;
        let announced = announced.map_err(Error::from)?;
        let alive = announced.nodes.iter().filter(|node| self.is_alive(node)).count();
        self.metrics.nodes.set(i64::try_from(alive).unwrap_or(i64::MAX));
        *lock(&self.known) = Known { nodes: announced.nodes, as_of: Some(Instant::now()) };
        Ok(())
    }

    fn report(&self, events_behind: Option<u64>) -> NodeReport {
        let shared = self.shared.as_ref();
        let behind = shared.map_or(Duration::ZERO, |shared| shared.tier.behind());
        NodeReport {
            address: None,
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at.0,
            numbers: self.measure.get().map(|measure| measure()).unwrap_or_default(),
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
