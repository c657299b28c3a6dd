//! Long bodies of answers, made a piece at a time as the client takes them: neither the memory for all of it is taken, nor the
//! thread that makes it for long.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

/// Bytes of one piece, about: they are written in less than a millisecond.
pub(in crate::http) const CHUNK_BYTES: usize = 64 * 1024;

/// A body of these pieces, each made when there is room for it.
pub(in crate::http) fn body(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    Body::from_stream(stream::unfold((pieces, true), async |(mut pieces, is_first)| {
        // A client that reads fast takes them all at once, and other connections have their turn between.
        if !is_first {
            tokio::task::yield_now().await;
        }
        pieces.next().map(|piece| (Ok::<Bytes, Infallible>(piece), (pieces, false)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::cell::Cell;
    use std::rc::Rc;

    #[tokio::test]
    async fn other_tasks_run_between_two_pieces() {
        let pieces = body((0..10_u8).map(|number| Bytes::from(vec![number])));
        let turns = Rc::new(Cell::new(0));
        let local = tokio::task::LocalSet::new();
        let counted = Rc::clone(&turns);
        local.spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        let read = local.run_until(pieces.collect()).await.unwrap().to_bytes();
        assert_eq!(&read[..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(turns.get() >= 9, "{}", turns.get());
    }
}
