//! A document, and its bytes as segments and log keep them.

use crate::domain::Tag;

/// Bytes that an id may have.
pub const ID_BYTES_MAX: usize = 512;
/// Bytes that the metadata of one document may have, as JSON.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Tags that one document may carry.
pub const TAGS_MAX: usize = 64;

const HEAD_BYTES: usize = 12;
/// Stands for no text; a text is shorter.
const NO_TEXT: u32 = u32::MAX;
/// Added to the length of the metadata, which is far shorter, if the document brought its vector.
const OWN_VECTOR: u32 = 1 << 31;

/// A document: what a row means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Its name in the collection: 1 to [`ID_BYTES_MAX`] bytes.
    pub id: String,
    /// What was embedded, or only kept.
    pub text: Option<String>,
    /// A JSON object, as it was given; empty if there is none.
    pub metadata: String,
    /// What invalidates it.
    pub tags: Vec<Tag>,
    /// Whether a client brought its vector, which no model can make again. False in files of versions that did not record it.
    pub has_own_vector: bool,
}

/// A document inside the bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DocumentRef<'a> {
    /// Its name in the collection.
    pub id: &'a str,
    /// What was embedded, or only kept.
    pub text: Option<&'a str>,
    /// A JSON object, as it was given; empty if there is none.
    pub metadata: &'a str,
    /// Whether a client brought its vector.
    pub has_own_vector: bool,
    tags: &'a str,
}

impl Document {
    /// The bytes: lengths of text (4), metadata (4, the highest bit set if the document brought its vector), id (2) and tags (2), then
    /// id, text, metadata, and the tags separated by commas, which no tag contains.
    pub(super) fn encode(&self) -> Vec<u8> {
        let tags = self.tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(",");
        let text = self.text.as_deref();
        let text_bytes = text.map_or(NO_TEXT, |text| text.len() as u32);
        let mut bytes = Vec::with_capacity(
            HEAD_BYTES + self.id.len() + text.map_or(0, str::len) + self.metadata.len() + tags.len(),
        );
        bytes.extend(text_bytes.to_le_bytes());
        let own_vector = if self.has_own_vector { OWN_VECTOR } else { 0 };
        bytes.extend((self.metadata.len() as u32 | own_vector).to_le_bytes());
        bytes.extend((self.id.len() as u16).to_le_bytes());
        bytes.extend((tags.len() as u16).to_le_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
        bytes.extend_from_slice(self.metadata.as_bytes());
        bytes.extend_from_slice(tags.as_bytes());
        bytes
    }
}

impl<'a> DocumentRef<'a> {
    /// The document that `bytes` hold; none if they hold something else.
    pub fn decode(bytes: &'a [u8]) -> Option<DocumentRef<'a>> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
        let text_bytes = u32::from_le_bytes([a, b, c, d]);
        let metadata_head = u32::from_le_bytes([e, f, g, h]);
        let has_own_vector = metadata_head & OWN_VECTOR != 0;
        let metadata_bytes = (metadata_head & !OWN_VECTOR) as usize;
        let (id_bytes, tags_bytes) = (u16::from_le_bytes([i, j]).into(), u16::from_le_bytes([k, l]).into());
        let mut rest = std::str::from_utf8(rest).ok()?;
        let mut take = |bytes: usize| {
            let (taken, left) = rest.split_at_checked(bytes)?;
            rest = left;
            Some(taken)
        };
        let id = take(id_bytes)?;
        let text = if text_bytes == NO_TEXT { None } else { Some(take(text_bytes as usize)?) };
        let (metadata, tags) = (take(metadata_bytes)?, take(tags_bytes)?);
        rest.is_empty().then_some(DocumentRef { id, text, metadata, has_own_vector, tags })
    }

    /// Its tags.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.tags.split(',').filter(|tag| !tag.is_empty())
    }

    /// A copy of its own.
    pub fn to_document(&self) -> Document {
        Document {
            id: self.id.to_owned(),
            text: self.text.map(str::to_owned),
            metadata: self.metadata.to_owned(),
            tags: self.tags().filter_map(Tag::named).collect(),
            has_own_vector: self.has_own_vector,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_as_it_was_written_and_cut_bytes_are_refused() {
        let tags = ["product:42", "marca:año"].map(|tag| Tag::named(tag).unwrap()).to_vec();
        for text in [None, Some(String::new()), Some("camiseta azul".to_owned())] {
            let metadata = r#"{"precio":19.9}"#.to_owned();
            let has_own_vector = text.is_none();
            let document = Document { id: "42".into(), text, metadata, tags: tags.clone(), has_own_vector };
            let bytes = document.encode();
            assert_eq!(DocumentRef::decode(&bytes).unwrap().to_document(), document);
            for cut in 0..bytes.len() {
                assert_eq!(DocumentRef::decode(&bytes[..cut]), None);
            }
        }
        let bare = Document { id: "x".into(), ..Document::default() };
        assert_eq!(DocumentRef::decode(&bare.encode()).unwrap().to_document(), bare);
    }
}
