//! The connection loop: accepts, serves HTTP/1.1, and stops without cutting off requests under way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::connections::{Connections, Patience};
use super::gate::Gated;
use super::socket::Socket;
use super::{Options, descriptors};
use crate::error::{Error, Kind, Result};

/// Largest head of a request, its trailers included.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What a connection buffers of what it reads, and of what it has not sent yet.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How often connections are looked at that wait for a request.
const EXPIRY: Duration = Duration::from_millis(500);
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
    let connections =
        Arc::new(Connections::new(connections_max, routes.has_keys(), patience, routes.metrics()));
    let graceful = GracefulShutdown::new();
    let mut builder = hyper::server::conn::http1::Builder::new();
    // The time for heads is watched by the loop below, which costs a request no timer of its own.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.half_close(true).max_header_size(HEAD_BYTES_MAX).max_buf_size(BUFFER_BYTES_MAX);

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
            connection = connections.enter(peer.ip()) => Arc::new(connection),
        };
        let routes = routes.clone();
        let socket = Socket::new(stream, bytes_per_second_min, Arc::clone(&connection));
        let service = service_fn(move |request| {
            let (routes, connection) = (routes.clone(), Arc::clone(&connection));
            async move { Ok::<_, Infallible>(routes.answer(request, connection).await) }
        });
        let serving = graceful.watch(builder.serve_connection(TokioIo::new(socket), service));
        tokio::spawn(async move {
            // A connection that breaks is its client's business.
            let _ = serving.await;
        });
    }
    drop(listener);
    on_stop();
    tokio::select! {
        () = graceful.shutdown() => {}
        _ = stops.recv() => tracing::warn!("told to stop once more: requests under way are cut off"),
        () = tokio::time::sleep(drain) => {
            tracing::warn!(seconds = drain.as_secs(), "requests under way did not finish in time and were cut off");
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
