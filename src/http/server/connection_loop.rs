//! The life of one connection: it waits for its first bytes, answers requests, refuses what is none, and reads and
//! drops what the client still sends.
//!
//! The one idea: each of these has its own state, and no state outlives its use. A connection that waits for its first bytes,
//! and one whose bytes are only dropped, cost little more than their sockets.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

use super::protocol_error::{HEAD_BYTES_MAX, ProtocolError};
use super::socket::Socket;
use crate::http::admission::HttpService;
use crate::http::connections::Connection;

/// What a connection buffers of what it reads, and of what it has not sent yet.
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// How long, and for how many bytes, the server reads from a client that goes on sending after its response: if it closed the
/// connection at once, the kernel would discard the response (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
const LINGER_BUFFER_BYTES: usize = 64 * 1024;
const LINGER_READS_MAX: usize = 8;
/// Makes the kernel drop what it would copy (tcp(7); `linux/socket.h`).
const MSG_TRUNC: i32 = 0x20;

/// What serves connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct ConnectionLoop {
    protocol: http1::Builder,
    routes: HttpService,
    bytes_per_second_min: u64,
}

impl ConnectionLoop {
    pub(in crate::http) fn new(routes: HttpService, bytes_per_second_min: u64) -> ConnectionLoop {
        let mut protocol = http1::Builder::new();
        // The time for heads is watched by the accept loop, which costs a request no timer of its own.
        protocol.timer(TokioTimer::new()).header_read_timeout(None);
        protocol.half_close(true).max_header_size(HEAD_BYTES_MAX).max_buf_size(BUFFER_BYTES_MAX);
        ConnectionLoop { protocol, routes, bytes_per_second_min }
    }

    /// Serves a connection to its end. One that breaks is its client's business.
    pub(in crate::http) async fn serve(self, stream: std::net::TcpStream, connection: Connection) {
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let connection = Arc::new(connection);
        if !has_bytes(&stream, &connection).await {
            return;
        }
        // In a box, so that its memory is given back before the rest is read and dropped.
        let Some(stream) = Box::pin(self.answer(stream, Arc::clone(&connection))).await else { return };
        linger(&stream, &connection).await;
    }

    /// Answers all requests. Returns the socket if the client is still sending.
    async fn answer(self, stream: TcpStream, connection: Arc<Connection>) -> Option<TcpStream> {
        let ConnectionLoop { protocol, routes, bytes_per_second_min } = self;
        let socket = Socket::new(stream, bytes_per_second_min, Arc::clone(&connection));
        let service = service_fn(|request| {
            let (routes, connection) = (&routes, Arc::clone(&connection));
            async move {
                connection.await_turn().await;
                Ok::<_, Infallible>(routes.answer(request, connection).await)
            }
        });
        let mut requests = protocol.serve_connection(TokioIo::new(socket), service);
        let mut is_last = false;
        let served = poll_fn(|cx| {
            connection.begin_turn();
            loop {
                let served = Pin::new(&mut requests).poll(cx);
                // Asked behind the poll, which has read what had come: a request that had is answered.
                let stays = is_last || !connection.is_stopping() || connection.has_begun_head();
                if served.is_ready() || stays {
                    return served;
                }
                is_last = true;
                Pin::new(&mut requests).graceful_shutdown();
            }
        });
        let served = served.await;
        let parts = requests.into_parts();
        let stream = parts.io.into_inner().into_stream();
        match served {
            Ok(()) => is_sending(&stream, &connection).then_some(stream),
            Err(error) => {
                let response =
                    ProtocolError::of(&error, &parts.read_buf).filter(|_| !connection.is_busy())?;
                let id = routes.count_refusal(response.status());
                // An answer of this size fits the socket of a client to which nothing else is owed.
                stream.try_write(&response.into_bytes(&id)).ok()?;
                Some(stream)
            }
        }
    }
}

/// Waits for the first bytes of a client; false if the connection ends without them, as it does once the server stops.
async fn has_bytes(stream: &TcpStream, connection: &Connection) -> bool {
    let arrival = poll_fn(|cx| {
        connection.register(cx.waker());
        if connection.is_evicted() {
            return Poll::Ready(false);
        }
        let mut byte = [0];
        // A new socket counts as readable until it has been tried.
        let peeked = stream.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        if peeked.is_pending() && connection.is_stopping() {
            // The kernel knows of bytes sooner than the runtime does.
            let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
            return Poll::Ready(peeked.is_ok_and(|bytes| bytes > 0));
        }
        peeked.map(|read| read.is_ok_and(|bytes| bytes > 0))
    });
    arrival.await
}

/// Whether the client may send more than was read: closing the connection would make the kernel take the answer back.
fn is_sending(stream: &TcpStream, connection: &Connection) -> bool {
    let has_more = || stream.try_read(&mut [0]).is_ok_and(|bytes| bytes > 0);
    !connection.is_evicted() && (connection.has_rest() || has_more())
}

/// Ends the answer, then reads and drops what the client still sends.
async fn linger(stream: &TcpStream, connection: &Connection) {
    connection.linger();
    if SockRef::from(stream).shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let mut left = LINGER_BYTES_MAX;
    let reading = poll_fn(|cx| {
        for _ in 0..LINGER_READS_MAX {
            connection.register(cx.waker());
            if connection.is_evicted() || left == 0 || ready!(stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match drop_bytes(stream) {
                Ok(bytes @ 1..) => left = left.saturating_sub(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        // Other connections have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let _ = tokio::time::timeout(LINGER, reading).await;
}

fn drop_bytes(stream: &TcpStream) -> std::io::Result<usize> {
    let mut buffer = [MaybeUninit::uninit(); LINGER_BUFFER_BYTES];
    stream.try_io(Interest::READABLE, || SockRef::from(stream).recv_with_flags(&mut buffer, MSG_TRUNC))
}
