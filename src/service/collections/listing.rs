//! Documents of a collection by page and by id, and how many there are.

use tracing::instrument;

use super::Collections;
use crate::domain::Principal;
use crate::error::{Error, Result};
use crate::search::{DocumentPage, Filter, PageQuery};

/// Documents of a page by default.
const LIMIT: usize = 100;
/// Documents of a page, and ids of a request, at most.
pub const LIMIT_MAX: usize = 1000;
/// Bytes of a page as JSON, about.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Which documents are listed.
#[derive(Debug, Clone)]
pub enum Selection {
    /// A page, in the order of the ids.
    Page {
        /// They come behind this id.
        after: Option<String>,
        /// How many there are at most; [`LIMIT`] by default.
        limit: Option<usize>,
        /// Which there are.
        filter: Option<Filter>,
    },
    /// Those with these ids, in this order.
    Ids(Vec<String>),
}

/// A number of documents, and the version of the collection of which it is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentCount {
    /// How many there are.
    pub documents: usize,
    /// The version.
    pub version: u64,
}

impl Collections {
    /// Some documents of a collection.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` at `limit` or `ids` outside their limits; `Overloaded` if too many searches wait.
    #[instrument(level = "debug", skip_all, fields(collection = name), err(level = "debug"))]
    pub async fn documents(
        &self,
        principal: &Principal,
        name: &str,
        selection: Selection,
        has_vectors: bool,
    ) -> Result<DocumentPage> {
        let view = self.catalog.get(&principal.tenant, name)?.view();
        let in_limits = |field: &'static str, count: usize| {
            if (1..=LIMIT_MAX).contains(&count) {
                return Ok(());
            }
            Err(Error::invalid(field, format!("{field} must be 1 to {LIMIT_MAX}, got {count}")))
        };
        match selection {
            Selection::Ids(ids) => {
                in_limits("ids", ids.len())?;
                view.of_ids(&ids, has_vectors, PAGE_BYTES_MAX)
            }
            Selection::Page { after, limit, filter } => {
                let limit = limit.unwrap_or(LIMIT);
                in_limits("limit", limit)?;
                let query = PageQuery { after, limit, filter, has_vectors, bytes_max: PAGE_BYTES_MAX };
                self.catalog.page(view, query).await
            }
        }
    }

    /// How many documents a collection has, or a filter selects.
    ///
    /// # Errors
    /// `NotFound`; with a filter `Overloaded` if too many searches wait.
    #[instrument(level = "debug", skip_all, fields(collection = name), err(level = "debug"))]
    pub async fn count(
        &self,
        principal: &Principal,
        name: &str,
        filter: Option<Filter>,
    ) -> Result<DocumentCount> {
        let view = self.catalog.get(&principal.tenant, name)?.view();
        let version = view.version();
        let documents = match filter {
            None => view.documents(),
            Some(filter) => self.catalog.count(view, filter).await?,
        };
        Ok(DocumentCount { documents, version })
    }
}
