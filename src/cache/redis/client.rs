//! Calls to Redis, each within its limit.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::task::JoinHandle;

use super::breaker::{BreakerState, CallEnd};
use super::call_error::{CallError, checked};
use super::clock_offset::ClockOffset;
use super::connector;
use super::dedicated::DedicatedConnection;
use super::keys::KeySpace;
use super::link::Link;
use super::metrics::RedisMetrics;
use super::options::RedisOptions;
use super::script::LuaScript;
use super::servers::Servers;
use super::state::ClientState;
use crate::error::Result;

/// Calls to Redis. Clones share the connection, the breaker and the limit of calls; with the last one they end.
///
/// A call never waits for a connection: without one it fails at once, while a task opens one. It ends within the limit that
/// its caller gives, and fails at once while the breaker is open or too many calls are under way. A caller that
/// drops a call leaves nothing behind.
#[derive(Clone)]
pub struct RedisClient {
    state: Arc<ClientState>,
    _connector: Arc<AbortOnDrop>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RedisClient {
    /// Starts to connect in the background; `None` if no server is configured. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `Config`, naming the key that cannot be used. That no server answers is no error.
    pub fn start(options: &RedisOptions, metrics: Arc<RedisMetrics>) -> Result<Option<RedisClient>> {
        let Some(servers) = Servers::new(options)? else { return Ok(None) };
        let state = Arc::new(ClientState::new(servers, options, metrics));
        let connector = Arc::new(AbortOnDrop(tokio::spawn(connector::run(Arc::clone(&state)))));
        Ok(Some(RedisClient { state, _connector: connector }))
    }

    /// The names of keys, and the number of shards.
    pub fn keys(&self) -> &KeySpace {
        &self.state.keys
    }

    /// How long a request waits for Redis: the limit of reads that a request makes.
    pub fn response_max(&self) -> Duration {
        self.state.response_max
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.state.link().is_some()
    }

    /// The number of the server that is connected to; 0 before the first connection. A later one may lack what the one before had.
    pub fn server_number(&self) -> u64 {
        self.state.server_number()
    }

    /// How far the clock of Redis is ahead, as measured within the last second while there is a connection.
    pub fn clock_offset(&self) -> ClockOffset {
        self.state.clock_offset()
    }

    /// The state of the breaker.
    pub fn breaker_state(&self) -> BreakerState {
        self.state.breaker_state()
    }

    /// A connection for one caller, to the server that has a shard. It is opened by its first call.
    pub fn dedicated(&self, shard: u8) -> DedicatedConnection {
        DedicatedConnection::new(Arc::clone(&self.state), shard)
    }

    /// The reply to a command whose keys have one hash slot.
    ///
    /// # Errors
    /// [`CallError`]; a reply that is an error is one.
    pub async fn command(&self, command: &Cmd, limit: Duration) -> Result<Value, CallError> {
        self.call(limit, |link| link.command(command)).await
    }

    /// The replies to commands that are sent together. In a cluster all their keys have one hash slot.
    ///
    /// # Errors
    /// [`CallError`], also if one of the replies is an error.
    pub async fn pipeline(&self, pipeline: &Pipeline, limit: Duration) -> Result<Vec<Value>, CallError> {
        let replies =
            |link: Link| async { link.pipeline(pipeline).await?.into_iter().map(checked).collect() };
        self.call(limit, replies).await
    }

    /// What a script returns. In a cluster all its keys have one hash slot. A server that does not have the script is sent it.
    ///
    /// # Errors
    /// [`CallError`]; an error that the script returns is one.
    pub async fn script(
        &self,
        script: &LuaScript,
        keys: &[&str],
        arguments: &[&[u8]],
        limit: Duration,
    ) -> Result<Value, CallError> {
        self.call(limit, |link| script.run(link, keys, arguments)).await
    }

    /// The replies to commands of any hash slots, each for itself: a server that is silent costs the replies of the others nothing.
    /// All of them count as one call, which has failed if most of them have.
    pub async fn batch(&self, commands: Vec<Cmd>, limit: Duration) -> Vec<Result<Value, CallError>> {
        // What stays without a reply has timed out.
        let mut replies: Vec<Result<Value, CallError>> = vec![Err(CallError::TimedOut); commands.len()];
        let places = &mut replies;
        let work = |link: Link| async move {
            _ = tokio::time::timeout(limit, link.each(commands, places)).await;
            of_most(places)
        };
        if let Err(error @ (CallError::NotConnected | CallError::BreakerOpen | CallError::TooMany)) =
            self.call_counted(work).await
        {
            replies.fill(Err(error));
        }
        replies
    }

    async fn call<T, F>(&self, limit: Duration, work: impl FnOnce(Link) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let within = |link: Link| {
            let work = work(link);
            async move { tokio::time::timeout(limit, work).await.unwrap_or(Err(CallError::TimedOut)) }
        };
        self.call_counted(within).await
    }

    /// Makes a call if one may be made, and counts its outcome.
    async fn call_counted<T, F>(&self, work: impl FnOnce(Link) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let made = async {
            let ticket = self.state.admit()?;
            let result = match self.state.link() {
                Some(link) => work(Link::clone(&link)).await,
                None => Err(CallError::NotConnected),
            };
            ticket.record(result.as_ref().err());
            result
        };
        let result = made.await;
        self.state.count(result.as_ref().err());
        result
    }
}

/// The first fault if at least half of the replies are faults of servers.
fn of_most(replies: &[Result<Value, CallError>]) -> Result<(), CallError> {
    let is_fault = |error: &&CallError| error.outcome() != CallEnd::Answered;
    let faults = || replies.iter().filter_map(|reply| reply.as_ref().err()).filter(is_fault);
    match faults().next() {
        Some(first) if faults().count() * 2 >= replies.len() => Err(first.clone()),
        Some(_) | None => Ok(()),
    }
}
