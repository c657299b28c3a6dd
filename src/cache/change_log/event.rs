//! The events of the shared log: what one node changed, as the others read it.
//!
//! ```text
//! nonce[8] previous nonce[8] node[8] written at[8] kind[1] payload
//! kind 1, 2  (subject length[1], subject, number of tokens[1], tokens[8 each])*   kind 2 forgets all invalidation ids first
//! kind 3     key[32] (fingerprint[8])?    its value was replaced by this entry, or removed
//! kind 4     key[32]                      its lease has ended without a value
//! ```
//! An event is written at a moment of the clock of Redis, in microseconds since 1970. The subject of all that the default tenant has is empty; that of an invalidation id is its eight bytes.

use super::fingerprint::EntryFingerprint;
use crate::cache::invalidation_tokens::{TokenChange, TokenHistory};
use crate::domain::{InvalidationId, Key};
use crate::storage::le_bytes::{array_at, u64_at};

/// A node, by a random number: one that its data directory keeps, or in events one of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cache) struct NodeId(pub(in crate::cache) u64);

/// Names one event. Two events of one number in logs that have parted differ in it.
pub(in crate::cache) type Nonce = u64;

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache) enum SharedChange {
    /// Subjects have new tokens. All invalidation ids are forgotten before if there were too many.
    Tokens {
        /// Whether all invalidation ids are forgotten first.
        starts_over: bool,
        /// The new tokens.
        changes: Vec<TokenChange>,
    },
    /// The value of a key was replaced by this entry, or removed.
    Key(Key, Option<EntryFingerprint>),
    /// The lease of a key has ended, and its value has not changed.
    LeaseEnded(Key),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache) struct LogEvent {
    /// Its number; those of a shard are contiguous.
    pub(in crate::cache) number: u64,
    pub(in crate::cache) nonce: Nonce,
    /// The nonce of the event before it.
    pub(in crate::cache) previous: Nonce,
    /// The node that made the change.
    pub(in crate::cache) node: NodeId,
    /// When Redis appended it, by the clock of Redis, in microseconds since 1970.
    pub(in crate::cache) written_at_micros: u64,
    /// `None` if a newer program has encoded it.
    pub(in crate::cache) change: Option<SharedChange>,
}

/// The kind of an event whose value was replaced or removed.
pub(in crate::cache) const KIND_KEY: u8 = 3;
/// The kind of an event of a lease that has ended without a value.
pub(in crate::cache) const KIND_LEASE_ENDED: u8 = 4;
const KIND_TOKENS: u8 = 1;
const KIND_START_OVER: u8 = 2;
const HEAD_BYTES: usize = 33;

impl LogEvent {
    /// The event of these bytes; `None` for bytes that are too short for one.
    pub(in crate::cache) fn decode(number: u64, bytes: &[u8]) -> Option<LogEvent> {
        let payload = bytes.get(HEAD_BYTES..)?;
        let change = match bytes[HEAD_BYTES - 1] {
            kind @ (KIND_TOKENS | KIND_START_OVER) => decode_tokens(payload)
                .map(|changes| SharedChange::Tokens { starts_over: kind == KIND_START_OVER, changes }),
            KIND_KEY => {
                let entry = u64_at(payload, 32).map(EntryFingerprint);
                array_at(payload, 0).map(|key| SharedChange::Key(Key(key), entry))
            }
            KIND_LEASE_ENDED => array_at(payload, 0).map(|key| SharedChange::LeaseEnded(Key(key))),
            _ => None,
        };
        Some(LogEvent {
            number,
            nonce: u64_at(bytes, 0)?,
            previous: u64_at(bytes, 8)?,
            node: NodeId(u64_at(bytes, 16)?),
            written_at_micros: u64_at(bytes, 24)?,
            change,
        })
    }
}

