//! What embedding the texts of a file would take.

use std::collections::HashSet;
use std::fmt;

use crate::cli::short_hash::{ShortHash, short_hash};

/// Counts of texts. Costs 16 bytes, and what a table adds, for each distinct text.
#[derive(Debug, Default)]
pub(super) struct TextCounts {
    texts: usize,
    seen: HashSet<ShortHash>,
    cached: usize,
    /// Tokens of the distinct texts that are not cached, as far as the model reads.
    tokens: u64,
    /// Texts among them of which the model reads only the beginning.
    truncated: usize,
    /// Whether only the server of the model counts tokens.
    tokens_are_unknown: bool,
}

impl TextCounts {
    /// Counts a text; returns whether it is the first of its kind.
    pub(super) fn is_new(&mut self, text: &str) -> bool {
        self.texts += 1;
        self.seen.insert(short_hash([text]))
    }

    /// Adds what is known of new texts: which of them are cached, and the tokens of each.
    pub(super) fn add(&mut self, cached: &[bool], tokens: Option<&[usize]>, tokens_max: usize) {
        self.cached += cached.iter().filter(|&&is_cached| is_cached).count();
        self.tokens_are_unknown |= tokens.is_none();
        let missing = cached.iter().zip(tokens.unwrap_or_default()).filter(|(is_cached, _)| !**is_cached);
        for (_, &count) in missing {
            self.tokens += count.min(tokens_max) as u64;
            self.truncated += usize::from(count > tokens_max);
        }
    }
}

impl fmt::Display for TextCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TextCounts { texts, seen, cached, .. } = self;
        let missing = seen.len() - cached;
        write!(f, "{texts} texts, {} distinct: {cached} in the cache, {missing} to embed", seen.len())?;
        if self.tokens_are_unknown {
            return f.write_str(" (their tokens are counted by the server of the model)");
        }
        write!(f, " with {} tokens", self.tokens)?;
        if self.truncated > 0 {
            write!(f, ", {} of them read in part", self.truncated)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_distinct_texts_that_are_not_cached_cost_tokens() {
        let mut counts = TextCounts::default();
        let new: Vec<bool> = ["a", "b", "a", "c"].iter().map(|text| counts.is_new(text)).collect();
        assert_eq!(new, [true, true, false, true]);
        counts.add(&[true, false, false], Some(&[5, 3, 9]), 8);
        let expected =
            "4 texts, 3 distinct: 1 in the cache, 2 to embed with 11 tokens, 1 of them read in part";
        assert_eq!(counts.to_string(), expected);
        counts.add(&[], None, 8);
        assert!(counts.to_string().ends_with("by the server of the model)"));
    }
}
