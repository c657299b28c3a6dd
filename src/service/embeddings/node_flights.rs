//! One flight of a text among all nodes: a node that finds another one at work looks for its vector.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep};

use super::flights::{FlightLeader, LedFlight};
use crate::cache::EmbeddingClaims;
use crate::domain::Key;

/// The pauses between looks for vectors that other nodes make: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often texts that another node has claimed are claimed again, should it have failed or died.
const CLAIMED_EVERY: Duration = Duration::from_millis(500);
/// How long a node looks for them before it makes them itself.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl FlightLeader {
    /// Embeds the texts that no other node embeds, and waits for the vectors of the others.
    pub(super) async fn embed_among_nodes(&self, led: Vec<LedFlight>, claims: &Arc<EmbeddingClaims>) {
        let (mut open, mut pause, until) = (led, PAUSE, Instant::now() + WAIT_MAX);
        let (mut embedding, mut claim_at) = (FuturesUnordered::new(), Instant::now());
        while !open.is_empty() {
            if Instant::now() >= claim_at {
                let (own, elsewhere) = claim(claims, open, Instant::now() >= until).await;
                if !own.is_empty() {
                    embedding.push(self.embed_claimed(own, claims));
                }
                (open, claim_at) = (elsewhere, Instant::now() + CLAIMED_EVERY);
            }
            if !open.is_empty() {
                future::select(Box::pin(sleep(pause)), Box::pin(drive(&mut embedding))).await;
                pause = (pause * 2).min(PAUSE_MAX);
                open = self.land_stored(open.into_iter().filter_map(LedFlight::with_waiters).collect()).await;
            }
        }
        while embedding.next().await.is_some() {}
    }

    /// Embeds texts, and keeps their claims meanwhile. Those that fail are free for others then.
    async fn embed_claimed(&self, own: Vec<LedFlight>, claims: &EmbeddingClaims) {
        let keys: Vec<Key> = own.iter().map(|one| one.key).collect();
        // Another node may have stored a vector, and ended its claim, since it was looked for.
        let missing = self.land_stored(own).await;
        let renewing = async {
            loop {
                sleep(EmbeddingClaims::RENEWED_EVERY).await;
                claims.renew(&keys).await;
            }
        };
        tokio::select! {
            biased;
            () = self.embed(missing) => {}
            () = renewing => {}
        }
        claims.end(&keys).await;
    }
}

/// The flights that this node has to make, and those of other nodes.
async fn claim(
    claims: &EmbeddingClaims,
    open: Vec<LedFlight>,
    is_late: bool,
) -> (Vec<LedFlight>, Vec<LedFlight>) {
    if is_late {
        return (open, Vec::new());
    }
    let keys: Vec<Key> = open.iter().map(|one| one.key).collect();
    let granted = claims.claim(&keys).await;
    let (own, elsewhere): (Vec<_>, Vec<_>) =
        open.into_iter().zip(granted).partition(|(_, is_granted)| *is_granted);
    let flights = |of: Vec<(LedFlight, bool)>| of.into_iter().map(|(one, _)| one).collect();
    (flights(own), flights(elsewhere))
}

/// Goes on with the texts of this node. Never returns.
async fn drive(embedding: &mut FuturesUnordered<impl Future<Output = ()>>) {
    loop {
        if embedding.next().await.is_none() {
            future::pending::<()>().await;
        }
    }
}
