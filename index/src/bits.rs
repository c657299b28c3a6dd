//! One bit a row: which rows may be found.

const WORD: usize = u64::BITS as usize;

/// One bit a row. Bits past the length are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// `len` rows, all of them set or none. Takes `len / 8` bytes.
    pub fn with_len(len: usize, is_set: bool) -> Bits {
        let word = if is_set { u64::MAX } else { 0 };
        let mut bits = Bits { words: vec![word; len.div_ceil(WORD)], len };
        bits.clear_past_len();
        bits
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `row` is set.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, row: usize) -> bool {
        assert!(row < self.len, "row {row} of {}", self.len);
        self.words[row / WORD] >> (row % WORD) & 1 == 1
    }

    /// Sets or clears `row`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn set(&mut self, row: usize, is_set: bool) {
        assert!(row < self.len, "row {row} of {}", self.len);
        let bit = 1 << (row % WORD);
        if is_set {
            self.words[row / WORD] |= bit;
        } else {
            self.words[row / WORD] &= !bit;
        }
    }

    /// Number of set rows.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Keeps what is set in both.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn and(&mut self, other: &Bits) {
        assert_eq!(self.len, other.len, "bits of different lengths");
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Sets what is set in either.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn or(&mut self, other: &Bits) {
        assert_eq!(self.len, other.len, "bits of different lengths");
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Sets what is not set, and clears what is.
    pub fn not(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.clear_past_len();
    }

    /// The set rows, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| set_bits(word).map(move |bit| at * WORD + bit))
    }

    /// The set rows from `from` to before `to`, in ascending order.
    pub(crate) fn iter_within(&self, from: usize, to: usize) -> impl Iterator<Item = usize> + '_ {
        let words = from / WORD..to.div_ceil(WORD);
        words.flat_map(move |at| set_bits(self.word_within(at, from, to)).map(move |bit| at * WORD + bit))
    }

    /// Number of set rows from `from` to before `to`.
    pub(crate) fn count_within(&self, from: usize, to: usize) -> usize {
        let words = from / WORD..to.div_ceil(WORD);
        words.map(|at| self.word_within(at, from, to).count_ones() as usize).sum()
    }

    /// One word, without the rows before `from` and from `to` on.
    fn word_within(&self, at: usize, from: usize, to: usize) -> u64 {
        let start = at * WORD;
        let mut word = self.words[at];
        if start < from {
            word &= u64::MAX << (from - start);
        }
        if to < start + WORD {
            word &= !(u64::MAX << (to - start));
        }
        word
    }

    fn clear_past_len(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(WORD)
        {
            *last &= !(u64::MAX << (self.len % WORD));
        }
    }
}

/// Positions of the ones of a word, in ascending order.
fn set_bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        bit
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from_bools(bools: &[bool]) -> Bits {
        let mut bits = Bits::with_len(bools.len(), false);
        bools.iter().enumerate().for_each(|(row, &is_set)| bits.set(row, is_set));
        bits
    }

    proptest! {
        #[test]
        fn bits_are_a_vector_of_bools(
            pairs in prop::collection::vec(any::<(bool, bool)>(), 0..300),
            ends in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let (a, b): (Vec<bool>, Vec<bool>) = pairs.iter().copied().unzip();
            let rows = |of: &dyn Fn(bool, bool) -> bool| -> Vec<usize> {
                pairs.iter().enumerate().filter(|(_, (a, b))| of(*a, *b)).map(|(row, _)| row).collect()
            };
            let (mut and, mut or, mut not) = (from_bools(&a), from_bools(&a), from_bools(&a));
            and.and(&from_bools(&b));
            or.or(&from_bools(&b));
            not.not();
            prop_assert_eq!(and.iter().collect::<Vec<_>>(), rows(&|a, b| a && b));
            prop_assert_eq!(or.iter().collect::<Vec<_>>(), rows(&|a, b| a || b));
            prop_assert_eq!(not.iter().collect::<Vec<_>>(), rows(&|a, _| !a));
            prop_assert_eq!(not.count(), rows(&|a, _| !a).len());
            prop_assert_eq!(Bits::with_len(a.len(), true).count(), a.len());

            let (x, y) = (ends.0.index(a.len() + 1), ends.1.index(a.len() + 1));
            let (from, to) = (x.min(y), x.max(y));
            let within: Vec<usize> = (from..to).filter(|&row| a[row]).collect();
            prop_assert_eq!(from_bools(&a).count_within(from, to), within.len());
            prop_assert_eq!(from_bools(&a).iter_within(from, to).collect::<Vec<_>>(), within);
        }
    }
}
