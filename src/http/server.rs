//! The connection loop: accepts, serves HTTP/1.1, and stops without cutting off requests under way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Interval;

use super::connections::{Connections, Patience};
use super::gate::Gated;
use super::serving::Serving;
use super::{Options, descriptors};
use crate::error::{Error, Kind, Result};

/// Connections that wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How often connections are looked at that wait for a request.
const EXPIRY: Duration = Duration::from_millis(500);
/// How long the rest of a head is waited for once the server stops.
const LAST_HEAD: Duration = Duration::from_secs(2);
/// Between two log lines about connections that could not be accepted.
const COMPLAINT: Duration = Duration::from_secs(1);

/// A bound listener with its limits. Binding before building the rest finds a taken port early, and lets a test ask
/// for port 0.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connections_max: usize,
    patience: Patience,
    bytes_per_second_min: u64,
    drain: Duration,
}

impl Server {
    /// Binds the address of the options, and lifts the process's limit of open files to what the connections need.
    ///
    /// # Errors
    /// `Config` if the address cannot be bound.
    pub async fn bind(options: &Options) -> Result<Server> {
        let fault = |error| {
            Error::new(Kind::Config, "bind http.listen").with("listen", &options.listen).source(error)
        };
        let listener = TcpListener::bind(&options.listen).await.map_err(fault)?;
        // The default is 128: a burst of clients would wait for the second try of the kernel, a second later, and so would probes.
        socket2::SockRef::from(&listener).listen(BACKLOG).map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        Ok(Server {
            listener,
            address,
            connections_max: descriptors::connections_max(options.connections_max),
            patience: Patience {
                first_head: Duration::from_secs(options.first_header_timeout_seconds),
                next_head: Duration::from_secs(options.header_timeout_seconds),
            },
            bytes_per_second_min: options.bytes_per_second_min,
            drain: Duration::from_secs(options.drain_seconds),
        })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves until the first of `stops`, then calls `on_stop` and finishes the requests under way, at most `drain_seconds`
/// long and until the next of `stops`.
pub async fn serve(server: Server, routes: Gated, stops: &mut mpsc::Receiver<()>, on_stop: impl FnOnce()) {
    let Server { listener, connections_max, patience, bytes_per_second_min, drain, .. } = server;
    let (keys, budget, metrics) = (routes.has_keys(), routes.budget(), routes.metrics());
    let connections = Arc::new(Connections::new(connections_max, keys, patience, budget, metrics));
    let serving = Serving::new(routes, bytes_per_second_min);
    let mut acceptor = Acceptor { listener: &listener, connections: &connections, complained: None };
    let mut expiry = tokio::time::interval(EXPIRY);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            _ = stops.recv() => break,
            _ = expiry.tick() => {
                connections.expire();
                continue;
            }
            accepted = acceptor.accept() => accepted,
        };
        let connection = tokio::select! {
            biased;
            _ = stops.recv() => break,
            connection = connections.enter(peer.ip()) => connection,
        };
        tokio::spawn(serving.clone().serve(stream, connection));
    }
    drop(listener);
    on_stop();
    connections.stop();
    tokio::select! {
        () = connections.ended() => {}
        never = end_waiting(&connections, &mut expiry) => match never {},
        _ = stops.recv() => tracing::warn!("told to stop once more: requests under way are cut off"),
        () = tokio::time::sleep(drain) => {
            tracing::warn!(seconds = drain.as_secs(), "requests under way did not finish in time and were cut off");
        }
    }
}

/// Ends connections on which no request comes any more. It never returns.
async fn end_waiting(connections: &Connections, expiry: &mut Interval) -> Infallible {
    let stopped = Instant::now();
    loop {
        expiry.tick().await;
        if stopped.elapsed() >= LAST_HEAD {
            connections.end_waiting();
        }
    }
}

/// Accepts connections, also while file descriptors are short.
struct Acceptor<'a> {
    listener: &'a TcpListener,
    connections: &'a Connections,
    complained: Option<Instant>,
}

impl Acceptor<'_> {
    /// The next connection. Running out of file descriptors passes, the sooner for a connection that makes room; until
    /// then, connections wait in the backlog.
    ///
    /// Cancel safety: safe.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
                        self.complained = Some(Instant::now());
                        tracing::warn!(%error, "a connection could not be accepted");
                    }
                    self.connections.relieve();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}
