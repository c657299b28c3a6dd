//! Objects that are to be stored.

use bytes::Bytes;

use super::Condition;
use crate::cache::{Lease, Stamp};
use crate::domain::{ContentCoding, KeyHasher, Tag};
use crate::error::{Error, Kind, Result};

/// Bytes that a media type may have.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// An object to be stored.
#[derive(Debug, Clone)]
pub struct ObjectDraft {
    /// When its loading began: [`super::Objects::stamp`] before the first byte is read. That of a lease takes precedence.
    pub stamp: Stamp,
    /// The key as its client writes it, by which the object is listed.
    pub key: String,
    /// The bytes.
    pub value: Bytes,
    /// Their media type.
    pub content_type: String,
    /// Their content coding.
    pub content_coding: ContentCoding,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its lifetime, if not that of its namespace.
    pub ttl_seconds: Option<u32>,
    /// The lease under which it was made.
    pub lease: Option<Lease>,
    /// What must hold of the object that is replaced.
    pub condition: Condition,
}

impl ObjectDraft {
    /// Refuses what cannot be stored.
    ///
    /// # Errors
    /// `TooLarge` for a value of more than `value_bytes_max`, `InvalidInput` for too many tags and a media type that
    /// cannot be one.
    pub(super) fn check(&self, value_bytes_max: usize) -> Result<()> {
        check_value_bytes(self.value.len(), value_bytes_max)?;
        crate::service::check_tags(&self.tags)?;
        let is_header = |byte: u8| (b' '..=b'~').contains(&byte);
        if self.content_type.len() > CONTENT_TYPE_BYTES_MAX || !self.content_type.bytes().all(is_header) {
            let message =
                format!("a media type must have at most {CONTENT_TYPE_BYTES_MAX} visible ASCII characters");
            return Err(Error::invalid("content_type", message));
        }
        Ok(())
    }

    /// Equal for equal bytes of an equal media type and coding, and for no others that can be found by chance.
    pub(super) fn validator(&self) -> u128 {
        let mut hasher = if self.content_coding == ContentCoding::Identity {
            KeyHasher::new("likewise/validator/v1")
        } else {
            let mut hasher = KeyHasher::new("likewise/validator/v2");
            hasher.field(self.content_coding.as_str().as_bytes());
            hasher
        };
        hasher.field(self.content_type.as_bytes()).field(&self.value).finish().half()
    }
}

/// Refuses a value of too many bytes.
///
/// # Errors
/// `TooLarge`.
pub fn check_value_bytes(bytes: usize, bytes_max: usize) -> Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!("the value must have at most {bytes_max} bytes, got {bytes}");
    Err(Error::new(Kind::TooLarge, message))
}
