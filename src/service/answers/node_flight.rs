//! One generation of an answer among all nodes: a node that finds another one at work waits for its answer.

use super::broadcast::GenerationState;
use super::generate::Generator;
use super::inflight::{Generation, Waiter};
use super::request::ResponseForm;
use crate::cache::{FlightClaim, SharedFlight};
use crate::service::Directives;

/// Flights of other nodes that a generation waits for and that leave no answer; then this node generates it.
const FLIGHTS_MAX: usize = 3;

impl Generator {
    /// As [`Generator::run`], unless another node generates the answer. Then this waits for it.
    pub(super) async fn run_among_nodes(
        self,
        generation: Generation,
        form: ResponseForm,
        directives: &Directives,
    ) {
        let mut waited_for = Vec::new();
        while waited_for.len() <= FLIGHTS_MAX {
            match self.claim_flight().await {
                FlightClaim::Alone => break,
                FlightClaim::Granted(flight) => {
                    // Another node may have stored it since the lookup.
                    if flight.has_value && self.has_completed(form, directives).await {
                        generation.end(GenerationState::AlreadyStored);
                        return flight.end().await;
                    }
                    self.run_in_flight(flight, generation, None).await;
                    return;
                }
                FlightClaim::Elsewhere(flight) => {
                    if waited_for.last() != Some(&flight.lease) {
                        waited_for.push(flight.lease);
                    }
                    tokio::select! {
                        () = flight.ended() => {}
                        () = generation.abandoned() => return,
                    }
                    if self.has_completed(form, directives).await {
                        return generation.end(GenerationState::AlreadyStored);
                    }
                }
            }
        }
        self.run(generation, None).await;
    }

    /// Refreshes the answer, unless another node does. Returns whether it failed.
    pub(super) async fn refresh_among_nodes(self, generation: Generation, waiter: Waiter) -> bool {
        match self.claim_flight().await {
            FlightClaim::Alone => !self.run(generation, Some(waiter)).await,
            FlightClaim::Granted(flight) => !self.run_in_flight(flight, generation, Some(waiter)).await,
            FlightClaim::Elsewhere(_) => false,
        }
    }

    async fn claim_flight(&self) -> FlightClaim {
        let (resolved, cache) = (&self.resolved, self.answers.lookup.cache());
        cache.claim_flight(&resolved.namespace, resolved.identity.key, self.stamp).await
    }

    async fn run_in_flight(
        mut self,
        flight: SharedFlight,
        generation: Generation,
        refreshes: Option<Waiter>,
    ) -> bool {
        generation.note_event(flight.number);
        self.lease = Some(flight.lease);
        let stored = flight.during(self.run(generation, refreshes)).await;
        if !stored {
            flight.end().await;
        }
        stored
    }
}
