//! Connections for one caller, whose commands may block.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{ConnectionAddr, Pipeline, RedisError, RedisResult, Value};

use super::call_error::{CallError, checked};
use super::state::ClientState;

/// Redirections that one call follows.
const REDIRECTIONS_MAX: usize = 3;

/// A connection for one caller, to the server that has a shard: commands that block there hold up no other.
///
/// It is opened by the first call, and again after each call that failed or was dropped, since replies might otherwise
/// be taken for those of other commands. Neither the breaker nor the limit of calls applies, and no metric counts it: its caller asks at
/// its own pace.
pub struct DedicatedConnection {
    state: Arc<ClientState>,
    shard: u8,
    open: Option<Open>,
    /// Which server of a cluster has the shard, as another has said.
    address: Option<ConnectionAddr>,
    /// How many connections were opened: the next seed of a cluster is asked each time.
    opened: usize,
}

struct Open {
    connection: MultiplexedConnection,
    /// That of the shared connection when this one was opened.
    generation: u64,
}

impl DedicatedConnection {
    pub(super) fn new(state: Arc<ClientState>, shard: u8) -> DedicatedConnection {
        DedicatedConnection { state, shard, open: None, address: None, opened: usize::from(shard) }
    }

    /// The shard.
    pub fn shard(&self) -> u8 {
        self.shard
    }

    /// The replies to commands that are sent together, for keys of the shard. `limit` includes opening the connection, and
    /// must be longer than the commands block.
    ///
    /// Cancel safety: a call that is dropped costs its connection.
    ///
    /// # Errors
    /// [`CallError`], also if one of the replies is an error.
    pub async fn pipeline(&mut self, pipeline: &Pipeline, limit: Duration) -> Result<Vec<Value>, CallError> {
        let replies = tokio::time::timeout(limit, self.follow(pipeline)).await;
        replies.unwrap_or(Err(CallError::TimedOut)).inspect_err(|_| self.address = None)
    }

    /// Closes the connection: the next call looks for the server again.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.address = None;
    }

    async fn follow(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, CallError> {
        for _ in 0..REDIRECTIONS_MAX {
            match self.ask(pipeline).await {
                Err(CallError::Failed(error)) if error.redirect_node().is_some() => {
                    self.address = Some(self.redirected(&error).ok_or(CallError::Failed(error))?);
                }
                replies => return replies,
            }
        }
        Err(CallError::NotConnected)
    }

    fn redirected(&self, error: &RedisError) -> Option<ConnectionAddr> {
        let (named, _) = error.redirect_node()?;
        self.state.servers.redirected(named, self.address.as_ref(), self.opened.wrapping_sub(1))
    }

    async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, CallError> {
        let mut open = self.take_open().await?;
        let replies = open.connection.req_packed_commands(pipeline, 0, pipeline.len()).await?;
        let replies = replies.into_iter().map(checked).collect::<Result<Vec<_>, _>>()?;
        self.open = Some(open);
        Ok(replies)
    }

    async fn take_open(&mut self) -> Result<Open, CallError> {
        let generation = self.state.generation();
        match self.open.take() {
            Some(open) if open.generation == generation => Ok(open),
            Some(_) | None => Ok(Open { connection: self.connect().await?, generation }),
        }
    }

    /// Of a cluster the next seed is asked if one is away.
    async fn connect(&mut self) -> RedisResult<MultiplexedConnection> {
        let mut left = if self.address.is_none() { self.state.servers.seeds() } else { 1 };
        loop {
            let seed = self.opened;
            self.opened = self.opened.wrapping_add(1);
            left -= 1;
            match self.state.servers.connect_dedicated(self.address.as_ref(), seed).await {
                Err(_) if left > 0 => {}
                opened => return opened,
            }
        }
    }
}
