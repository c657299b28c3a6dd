//! Questions whose answer must not be served to a question in other words, whatever the two have in common.

use unicode_normalization::UnicodeNormalization as _;

use super::content_words::content_words;
use super::fillers::fillers;
use super::language::Language;
use super::lexicon::Lexicon;
use super::mentions::mentions;
use super::request_shape::{RequestShape, begins_clause, request_shape};
use super::tokens::{TEXT_CHARS_MAX, Token, TokenForm};
use super::word_list::WordList;
use super::words::TextWords;
use crate::labels::label_enum;

label_enum! {
    /// Why a question is matched by its exact words only.
    pub enum ExactOnlyReason {
        /// It is longer than 1,000 characters.
        TooLong = "too_long",
        /// It is about the words of a text: their number, spelling, translation.
        AboutItsWords = "about_its_words",
        /// It leans on an earlier question: `and the other one?`
        LeansOnEarlier = "leans_on_earlier",
        /// It asks to change something that belongs to the user: `cancel my order`.
        ChangesState = "changes_state",
        /// It asks for several things.
        SeveralRequests = "several_requests",
        /// It has letters or signs that the guard does not compare: other alphabets, symbols, emoji.
        UnknownLetters = "unknown_letters",
        /// It is in a language whose words are not known here.
        UnknownLanguage = "unknown_language",
        /// Its answer changes with time: `the current price`.
        ChangesWithTime = "changes_with_time",
    }
}

/// The longest remainder of a question that only an opening such as `is it` makes lean on an earlier one, in words.
const LEANING_REST_MAX: usize = 3;
/// How many words a text has at least whose language is judged by its words alone; and a question.
const UNKNOWN_WORDS_MIN: usize = 4;
const UNKNOWN_QUESTION_WORDS_MIN: usize = 3;
/// How far into a text a second question begins at least, in words.
const SECOND_QUESTION_MIN: usize = 4;

/// Why a question must be matched by its exact words. `None` if nothing here speaks against other words.
pub(super) fn exact_only_reason(lexicon: &Lexicon, question: &str) -> Option<ExactOnlyReason> {
    if question.chars().nth(TEXT_CHARS_MAX).is_some() {
        return Some(ExactOnlyReason::TooLong);
    }
    if !question.chars().all(is_compared) {
        return Some(ExactOnlyReason::UnknownLetters);
    }
    let words = TextWords::read(lexicon, question);
    let is_filler = fillers(&words);
    let has = |list| (0..words.len()).any(|at| !is_filler[at] && words.phrase_in(at, list).is_some());
    if is_of_unknown_language(question, &words) {
        Some(ExactOnlyReason::UnknownLanguage)
    } else if has(WordList::TextForms) {
        Some(ExactOnlyReason::AboutItsWords)
    } else if asks_twice(question, &words, &is_filler) {
        Some(ExactOnlyReason::SeveralRequests)
    } else if leans(&words, &is_filler) {
        Some(ExactOnlyReason::LeansOnEarlier)
    } else if changes_state(&words, &is_filler) {
        Some(ExactOnlyReason::ChangesState)
    } else if has(WordList::LiveFacts) || has(WordList::Freshness) {
        Some(ExactOnlyReason::ChangesWithTime)
    } else {
        None
    }
}

/// Whether a character is one that the guard compares: Latin letters, digits, and the marks of prose. An embedding model may not tell others
/// apart: what it has no token for is one unknown token.
fn is_compared(c: char) -> bool {
    let is_latin = c.is_alphabetic() && c <= '\u{24f}';
    let is_mark_on_letter = ('\u{300}'..='\u{36f}').contains(&c);
    is_latin
        || is_mark_on_letter
        || c.is_ascii()
        || c.is_whitespace()
        || "¿¡‘’‚“”„«»…–—−·•€£¥¢°ºª²³½¼¾×÷±™®©§".contains(c) // `signs` compares them
}

/// Whether a text is in another language, as far as its words and letters tell: function words of others, letters that its own has not,
/// or hardly a word that is known.
fn is_of_unknown_language(question: &str, words: &TextWords<'_>) -> bool {
    // Names may have foreign words: `Le Monde`.
    let is_plain = |at: &usize| {
        let token = &words.tokens[*at];
        token.form == TokenForm::Word && (!token.is_capitalized || token.is_first)
    };
    let plain: Vec<usize> = (0..words.len()).filter(is_plain).collect();
    let is_foreign = |at: &&usize| {
        words.is_in(**at, WordList::ForeignWords)
            || has_foreign_letters(words.language, words.tokens[**at].span.of(question))
    };
    let is_own = |at: &&usize| words.is_in(**at, WordList::FunctionWords) && !is_foreign(at);
    let own = plain.iter().filter(is_own).count();
    let foreign = plain.iter().filter(is_foreign).count();
    if 2 * foreign > own {
        return true;
    }
    let is_known = |at: &&usize| {
        let token = &words.tokens[**at];
        words.phrases_at(**at).next().is_some() || words.lexicon.is_known(words.language, token.stem)
    };
    // Other languages have words in common with English by chance: `is`, `on`. Keywords have no function words at all.
    let own_max = usize::from(words.language == Language::English);
    let words_min = if question.contains('?') { UNKNOWN_QUESTION_WORDS_MIN } else { UNKNOWN_WORDS_MIN };
    let is_long_enough = own <= own_max && plain.len() >= words_min;
    let known = plain.iter().filter(is_known).count();
    // `impresora repuestos` is too short to be known as Spanish, and must not be compared as English.
    let says_nothing = own == 0 && known == 0 && !plain.is_empty();
    says_nothing || is_long_enough && 2 * known < plain.len()
}

