//! The verifiers that come with the program.

use ring::digest::{Context, SHA256};

use super::cross_encoder::Verifier;
use super::weights::FileMetadata;
use crate::embed::encoder::FloatTable;
use crate::embed::tokenizer::Tokenizer;
use crate::error::Result;

/// Their files. The licences of what they were trained on are in `tools/verifier/README.md`.
pub(super) const SHIPPED: [&[u8]; 2] = [
    include_bytes!("../../../models/verifier/all-MiniLM-L6-v2.safetensors"),
    include_bytes!("../../../models/verifier/multilingual-e5-small.safetensors"),
];
/// Numbers of the word embeddings that are hashed at a time.
const HASHED_NUMBERS: usize = 16 * 1024;

/// The verifier for a model, if one comes with the program: it belongs to one tokenizer and one table of word embeddings.
///
/// Cost: hashes the word embeddings if the tokenizer is a known one, 47 MB for all-MiniLM-L6-v2; holds four bytes a parameter, 22 MB.
///
/// # Errors
/// `Model` if its file is malformed.
pub(in crate::embed) fn shipped_for(
    tokenizer: &Tokenizer,
    tokenizer_sha256: &str,
    words: &FloatTable,
    norm_epsilon: f64,
) -> Result<Option<Verifier>> {
    for bytes in SHIPPED {
        let metadata = FileMetadata::read(bytes)?;
        if metadata.text("tokenizer_sha256")? == tokenizer_sha256
            && metadata.text("words_sha256")? == hash_of_words(words)
        {
            return Verifier::new(bytes, tokenizer.clone(), words.clone(), norm_epsilon).map(Some);
        }
    }
    Ok(None)
}

/// The hash of a table of f32 in little-endian order, row by row.
fn hash_of_words(words: &FloatTable) -> String {
    let pieces = words.values().chunks(HASHED_NUMBERS);
    sha256(pieces.map(|piece| piece.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()))
}

/// The hash of bytes in pieces, in hexadecimal digits.
pub(in crate::embed) fn sha256<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> String {
    let mut context = Context::new(&SHA256);
    pieces.into_iter().for_each(|piece| context.update(piece.as_ref()));
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
