//! Which letters Unicode composition (NFC) may change, and the texts it is applied to.

use unicode_normalization::UnicodeNormalization as _;

/// Longer texts are documents, not questions, and compared by their bytes.
pub(super) const QUESTION_BYTES_MAX: usize = 2048;

/// Letters below it are composed: the first that may join the one before it (Unicode Annex 15, section 9).
pub(super) const COMBINING_MIN: char = '\u{300}';

/// Whether NFC leaves a letter that stands alone as it is.
pub(super) fn is_itself_composed(c: char) -> bool {
    c < COMBINING_MIN || std::iter::once(c).nfc().eq([c])
}
