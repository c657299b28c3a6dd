//! A connection that many calls share.

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, Value};

use super::call_error::{CallError, checked};

/// A connection that many calls share: to one server, or to all of a cluster. Clones share it.
#[derive(Clone)]
pub(super) enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// The reply to a command.
    pub(super) async fn command(mut self, command: &Cmd) -> Result<Value, CallError> {
        let reply = match &mut self {
            Link::Single(connection) => connection.req_packed_command(command).await,
            Link::Cluster(connection) => connection.req_packed_command(command).await,
        };
        checked(reply?)
    }

    /// The replies to commands that are sent together, all to one server.
    pub(super) async fn pipeline(mut self, pipeline: &Pipeline) -> Result<Vec<Value>, CallError> {
        let count = pipeline.len();
        Ok(match &mut self {
            Link::Single(connection) => connection.req_packed_commands(pipeline, 0, count).await?,
            Link::Cluster(connection) => connection.req_packed_commands(pipeline, 0, count).await?,
        })
    }

    /// Sends commands to whichever servers they belong to, and puts each reply into its place as soon as it is there.
    pub(super) async fn each(self, commands: Vec<Cmd>, places: &mut [Result<Value, CallError>]) {
        if let Link::Single(_) = &self {
            let mut pipeline = Pipeline::with_capacity(commands.len());
            commands.into_iter().for_each(|command| _ = pipeline.add_command(command));
            match self.pipeline(&pipeline).await {
                Ok(replies) => {
                    replies.into_iter().zip(places).for_each(|(reply, place)| *place = checked(reply));
                }
                Err(error) => places.fill(Err(error)),
            }
            return;
        }
        let reply = |(at, command): (usize, Cmd)| {
            let link = self.clone();
            async move { (at, link.command(&command).await) }
        };
        let mut replies: FuturesUnordered<_> = commands.into_iter().enumerate().map(reply).collect();
        while let Some((at, reply)) = replies.next().await {
            places[at] = reply;
        }
    }
}
