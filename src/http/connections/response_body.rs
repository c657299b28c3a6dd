//! An answer's body on its way to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::Connection;

/// The body of an answer. Its drop says that all of it has been handed over, or that no more of it will be.
pub(in crate::http) struct Leaving {
    body: axum::body::Body,
    connection: Arc<Connection>,
}

impl Leaving {
    pub(in crate::http) fn new(body: axum::body::Body, connection: Arc<Connection>) -> Leaving {
        Leaving { body, connection }
    }
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.connection.end();
    }
}
