//! A connection's socket, as hyper reads and writes it: it ends for an evicted connection and for a peer that takes
//! its answer too slowly, notices a client that has gone, and waits for one that is still sending.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, Sleep};

use super::connections::Connection;
use super::pace::Pace;

/// Over which the least rate of a reader is measured. The kernel says that a buffer has room only when half of
/// [`UNSENT_BYTES_MAX`] has left, so shorter periods would see no progress of a reader who is fast enough.
const PERIOD: Duration = Duration::from_secs(30);
/// What the kernel holds of an answer beyond what is under way to the client.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// How often a connection is looked at whose client sends no more while it waits for its answer.
const LOOK: Duration = Duration::from_secs(1);
/// The look at which such a client is told to go on waiting. A client that has left refuses that.
const PROBE_LOOK: u32 = 2;
/// After so many looks at a client of a stream to which nothing could be sent meanwhile, it is taken for one that has left.
const SILENT_LOOKS_MAX: u32 = 15;
/// The only interim answer that every client of HTTP/1.1 skips (RFC 9110, sections 15.2 and 15.2.1).
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long, and for how many bytes, a client is heard that goes on sending after it was answered: were the connection
/// closed at once, the kernel would take the answer back (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
const LINGER_BUFFER_BYTES: usize = 16 * 1024;

pub(super) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// Runs while the peer takes nothing.
    pace: Pace,
    /// Runs from the moment on when the client sends no more, amid its request.
    half_closed: Option<HalfClosed>,
    /// Whether bytes of a next request hide the end of what the client sends.
    has_more: bool,
    /// Whether hyper itself has answered what it could not parse.
    has_refused: bool,
    lingering: Option<Lingering>,
}

struct HalfClosed {
    looks: Interval,
    count: u32,
    /// Looks since something was sent.
    silent: u32,
}

struct Lingering {
    timer: Pin<Box<Sleep>>,
    bytes: usize,
    buffer: Box<[u8]>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, bytes_per_second_min: u64, connection: Arc<Connection>) -> Socket {
        // Answers are written whole, so waiting to join them only delays.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        Socket {
            stream,
            connection,
            pace: Pace::new(bytes_per_second_min, PERIOD),
            half_closed: None,
            has_more: false,
            has_refused: false,
            lingering: None,
        }
    }

    /// Judges what came of a write.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.pace.add(*bytes);
                self.has_refused |= !self.connection.is_busy();
                if let Some(half_closed) = &mut self.half_closed {
                    half_closed.silent = 0;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.connection.register(cx.waker());
                if self.connection.is_evicted() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                if self.pace.is_too_slow(cx) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }

    /// Looks whether the client of the present request is still there.
    ///
    /// A client that closes its sending side may wait for its answer, or may have left: the kernel tells the same of
    /// both, until something is sent.
    fn look_after_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.half_closed.is_none() && !self.has_more {
            let mut byte = [0];
            match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
                Poll::Ready(Ok(0)) => {
                    let mut looks = tokio::time::interval(LOOK);
                    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    self.half_closed = Some(HalfClosed { looks, count: 0, silent: 0 });
                }
                Poll::Ready(Ok(_)) => self.has_more = true,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        let Some(half_closed) = &mut self.half_closed else { return Ok(()) };
        while half_closed.looks.poll_tick(cx).is_ready() {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            if half_closed.count == PROBE_LOOK && self.connection.may_be_continued() {
                let _ = self.stream.try_write(PROBE);
            }
            // No interim answer can be sent amid an answer, so what is not sent tells nothing.
            if half_closed.silent >= SILENT_LOOKS_MAX && self.connection.is_answered() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            half_closed.count += 1;
            half_closed.silent += 1;
        }
        Ok(())
    }

    /// Reads and drops what a client still sends.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| {
            self.connection.linger();
            Lingering {
                timer: Box::pin(tokio::time::sleep(LINGER)),
                bytes: 0,
                buffer: vec![0; LINGER_BUFFER_BYTES].into(),
            }
        });
        self.connection.register(cx.waker());
        if self.connection.is_evicted() || lingering.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while lingering.bytes < LINGER_BYTES_MAX {
            let mut read = ReadBuf::new(&mut lingering.buffer);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => lingering.bytes += read.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.has_more = false;
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() {
            self.connection.register(cx.waker());
            if self.connection.is_evicted() {
                // The end of what is read ends a connection that waits for a request.
                return Poll::Ready(Ok(()));
            }
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Hyper calls it whenever everything that it had to write is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pace.rest();
        self.connection.flushed();
        if self.connection.is_evicted() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.connection.is_busy() {
            self.look_after_client(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        // Bytes of a further request would make the kernel take the answer back as well.
        let is_sending = || self.stream.try_read(&mut [0]).is_ok_and(|bytes| bytes > 0);
        if self.lingering.is_some() || self.has_refused || self.connection.has_rest() || is_sending() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
