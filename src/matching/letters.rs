//! Does a text speak of the letters of texts: of how they are spelled, counted, repeated, translated?
//!
//! Where it does, two spellings of a question may be two questions. Known are the words of English and Spanish; a word too
//! many costs a hit, a word too few a right answer.

/// Words, without their accents, whose every form speaks of letters: they are beginnings.
const BEGINNINGS: [&str; 50] = [
    "accent",
    "acento",
    "anagram",
    "apostroph",
    "apostrof",
    "capitali",
    "capitals",
    "caracter",
    "casing",
    "character",
    "cipher",
    "cifra",
    "checksum",
    "correcci",
    "correct",
    "correg",
    "corrig",
    "deletre",
    "echo",
    "encod",
    "encrypt",
    "espacio",
    "gramma",
    "gramat",
    "hash",
    "letra",
    "letter",
    "literal",
    "lowercas",
    "mayuscul",
    "minuscul",
    "ortogra",
    "palindrom",
    "paraphras",
    "parafras",
    "proofread",
    "punctuat",
    "puntuaci",
    "reescri",
    "reformul",
    "repeat",
    "repet",
    "rephras",
    "rewrit",
    "spell",
    "tradu",
    "translat",
    "transcri",
    "uppercas",
    "verbatim",
];

/// Words of which only these forms do.
const WORDS: [&str; 16] = [
    "base64", "count", "counting", "counts", "md5", "ocr", "quote", "quotes", "regex", "repitas", "repite",
    "spaces", "textual", "tilde", "tildes", "typos",
];

/// Whether `text` does.
pub(super) fn speaks_of_letters(text: &str) -> bool {
    let mut word = String::new();
    let is_of_letters = |word: &str| {
        WORDS.binary_search(&word).is_ok() || BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
    };
    text.split(|c: char| !c.is_alphanumeric()).filter(|found| found.len() > 2).any(|found| {
        word.clear();
        word.extend(found.chars().flat_map(char::to_lowercase).map(without_accent));
        is_of_letters(&word)
    })
}

/// Letters of Spanish without their accents, which many leave out.
fn without_accent(c: char) -> char {
    match c {
        'á' => 'a',
        'é' => 'e',
        'í' => 'i',
        'ó' => 'o',
        'ú' | 'ü' => 'u',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_letters_are_noticed_in_every_form() {
        for text in [
            "Correct the user's text.",
            "Corrige la ortografía",
            "count its characters",
            "REPEAT after me",
            "Pon las MAYÚSCULAS que falten",
            "Tradúcelo al inglés",
            "verbatim_text",
            "how many spaces are there",
        ] {
            assert!(speaks_of_letters(text), "{text}");
        }
    }

    #[test]
    fn other_words_are_not() {
        for text in [
            "You sell shoes in every country and speak of your newsletter.",
            "Eres un asistente de una tienda: responde en pocas palabras sobre mi cuenta.",
            "What is the capital of France?",
            "",
        ] {
            assert!(!speaks_of_letters(text), "{text}");
        }
    }

    #[test]
    fn lists_are_sorted_to_be_searched() {
        assert!(WORDS.is_sorted());
    }
}
