use super::*;
use crate::byte_budget::ByteBudget;
use crate::error::Kind;
use crate::metrics::unexported;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;

const PATIENCE: HeadTimeouts =
    HeadTimeouts { first_head: Duration::from_secs(10), next_head: Duration::from_secs(75) };

const BUDGET: usize = 1 << 20;

fn places(limit: usize, has_keys: bool) -> Arc<Connections> {
    patient_places(limit, has_keys, PATIENCE)
}

fn patient_places(limit: usize, has_keys: bool, timeouts: HeadTimeouts) -> Arc<Connections> {
    let budget = ByteBudget::new(BUDGET, unexported());
    Arc::new(Connections::new(limit, has_keys, timeouts, budget, unexported()))
}

/// A new connection, which is younger than all before it.
async fn enter(places: &Arc<Connections>) -> Connection {
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    let connection = places.enter(Ipv4Addr::LOCALHOST.into()).await;
    let since = NEXT.fetch_add(1, Ordering::Relaxed);
    connection.slot().change(|word| PackedState::new(word.phase(), word.flags(), since));
    connection
}

/// As many as there are places, each in use once.
async fn fill(places: &Arc<Connections>, count: usize) -> Vec<Connection> {
    let mut filled = Vec::new();
    for n in 0..count {
        let connection = enter(places).await;
        connection
            .slot()
            .word
            .store(PackedState::new(ConnectionPhase::Idle, places.flags, n as u64).0, Ordering::Release);
        filled.push(connection);
    }
    filled
}

#[tokio::test]
async fn the_longest_idle_makes_room() {
    let places = places(4, false);
    let held = fill(&places, 4).await;
    assert!(held[0].begin(Instant::now(), true), "the longest, but busy");
    let newcomer = enter(&places).await;
    assert!(!newcomer.is_reserve());
    let evicted: Vec<_> = held.iter().map(Connection::is_evicted).collect();
    assert_eq!(evicted, [false, true, false, false]);
    assert!(
        !held[1].begin(Instant::now(), true),
        "nothing is begun for a connection that has lost its place"
    );
}

#[tokio::test]
async fn a_request_that_has_begun_is_not_evicted() {
    let places = places(1, false);
    let held = fill(&places, 1).await;
    let seen = held[0].slot().word();
    assert!(held[0].begin(Instant::now(), true));
    assert!(!held[0].slot().evict(seen));
    assert!(!held[0].is_evicted());
}

#[tokio::test]
async fn those_without_a_key_take_no_place_from_those_with_one() {
    let places = places(4, true);
    let held = fill(&places, 4).await;
    for connection in &held[..2] {
        connection.show_key();
    }
    let mut newcomers = Vec::new();
    for _ in 0..200 {
        newcomers.push(enter(&places).await);
        // Evicted connections end soon.
        newcomers.retain(|connection| !connection.is_evicted());
    }
    assert!(held[..2].iter().all(|connection| !connection.is_evicted()));
    assert!(held[2..].iter().all(Connection::is_evicted));
    assert_eq!(newcomers.len(), 2);
    newcomers[0].show_key();
    newcomers[0].settle().unwrap();
}

#[tokio::test]
async fn with_every_place_in_use_the_reserve_answers_probes() {
    let places = places(4, true);
    let held = fill(&places, 4).await;
    for connection in &held {
        connection.show_key();
        assert!(connection.begin(Instant::now(), true));
    }
    let probe = enter(&places).await;
    assert!(probe.is_reserve() && probe.begin(Instant::now(), true));
    probe.show_key();
    assert_eq!(probe.settle().unwrap_err().kind(), Kind::Unavailable);
    held[2].end();
    held[2].flushed();
    probe.settle().unwrap();
    assert!(held[2].is_evicted() && !probe.is_reserve());
    let mut flood = Vec::new();
    for _ in 0..3 * RESERVE {
        flood.push(enter(&places).await);
        flood.retain(|connection| !connection.is_evicted());
    }
    assert_eq!(flood.len(), RESERVE, "newcomers take the places of those that have said nothing");
    assert!(!probe.is_evicted());
}