/// Whether a word has letters that words of a language, and those that it has borrowed, have not; or is one letter with an accent.
fn has_foreign_letters(language: Language, word: &str) -> bool {
    let known = match language {
        Language::English => "áàâäéèêëíìîïóòôöúùûüñç",
        Language::Spanish => "áéíóúüñ",
    };
    let mut letters = word.nfc().flat_map(char::to_lowercase).filter(|c| c.is_alphabetic());
    let (first, second) = (letters.next(), letters.next());
    let is_known = |c: &char| c.is_ascii() || known.contains(*c);
    let is_one_accented = second.is_none() && first.is_some_and(|c| !c.is_ascii());
    is_one_accented || first.into_iter().chain(second).chain(letters).any(|c| !is_known(&c))
}

fn leans(words: &TextWords<'_>, is_filler: &[bool]) -> bool {
    let Some(first) = (0..words.len()).find(|&at| !is_filler[at]) else { return false };
    if let Some((phrase, len)) = words.phrase_in(first, WordList::LeaningOpenings) {
        let rest = words.len() - first - len;
        let rest_max = if len == 1 { 0 } else { LEANING_REST_MAX };
        if &*phrase.words == "always" || rest <= rest_max {
            return true;
        }
    }
    has_only_pronouns(words, is_filler)
}

/// `How do I cancel it?`: a pronoun, and no noun that it could stand for.
fn has_only_pronouns(words: &TextWords<'_>, is_filler: &[bool]) -> bool {
    // `¿Dónde está mi pedido?` has a verb, written with its accent or not.
    let is_verb = |at| words.is_one_of(at, &["esta"]) && words.is_in(at + 1, WordList::FunctionWords);
    let has_pronoun = (0..words.len()).any(|at| words.is_in(at, WordList::Pronouns) && !is_verb(at));
    let mentions = mentions(words, is_filler);
    if !has_pronoun || !mentions.is_empty() {
        return false;
    }
    let letters = vec![super::tokens::Span::default(); words.len()];
    let content = content_words(words, &[], &mentions, is_filler, &letters);
    content.iter().filter(|word| !word.is_light).count() <= 1
}

/// A request or a wish with a verb that changes something, and something of the user's that it changes.
fn changes_state(words: &TextWords<'_>, is_filler: &[bool]) -> bool {
    let has_object = (0..words.len()).any(|at| words.form_in(at, WordList::ChangeObjects).is_some());
    if !has_object || matches!(request_shape(words, is_filler), RequestShape::HowTo(_)) {
        return false;
    }
    (0..words.len()).any(|at| {
        let opening = [WordList::Wishes, WordList::RequestOpenings]
            .into_iter()
            .filter_map(|list| words.phrase_in(at, list).map(|(_, len)| len))
            .max();
        let is_start = !is_filler[at] && begins_clause(words, is_filler, at);
        let is_opened = opening.is_some();
        let verb = at + opening.unwrap_or(0);
        let verb = verb + usize::from(is_opened && words.is_one_of(verb, &["me", "nos", "to"]));
        (is_start || is_opened) && is_change(words, verb, is_opened)
    })
}

fn is_change(words: &TextWords<'_>, at: usize, is_opened: bool) -> bool {
    if words.phrase_in(at, WordList::ChangeVerbs).is_some_and(|(_, len)| len > 1) {
        return true; // `dar de baja`
    }
    let is_noun = words.is_one_of(at + 1, &["of", "is", "are", "de", "del", "es"]);
    let is_listed = words.is_in(at, WordList::ChangeVerbs);
    !is_noun
        && (is_listed
            || is_opened && words.form_in(at, WordList::ChangeVerbs).is_some()
            || is_spanish_imperative(words, at))
}

/// `cancela`, `cancélame`: the list has infinitives.
fn is_spanish_imperative(words: &TextWords<'_>, at: usize) -> bool {
    let is_form = words.word(at).ends_with(['a', 'e', 'd', 'n', 'o']) && !words.word(at).ends_with("cion");
    words.language == Language::Spanish && is_form && words.form_in(at, WordList::ChangeVerbs).is_some()
}

