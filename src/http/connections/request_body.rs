//! The body of a request on its way to its handler: it must arrive at a minimum rate, and a part that no handler read goes back to the
//! connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::min_rate::MinRate;
use super::{Buffers, Connection};
use crate::error::{Error, Kind, Result};

/// Over which the least rate is measured.
const PERIOD: Duration = Duration::from_secs(10);

/// Of a body that its handler left unread, so many bytes are read, within a time that a client does not notice, so that
/// the connection can go on. Whatever is larger or slower ends the connection after the answer.
const REST_BYTES_MAX: u64 = 256 * 1024;
const REST_WITHIN: Duration = Duration::from_millis(200);

/// The body of a request, as handlers get it.
pub(in crate::http) struct RequestBody {
    /// None at the end.
    body: Option<Incoming>,
    rate: MinRate,
    connection: Arc<Connection>,
    /// Bytes that have come.
    read: usize,
    /// What is held while the client is waited for. Most bodies come at once, with their head or behind it, and reserve nothing here.
    buffers: Option<Buffers>,
}

impl RequestBody {
    pub(in crate::http) fn new(
        body: Incoming,
        bytes_per_second_min: u64,
        connection: Arc<Connection>,
    ) -> RequestBody {
        RequestBody {
            body: Some(body).filter(|body| !body.is_end_stream()),
            rate: MinRate::new(bytes_per_second_min, PERIOD),
            connection,
            read: 0,
            buffers: None,
        }
    }

    /// Waits for the client, unless it is too slow, or too many are waited for.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<()> {
        self.connection.hold_buffers(&mut self.buffers, self.read)?;
        if self.rate.is_too_slow(cx) { Err(too_slow()) } else { Ok(()) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.read = this.read.saturating_add(bytes);
                this.rate.add(bytes);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.body = None;
                let broken = Error::new(Kind::InvalidInput, "cannot read the body").source(error);
                Poll::Ready(Some(Err(broken)))
            }
            Poll::Ready(None) => {
                this.body = None;
                Poll::Ready(None)
            }
            Poll::Pending => match this.wait(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Some(Err(error))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take_if(|body| !body.is_end_stream()) {
            self.connection.hand_back(body);
        }
    }
}

fn too_slow() -> Error {
    let seconds = PERIOD.as_secs();
    let message =
        format!("the body came too slowly: see http.bytes_per_second_min, measured over {seconds} s");
    Error::new(Kind::RequestTimeout, message)
}

/// Reads the rest of a body that nothing wants, if it is short and at hand; whether the end was reached.
pub(in crate::http) async fn discard(mut body: Incoming, connection: &Connection) -> bool {
    if body.size_hint().lower() > REST_BYTES_MAX {
        return false;
    }
    let mut buffers = None;
    if connection.hold_buffers(&mut buffers, usize::MAX).is_err() {
        return false;
    }
    let reading = async {
        let mut discarded = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
            if discarded > REST_BYTES_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(REST_WITHIN, reading).await.unwrap_or(false)
}
