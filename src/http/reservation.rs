//! What one request reserves of the byte budget: its body while it is read and worked on, then its response until it is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{Extensions, HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::byte_budget::{ByteBudget, Reservation, UNCOUNTED_BYTES};
use crate::error::{Error, Result};
use crate::sync::lock;

/// What a request may hold for each byte of its body: the body, what is parsed from it, and what a handler makes of that.
const BODY_COST: usize = 3;

/// What an answer of unknown length holds until it is sent: pieces in the buffers of its connection, and of the upstream's.
const STREAM_BYTES: usize = 256 * 1024;

/// What a request has reserved for its body. None for bodies that are too small to be counted.
#[derive(Clone)]
pub(super) struct BodyReservation(Option<Arc<Mutex<Reservation>>>);

impl BodyReservation {
    /// Reserves what a body will need by its `content-length`; a body without one reserves as it comes. A body past its limit
    /// is not counted: it is refused, and read only to be dropped. One that is compressed is counted however short it is: what it
    /// expands to is reserved when it is known.
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`.
    pub(super) fn admit(
        budget: &Arc<ByteBudget>,
        headers: &HeaderMap,
        body_bytes_max: usize,
        is_coded: bool,
    ) -> Result<BodyReservation> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let declared: usize = match length {
            Some(declared) => declared,
            None if headers.contains_key(header::TRANSFER_ENCODING) => 0,
            None => return Ok(BodyReservation(None)),
        };
        let is_counted =
            length.is_none() || is_coded || (UNCOUNTED_BYTES + 1..=body_bytes_max).contains(&declared);
        if !is_counted {
            return Ok(BodyReservation(None));
        }
        let reservation = budget.try_reserve(declared.saturating_mul(BODY_COST))?;
        Ok(BodyReservation(Some(Arc::new(Mutex::new(reservation)))))
    }

    /// Reserves for a body of which `bytes` have come.
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`.
    pub(super) fn cover(&self, bytes: usize) -> Result<()> {
        let Some(reservation) = &self.0 else { return Ok(()) };
        if bytes <= UNCOUNTED_BYTES {
            return Ok(());
        }
        let mut reservation = lock(reservation);
        reservation.try_cover(bytes.saturating_mul(BODY_COST))
    }

