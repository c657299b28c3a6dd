//! Where the speaker stands in what a text says: as the one who acts, or as the one to whom something is done.

use super::language::Language;
use super::word_list::WordList;
use super::words::TextWords;

/// The parts of the speaker and of passive verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Speaker {
    /// `I pay`, `pago`.
    pub(super) is_subject: bool,
    /// `pays me`, `me paga`.
    pub(super) is_object: bool,
    /// The one who is asked is named: `you`, `usted`.
    pub(super) has_addressee: bool,
    /// Another one acts: `can the bank`, `puede mi mujer`.
    pub(super) has_other_subject: bool,
    /// A verb is passive: subject and object have changed places.
    pub(super) is_passive: bool,
}

const ENGLISH_SUBJECT: [&str; 2] = ["i", "we"];
const ENGLISH_OBJECT: [&str; 2] = ["me", "us"];
const SPANISH_SUBJECT: [&str; 10] =
    ["yo", "tengo", "quiero", "puedo", "debo", "necesito", "podemos", "queremos", "tenemos", "nosotros"];
const SPANISH_OBJECT: [&str; 2] = ["me", "nos"];
const SPANISH_ADDRESSEE: [&str; 9] =
    ["te", "os", "le", "les", "tu", "vosotros", "vosotras", "usted", "ustedes"];
const AUXILIARIES: [&str; 18] = [
    "can", "could", "may", "must", "should", "will", "would", "do", "does", "did", "puede", "pueden", "debe",
    "deben", "podria", "deberia", "tiene", "va",
];
const SUBJECT_OPENINGS: [&str; 14] =
    ["the", "a", "an", "my", "our", "el", "la", "los", "las", "un", "una", "mi", "mis", "nuestro"];
const TO_BE: [&str; 15] = [
    "is", "are", "was", "were", "been", "be", "being", "get", "gets", "got", "es", "son", "sido", "fue",
    "fueron",
];

/// Reads the speaker's part.
pub(super) fn speaker(words: &TextWords<'_>) -> Speaker {
    let has = |list: &[&str]| (0..words.len()).any(|at| words.is_one_of(at, list));
    let has_other_subject = (1..words.len())
        .any(|at| words.is_one_of(at - 1, &AUXILIARIES) && words.is_one_of(at, &SUBJECT_OPENINGS));
    match words.language {
        Language::English => Speaker {
            is_subject: has(&ENGLISH_SUBJECT),
            is_object: has(&ENGLISH_OBJECT),
            has_addressee: has(&["you"]),
            has_other_subject,
            is_passive: (0..words.len()).any(|at| {
                words.is_one_of(at, &TO_BE) && is_participle_near(words, at, &["ed", "en", "id", "nt", "ld"])
            }),
        },
        Language::Spanish => Speaker {
            is_subject: has(&SPANISH_SUBJECT) || (0..words.len()).any(|at| is_first_person(words, at)),
            is_object: has(&SPANISH_OBJECT),
            has_addressee: has(&SPANISH_ADDRESSEE),
            has_other_subject,
            is_passive: (0..words.len()).any(|at| {
                words.is_one_of(at, &TO_BE)
                    && is_participle_near(words, at, &["ado", "ada", "ido", "ida", "ados", "adas"])
            }),
        },
    }
}

fn is_participle_near(words: &TextWords<'_>, at: usize, endings: &[&str]) -> bool {
    (at + 1..at + 6).any(|place| {
        let word = words.word(place);
        word.len() > 3
            && endings.iter().any(|ending| word.ends_with(ending))
            && !words.is_in(place, WordList::FunctionWords)
    })
}

/// `pago`, `pagamos`: a known verb in the first person.
fn is_first_person(words: &TextWords<'_>, at: usize) -> bool {
    let word = words.word(at);
    let is_after_article = at > 0
        && words.is_one_of(at - 1, &["el", "un", "del", "al", "su", "mi", "este", "de", "en", "por", "con"]);
    (word.ends_with('o') || word.ends_with("mos"))
        && !is_after_article
        && words.form_in(at, WordList::Verbs).is_some()
}
