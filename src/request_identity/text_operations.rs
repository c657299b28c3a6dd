//! Detects whether a text mentions operations on texts: spelling, counting, repeating, translating, messages and inputs.
//!
//! For a model that is to correct, measure or wrap the user's text, two spellings of a question are two questions. The lists hold
//! words of English and Spanish, and some of their neighbours; a word too many costs a hit, a word too few a right answer.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Beginnings of words, without accents, all of whose forms are about texts.
const BEGINNINGS: [&str; 79] = [
    "accent",
    "acento",
    "anagram",
    "apostrof",
    "apostroph",
    "backward",
    "blank",
    "byte",
    "capitali",
    "capitals",
    "caracter",
    "casing",
    "character",
    "checksum",
    "cifra",
    "cipher",
    "codepoint",
    "compil",
    "complet",
    "correcci",
    "correct",
    "correg",
    "corrig",
    "corrij",
    "deletre",
    "echo",
    "encod",
    "encrypt",
    "espacio",
    "formatt",
    "gramat",
    "gramma",
    "hash",
    "index",
    "indic",
    "input",
    "interpret",
    "korrig",
    "lektor",
    "length",
    "letra",
    "letter",
    "lint",
    "literal",
    "longitud",
    "lowercas",
    "mayuscul",
    "mensaje",
    "message",
    "minuscul",
    "offset",
    "oracion",
    "ortogra",
    "palindrom",
    "parafras",
    "paraphras",
    "parse",
    "password",
    "proofread",
    "punctuat",
    "puntuaci",
    "reescri",
    "reformul",
    "repeat",
    "repet",
    "rephras",
    "revers",
    "rewrit",
    "sentence",
    "spell",
    "statement",
    "terminal",
    "token",
    "tradu",
    "transcri",
    "translat",
    "unicode",
    "uppercas",
    "verbatim",
];

/// Words of which only these forms do.
const WORDS: [&str; 52] = [
    "base64",
    "console",
    "contrasena",
    "copia",
    "copy",
    "count",
    "counting",
    "counts",
    "crc",
    "crc32",
    "entrada",
    "frase",
    "frases",
    "grep",
    "md5",
    "messaggio",
    "nachricht",
    "nfc",
    "nfd",
    "ocr",
    "phrase",
    "phrases",
    "prompt",
    "prompts",
    "quote",
    "quotes",
    "regex",
    "repitas",
    "repite",
    "rot13",
    "satz",
    "sed",
    "sha",
    "sha1",
    "sha256",
    "sha512",
    "shell",
    "spaces",
    "sql",
    "tal",
    "testo",
    "text",
    "texte",
    "texto",
    "textos",
    "texts",
    "tilde",
    "tildes",
    "typos",
    "utf",
    "wrap",
    "writing",
];

/// Whether `text` does.
pub(super) fn mentions_text_operations(text: &str) -> bool {
    let mut word = String::new();
    let is_of_texts = |word: &str| {
        WORDS.binary_search(&word).is_ok() || BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
    };
    text.split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c)).filter(|found| found.len() > 2).any(
        |found| {
            word.clear();
            // Many leave out accents.
            word.extend(found.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase));
            is_of_texts(&word)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_texts_are_noticed_in_every_form() {
        for text in [
            "Correct what the user writes.",
            "Corrige la ortografía",
            "count its characters",
            "REPEAT after me",
            "Pon las MAYÚSCULAS que falten",
            "Tradúcelo al inglés",
            "verbatim_text",
            "how many spaces are there",
            "Return the SHA-256 of what you get.",
            "Rate the writing quality",
            "Wrap it in <b> tags",
            "You are a linux terminal",
            "Devuélvelo tal cual",
            "Répète ce que dit l'utilisateur",
            "Du bist ein Lektor",
            "how many bytes in e\u{301}",
        ] {
            assert!(mentions_text_operations(text), "{text}");
        }
    }

    #[test]
    fn other_words_are_not() {
        for text in [
            "You sell shoes in every country and speak of your newest offers.",
            "You are a helpful assistant. Answer the customer's question in at most 50 words.",
            "Eres un asistente de una tienda: responde en pocas palabras sobre mi cuenta.",
            "What is the capital of France?",
            "",
        ] {
            assert!(!mentions_text_operations(text), "{text}");
        }
    }

    #[test]
    fn lists_are_sorted_to_be_searched() {
        assert!(WORDS.is_sorted());
    }
}