/// Two question marks with words between them, or a second question behind `and`.
fn asks_twice(question: &str, words: &TextWords<'_>, is_filler: &[bool]) -> bool {
    let asked = question.split(['?', '\u{ff1f}']).filter(|part| part.split_whitespace().count() >= 2);
    if question.matches('?').count() >= 2 && asked.count() >= 2 {
        return true;
    }
    let is_asking = |at: usize| {
        let is_word = words.is_one_of(
            at,
            &[
                "what", "which", "how", "where", "when", "why", "who", "can", "que", "cual", "como",
                "cuanto", "cuando", "donde", "quien",
            ],
        );
        is_word || words.phrase_in(at, WordList::HowToOpenings).is_some()
    };
    let first = (0..words.len()).find(|&at| !is_filler[at] && is_asking(at));
    let is_and = |token: &Token| {
        token.form == TokenForm::Word && matches!(token.word.as_str(), "and" | "y" | "also" | "tambien")
    };
    first.is_some_and(|first| {
        (first + SECOND_QUESTION_MIN..words.len()).any(|at| is_asking(at) && is_and(&words.tokens[at - 1]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_in_both_languages() {
        use ExactOnlyReason::*;
        let lexicon = Lexicon::builtin();
        for (question, expected) in [
            ("What is the current price of copper?", Some(ChangesWithTime)),
            ("What is in today's menu?", Some(ChangesWithTime)),
            ("¿Qué tiempo hace hoy en Lugo?", Some(ChangesWithTime)),
            ("¿Está abierta ahora la biblioteca?", Some(ChangesWithTime)),
            ("Cancel my order", Some(ChangesState)),
            ("I want to delete my account", Some(ChangesState)),
            ("Hi, could you please change my appointment to Friday?", Some(ChangesState)),
            ("Cancela mi pedido, por favor", Some(ChangesState)),
            ("Quiero dar de baja mi cuenta", Some(ChangesState)),
            ("How do I delete my account?", None),
            ("¿Cómo cancelo mi pedido?", None),
            ("And the other one?", Some(LeansOnEarlier)),
            ("What about that?", Some(LeansOnEarlier)),
            ("Is it free?", Some(LeansOnEarlier)),
            ("How do I cancel it?", Some(LeansOnEarlier)),
            ("¿Y el otro?", Some(LeansOnEarlier)),
            ("¿Y en Francia?", Some(LeansOnEarlier)),
            ("¿Cómo lo cancelo?", Some(LeansOnEarlier)),
            ("¿Dónde está la catedral?", None),
            ("donde esta la catedral", None),
            ("Is it safe to drink tap water in Peru?", None),
            ("How many words does this have: to be or not to be", Some(AboutItsWords)),
            ("Translate this sentence into French", Some(AboutItsWords)),
            ("Correct my spelling, please", Some(AboutItsWords)),
            ("Corrige la ortografía de mi carta", Some(AboutItsWords)),
            ("What does the regex a+b match?", Some(AboutItsWords)),
            ("Where is the museum? How much is a ticket?", Some(SeveralRequests)),
            ("What does the museum cost and where is it?", Some(SeveralRequests)),
            ("¿Cuánto cuesta la entrada y dónde se compra?", Some(SeveralRequests)),
            ("When and where was the museum built?", None),
            ("Which documents does a visa for Kenya need?", None),
            ("¿Qué documentos exige un visado para Kenia?", None),
            ("Comment puis-je annuler ma commande ?", Some(UnknownLanguage)),
            ("Est-ce que je ne peux pas annuler ?", Some(UnknownLanguage)),
            ("Wie kann ich meine Bestellung stornieren?", Some(UnknownLanguage)),
            ("Come posso annullare il mio ordine?", Some(UnknownLanguage)),
            ("Como posso cancelar o meu pedido?", Some(UnknownLanguage)),
            ("Qual é o prazo de entrega da minha encomenda?", Some(UnknownLanguage)),
            ("Hoe kan ik mijn bestelling annuleren?", Some(UnknownLanguage)),
            ("Com puc anular la meva comanda?", Some(UnknownLanguage)),
            ("Jak anulować moje zamówienie?", Some(UnknownLanguage)),
            ("Hur avbokar jag min order?", Some(UnknownLanguage)),
            ("Bagaimana cara membatalkan pesanan", Some(UnknownLanguage)),
            ("Kdy máte otevřeno?", Some(UnknownLanguage)),
            ("Kuidas tellimust tühistada?", Some(UnknownLanguage)),
            ("Siparişimi iptal edemiyorum", Some(UnknownLanguage)),
            ("impresora repuestos", Some(UnknownLanguage)),
            ("printer warranty", None),
            ("O envio é grátis?", Some(UnknownLanguage)),
            ("Where is the café of the museum?", None),
            ("¿Dónde está el pingüino de peluche?", None),
            ("Where can I read Le Monde?", None),
            ("reset password android app", None),
            ("horario tienda centro ciudad", None),
            ("", None),
        ] {
            assert_eq!(exact_only_reason(&lexicon, question), expected, "{question}");
        }
        assert_eq!(exact_only_reason(&lexicon, &"a ".repeat(600)), Some(TooLong));
    }
}
