//! The connection loop: accepts, serves HTTP/1.1, and stops without cutting anybody off.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::Options;
use super::gate::Gated;
use crate::error::{Error, Kind, Result};

/// A bound listener with its limits. Binding before building the rest finds a taken port early, and lets a test ask
/// for port 0.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connections_max: usize,
    /// How long a client may take to send a head, stay idle, or not read what it is sent.
    header_timeout: Duration,
    drain: Duration,
}

impl Server {
    /// Binds the address of the options.
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
            connections_max: options.connections_max,
            header_timeout: Duration::from_secs(options.header_timeout_seconds),
            drain: Duration::from_secs(options.drain_seconds),
        })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves until `stop` is done, then finishes the requests under way, at most `drain_seconds` long.
pub async fn serve(server: Server, routes: Gated, stop: impl Future<Output = ()>) {
    let Server { listener, connections_max, header_timeout, drain, .. } = server;
    let places = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);

    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(&listener).await)
        };
        let (place, stream) = tokio::select! {
            biased;
            () = &mut stop => break,
            next = next => next,
        };
        let routes = routes.clone();
        let service = service_fn(move |request| {
            let routes = routes.clone();
            async move { Ok::<_, Infallible>(routes.answer(request).await) }
        });
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(header_timeout));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = graceful.watch(builder.serve_connection(stream, service));
        tokio::spawn(async move {
            // A connection that breaks is its client's business.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(drain) => {
            tracing::warn!(seconds = drain.as_secs(), "requests under way did not finish in time and were cut off");
        }
    }
}

/// The next connection. Running out of file descriptors passes; until then, connections wait in the backlog.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole, so waiting to join them only delays.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
