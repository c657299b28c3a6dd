//! What an upstream says of this server's key is for its operator, not for clients.
//!
//! Services repeat a part of the key that they refuse (`Incorrect API key provided: sk-…abcd`), name the account that it is of, and say
//! where to get another. Clients have none of it: they cannot help it, and must not learn it.

use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::{Value, json};

use super::redaction::{Redaction, redacted, tells_error};
use super::reply::Reply;
use super::routes::{Key, Route};
use crate::error::{Error, Kind, Result};

/// Statuses by which an upstream refuses who asks, or asks for money.
const REFUSALS: [u16; 4] = [401, 402, 403, 407];

/// What services say that refuse a key by another status: codes, and words where they have none.
const OF_KEYS: [&str; 9] = [
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
    "invalid_authentication",
    "incorrect api key",
    "invalid api key",
    "invalid x-api-key",
    "api key not valid",
    "api key is invalid",
];

/// Bytes of an error that is read to be looked through.
const ERROR_BYTES_MAX: usize = 1 << 20;
/// Characters of a refusal that are logged.
const LOGGED_CHARS_MAX: usize = 500;

/// The reply as clients may see it.
///
/// # Errors
/// `Upstream` instead of a refusal of this server's key, and for an error that is too long to be looked through; as
/// [`Reply::next`].
pub(super) async fn looked_through(route: &Arc<Route>, mut reply: Reply) -> Result<Reply> {
    let key = match &route.key {
        Key::Clients => return Ok(reply),
        Key::None => None,
        Key::Ours(_) => route.key.secret(),
    };
    match key {
        _ if REFUSALS.contains(&reply.status) => {
            let said = reply.whole(ERROR_BYTES_MAX).await.unwrap_or_default();
            Err(refused(route, reply.status, &said))
        }
        Some(key) if !reply.is_success() => {
            let said = reply.whole(ERROR_BYTES_MAX).await?;
            if is_of_key(&said) {
                return Err(refused(route, reply.status, &said));
            }
            Ok(without_key(reply, said, key))
        }
        // A stream that has begun well may end in an error too.
        Some(key) => {
            let redaction = Redaction::new(key);
            let (route, status) = (Arc::clone(route), reply.status);
            Ok(reply.with_body(|body| redacting(body, redaction, route, status)))
        }
        None => Ok(reply),
    }
}

/// Tells the operator what the upstream said, and returns what its clients are told.
fn refused(route: &Route, status: u16, said: &[u8]) -> Error {
    let said = String::from_utf8_lossy(said);
    let said = route.key.secret().map_or(said.clone().into_owned(), |key| said.replace(key, "***"));
    let said: String = said.chars().take(LOGGED_CHARS_MAX).collect();
    if route.may_warn() {
        let upstream = &*route.name;
        tracing::error!(upstream, status, said, "an upstream refuses this server's key");
    }
    let message = match route.key {
        Key::None => "the upstream refuses this server, which has no key for it",
        Key::Ours(_) | Key::Clients => "the upstream refused this server's key or account",
    };
    Error::new(Kind::Upstream, message)
}

/// Whether an error is about the key.
fn is_of_key(said: &[u8]) -> bool {
    let said = String::from_utf8_lossy(said).to_lowercase();
    OF_KEYS.iter().any(|words| said.contains(words))
}

/// A piece of a body that has begun well. An error in it that is about the key has its words replaced.
fn without_refusal(route: &Route, status: u16, piece: Bytes) -> Bytes {
    if !tells_error(&piece) || !is_of_key(&piece) {
        return piece;
    }
    let refused = refused(route, status, &piece);
    let shown = std::str::from_utf8(&piece).ok().and_then(|text| with_errors(text, refused.message()));
    shown.map_or(piece, Bytes::from)
}

