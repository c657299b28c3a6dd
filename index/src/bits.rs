//! A set of rows, one bit each.

/// A set of rows, one bit each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// A set over `len` rows: all of them, or none.
    pub fn new(len: usize, all: bool) -> Bits {
        let mut bits = Bits { words: vec![if all { u64::MAX } else { 0 }; len.div_ceil(64)], len };
        bits.trim();
        bits
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the row is in the set.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn contains(&self, row: usize) -> bool {
        assert!(row < self.len, "row {row} of {}", self.len);
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// Puts the row in, or takes it out; tells whether that changed anything.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn set(&mut self, row: usize, is_in: bool) -> bool {
        let changes = self.contains(row) != is_in;
        self.words[row / 64] ^= u64::from(changes) << (row % 64);
        changes
    }

    /// How many rows are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The rows of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
                .take_while(|word| *word != 0)
                .map(move |word| at * 64 + word.trailing_zeros() as usize)
        })
    }

    /// Keeps what is in `other` too.
    ///
    /// # Panics
    /// If it is over another number of rows.
    pub fn and(&mut self, other: &Bits) {
        self.zip(other, |own, other| own & other);
    }

    /// Adds what is in `other`.
    ///
    /// # Panics
    /// If it is over another number of rows.
    pub fn or(&mut self, other: &Bits) {
        self.zip(other, |own, other| own | other);
    }

    /// Takes out what is in, and puts in what is not.
    pub fn not(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.trim();
    }

    fn zip(&mut self, other: &Bits, join: fn(u64, u64) -> u64) {
        assert_eq!(self.len, other.len, "both sets are over the same rows");
        self.words.iter_mut().zip(&other.words).for_each(|(own, other)| *own = join(*own, *other));
    }

    /// Bits past the last row are never set.
    fn trim(&mut self) {
        let past = self.len % 64;
        if past != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << past) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_changed_and_joined_row_by_row() {
        let mut even = Bits::new(130, false);
        (0..130).step_by(2).for_each(|row| assert!(even.set(row, true)));
        assert!(!even.set(0, true) && even.contains(128) && !even.contains(129));
        assert_eq!((even.count(), even.iter().last()), (65, Some(128)));
        let mut odd = even.clone();
        odd.not();
        assert_eq!((odd.count(), odd.iter().next()), (65, Some(1)));
        odd.or(&even);
        assert_eq!(odd, Bits::new(130, true));
        odd.and(&even);
        assert_eq!(odd, even);
        assert_eq!(Bits::new(0, true).iter().count(), 0);
    }
}
