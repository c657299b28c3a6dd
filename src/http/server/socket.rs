//! A connection's socket, as hyper reads and writes it: it ends for an evicted connection and for a peer that takes
//! its answer too slowly, reserves what is held while a peer is waited for, and notices a client that has gone.

use std::io::{self, IoSlice, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior};

use crate::http::connections::min_rate::MinRate;
use crate::http::connections::{Buffers, Connection};

/// Over which the least rate of a reader is measured. The kernel reports space in a buffer only when half of
/// [`UNSENT_BYTES_MAX`] has left, so shorter periods would see no progress of a reader who is fast enough.
const PERIOD: Duration = Duration::from_secs(30);
/// What the kernel holds of an answer beyond what is under way to the client.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// How often a connection is looked at whose client sends no more while it waits for its answer.
const LOOK: Duration = Duration::from_secs(1);
/// The look at which such a client gets an interim answer. A client that has left refuses that.
const PROBE_LOOK: u32 = 2;
/// After so many looks at a client of a stream to which nothing could be sent meanwhile, it is taken for one that has left.
const SILENT_LOOKS_MAX: u32 = 15;
/// The only interim answer that every client of HTTP/1.1 skips (RFC 9110, sections 15.2 and 15.2.1).
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// So much of a head is read into the buffer that every connection has.
const HEAD_UNCOUNTED_BYTES: usize = 8 * 1024;

pub(super) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// Runs while the peer takes nothing.
    rate: MinRate,
    /// Runs from the moment on when the client sends no more, amid its request.
    half_closed: Option<HalfClosed>,
    /// Whether bytes of a next request hide the end of what the client sends.
    has_more: bool,
    /// Bytes of a head that is still awaited.
    head_bytes: usize,
    /// What is held while the client is waited for, amid a long head or an answer that has reserved nothing.
    buffers: Option<Buffers>,
}

struct HalfClosed {
    looks: Interval,
    count: u32,
    /// Looks since something was sent.
    silent: u32,
}

impl Socket {
    pub(in crate::http) fn new(
        stream: TcpStream,
        bytes_per_second_min: u64,
        connection: Arc<Connection>,
    ) -> Socket {
        // Answers are written whole, so waiting to join them only delays.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        Socket {
            stream,
            connection,
            rate: MinRate::new(bytes_per_second_min, PERIOD),
            half_closed: None,
            has_more: false,
            head_bytes: 0,
            buffers: None,
        }
    }

    /// The socket itself.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Whether hyper writes its own response to what it could not parse. It is discarded: the client gets a more precise one.
    fn discards_writes(&self) -> bool {
        self.connection.awaits_request()
    }

    /// Reads what the kernel has, of which the runtime may not know yet.
    fn read_now(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match (&*socket2::SockRef::from(&self.stream)).read(buffer.initialize_unfilled()) {
            Ok(bytes) => {
                buffer.advance(bytes);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Reserves what is held while the client is waited for.
    fn hold_buffers(&mut self) -> io::Result<()> {
        self.connection.hold_buffers(&mut self.buffers, usize::MAX).map_err(io::Error::other)
    }

    /// Judges what came of a write.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.rate.add(*bytes);
                self.head_bytes = 0;
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
                if self.rate.is_too_slow(cx) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                if !self.connection.is_held() {
                    self.hold_buffers()?;
                }
            }
        }
        written
    }

    /// Looks whether the client of the present request is still there.
    ///
    /// A client that closes its sending side may wait for its answer, or may have left: the kernel reports both
    /// alike until something is sent.
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
            // No interim answer can be sent amid an answer, so a missing one proves nothing.
            if half_closed.silent >= SILENT_LOOKS_MAX && self.connection.is_answered() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            half_closed.count += 1;
            half_closed.silent += 1;
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.has_more = false;
        let filled = buffer.filled().len();
        let mut read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() {
            self.connection.register(cx.waker());
            if self.connection.is_stopping() {
                read = self.read_now(buffer);
            }
        }
        if read.is_pending() {
            self.connection.note_head(self.head_bytes > 0);
            if self.connection.is_evicted() {
                // The end of what is read ends a connection that waits for a request.
                return Poll::Ready(Ok(()));
            }
            if self.head_bytes > HEAD_UNCOUNTED_BYTES {
                self.hold_buffers()?;
            }
        } else if self.connection.is_busy() {
            self.head_bytes = 0;
        } else {
            self.head_bytes += buffer.filled().len() - filled;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.discards_writes() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.discards_writes() {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Hyper calls it whenever everything that it had to write is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.rate.pause();
        self.connection.flushed();
        if self.connection.is_evicted() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.connection.is_busy() {
            self.head_bytes = 0;
            self.look_after_client(cx)?;
        }
        if self.head_bytes == 0 {
            self.buffers = None;
        }
        Poll::Ready(Ok(()))
    }

    /// The socket outlives what hyper does with it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
