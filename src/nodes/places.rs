//! Which node has a collection.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::directory::{Nodes, RegistryParts};
use super::metrics::ForwardOutcome;
use super::report::NodeReport;
use super::transport::{NodeReply, NodeRequest};
use crate::cache::{Located, RegisteredNode};
use crate::domain::{Key, KeyHasher, TenantId};
use crate::error::{Error, Kind, Result};
use crate::sync::lock;

/// For how long it is believed where a collection is.
const BELIEVED_FOR: Duration = Duration::from_secs(1);
/// How long a request waits for the first connection to Redis, which a start does not wait for.
const CONNECTED_WITHIN: Duration = Duration::from_millis(500);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a request waits to learn where a collection is that was not found before: without that it can only fail. A busy machine or a
/// short failure of Redis takes less.
const LOCATED_WITHIN: Duration = Duration::from_secs(2);
/// The pause between two tries.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// Requests that wait so at the same time, each of which holds its place among all requests; more fail as soon as a call of Redis does.
pub(super) const WAITING_MAX: usize = 64;
/// Collections of other nodes that are remembered.
const OWNERS_MAX: usize = 4096;

/// Where requests for a collection are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectionPlace {
    /// By this node: it has the collection, or no node has.
    Here,
    /// By another node.
    On(CollectionOwner),
    /// That cannot be found out now.
    Unknown,
}

impl CollectionPlace {
    /// The error of a request for a collection whose place cannot be found out.
    pub fn unknown() -> Error {
        let message = "the collection is not on this node, and Redis, which knows the node that has it, is not reachable";
        Error::new(Kind::Unavailable, message)
    }
}

/// The node that has a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionOwner {
    /// Its id.
    pub id: u64,
    /// The address at which other nodes reach it.
    pub address: Option<String>,
    /// Whether it was seen lately.
    pub is_alive: bool,
}

/// Where collections were found.
#[derive(Debug, Default)]
pub(super) struct Owners(Mutex<HashMap<Key, (CollectionOwner, Instant)>>);

impl Owners {
    /// The node that was found last, within `age`.
    fn get(&self, collection: &Key, age: Duration) -> Option<CollectionOwner> {
        let owners = lock(&self.0);
        owners.get(collection).filter(|(_, found)| found.elapsed() <= age).map(|(owner, _)| owner.clone())
    }

    fn put(&self, collection: Key, owner: CollectionOwner) {
        let mut owners = lock(&self.0);
        if owners.len() >= OWNERS_MAX && !owners.contains_key(&collection) {
            owners.clear();
        }
        owners.insert(collection, (owner, Instant::now()));
    }

    fn remove(&self, collection: &Key) {
        lock(&self.0).remove(collection);
    }
}

impl Nodes {
    /// Whether collections may be on other nodes.
    pub fn are_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Where requests for a collection are answered that this node does not have. With `takes`, this node takes a name that no
    /// node has.
    ///
    /// Cost: a call to Redis, unless the collection was found on another node within the last second. While Redis does not answer, up
    /// to two seconds for a collection that was never found.
    pub async fn place(&self, tenant: &TenantId, name: &str, takes: bool) -> CollectionPlace {
        let Some(shared) = &self.shared else { return CollectionPlace::Here };
        let collection = id_of(tenant, name);
        if let Some(owner) = self.owners.get(&collection, BELIEVED_FOR) {
            return CollectionPlace::On(owner);
        }
        let remembered = self.owners.get(&collection, Duration::MAX);
        match self.locate(shared, &collection, takes, remembered.is_none()).await {
            Ok(Some(node)) if node.id != self.id => {
                let owner = self.owner(&node);
                self.owners.put(collection, owner.clone());
                CollectionPlace::On(owner)
            }
            Ok(_) => CollectionPlace::Here,
            Err(error) => {
                tracing::debug!(%error, "cannot find out which node has a collection");
                // While Redis is away, no other node can take its name.
                remembered.map_or(CollectionPlace::Unknown, CollectionPlace::On)
            }
        }
    }

    /// The node that has a collection; `None` if no node has. With `waits`, Redis is asked again while it does not answer.
    async fn locate(
        &self,
        shared: &RegistryParts,
        collection: &Key,
        takes: bool,
        waits: bool,
    ) -> Result<Option<RegisteredNode>> {
        wait_for_first_connection(shared).await;
        let found = self.ask_with_retries(shared, collection, takes, waits).await?;
        if found.owner.is_none() && (takes || self.is_recovering(shared)) {
            let message =
                "Redis may have lost which node has which collection, and nodes announce theirs again";
            return Err(Error::new(Kind::Unavailable, message));
        }
        if let Some(taken_at_ms) = found.taken_at_ms {
            self.acknowledged(taken_at_ms);
        }
        Ok(found.owner)
    }

