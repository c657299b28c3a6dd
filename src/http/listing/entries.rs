//! Pages of entries on the wire.

use base64_simd::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::http::answers::format_id;
use crate::http::label_value::{EntryKindLabel, LabelValue};
use crate::service::listing::{EntryKind, ListedEntry, Page, Position};

/// A page of entries, in the order of the disk.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct EntryList {
    /// `list`.
    object: &'static str,
    /// The entries.
    data: Vec<CachedEntry>,
    /// Records that were read for the page.
    scanned: usize,
    /// The `after` of the next page. Absent in the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// A cached entry.
#[derive(Debug, Serialize, ToSchema)]
struct CachedEntry {
    /// What it is.
    kind: EntryKindLabel,
    /// Its namespace.
    namespace: String,
    /// The key of an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    /// The id of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<String>,
    /// The media type of an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_type: Option<String>,
    /// Length of its value on disk, where it may be compressed.
    bytes: u32,
    /// When it was stored, in seconds since 1970.
    created: u32,
    /// When it expires, in seconds since 1970.
    expires: u32,
    /// Seconds since it was stored.
    age: u32,
    /// Seconds until it expires.
    ttl: u32,
    /// Whether it is served stale while one request refreshes it.
    is_stale: bool,
    /// The entity tag of an object, without quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    etag: Option<String>,
    /// The tags of an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tags: Option<Vec<String>>,
}

impl EntryList {
    pub(super) fn page(page: Page) -> EntryList {
        let next = page.next.map(|next| URL_SAFE_NO_PAD.encode_to_string(next.as_bytes()));
        let data = page.entries.into_iter().map(CachedEntry::of).collect();
        EntryList { object: "list", data, scanned: page.scanned, next }
    }

    /// The list of one entry, or of none.
    pub(super) fn of(listed: Option<ListedEntry>) -> EntryList {
        let data: Vec<CachedEntry> = listed.into_iter().map(CachedEntry::of).collect();
        EntryList { object: "list", scanned: data.len(), data, next: None }
    }
}

impl CachedEntry {
    fn of(listed: ListedEntry) -> CachedEntry {
        let ListedEntry { entry, kind, is_stale, age_seconds, ttl_seconds } = listed;
        let (names, meta) = (entry.names, entry.meta);
        let is_object = kind == EntryKind::Object;
        CachedEntry {
            kind: LabelValue(kind),
            namespace: names.namespace.as_ref().to_owned(),
            key: is_object.then_some(names.key),
            id: (!is_object).then(|| format_id(entry.position.key())),
            content_type: is_object.then(|| meta.content_type.as_ref().to_owned()),
            bytes: entry.value_bytes,
            created: meta.created.0,
            expires: meta.expires.0,
            age: age_seconds,
            ttl: ttl_seconds,
            is_stale,
            etag: is_object.then(|| format!("{:032x}", meta.validator)),
            tags: is_object.then_some(names.tags),
        }
    }
}

/// The position that `next` of a page names.
///
/// # Errors
/// `InvalidInput` for what is no `next`.
pub(super) fn position(after: &str) -> Result<Position> {
    let bytes = URL_SAFE_NO_PAD.decode_to_vec(after).ok();
    bytes.as_deref().and_then(Position::from_bytes).ok_or_else(|| {
        Error::invalid("after", "after must be the next of an earlier page of the same listing")
    })
}
