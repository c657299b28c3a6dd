//! Accepts connections, on a thread of its own.
//!
//! The one idea: a runtime that is full of work looks at tasks that come from outside before it is through with its own. So a
//! connection that was accepted outside of it, and the probe that comes on it, waits for no queue of requests.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::connection_loop::ConnectionLoop;
use crate::error::{Error, Kind, Result};
use crate::http::connections::Connections;

/// How often connections are looked at that wait for a request.
pub(super) const EXPIRY: Duration = Duration::from_millis(500);
/// Connections that wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;
/// Between two log lines about connections that could not be accepted.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts until `stopped` resolves, and serves on the runtime of the caller. The returned receiver resolves when the listener is
/// closed, to a fault if it could not go on accepting.
///
/// # Errors
/// `Internal` if the thread cannot be started.
pub(in crate::http) fn start(
    listener: TcpListener,
    connections: Arc<Connections>,
    connection_loop: ConnectionLoop,
    stopped: oneshot::Receiver<()>,
) -> Result<oneshot::Receiver<std::io::Result<()>>> {
    let (closed, closes) = oneshot::channel();
    let runtime = Handle::current();
    let accepting = move || {
        let accepted = Builder::new_current_thread().enable_all().build().and_then(|own| {
            own.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Acceptor { listener, connections, connection_loop, runtime, logged: None }
                    .accept_all(stopped)
                    .await;
                Ok(())
            })
        });
        // The server may have given up waiting.
        let _ = closed.send(accepted);
    };
    let thread = std::thread::Builder::new().name("accept".into()).spawn(accepting);
    thread.map_err(|error| {
        Error::new(Kind::Internal, "cannot start the thread that accepts connections").source(error)
    })?;
    Ok(closes)
}

struct Acceptor {
    listener: tokio::net::TcpListener,
    connections: Arc<Connections>,
    connection_loop: ConnectionLoop,
    runtime: Handle,
    logged: Option<Instant>,
}

impl Acceptor {
    async fn accept_all(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut expiry = tokio::time::interval(EXPIRY);
        loop {
            let (stream, peer) = tokio::select! {
                biased;
                _ = &mut stopped => return self.accept_rest(),
                _ = expiry.tick() => {
                    self.connections.expire();
                    continue;
                }
                accepted = self.accept() => accepted,
            };
            // A connection that is accepted is served, also if the server stops just now, unless there is no place for it.
            let connection = tokio::select! {
                biased;
                connection = self.connections.enter(peer.ip()) => connection,
                _ = &mut stopped => return,
            };
            self.runtime.spawn(self.connection_loop.clone().serve(stream, connection));
        }
    }

    /// Takes what the kernel has already accepted: closing the listener would reset these connections.
    fn accept_rest(self) {
        let Ok(listener) = self.listener.into_std() else { return };
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = listener.accept() else { return };
            let entered = self.connections.enter(peer.ip()).now_or_never();
            let Some(connection) = entered.filter(|_| stream.set_nonblocking(true).is_ok()) else { return };
            self.runtime.spawn(self.connection_loop.clone().serve(stream, connection));
        }
    }

    /// The next connection. Running out of file descriptors passes, the sooner for a connection that makes room; until
    /// then, connections wait in the backlog.
    ///
    /// Cancel safety: safe.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = self.listener.accept().await;
            // The runtime that serves a connection is the one that waits for it.
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok(accepted) => return accepted,
                Err(error) => {
                    if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        self.logged = Some(Instant::now());
                        tracing::warn!(%error, "a connection could not be accepted");
                    }
                    self.connections.relieve();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}