    async fn ask_with_retries(
        &self,
        shared: &RegistryParts,
        collection: &Key,
        takes: bool,
        waits: bool,
    ) -> Result<Located> {
        let response_max = shared.registry.response_max();
        let Some(_place) = waits.then(|| self.waiting.try_acquire().ok()).flatten() else {
            return self.ask_redis(shared, collection, takes, response_max).await;
        };
        let until = Instant::now() + LOCATED_WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.ask_redis(shared, collection, takes, left.max(response_max)).await {
                Err(_) if left > TRY_EVERY => tokio::time::sleep(TRY_EVERY).await,
                asked => return asked,
            }
        }
    }

    /// What Redis says of a collection, to this node that it knows.
    async fn ask_redis(
        &self,
        shared: &RegistryParts,
        collection: &Key,
        takes: bool,
        limit: Duration,
    ) -> Result<Located> {
        let ask =
            async || shared.registry.locate(collection, takes && !self.is_recovering(shared), limit).await;
        let found = ask().await?;
        if found.is_asker_known {
            return Ok(found);
        }
        // Before its first announcement, or after Redis has lost what it knew.
        self.beat(shared).await?;
        Ok(ask().await?)
    }

    fn owner(&self, node: &RegisteredNode) -> CollectionOwner {
        let address = NodeReport::decode(&node.report).address;
        CollectionOwner { id: node.id, address, is_alive: self.is_alive(node) }
    }

    /// Records that this node has a collection no longer. If Redis cannot be reached, other nodes pass requests for it on to this one,
    /// which answers that there is none.
    pub async fn release(&self, tenant: &TenantId, name: &str) {
        let Some(shared) = &self.shared else { return };
        if let Err(error) = shared.registry.release(&id_of(tenant, name)).await {
            tracing::debug!(%error, "the name of a dropped collection stays with this node");
        }
    }

    /// Records all collections of this node.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout` if Redis cannot be reached.
    pub(super) async fn hold(&self, shared: &RegistryParts, names: Vec<(TenantId, String)>) -> Result<()> {
        let collections: Vec<Key> = names.iter().map(|(tenant, name)| id_of(tenant, name)).collect();
        let others = shared.registry.hold(&collections).await?;
        if others > 0 {
            tracing::warn!(
                collections = others,
                "other nodes have collections of the same names: each node serves its own"
            );
        }
        Ok(())
    }

    /// Passes a request on to the node that has a collection.
    ///
    /// # Errors
    /// `OnOtherNode` if that has no address, `Unavailable` if it is away or cannot be reached, `Timeout`, `Overloaded`.
    pub async fn ask(
        &self,
        tenant: &TenantId,
        name: &str,
        owner: &CollectionOwner,
        request: NodeRequest,
    ) -> Result<NodeReply> {
        let reply = match &owner.address {
            _ if !owner.is_alive => {
                self.metrics.forwards.with(ForwardOutcome::Refused).inc();
                let message = format!("the collection is on node {:016x}, which is away", owner.id);
                return Err(Error::new(Kind::Unavailable, message));
            }
            None => {
                self.metrics.forwards.with(ForwardOutcome::Refused).inc();
                return Err(on_other_node(owner));
            }
            Some(address) => self.transport.ask(self.id, owner.id, address, request).await,
        };
        self.metrics.forwards.with(outcome(&reply)).inc();
        if reply.as_ref().is_ok_and(|reply| matches!(reply.status.as_u16(), 404 | 421)) {
            // The collection may be somewhere else by now.
            self.owners.remove(&id_of(tenant, name));
        }
        reply
    }
}

async fn wait_for_first_connection(shared: &RegistryParts) {
    let connected = async {
        while shared.registry.server_number() == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Past the limit the call says why it fails.
    let _ = tokio::time::timeout(CONNECTED_WITHIN, connected).await;
}

fn outcome(reply: &Result<NodeReply>) -> ForwardOutcome {
    match reply.as_ref().map_err(Error::kind) {
        Ok(_) => ForwardOutcome::Answered,
        Err(Kind::Timeout) => ForwardOutcome::TimedOut,
        Err(Kind::Overloaded) => ForwardOutcome::Refused,
        Err(_) => ForwardOutcome::Unreachable,
    }
}

/// Refuses a request that only another node can answer.
pub fn on_other_node(owner: &CollectionOwner) -> Error {
    let message = format!("the collection is on node {:016x}: send the request to it", owner.id);
    let error = Error::new(Kind::OnOtherNode, message).param("name");
    match &owner.address {
        Some(address) => error.with("address", address),
        None => error,
    }
}

/// What a collection is called among all nodes.
fn id_of(tenant: &TenantId, name: &str) -> Key {
    KeyHasher::new("likewise/collection/v1").field(tenant.as_str().as_bytes()).field(name.as_bytes()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: u64) -> CollectionOwner {
        CollectionOwner { id, address: None, is_alive: true }
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_collection_was_is_believed_for_a_while_and_remembered_for_longer() {
        let (owners, key) = (Owners::default(), Key([1; 32]));
        owners.put(key, owner(7));
        assert_eq!(owners.get(&key, BELIEVED_FOR), Some(owner(7)));
        tokio::time::advance(BELIEVED_FOR * 2).await;
        assert_eq!(owners.get(&key, BELIEVED_FOR), None);
        assert_eq!(owners.get(&key, Duration::MAX), Some(owner(7)));
        owners.remove(&key);
        assert_eq!(owners.get(&key, Duration::MAX), None);
    }

    #[test]
    fn not_more_are_remembered_than_may_be() {
        let owners = Owners::default();
        for n in 0..=OWNERS_MAX as u64 {
            owners.put(KeyHasher::new("test").field(&n.to_le_bytes()).finish(), owner(n));
        }
        assert_eq!(lock(&owners.0).len(), 1);
    }

    #[test]
    fn tenants_have_collections_of_one_name() {
        let acme = TenantId::named("acme").unwrap();
        assert_ne!(id_of(&acme, "products"), id_of(&TenantId::default(), "products"));
    }
}
