//! The server: binds, serves HTTP/1.1, and stops without cutting off requests under way.

mod acceptor;
mod connection_loop;
mod file_limit;
mod port_holder;
mod protocol_error;
mod socket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use self::acceptor::{BACKLOG, EXPIRY};
use self::connection_loop::ConnectionLoop;
pub use self::port_holder::port_holder;
use crate::error::{Error, Kind, Result};
use crate::http::Options;
use crate::http::admission::HttpService;
use crate::http::connections::{Connections, HeadTimeouts};

/// How long the rest of a head is waited for once the server stops.
const LAST_HEAD: Duration = Duration::from_secs(2);

/// A bound listener with its limits. Binding before building the rest finds a taken port early, and lets a test ask
/// for port 0.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connections_max: usize,
    timeouts: HeadTimeouts,
    bytes_per_second_min: u64,
    drain: Duration,
}

impl Server {
    /// Binds the address of the options, and lifts the process's limit of open files to what the connections need.
    ///
    /// # Errors
    /// `Config` if the address cannot be bound.
    pub async fn bind(options: &Options) -> Result<Server> {
        let fault = |error: std::io::Error| {
            let advice = bind_advice(&options.listen, error.kind());
            let fault = Error::new(Kind::Config, "cannot bind http.listen").with("listen", &options.listen);
            fault.source(error).advise(advice)
        };
        let listener = TcpListener::bind(&options.listen).await.map_err(fault)?;
        // The default is 128: a burst of clients would wait for the second try of the kernel, a second later, and so would probes.
        socket2::SockRef::from(&listener).listen(BACKLOG).map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        Ok(Server {
            listener,
            address,
            connections_max: file_limit::connections_max(options.connections_max),
            timeouts: HeadTimeouts {
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

/// What to type where an address cannot be bound.
fn bind_advice(listen: &str, kind: std::io::ErrorKind) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    if kind == AddrInUse {
        return match port_holder(listen) {
            Some((pid, name)) => format!(
                "process {pid} ({name}) listens there: stop it with `kill {pid}`, or give --listen 127.0.0.1:0 for a free port"
            ),
            None => {
                "another process listens there: stop it, or give --listen 127.0.0.1:0 for a free port".into()
            }
        };
    }
    if kind == AddrNotAvailable {
        return "give --listen an address of this machine, such as 127.0.0.1:8420, or 0.0.0.0:8420 for all of them".into();
    }
    if kind == PermissionDenied {
        return "give --listen a port above 1023, such as 127.0.0.1:8420".into();
    }
    "give --listen an address and a port, such as 127.0.0.1:8420".into()
}

/// Serves until the first of `stops`, then calls `on_stop` and finishes the requests under way, at most `drain_seconds`
/// long and until the next of `stops`.
///
/// # Errors
/// `Internal` if connections could not be accepted any more; requests under way were finished.
pub async fn serve(
    server: Server,
    routes: HttpService,
    stops: &mut mpsc::Receiver<()>,
    on_stop: impl FnOnce(),
) -> Result<()> {
    let Server { listener, connections_max, timeouts, bytes_per_second_min, drain, .. } = server;
    let (keys, budget, metrics) = (routes.has_keys(), routes.budget(), routes.metrics());
    let connections = Arc::new(Connections::new(connections_max, keys, timeouts, budget, metrics));
    let connection_loop = ConnectionLoop::new(routes, bytes_per_second_min);
    let (stop, stopped) = oneshot::channel();
    let listener = listener.into_std().map_err(unaccepted)?;
    let mut closes = acceptor::start(listener, Arc::clone(&connections), connection_loop, stopped)?;
    let closed = tokio::select! {
        _ = stops.recv() => {
            drop(stop);
            closes.await
        }
        closed = &mut closes => closed,
    };
    // A thread that has ended without a word has panicked.
    let accepted = closed.unwrap_or_else(|ended| Err(std::io::Error::other(ended))).map_err(unaccepted);
    if let Err(error) = &accepted {
        tracing::error!(%error, "stopping: connections cannot be accepted");
    }
    on_stop();
    connections.stop();
    finish(&connections, stops, drain).await;
    accepted
}

fn unaccepted(error: std::io::Error) -> Error {
    Error::new(Kind::Internal, "cannot accept connections").source(error)
}

/// Waits for the requests under way.
async fn finish(connections: &Connections, stops: &mut mpsc::Receiver<()>, drain: Duration) {
    tokio::select! {
        () = connections.ended() => {}
        never = end_waiting(connections) => match never {},
        _ = stops.recv() => tracing::warn!("a second signal to stop: requests under way are cut off"),
        () = tokio::time::sleep(drain) => {
            tracing::warn!(seconds = drain.as_secs(), "requests under way did not finish in time and were cut off");
        }
    }
}

/// Ends connections on which no request comes any more. It never returns.
async fn end_waiting(connections: &Connections) -> Infallible {
    let stopped = Instant::now();
    let mut expiry = tokio::time::interval(EXPIRY);
    loop {
        expiry.tick().await;
        if stopped.elapsed() >= LAST_HEAD {
            connections.end_waiting();
        }
    }
}