/// JSON, or the events that its lines are, with `message` in the place of every error. None if there is none.
fn with_errors(text: &str, message: &str) -> Option<String> {
    if let Some(json) = with_error(text, message) {
        return Some(json);
    }
    let mut is_changed = false;
    let shown = text.split_inclusive('\n').map(|line| {
        let data = line.strip_prefix("data:").and_then(|data| with_error(data, message));
        is_changed |= data.is_some();
        data.map_or_else(|| line.to_owned(), |data| format!("data: {data}\n"))
    });
    let shown: String = shown.collect();
    is_changed.then_some(shown)
}

/// A JSON text with another error than its own. None if it has none.
fn with_error(json: &str, message: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(json).ok()?;
    let values =
        if value.is_array() { value.as_array_mut()?.as_mut_slice() } else { slice::from_mut(&mut value) };
    let mut is_changed = false;
    for object in values.iter_mut().filter_map(Value::as_object_mut) {
        let Some(error) = object.get_mut("error").filter(|error| !error.is_null()) else { continue };
        *error = if error.is_object() {
            json!({ "message": message, "type": "server_error", "code": "upstream_error" })
        } else {
            json!(message)
        };
        if let Some(beside) = object.get_mut("message") {
            *beside = json!(message);
        }
        is_changed = true;
    }
    is_changed.then(|| value.to_string())
}

fn without_key(mut reply: Reply, body: Bytes, key: &str) -> Reply {
    // Bytes that are no text show no key to a reader of text.
    let without = std::str::from_utf8(&body).ok().and_then(|text| redacted(text, key)).map(Bytes::from);
    let is_clean = |value: &Bytes| std::str::from_utf8(value).is_ok_and(|text| redacted(text, key).is_none());
    reply.headers.retain(|(_, value)| is_clean(value));
    let whole = stream::once(std::future::ready(Ok(without.unwrap_or(body))));
    Reply::new(reply.status, reply.headers, Box::pin(whole))
}

/// A body without the key, and without what it says of the key, as it comes.
fn redacting(
    body: BoxStream<'static, Result<Bytes>>,
    redaction: Redaction,
    route: Arc<Route>,
    status: u16,
) -> BoxStream<'static, Result<Bytes>> {
    let pieces = stream::unfold(Some((body, redaction)), move |state| {
        let route = Arc::clone(&route);
        async move {
            let (mut body, mut redaction) = state?;
            match body.next().await {
                Some(Ok(piece)) => {
                    let piece = without_refusal(&route, status, redaction.push(piece));
                    Some((Ok(piece), Some((body, redaction))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => Some((Ok(redaction.rest()), None)),
            }
        }
    });
    // A piece that is held as a whole is none yet.
    let is_some = |piece: &Result<Bytes>| !piece.as_ref().is_ok_and(Bytes::is_empty);
    pieces.filter(move |piece| std::future::ready(is_some(piece))).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_a_body_is_replaced_and_nothing_else() {
        let error = r#"{"code":"upstream_error","message":"refused","type":"server_error"}"#;
        for (said, shown) in [
            (r#"{"error":{"message":"bad key","type":"x"}}"#.to_owned(), format!(r#"{{"error":{error}}}"#)),
            (
                r#"{"error":"bad key","message":"bad key"}"#.into(),
                r#"{"error":"refused","message":"refused"}"#.into(),
            ),
            (
                "event: error\r\ndata:{\"error\":{}}\r\n\r\ndata: {\"id\": 1}\n\n".into(),
                format!("event: error\r\ndata: {{\"error\":{error}}}\n\r\ndata: {{\"id\": 1}}\n\n"),
            ),
        ] {
            assert_eq!(with_errors(&said, "refused"), Some(shown), "{said}");
        }
        for said in
            ["", "{", "[]", "[1]", r#"{"error":null}"#, "data: {\"error\":null}\n\n", "data: [DONE]\n\n"]
        {
            assert_eq!(with_errors(said, "refused"), None, "{said}");
        }
    }
}
