//! How far work is.

use serde::{Deserialize, Serialize};

/// Items that could not be done and are listed; more are counted only.
pub const ITEM_ERRORS_MAX: usize = 1000;
/// Bytes of a message of an item.
const MESSAGE_BYTES_MAX: usize = 200;

/// An item that could not be done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// The item: the id of a document, or a line of a file.
    pub item: String,
    /// Why.
    pub message: String,
}

/// How far work is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkProgress {
    /// Items that are done.
    pub done: u64,
    /// All items, as far as that is known.
    pub total: u64,
    /// Tokens that were sent to a model, over all runs of the work.
    pub tokens: u64,
    /// Dollars that they cost, over all runs; `None` if the price of the model is not known.
    pub cost_usd: Option<f64>,
    /// The first items that could not be done.
    pub errors: Vec<ItemError>,
    /// All items that could not be done.
    pub errors_total: u64,
}

impl WorkProgress {
    /// Adds a cost, if it is known.
    pub(super) fn add_cost(&mut self, usd: Option<f64>) {
        if let Some(usd) = usd {
            *self.cost_usd.get_or_insert(0.0) += usd;
        }
    }

    /// Notes that an item cannot be done. One that was noted before keeps its place.
    pub(super) fn refuse(&mut self, item: &str, message: &str) {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        let error = ItemError { item: item.to_owned(), message: message[..end].to_owned() };
        if let Some(known) = self.errors.iter_mut().find(|known| known.item == item) {
            *known = error;
            return;
        }
        self.errors_total += 1;
        if self.errors.len() < ITEM_ERRORS_MAX {
            self.errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_listed_up_to_a_limit_and_counted_beyond_it() {
        let mut progress = WorkProgress::default();
        for item in 0..ITEM_ERRORS_MAX + 5 {
            progress.refuse(&item.to_string(), &"ñ".repeat(MESSAGE_BYTES_MAX));
        }
        progress.refuse("3", "again");
        assert_eq!((progress.errors.len(), progress.errors_total), (ITEM_ERRORS_MAX, 1005));
        assert_eq!(progress.errors[3].message, "again");
        assert!(progress.errors[4].message.len() <= MESSAGE_BYTES_MAX);
    }
}
