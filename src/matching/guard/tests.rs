//! The guard on pairs of questions, and on any text. Goal: each kind of trap is seen in both languages and paraphrases pass, in other
//! domains than those that the rules were written for; nothing panics, and both orders of two questions conflict alike. Method: a
//! table of pairs of our own (CC0) in `tests/pairs.txt`, and random texts made of the words that the rules look at.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

static GUARD: LazyLock<Guard> = LazyLock::new(|| Guard::new(Lexicon::builtin()));

/// A pair of the table: `kind | language | known gap or empty | first | second`, of kind `same` for paraphrases.
struct Pair {
    kind: &'static str,
    language: &'static str,
    is_gap: bool,
    questions: [&'static str; 2],
}

fn pairs() -> Vec<Pair> {
    let lines =
        include_str!("tests/pairs.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pair = |line: &'static str| {
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        let [kind, language, gap, first, second] = fields[..] else { panic!("{line}") };
        Pair { kind, language, is_gap: gap == "gap", questions: [first, second] }
    };
    lines.map(pair).collect()
}

fn vetoed(strictness: Strictness, questions: [&str; 2]) -> bool {
    let [first, second] = questions.map(|question| GUARD.features(question));
    GUARD.veto(strictness, &first, &second).is_some()
}

#[test]
fn traps_are_vetoed_and_paraphrases_pass() {
    let mut wrong = Vec::new();
    for pair in pairs() {
        let is_vetoed = vetoed(Strictness::Normal, pair.questions);
        let is_right = is_vetoed == (pair.kind != "same");
        if is_right == pair.is_gap {
            wrong.push(format!("{} {} {:?}", pair.kind, pair.language, pair.questions));
        }
    }
    assert!(wrong.is_empty(), "{} pairs, or gaps that are closed:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn other_things_are_suspected_in_other_words_too() {
    for [first, second] in [
        ["Is the travel pillow waterproof?", "Can the tumble dryer get wet?"],
        ["What extras can I get for the phone case?", "What extras can I get for the sound bar?"],
        ["Can the suitcase get wet?", "Can the laptop bag get wet?"],
        ["How do I return the kettle?", "What is the way to return the toaster?"],
        ["¿Cuál es el peso del acuario?", "¿Cuánto pesa la maleta?"],
        ["¿Se puede mojar mi chaqueta de esquí?", "¿Resiste el agua mi bota de montaña?"],
    ] {
        assert!(vetoed(Strictness::Strict, [first, second]), "{first} {second}");
    }
    for [first, second] in [
        ["Is the travel pillow waterproof?", "Does the travel pillow resist water?"],
        ["How much does the parcel weigh?", "What is the weight of my parcel?"],
        ["Which is the closest branch to me?", "Where is my nearest branch?"],
        ["¿Cuál es el peso del acuario?", "¿Cuánto pesa mi acuario?"],
    ] {
        assert!(!vetoed(Strictness::Strict, [first, second]), "{first} {second}");
    }
}

#[test]
fn names_and_numbers_in_another_order_ask_something_else() {
    for [first, second] in [
        ["Does the iPhone 15 case fit the iPhone 15 Pro?", "Does the iPhone 15 Pro case fit the iPhone 15?"],
        [
            "Is the Canon R5 battery compatible with the Canon R6?",
            "Is the Canon R6 battery compatible with the Canon R5?",
        ],
        ["¿El mando de la PS5 funciona en la PS4?", "¿El mando de la PS4 funciona en la PS5?"],
        [
            "Does the Kindle cover fit the Kindle Paperwhite?",
            "Does the Kindle Paperwhite cover fit the Kindle?",
        ],
    ] {
        assert!(vetoed(Strictness::Normal, [first, second]), "{first} {second}");
    }
    for [first, second] in [
        ["Do you deliver to Lima and Quito?", "Do you deliver to Quito and Lima?"],
        ["¿La chaqueta es impermeable?", "¿Es impermeable la chaqueta?"],
        ["¿Es compatible el ratón con Mac?", "¿El ratón es compatible con Mac?"],
        ["Does the jacket have a zip?", "Is there a zip on the jacket?"],
    ] {
        assert!(!vetoed(Strictness::Strict, [first, second]), "{first} {second}");
    }
}

#[test]
fn strictness_adds_vetoes_only() {
    for pair in pairs() {
        let normal = vetoed(Strictness::Normal, pair.questions);
        assert!(!normal || vetoed(Strictness::Strict, pair.questions), "{:?}", pair.questions);
    }
}

/// A writer who uses no capital letters and no accents asks the same. Not so where a capital letter carries the meaning: sizes, names
/// of one letter, abbreviations.
#[test]
fn a_question_in_small_letters_without_accents_is_the_same() {
    let is_folded_away = |question: &&str| {
        let mut words = question.split(|c: char| !c.is_alphanumeric());
        let is_capital = |word: &str| !word.is_empty() && word.chars().all(char::is_uppercase);
        question.contains(['½', '¼', '²']) || words.any(|word| word != "I" && is_capital(word))
    };
    let mut vetoed_pairs = Vec::new();
    for question in pairs().iter().flat_map(|pair| pair.questions).filter(|text| !is_folded_away(text)) {
        let plain = folding::fold(question);
        let [one, two] = [question, &plain].map(|text| GUARD.features(text));
        vetoed_pairs
            .extend(GUARD.veto(Strictness::Strict, &one, &two).map(|found| format!("{question} {found:?}")));
    }
    assert!(vetoed_pairs.is_empty(), "{}", vetoed_pairs.join("\n"));
}

/// Capital letters and accents make other words only in the texts of writers who use them.
#[test]
fn other_words_of_the_same_letters_are_strong_conflicts() {
    for questions in [
        ["Does the US pay for the trip?", "Does the trip pay for us?"],
        ["How do I clean windows?", "How do I clean Windows?"],
        ["¿Cuántos años tiene usted?", "¿Cuántos anos tiene usted?"],
        ["¿Cuándo pasó la revisión?", "¿Cuándo paso la revisión?"],
        ["Does the iPhone 15 have a stylus?", "Does the iPhone 15 Pro have a stylus?"],
        ["How far is it from A to B?", "How far is it from B to A?"],
        ["Is the sum + tax?", "Is the sum tax?"],
    ] {
        assert!(vetoed(Strictness::Strict, questions), "{questions:?}");
        assert!(!vetoed(Strictness::Normal, questions), "{questions:?}");
    }
    for questions in [
        ["How do I clean Windows?", "how do i clean windows"],
        ["¿Cuántos años tiene usted?", "¿Cuantos anos tiene usted?"],
        ["¿Cómo pago? Dígame", "¿Como pago? Dígame"],
        ["Is there a plan for a family?", "Is there a family plan?"],
    ] {
        assert!(!vetoed(Strictness::Strict, questions), "{questions:?}");
    }
}

/// Kinds that a person who tried to deceive the rules found: who acts, what changes places, a part of a thing, duty against permission.
#[test]
fn what_is_done_to_whom_is_a_strong_conflict() {
    for questions in [
        ["Do I owe the bank money?", "Does the bank owe me money?"],
        ["Can my bank close my account?", "Can I close my bank account?"],
        ["¿Cuánto me debe la empresa?", "¿Cuánto debo a la empresa?"],
        ["How many accounts can a user have?", "How many users can an account have?"],
        ["What is 10 - 3?", "What is 3 - 10?"],
        ["Is a < b here?", "Is b < a here?"],
        ["What is (2 + 3) * 4?", "What is 2 + (3 * 4)?"],
        ["What does i++ do?", "What does ++i do?"],
        ["How do I delete ./tmp in Linux?", "How do I delete /tmp in Linux?"],
        ["How much is 1.500 kg in pounds?", "How much is 1,500 kg in pounds?"],
        ["What is CO in chemistry?", "What is Co in chemistry?"],
        ["How do I paint the door of a kitchen cabinet?", "How do I paint a kitchen cabinet?"],
        ["¿Cómo cambio la pantalla del portátil?", "¿Cómo cambio el portátil?"],
        ["Should I take aspirin before a flight?", "Can I take aspirin before a flight?"],
        ["Do I have to tip in Japan?", "Can I tip in Japan?"],
        ["¿Debo tomar aspirina antes de volar?", "¿Puedo tomar aspirina antes de volar?"],
        ["How often can I take ibuprofen?", "How long can I take ibuprofen?"],
        ["¿Qué causa el hipertiroidismo?", "¿Qué causa el hipotiroidismo?"],
        ["¿Cómo congelo mi tarjeta?", "¿Cómo anulo mi tarjeta?"],
        ["Is entry free only for adults?", "Is entry free for adults?"],
    ] {
        assert!(vetoed(Strictness::Strict, questions), "{questions:?}");
    }
    for questions in [
        [
            "How long does a parcel to Lyon from Berlin take?",
            "How long does a parcel take from Berlin to Lyon?",
        ],
        ["Is parking included in the price?", "Does the price include parking?"],
        ["Can I return an item?", "Can an item be returned?"],
        ["Is it possible to return an item?", "Can I return an item?"],
        ["How can I reset my password?", "How do I reset my password?"],
        ["Is it allowed to smoke on the balcony?", "Can I smoke on the balcony?"],
    ] {
        assert!(!vetoed(Strictness::Strict, questions), "{questions:?}");
    }
}

#[test]
fn a_conflict_names_what_conflicts() {
    let first = GUARD.features("Is the pool open on 3 June?");
    let second = GUARD.features("Is the pool open on 4 June?");
    let expected =
        Conflict { kind: ConflictKind::Date, strength: Strength::Certain, first: "3 June", second: "4 June" };
    assert_eq!(GUARD.conflicts(&first, &second), [expected]);
}

#[test]
fn words_of_an_operator_extend_the_guard() {
    let mut lexicon = Lexicon::builtin();
    lexicon.extend(Language::English, "synonyms", "wimble = drill").unwrap();
    let guard = Guard::new(lexicon);
    let questions = ["How do I sharpen the wimble of a bench?", "How do I sharpen the drill of a bench?"];
    let [first, second] = questions.map(|question| guard.features(question));
    assert_eq!(guard.veto(Strictness::Strict, &first, &second), None);
    assert!(vetoed(Strictness::Strict, questions));
}

#[test]
fn languages_are_compared_by_their_values() {
    assert!(vetoed(Strictness::Normal, ["Can I bring 2 bags?", "¿Puedo llevar 3 maletas?"]));
    assert!(!vetoed(Strictness::Normal, ["Can I bring two bags?", "¿Puedo llevar 2 maletas?"]));
}

/// Any text, and texts of the words and marks that the rules look at.
fn text() -> impl Strategy<Value = String> {
    let words = [
        "two", "dos", "mil", "hundred", "3", "1,000", "03/05", "14:00", "May", "de", "mayo", "kg", "$", "%",
        "not", "sin", "from", "to", "Paris", "E-104", "half", "y", "media", "a", "las", "first", "?", "\"",
        ",", "isn't", "v2.4", "US", "é", "ß", "9:30", "pm", "more", "than", "red", "all", "1.5", "million",
        "2nd", "º", "-", "¿", "cancel", "it", "un", "año", "eta", "<=", "-5", ".5", "½", "B", "us", "ano",
    ];
    let known =
        prop::collection::vec(prop::sample::select(words.to_vec()), 0..24).prop_map(|words| words.join(" "));
    prop_oneof!["\\PC{0,80}", any::<String>(), known.clone(), known]
}

/// Kinds and strengths of the conflicts of two texts.
fn found(first: &QuestionFeatures, second: &QuestionFeatures) -> Vec<(ConflictKind, Strength)> {
    GUARD.conflicts(first, second).iter().map(|conflict| (conflict.kind, conflict.strength)).collect()
}

proptest! {
    #[test]
    fn conflicts_are_symmetric_and_nothing_conflicts_with_itself(first in text(), second in text()) {
        let (one, two) = (GUARD.features(&first), GUARD.features(&second));
        prop_assert_eq!(found(&one, &two), found(&two, &one));
        prop_assert_eq!(found(&one, &one), vec![]);
        GUARD.exact_only(&first);
    }

    #[test]
    fn the_canonical_form_is_written_once(text in text()) {
        let CanonicalQuestion { text: canonical, language } = GUARD.canonical(&text);
        let again = canonical::canonical_text(&GUARD.lexicon, language, &canonical);
        prop_assert_eq!(canonical, again);
    }
}

#[test]
fn long_texts_of_anything_are_cheap() {
    let parts = [
        "1 ", "1,", "12-34 ", "no ", "ab1 ", "Aa ", "de ", "\"", "2 kg ", "3/5 ", "all ", "x", "é", "five ",
        "como ", "< ", "B ", "us ", "sí ",
    ];
    let features: Vec<_> = parts.iter().map(|part| GUARD.features(&part.repeat(2_000))).collect();
    let start = Instant::now();
    for one in &features {
        for two in &features {
            GUARD.conflicts(one, two);
        }
    }
    // 361 comparisons: a bound of the order of growth, not of speed.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
