//! The task that opens connections, and replaces those that do not serve.
//!
//! redis-rs replaces a connection only once it has broken, and a silent one never; nor does it ask Sentinels again. So this
//! task asks the server each second, and whenever a call has failed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::ConnectionAddr;
use tokio::time::Instant;

use super::clock_offset::ClockOffset;
use super::link::Link;
use super::options::RedisMode;
use super::server_identity::ServerIdentity;
use super::state::ClientState;
use crate::pacing;

/// The wait before a connection is opened again, first and at most. Requests that cannot be answered without Redis wait for it for two
/// seconds, within which a connection has to be tried even where those before have all broken.
const WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A connection that has lasted for so long was a good one.
const SETTLED: Duration = Duration::from_secs(1);
/// How often a connection is checked without being asked to.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a server may take for a check, which measures whether it lives rather than whether it is fast.
const CHECK_MAX: Duration = Duration::from_secs(1);

/// Keeps a connection open until it is aborted.
pub(super) async fn run(state: Arc<ClientState>) {
    let mut attempts = 0;
    loop {
        match state.servers.connect().await {
            Ok((link, address)) => {
                let since = Instant::now();
                _ = is_alive(&state, &link).await;
                let identity = ServerIdentity::of(&link, CHECK_MAX).await;
                state.connected(link.clone(), identity);
                watch(&state, &link, address).await;
                if since.elapsed() >= SETTLED {
                    attempts = 0;
                }
                state.disconnected();
            }
            Err(error) => state.warn_once(&error),
        }
        attempts += 1;
        tokio::time::sleep(pacing::backoff(attempts, WAIT.0, WAIT.1)).await;
    }
}

/// Returns when the connection has to be replaced.
async fn watch(state: &ClientState, link: &Link, address: Option<ConnectionAddr>) {
    loop {
        let is_doubted = tokio::time::timeout(CHECK_INTERVAL, state.doubted()).await.is_ok();
        // A cluster's client does not say whether it knows the servers that took over; a new one does.
        let is_cluster = state.servers.mode() == RedisMode::Cluster;
        if state.is_broken() || (is_doubted && is_cluster) || !is_alive(state, link).await {
            return;
        }
        if let Some(address) = &address
            && state.servers.primary().await.is_ok_and(|primary| primary != *address)
        {
            return;
        }
    }
}

/// Whether the server answers. Its answer is its time.
async fn is_alive(state: &ClientState, link: &Link) -> bool {
    let (time, sent) = (redis::cmd("TIME"), Instant::now());
    match tokio::time::timeout(CHECK_MAX, link.clone().command(&time)).await {
        Ok(Ok(reply)) => {
            let left_server = SystemTime::now() - sent.elapsed() / 2;
            ClockOffset::of_reply(reply, left_server).inspect(|&offset| state.set_clock_offset(offset));
            true
        }
        Ok(Err(error)) => !error.breaks_connection(),
        Err(_) => false,
    }
}