    /// Reserves for what is parsed from a body besides.
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`.
    pub(super) fn cover_parsed(&self, body: &[u8], parsed_bytes: impl FnOnce(&[u8]) -> usize) -> Result<()> {
        let Some(reservation) = &self.0 else { return Ok(()) };
        if body.len() <= UNCOUNTED_BYTES {
            return Ok(());
        }
        let bytes = body.len().saturating_mul(BODY_COST).saturating_add(parsed_bytes(body));
        lock(reservation).try_cover(bytes)
    }

    /// Whether anything is reserved.
    pub(super) fn is_counted(&self) -> bool {
        self.0.is_some()
    }

    /// Gives back what a body does not need whose length is known now.
    pub(super) fn shrink_to(&self, bytes: usize) {
        let Some(reservation) = &self.0 else { return };
        let needed = if bytes <= UNCOUNTED_BYTES { 0 } else { bytes.saturating_mul(BODY_COST) };
        lock(reservation).shrink_to(needed);
    }
}

/// A body that reserves what it brings.
pub(super) struct MeteredBody<B> {
    body: B,
    bytes: BodyReservation,
    read: usize,
}

impl<B> MeteredBody<B> {
    pub(super) fn new(body: B, bytes: BodyReservation) -> MeteredBody<B> {
        MeteredBody { body, bytes, read: 0 }
    }
}

impl<B> HttpBody for MeteredBody<B>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        self.read = self.read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        let covered = self.bytes.cover(self.read);
        Poll::Ready(Some(covered.map(|()| frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The error of this server that ended a body, if it was one.
pub(super) fn own_error(error: axum::Error) -> std::result::Result<Error, axum::Error> {
    let other = match error.into_inner().downcast::<Error>() {
        Ok(own) => return Ok(*own),
        Err(other) => other,
    };
    // A body within a body wraps its errors once more.
    match other.downcast::<axum::Error>() {
        Ok(inner) => own_error(*inner),
        Err(other) => Err(axum::Error::new(other)),
    }
}

/// What a large answer needs, reserved before the work for it is done.
pub(super) struct ResponseReservation(Option<Reservation>);

/// Marks an answer that has reserved what it needs.
#[derive(Clone)]
struct IsHeld;

/// What an answer of unknown length holds until it is sent, where that is known.
#[derive(Clone)]
struct Holds(usize);

/// Sets what a response of unknown length holds until it is sent: its source, and at most `bytes_expected` of itself.
pub(super) fn expect_bytes(extensions: &mut Extensions, source_bytes: usize, bytes_expected: usize) {
    extensions.insert(Holds(source_bytes + bytes_expected.min(STREAM_BYTES)));
}

/// Whether an answer has reserved what it needs.
pub(super) fn has_reservation(extensions: &Extensions) -> bool {
    extensions.get::<IsHeld>().is_some()
}

/// Forgets what was reserved for an answer, because its body was replaced.
pub(super) fn forget_reservation(extensions: &mut Extensions) {
    extensions.remove::<IsHeld>();
}

impl ResponseReservation {
    /// Reserves for an answer of about `bytes`, with what it is made of.
    ///
    /// # Errors
    /// `Overloaded`, `TooLarge`.
    pub(super) fn reserve(budget: &Arc<ByteBudget>, bytes: usize) -> Result<ResponseReservation> {
        let is_counted = bytes > UNCOUNTED_BYTES;
        Ok(ResponseReservation(if is_counted { Some(budget.try_reserve(bytes)?) } else { None }))
    }

    /// What was reserved while the answer was made.
    pub(super) fn reserved(reservation: Reservation) -> ResponseReservation {
        ResponseReservation(Some(reservation).filter(|reservation| reservation.bytes() > 0))
    }

    /// The answer, holding what was reserved until it is sent.
    pub(super) fn attach(self, response: Response) -> Response {
        let Some(reservation) = self.0 else { return response };
        let reservation = Arc::new(reservation);
        let mut response = response.map(|body| Body::new(ReservedBody { body, reservation }));
        response.extensions_mut().insert(IsHeld);
        response
    }
}

/// The answer, holding what it needs until it is sent, if it does not yet.
///
/// # Errors
/// `Overloaded`, `TooLarge`: then the answer is given up.
pub(super) fn reserve_response(budget: &Arc<ByteBudget>, response: Response) -> Result<Response> {
    let bytes = match response.body().size_hint().exact() {
        Some(_) | None if has_reservation(response.extensions()) => return Ok(response),
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => response.extensions().get::<Holds>().map_or(STREAM_BYTES, |holds| holds.0),
    };
    if bytes <= UNCOUNTED_BYTES {
        return Ok(response);
    }
    Ok(ResponseReservation(Some(budget.try_reserve(bytes)?)).attach(response))
}

/// An answer with what it has reserved. The connection takes pieces before it has sent them, so each piece holds the reservation.
struct ReservedBody {
    body: Body,
    reservation: Arc<Reservation>,
}

impl HttpBody for ReservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(
            frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| self.reservation.hold(bytes)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::metrics::unexported;
    use axum::http::HeaderValue;

    const LIMIT: usize = 1 << 20;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_declared_length_decides() {
        let budget = ByteBudget::new(LIMIT, unexported());
        let admit = |declared: usize| {
            BodyReservation::admit(
                &budget,
                &headers(header::CONTENT_LENGTH, &declared.to_string()),
                LIMIT / 2,
                false,
            )
        };
        let first = admit(LIMIT / 6).unwrap();
        assert_eq!(budget.reserved(), LIMIT / 6 * BODY_COST);
        assert_eq!(admit(LIMIT / 6).err().unwrap().kind(), Kind::Overloaded);
        assert_eq!(admit(LIMIT / 3).err().unwrap().kind(), Kind::TooLarge);
        drop(first);
        for uncounted in [0, UNCOUNTED_BYTES, LIMIT / 2 + 1] {
            let admitted = admit(uncounted).unwrap();
            admitted.cover(LIMIT).unwrap();
            assert_eq!(budget.reserved(), 0, "{uncounted}");
        }
    }

    #[test]
    fn a_body_of_unknown_length_reserves_as_it_comes() {
        let budget = ByteBudget::new(LIMIT, unexported());
        let bytes =
            BodyReservation::admit(&budget, &headers(header::TRANSFER_ENCODING, "chunked"), LIMIT, false)
                .unwrap();
        bytes.cover(UNCOUNTED_BYTES).unwrap();
        assert_eq!(budget.reserved(), 0);
        bytes.cover(UNCOUNTED_BYTES + 1).unwrap();
        assert!(budget.reserved() >= UNCOUNTED_BYTES * BODY_COST);
        assert_eq!(bytes.cover(LIMIT).unwrap_err().kind(), Kind::TooLarge);
        drop(bytes);
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn a_compressed_body_reserves_what_it_expands_to() {
        let budget = ByteBudget::new(LIMIT, unexported());
        let bytes =
            BodyReservation::admit(&budget, &headers(header::CONTENT_LENGTH, "100"), LIMIT, true).unwrap();
        bytes.cover(LIMIT / 6).unwrap();
        assert!(budget.reserved() >= LIMIT / 6);
        assert_eq!(bytes.cover(LIMIT).unwrap_err().kind(), Kind::TooLarge);
    }

    #[test]
    fn an_answer_holds_its_bytes_until_it_is_dropped() {
        let budget = ByteBudget::new(LIMIT, unexported());
        let answer = |bytes: usize| reserve_response(&budget, Response::new(Body::from(vec![0; bytes])));
        let small = answer(UNCOUNTED_BYTES).unwrap();
        assert_eq!(budget.reserved(), 0);
        let large = answer(UNCOUNTED_BYTES + 1).unwrap();
        assert_eq!(budget.reserved(), UNCOUNTED_BYTES + 1);
        assert_eq!(answer(LIMIT).err().unwrap().kind(), Kind::TooLarge);
        drop((small, large));
        let early = ResponseReservation::reserve(&budget, LIMIT / 2).unwrap();
        let early =
            reserve_response(&budget, early.attach(Response::new(Body::from(vec![0; LIMIT / 4])))).unwrap();
        assert_eq!(budget.reserved(), LIMIT / 2, "once is enough");
        drop(early);
        let stream = Body::from_stream(futures_util::stream::empty::<Result<Bytes>>());
        let stream = reserve_response(&budget, Response::new(stream)).unwrap();
        assert_eq!(budget.reserved(), STREAM_BYTES);
        drop(stream);
        assert_eq!(budget.reserved(), 0);
    }
}
