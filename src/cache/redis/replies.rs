//! Reads replies of Redis.

use redis::Value;

use crate::cache::change_log::{LogCursor, LogEvent, ShardState};

/// A number, as it is or in digits.
pub(super) fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value {
        return Some(*number);
    }
    let Value::BulkString(digits) = value else { return None };
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes of a string.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

/// Whether a reply to `ROLE` is that of a primary.
pub(super) fn is_of_primary(reply: &Value) -> bool {
    let Value::Array(parts) = reply else { return false };
    matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master")
}

/// The number, the nonce and the generation at the beginning of a reply.
pub(super) fn state_of(reply: &Value) -> Option<ShardState> {
    let Value::Array(parts) = reply else { return None };
    let [seq, Value::BulkString(nonce), Value::BulkString(generation), ..] = parts.as_slice() else {
        return None;
    };
    let number_of = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    let cursor = LogCursor { number: u64::try_from(number(seq)?).ok()?, nonce: number_of(nonce)? };
    Some(ShardState { cursor, generation: number_of(generation)? })
}

/// The next place and the fields and values of a reply to `HSCAN`.
pub(super) fn scanned(reply: &Value) -> Option<(Vec<u8>, &[Value])> {
    let Value::Array(parts) = reply else { return None };
    let [Value::BulkString(next), Value::Array(pairs)] = parts.as_slice() else { return None };
    Some((next.clone(), pairs))
}

/// The events of a reply to `XREAD`. Bytes that are no event leave a hole, which is a gap.
pub(super) fn events_of(reply: &Value) -> Vec<LogEvent> {
    let Value::Array(streams) = reply else { return Vec::new() };
    let Some(Value::Array(stream)) = streams.first() else { return Vec::new() };
    let Some(Value::Array(entries)) = stream.get(1) else { return Vec::new() };
    entries.iter().filter_map(event_of_entry).collect()
}

pub(super) fn event_of_entry(entry: &Value) -> Option<LogEvent> {
    let Value::Array(parts) = entry else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = parts.as_slice() else { return None };
    let number = std::str::from_utf8(id).ok()?.strip_suffix("-0")?.parse().ok()?;
    let [_, Value::BulkString(bytes)] = fields.as_slice() else { return None };
    LogEvent::decode(number, bytes)
}
