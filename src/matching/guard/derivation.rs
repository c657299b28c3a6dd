//! Words that are derived from one another: `deliver` and `delivery`, `devolver` and `devolución`.
//!
//! A shared beginning alone says nothing (`interest`, `internet`): what each word has behind it must be an ending by which words are derived.
//! Words for who or what does something (`print`, `printer`) are not among them, because they ask about another thing.

use super::folding::shared_start;
use super::language::Language;

/// The least letters that two words of one family share.
const SHARED_MIN: usize = 4;
/// So many of the shared letters may belong to the endings.
const ENDING_SHARED_MAX: usize = 3;
/// From so many shared letters on an ending may be longer than the rest.
const SHARED_LONG: usize = 5;

/// Endings of English words of one family.
const ENGLISH: [&str; 49] = [
    "", "s", "es", "e", "ed", "d", "ing", "ings", "y", "ies", "ied", "ying", "ion", "ions", "tion", "tions",
    "ation", "ations", "ition", "ication", "ications", "ment", "ments", "al", "als", "ance", "ances", "ence",
    "able", "ible", "ability", "ibility", "ly", "ally", "ity", "ness", "ate", "ated", "ates", "ating", "ful",
    "fully", "ial", "ially", "ic", "ical", "ese", "ian", "ians",
];
/// Those of a word from which others are derived, and of its forms.
const ENGLISH_BASES: [&str; 16] =
    ["", "s", "es", "e", "ed", "d", "ing", "ings", "y", "ies", "ied", "ying", "ate", "ated", "ates", "ating"];
/// Endings of two English words of which the first is taken for the second.
const ENGLISH_PAIRS: [(&str, &str); 18] = [
    ("able", "ability"),
    ("ible", "ibility"),
    ("be", "ption"),
    ("be", "ptions"),
    ("bed", "ption"),
    ("er", "ration"),
    ("er", "rations"),
    ("in", "nation"),
    ("d", "sion"),
    ("d", "sions"),
    ("ded", "sion"),
    ("t", "ssion"),
    ("t", "ssions"),
    ("t", "ce"),
    ("t", "cy"),
    ("le", "ility"),
    ("le", "ly"),
    ("r", "ry"),
];

/// Endings of Spanish words of one family, apart from those of verbs.
const SPANISH: [&str; 48] = [
    "", "s", "e", "es", "o", "os", "a", "as", "n", "on", "ion", "iones", "cion", "ciones", "sion", "siones",
    "acion", "aciones", "icion", "iciones", "ucion", "uciones", "miento", "mientos", "amiento", "imiento",
    "aje", "ajes", "ura", "idad", "idades", "able", "ables", "ible", "ibles", "le", "ilidad", "mente",
    "amente", "emente", "io", "ios", "ia", "ga", "go", "gar", "que", "ver",
];
/// Endings of Spanish verbs.
const SPANISH_VERBS: [&str; 74] = [
    "ar", "er", "ir", "ando", "iendo", "ado", "ada", "ados", "adas", "ido", "ida", "idos", "idas", "to",
    "ta", "tos", "tas", "an", "en", "as", "es", "amos", "emos", "imos", "aron", "ieron", "aba", "aban", "ia",
    "ian", "ara", "era", "ira", "aran", "eran", "iran", "are", "ere", "ire", "aria", "eria", "iria", "arlo",
    "arla", "arlos", "arlas", "arme", "arse", "erlo", "erla", "erme", "erse", "irlo", "irla", "irme", "irse",
    "arle", "erle", "irle", "aste", "car", "zar", "quen", "gue", "guen", "ce", "cen", "cer", "cir", "zco",
    "zca", "zcan", "cido", "cida",
];

/// Whether two folded words are of one family.
pub(super) fn are_of_one_family(language: Language, one: &str, two: &str) -> bool {
    let shared = shared_start(one, two);
    let shortest = one.len().min(two.len());
    let is_long = shared >= SHARED_LONG && shared * 10 >= shortest * 6;
    // The endings are of folded words in the Latin alphabet.
    let are_ascii = one.is_ascii() && two.is_ascii();
    if !are_ascii || shared < SHARED_MIN || !is_long && shared + 1 < shortest {
        return false;
    }
    let (shorter, longer) = if one.len() <= two.len() { (one, two) } else { (two, one) };
    // The letters that they share may be a part of their endings: those of `garantizar` and `garantizado` begin with an `a`.
    (shared.saturating_sub(ENDING_SHARED_MAX).max(SHARED_MIN)..=shared).any(|cut| {
        let (start, one, two) = (&shorter[..cut], &shorter[cut..], &longer[cut..]);
        match language {
            Language::English => are_english_endings(start, one, two),
            Language::Spanish => {
                [one, two].iter().all(|rest| SPANISH.contains(rest) || SPANISH_VERBS.contains(rest))
            }
        }
    })
}