fn decode_tokens(mut bytes: &[u8]) -> Option<Vec<TokenChange>> {
    let mut changes = Vec::new();
    while let Some((&subject_bytes, rest)) = bytes.split_first() {
        let (subject, rest) = rest.split_at_checked(subject_bytes.into())?;
        let (&tokens, rest) = rest.split_first()?;
        let (tokens, rest) = rest.split_at_checked(usize::from(tokens) * 8)?;
        changes.push(TokenChange::of_subject(subject, TokenHistory::decode(tokens)?)?);
        bytes = rest;
    }
    Some(changes)
}

impl TokenChange {
    /// The change of a subject as the shared log writes it.
    pub(in crate::cache) fn of_subject(subject: &[u8], history: TokenHistory) -> Option<TokenChange> {
        match subject {
            [] => Some(TokenChange::Everything(history)),
            id => Some(TokenChange::InvalidationId(
                InvalidationId(u64::from_le_bytes(id.try_into().ok()?)),
                history,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u8, payload: &[u8]) -> Vec<u8> {
        let head = [7_u64, 6, 5, 4].iter().flat_map(|number| number.to_le_bytes());
        head.chain([kind]).chain(payload.iter().copied()).collect()
    }

    fn tokens() -> Vec<u8> {
        let everything = [&[0, 1][..], &1_u64.to_le_bytes()].concat();
        let id = [&[8][..], &9_u64.to_le_bytes(), &[2], &2_u64.to_le_bytes(), &3_u64.to_le_bytes()].concat();
        [everything, id].concat()
    }

    #[test]
    fn events_come_back_with_their_numbers_and_changes() {
        let event = LogEvent::decode(42, &bytes(KIND_KEY, &[1; 32])).unwrap();
        assert_eq!((event.number, event.nonce, event.previous, event.node), (42, 7, 6, NodeId(5)));
        assert_eq!(event.written_at_micros, 4);
        assert_eq!(event.change, Some(SharedChange::Key(Key([1; 32]), None)));
        let announcing = [&[1; 32][..], &7_u64.to_le_bytes()].concat();
        let replaced = LogEvent::decode(42, &bytes(KIND_KEY, &announcing)).unwrap().change;
        assert_eq!(replaced, Some(SharedChange::Key(Key([1; 32]), Some(EntryFingerprint(7)))));
        let ended = LogEvent::decode(42, &bytes(KIND_LEASE_ENDED, &[1; 32])).unwrap().change;
        assert_eq!(ended, Some(SharedChange::LeaseEnded(Key([1; 32]))));
        for (kind, starts_over) in [(KIND_TOKENS, false), (KIND_START_OVER, true)] {
            let change = LogEvent::decode(1, &bytes(kind, &tokens())).unwrap().change;
            let history = |bytes: &[u8]| TokenHistory::decode(bytes).unwrap();
            let soft = [2_u64, 3].iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>();
            let changes = vec![
                TokenChange::Everything(history(&1_u64.to_le_bytes())),
                TokenChange::InvalidationId(InvalidationId(9), history(&soft)),
            ];
            assert_eq!(change, Some(SharedChange::Tokens { starts_over, changes }));
        }
    }

    #[test]
    fn bytes_that_are_no_event_are_none_and_an_unknown_kind_has_no_change() {
        assert_eq!(LogEvent::decode(1, &[0; HEAD_BYTES - 1]), None);
        assert_eq!(LogEvent::decode(1, &bytes(99, &[1; 32])).unwrap().change, None);
        for cut in 1..tokens().len() {
            let change = LogEvent::decode(1, &bytes(KIND_TOKENS, &tokens()[..cut])).unwrap().change;
            let whole = matches!(&change, Some(SharedChange::Tokens { changes, .. }) if changes.len() == 1);
            assert!(change.is_none() || whole, "cut at {cut}");
        }
        assert_eq!(LogEvent::decode(1, &bytes(KIND_KEY, &[1; 31])).unwrap().change, None);
    }
}