#[tokio::test]
async fn places_come_back() {
    let places = places(2, true);
    for _ in 0..1000 {
        let pair = [enter(&places).await, enter(&places).await];
        assert!(pair.iter().all(|connection| !connection.is_reserve() && !connection.is_evicted()));
        let third = enter(&places).await;
        assert!(pair[0].is_evicted() && !third.is_reserve());
    }
    let occupancy = places.occupancy();
    assert_eq!((occupancy.regular, occupancy.reserve, occupancy.free.len()), (0, 0, places.slots.len()));
}

#[tokio::test]
async fn waiting_has_an_end() {
    let no_time = HeadTimeouts { first_head: Duration::ZERO, next_head: Duration::ZERO };
    for (timeouts, is_over) in [(PATIENCE, false), (no_time, true)] {
        let places = patient_places(3, true, timeouts);
        let [new, idle, busy] = [enter(&places).await, enter(&places).await, enter(&places).await];
        idle.begin_phase(ConnectionPhase::Idle, Instant::now());
        busy.begin(Instant::now(), true);
        places.expire();
        let evicted = [new, idle, busy].map(|connection| connection.is_evicted());
        assert_eq!(evicted, [is_over, is_over, false]);
    }
}

#[tokio::test]
async fn a_stop_ends_those_that_wait_and_leaves_those_that_are_answered() {
    let places = places(4, true);
    let [new, idle, busy, lingering] =
        [enter(&places).await, enter(&places).await, enter(&places).await, enter(&places).await];
    idle.begin_phase(ConnectionPhase::Idle, Instant::now());
    busy.begin(Instant::now(), true);
    lingering.linger();
    places.end_waiting();
    let evicted = [&new, &idle, &busy, &lingering].map(Connection::is_evicted);
    assert_eq!(evicted, [true, true, false, false]);
    // One that lingers still makes room.
    places.relieve();
    assert!(lingering.is_evicted() && !busy.is_evicted());
}

#[tokio::test]
async fn connections_that_wait_amid_a_request_share_the_budget() {
    let places = places(4, true);
    let connection = enter(&places).await;
    let hold = |bytes| {
        let mut held = None;
        connection.hold_buffers(&mut held, bytes).map(|()| held)
    };
    let held: Vec<_> = std::iter::from_fn(|| hold(usize::MAX).ok()).collect();
    assert!(held.len() > 1 && places.budget.reserved() <= BUDGET);
    assert_eq!(hold(1).map(drop).unwrap_err().kind(), Kind::Overloaded);
    assert!(hold(0).unwrap().is_none(), "nothing has come, so nothing is held");
    drop(held);
    let mut held = None;
    for (bytes, reserved) in [(0, 0), (1, 16 << 10), (4096, 16 << 10), (4097, 64 << 10), (5000, 64 << 10)] {
        connection.hold_buffers(&mut held, bytes).unwrap();
        assert_eq!(places.budget.reserved(), reserved, "{bytes}");
    }
    drop(held);
    assert_eq!(places.budget.reserved(), 0);
}

#[tokio::test]
async fn connections_without_a_key_leave_most_of_the_budget_to_those_with_one() {
    let places = places(4, true);
    let (stranger, client) = (enter(&places).await, enter(&places).await);
    client.show_key();
    let hold_all = |connection: &Connection| {
        let hold = || {
            let mut held = None;
            connection.hold_buffers(&mut held, usize::MAX).map(|()| held)
        };
        let held: Vec<_> = std::iter::from_fn(|| hold().ok()).collect();
        (held, hold().map(drop).unwrap_err().kind())
    };
    for _ in 0..3 {
        let (strangers, refused) = hold_all(&stranger);
        assert_eq!((places.budget.reserved(), refused), (BUDGET / 4, Kind::Overloaded));
        let (clients, _) = hold_all(&client);
        assert_eq!(places.budget.reserved(), BUDGET);
        assert_eq!(clients.len(), 3 * strangers.len());
    }
    assert_eq!(places.budget.reserved(), 0);
}

#[tokio::test]
async fn only_the_present_answer_counts_as_held() {
    let connection = enter(&places(1, false)).await;
    assert!(connection.begin(Instant::now(), true));
    connection.answer(true);
    assert!(connection.is_held());
    assert!(connection.begin(Instant::now(), true));
    assert!(!connection.is_held(), "the next request has no answer yet");
    connection.answer(false);
    assert!(!connection.is_held());
}