/// Whether two words that begin with `start` are derived. The first is not the longer one.
fn are_english_endings(start: &str, one: &str, two: &str) -> bool {
    let (one, two) = (undoubled(start, one), undoubled(start, two));
    let are_endings = [one, two].iter().all(|rest| ENGLISH.contains(rest));
    let is_other_word = match (one, two) {
        // `plan` and `plane`, `part` and `party`, `norm` and `normal`, `bran` and `brand`.
        ("", "e") => true,
        ("", "y" | "ies") => start.len() <= SHARED_LONG,
        ("", "al" | "als" | "ic") => start.len() <= SHARED_MIN,
        ("", "d") => !start.ends_with('e'),
        _ => false,
    };
    // `experiment` and `experience` are both derived, from nothing that they share.
    let has_base = [one, two].iter().any(|rest| ENGLISH_BASES.contains(rest));
    are_endings && has_base && !is_other_word
        || ENGLISH_PAIRS.contains(&(one, two))
        || ENGLISH_PAIRS.contains(&(two, one))
}

/// `plan` and `planning`, `cancel` and `cancellation`: the ending without the letter that is written twice.
fn undoubled<'a>(start: &str, rest: &'a str) -> &'a str {
    let doubled = start.chars().next_back().filter(|letter| letter.is_ascii() && !"aeiou".contains(*letter));
    doubled.and_then(|letter| rest.strip_prefix(letter)).filter(|rest| rest.len() > 1).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are(language: Language, one: &str, two: &str) -> bool {
        let family = are_of_one_family(language, one, two);
        assert_eq!(family, are_of_one_family(language, two, one), "{one} {two}");
        family
    }

    #[test]
    fn derived_words_are_of_one_family() {
        for (one, two) in [
            ("deliver", "delivery"),
            ("cancel", "cancellation"),
            ("available", "availability"),
            ("install", "installation"),
            ("subscribe", "subscription"),
            ("register", "registration"),
            ("reply", "replies"),
            ("verify", "verification"),
            ("assistant", "assistance"),
            ("refund", "refundable"),
            ("planning", "plan"),
            ("produce", "production"),
            ("extend", "extension"),
            ("guarantee", "guaranteed"),
            ("renew", "renewal"),
            ("apply", "application"),
        ] {
            assert!(are(Language::English, one, two), "{one} {two}");
        }
        for (one, two) in [
            ("devolver", "devolucion"),
            ("garantizado", "garantizar"),
            ("enviar", "envio"),
            ("cancelar", "cancelacion"),
            ("disponible", "disponibilidad"),
            ("instalar", "instalacion"),
            ("restablezco", "restablecer"),
            ("pedido", "pedidos"),
            ("limpiarla", "limpiado"),
        ] {
            assert!(are(Language::Spanish, one, two), "{one} {two}");
        }
    }

    #[test]
    fn words_that_only_begin_alike_are_not() {
        for (one, two) in [
            ("interest", "internet"),
            ("transfer", "transform"),
            ("contract", "contrast"),
            ("thinkpad", "thinkbook"),
            ("container", "contact"),
            ("process", "processor"),
            ("print", "printer"),
            ("deposit", "depositor"),
            ("training", "trainer"),
            ("experiment", "experience"),
            ("plan", "plane"),
            ("plan", "plant"),
            ("part", "party"),
            ("star", "start"),
            ("bran", "brand"),
            ("general", "generator"),
            ("application", "appliance"),
            ("barceldim", "barcelfog"),
        ] {
            assert!(!are(Language::English, one, two), "{one} {two}");
        }
        for (one, two) in [
            ("cartera", "cartel"),
            ("documento", "documental"),
            ("internet", "interes"),
            ("plancha", "planta"),
        ] {
            assert!(!are(Language::Spanish, one, two), "{one} {two}");
        }
    }
}
