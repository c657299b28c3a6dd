//! Stems: a rough common form of a word's inflections. The same rules cut the words of lists and those of questions, so a stem need
//! not be a word. Light stemming after Harman (1991, the S stemmer) for English and Savoy (2006) for Spanish, with verb endings.

use super::language::Language;

/// Endings of English words, the longest first, and what takes their place. A stem has at least three letters.
const ENGLISH: [(&str, &str); 10] = [
    ("iness", "i"),
    ("ies", "i"),
    ("ied", "i"),
    ("sses", "ss"),
    ("ings", ""),
    ("ing", ""),
    ("ed", ""),
    ("ly", ""),
    ("es", ""),
    ("s", ""),
];

/// Endings of Spanish words, the longest first. A stem has at least three letters. Clitics of imperatives and infinitives come with
/// the ending that they follow.
const SPANISH: [&str; 62] = [
    "iendome", "iendolo", "andome", "andolo", "andola", "aciones", "eciones", "iciones", "arselo", "asteis",
    "aremos", "eremos", "iremos", "abamos", "amente", "acion", "ecion", "icion", "iendo", "arnos", "ernos",
    "irnos", "arlos", "arlas", "ieron", "ismos", "arlo", "arla", "arle", "arme", "arse", "erlo", "erla",
    "erme", "erse", "irlo", "irla", "irme", "irse", "ando", "aron", "amos", "emos", "imos", "aban", "aria",
    "eria", "iria", "ados", "adas", "idos", "idas", "adme", "ado", "ada", "ido", "ida", "ais", "eis", "aba",
    "ar", "er",
];

/// The last endings of Spanish words, tried after [`SPANISH`].
const SPANISH_SHORT: [&str; 12] = ["ir", "ad", "ed", "an", "en", "as", "es", "os", "a", "e", "o", "s"];

/// The part of a folded word that its inflections share, and a letter that ends it in place of others.
pub(super) fn stem(language: Language, word: &str) -> (&str, &'static str) {
    match language {
        Language::English => english(word),
        Language::Spanish => (spanish(word), ""),
    }
}

/// The imperative of `pídeme`, `anuladme`, `enviádnoslo`.
pub(super) fn without_clitic(language: Language, word: &str) -> &str {
    if language != Language::Spanish {
        return word;
    }
    let base =
        ["noslo", "nosla", "melo", "mela", "nos", "me"].iter().find_map(|clitic| word.strip_suffix(clitic));
    base.filter(|base| base.len() >= 4 && base.ends_with(['a', 'e', 'd'])).unwrap_or(word)
}

fn english(word: &str) -> (&str, &'static str) {
    if !word.is_ascii() || word.len() < 4 {
        return (word, "");
    }
    let base = word.strip_suffix("'s").unwrap_or(word);
    if base.ends_with("ss") || base.ends_with("us") || base.ends_with("is") {
        return (base, "");
    }
    for (ending, replacement) in ENGLISH {
        let Some(rest) = base.strip_suffix(ending) else { continue };
        if rest.len() < 3 || !has_vowel(rest) {
            continue;
        }
        return match ending {
            "ing" | "ings" | "ed" | "es" => (undoubled(rest), ""),
            "ly" | "s" => (without_last_e(rest), ""),
            _ => (rest, replacement),
        };
    }
    match base.strip_suffix('y') {
        Some(rest) if rest.len() >= 2 && !rest.ends_with(is_vowel) => (rest, "i"),
        _ => (without_last_e(base), ""),
    }
}

/// `stopp` of `stopped` is `stop`. Words in `ll` and `ss` keep both letters.
fn undoubled(stem: &str) -> &str {
    let mut letters = stem.chars().rev();
    match (letters.next(), letters.next()) {
        (Some(last), Some(before)) if last == before && stem.len() > 3 && !"lsz".contains(last) => {
            &stem[..stem.len() - 1]
        }
        // `agreed` is `agree` without a letter.
        (Some('e'), _) => stem,
        _ => without_last_e(stem),
    }
}

fn without_last_e(word: &str) -> &str {
    match word.strip_suffix('e') {
        Some(rest) if rest.len() >= 3 => rest,
        _ => word,
    }
}

fn is_vowel(c: char) -> bool {
    matches!(c, 'a' | 'e' | 'i' | 'o' | 'u')
}

fn has_vowel(stem: &str) -> bool {
    stem.contains(|c| is_vowel(c) || c == 'y')
}

fn spanish(word: &str) -> &str {
    if !word.is_ascii() {
        return word;
    }
    let cut = |endings: &[&str], shortest: usize| {
        let ending = endings
            .iter()
            .find(|ending| word.len() >= ending.len() + shortest && word.ends_with(**ending))?;
        Some(&word[..word.len() - ending.len()])
    };
    cut(&SPANISH, 3).or_else(|| cut(&SPANISH_SHORT, 3)).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(language: Language, word: &str) -> String {
        let (start, end) = stem(language, word);
        format!("{start}{end}")
    }

    #[test]
    fn inflections_of_english_words_share_a_stem() {
        for group in [
            &["cancel", "cancels", "cancelled", "cancelling"][..],
            &["stop", "stops", "stopped", "stopping"],
            &["close", "closes", "closed", "closing"],
            &["reply", "replies", "replied", "replying"],
            &["box", "boxes"],
            &["price", "prices", "priced"],
        ] {
            let stems: Vec<_> = group.iter().map(|word| form(Language::English, word)).collect();
            assert!(
                stems.iter().all(|stem| stem == &stems[0] || stem.starts_with(stems[0].as_str())),
                "{stems:?}"
            );
        }
        assert_ne!(form(Language::English, "bus"), form(Language::English, "bust"));
    }

    #[test]
    fn inflections_of_spanish_words_share_a_stem() {
        for group in [
            &["cancelar", "cancela", "cancelo", "cancelad", "cancelarlo", "cancelando", "cancelado"][..],
            &["tarjeta", "tarjetas"],
            &["portatil", "portatiles"],
            &["rojo", "roja", "rojos", "rojas"],
        ] {
            let stems: Vec<_> = group.iter().map(|word| form(Language::Spanish, word)).collect();
            assert!(stems.iter().all(|stem| stem == &stems[0]), "{stems:?}");
        }
    }
}
