//! A record of a collection's log: the changes of one commit. The byte table is in `docs/internals/store-format.md` and changes
//! together with this file.

use std::sync::Arc;

use super::document::DocumentRef;

const UPSERT: u8 = 1;
const DELETE: u8 = 2;

/// A change as the log keeps it.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Vectors, and the bytes of their documents.
    Upsert {
        /// The vectors, one after the other.
        vectors: Vec<f32>,
        /// A document for each.
        documents: Vec<Arc<[u8]>>,
    },
    /// Ids.
    Delete {
        /// Those that were there.
        ids: Vec<String>,
    },
}

/// The bytes of a commit that makes `version` of a collection, and those after it.
pub fn encode(version: u64, ops: &[Op]) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    for op in ops {
        match op {
            Op::Upsert { vectors, documents } => {
                bytes.push(UPSERT);
                bytes.extend((documents.len() as u32).to_le_bytes());
                bytes.extend(vectors.iter().flat_map(|number| number.to_le_bytes()));
                for document in documents {
                    bytes.extend((document.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(document);
                }
            }
            Op::Delete { ids } => {
                bytes.push(DELETE);
                bytes.extend((ids.len() as u32).to_le_bytes());
                for id in ids {
                    bytes.extend((id.len() as u16).to_le_bytes());
                    bytes.extend_from_slice(id.as_bytes());
                }
            }
        }
    }
    bytes
}

/// The first version and the changes of a commit; none if the bytes are no record of vectors of this length.
pub fn decode(dim: usize, bytes: &[u8]) -> Option<(u64, Vec<Op>)> {
    let mut rest = bytes;
    let version = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
    let mut ops = Vec::new();
    while !rest.is_empty() {
        let kind = take(&mut rest, 1)?[0];
        let count = number(&mut rest)?;
        ops.push(match kind {
            UPSERT => {
                let (numbers, _) = take(&mut rest, count.checked_mul(dim)?.checked_mul(4)?)?.as_chunks::<4>();
                let vectors = numbers.iter().map(|&number| f32::from_le_bytes(number)).collect();
                let mut document = || {
                    let length = number(&mut rest)?;
                    let bytes = take(&mut rest, length)?;
                    DocumentRef::decode(bytes).map(|_| Arc::from(bytes))
                };
                Op::Upsert { vectors, documents: (0..count).map(|_| document()).collect::<Option<_>>()? }
            }
            DELETE => {
                let mut id = || {
                    let length = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
                    String::from_utf8(take(&mut rest, length.into())?.to_vec()).ok()
                };
                Op::Delete { ids: (0..count).map(|_| id()).collect::<Option<_>>()? }
            }
            _ => return None,
        });
    }
    Some((version, ops))
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::document::Document;

    #[test]
    fn a_record_is_read_as_it_was_written_and_cut_ones_are_refused() {
        let document = Document { id: "año".into(), text: Some("x".into()), ..Document::default() };
        let ops = [
            Op::Upsert { vectors: vec![1.0, -2.5], documents: vec![document.encode().into()] },
            Op::Delete { ids: vec!["a".into(), "año".into()] },
        ];
        let bytes = encode(77, &ops);
        assert_eq!(decode(2, &bytes), Some((77, ops.to_vec())));
        assert_eq!(decode(3, &bytes), None);
        let mut whole = 0;
        for cut in 0..bytes.len() {
            // A cut between two changes leaves whole ones; only the log's checksum detects it.
            whole += usize::from(decode(2, &bytes[..cut]).is_some());
        }
        assert_eq!(whole, 2);
    }
}
