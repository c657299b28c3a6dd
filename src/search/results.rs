//! The results of one query as bytes: what is cached is what is answered, without a copy between.

use std::sync::Arc;

use super::document::DocumentRef;

/// Score (4), length of the document (4), number of the vector's numbers (4).
const HEAD_BYTES: usize = 12;

/// Results of one query, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results(Arc<[u8]>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit<'a> {
    /// Its score; see [`likewise_index::Metric`].
    pub score: f32,
    /// What was found.
    pub document: DocumentRef<'a>,
    /// Its vector as little-endian f32, where it was asked for; empty where not.
    pub vector: &'a [u8],
}

impl Results {
    /// Results in the order in which they are given: score, document and perhaps vector of each.
    pub(super) fn new<'a>(hits: impl Iterator<Item = (f32, &'a [u8], &'a [f32])>) -> Results {
        let mut bytes = Vec::new();
        for (score, document, vector) in hits {
            bytes.extend(score.to_le_bytes());
            bytes.extend((document.len() as u32).to_le_bytes());
            bytes.extend((vector.len() as u32).to_le_bytes());
            bytes.extend_from_slice(document);
            bytes.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
        }
        Results(bytes.into())
    }

    /// Results from the bytes of an entry.
    pub fn from_bytes(bytes: Arc<[u8]>) -> Results {
        Results(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }

    /// The results, best first; they end where bytes are not what [`Results::bytes`] gave.
    pub fn iter(&self) -> impl Iterator<Item = Hit<'_>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let (hit, next) = self.at(from)?;
            from = next;
            Some(hit)
        })
    }

    /// The result whose bytes begin at `from`, and where the next one begins; for those who stop between.
    pub fn at(&self, from: usize) -> Option<(Hit<'_>, usize)> {
        let (head, after) = self.0.get(from..)?.split_first_chunk::<HEAD_BYTES>()?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
        let document_bytes = u32::from_le_bytes([e, f, g, h]) as usize;
        let vector_bytes = (u32::from_le_bytes([i, j, k, l]) as usize).checked_mul(4)?;
        let (document, after) = after.split_at_checked(document_bytes)?;
        let (vector, after) = after.split_at_checked(vector_bytes)?;
        let score = f32::from_le_bytes([a, b, c, d]);
        let hit = Hit { score, document: DocumentRef::decode(document)?, vector };
        Some((hit, self.0.len() - after.len()))
    }
}
