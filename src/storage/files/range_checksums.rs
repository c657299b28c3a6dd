//! CRC-32C of any part of a text at a cost that does not depend on the part's length, after one pass over the text.
//!
//! Where a record is looked for behind a damaged one, almost any four bytes may be a length: hashing each candidate would
//! take time in the square of the file's length.

/// The polynomial of CRC-32C, reflected (RFC 3720 appendix B.4).
const CASTAGNOLI: u32 = 0x82F6_3B78;
/// The polynomial 1, in the same notation: the highest bit is the coefficient of x^0.
const ONE: u32 = 1 << 31;
/// Bytes between two checksums that are kept.
const STRIDE: usize = 64;
/// x^(2^n) for n below this many: enough for texts of 2^(N - 4) bytes.
const POWERS: usize = 40;

/// The checksums of a text.
#[derive(Debug)]
pub(crate) struct RangeChecksums<'a> {
    text: &'a [u8],
    /// The checksum of the first `n * STRIDE` bytes at `n`.
    strides: Vec<u32>,
    powers: [u32; POWERS],
}

impl<'a> RangeChecksums<'a> {
    /// Cost: one pass over the text, and a sixteenth of its length in memory.
    pub(crate) fn new(text: &'a [u8]) -> RangeChecksums<'a> {
        let mut checksum = 0;
        let following = text.chunks_exact(STRIDE).map(|chunk| {
            checksum = crc32c::crc32c_append(checksum, chunk);
            checksum
        });
        let strides = std::iter::once(0).chain(following).collect();
        let mut powers = [ONE >> 1; POWERS];
        for n in 1..POWERS {
            powers[n] = multiply(powers[n - 1], powers[n - 1]);
        }
        RangeChecksums { text, strides, powers }
    }

    /// What `crc32c_append(checksum, &text[from..to])` returns, for a range inside the text.
    pub(crate) fn append(&self, checksum: u32, from: usize, to: usize) -> u32 {
        // Checksums are linear: that of a concatenation is that of its first part, shifted by the length of the second,
        // plus that of the second (zlib 1.2.12, `crc32_combine`).
        self.shift(checksum ^ self.until(from), to - from) ^ self.until(to)
    }

    /// The checksum of the first bytes of the text.
    fn until(&self, end: usize) -> u32 {
        let stride = end / STRIDE;
        crc32c::crc32c_append(self.strides[stride], &self.text[stride * STRIDE..end])
    }

    /// A checksum times x^(8 `bytes`).
    fn shift(&self, checksum: u32, bytes: usize) -> u32 {
        let bits = (0..usize::BITS as usize).filter(|bit| bytes >> bit & 1 == 1);
        bits.fold(checksum, |product, bit| multiply(self.powers[bit + 3], product))
    }
}

/// The product of two polynomials modulo that of the checksum.
fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, ONE);
    while bit > 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ CASTAGNOLI } else { b >> 1 };
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn it_agrees_with_hashing_the_range(
            text in proptest::collection::vec(0..=255_u8, 0..3000), a in 0..3000_usize, b in 0..3000_usize, seed in 0..u32::MAX
        ) {
            let (from, to) = (a.min(b).min(text.len()), a.max(b).min(text.len()));
            let expected = crc32c::crc32c_append(seed, &text[from..to]);
            assert_eq!(RangeChecksums::new(&text).append(seed, from, to), expected);
        }
    }
}
