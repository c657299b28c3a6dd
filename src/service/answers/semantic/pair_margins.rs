//! What the verifier has said of pairs that it read lately, and the passes that run: equal lookups at the same time cost one pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Mutex as AsyncMutex;

use crate::domain::{ByPrefix, Key, KeyHasher};
use crate::sync::lock;

/// Pairs of a generation. There are two: when the younger one is full, the older one is dropped.
const GENERATION_PAIRS: usize = 8192;

/// The margin of a pair, once it was read; `None` in it if a text is too long. Locked while a pass reads the pair.
pub(super) type PairMargin = Arc<AsyncMutex<Option<Option<f32>>>>;

/// Margins by pair.
///
/// Memory: some 150 bytes a pair, 2.5 MB in all.
#[derive(Debug, Default)]
pub(super) struct PairMargins(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, PairMargin, ByPrefix>,
    old: HashMap<Key, PairMargin, ByPrefix>,
}

impl PairMargins {
    /// That of two texts in this order, which may not be read yet.
    pub(super) fn of(&self, stored: &str, asked: &str) -> PairMargin {
        let mut hasher = KeyHasher::new("likewise/margin/v1");
        let key = hasher.field(stored.as_bytes()).field(asked.as_bytes()).finish();
        let mut generations = lock(&self.0);
        let Generations { young, old } = &mut *generations;
        if let Some(known) = young.get(&key) {
            return Arc::clone(known);
        }
        if young.len() == GENERATION_PAIRS {
            *old = std::mem::take(young);
        }
        let known = old.remove(&key).unwrap_or_default();
        young.insert(key, Arc::clone(&known));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_known(margins: &PairMargins, stored: &str, asked: &str) -> bool {
        margins.of(stored, asked).try_lock().unwrap().is_some()
    }

    fn note(margins: &PairMargins, asked: &str) {
        *margins.of("stored", asked).try_lock().unwrap() = Some(Some(1.0));
    }

    #[test]
    fn pairs_are_known_in_their_order_and_what_is_used_stays() {
        let margins = PairMargins::default();
        ["used", "unused"].into_iter().for_each(|asked| note(&margins, asked));
        assert!(!is_known(&margins, "used", "stored"));
        for number in 0..3 * GENERATION_PAIRS {
            note(&margins, &number.to_string());
            assert!(number % 100 != 0 || is_known(&margins, "stored", "used"), "{number}");
        }
        assert!(!is_known(&margins, "stored", "unused"));
        let generations = lock(&margins.0);
        assert!(generations.young.len() <= GENERATION_PAIRS && generations.old.len() <= GENERATION_PAIRS);
    }
}
