//! Whether a text asks how something is done, asks to do it, or neither.

use super::tokens::Span;
use super::word_list::WordList;
use super::words::TextWords;

/// What a text wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestShape {
    /// To learn how something is done.
    HowTo(Span),
    /// That something is done.
    Act(Span),
    /// Anything else.
    Other,
}

/// How many tokens before the verb of a request are looked at.
const OPENING_TOKENS: usize = 10;

/// The shape of a text. `is_filler` marks greetings and politeness.
pub(super) fn request_shape(words: &TextWords<'_>, is_filler: &[bool]) -> RequestShape {
    if let Some(span) = how_to(words) {
        return RequestShape::HowTo(span);
    }
    let starts = (0..words.len()).filter(|&at| !is_filler[at] && begins_clause(words, is_filler, at));
    starts.take(8).find_map(|at| act_at(words, is_filler, at)).map_or(RequestShape::Other, RequestShape::Act)
}

/// Whether only fillers stand between the start of a sentence and a place.
pub(super) fn begins_clause(words: &TextWords<'_>, is_filler: &[bool], at: usize) -> bool {
    let mut back = at;
    loop {
        if back == 0 || words.tokens[back].is_first {
            return true;
        }
        back -= 1;
        if !is_filler[back] {
            return false;
        }
    }
}

fn how_to(words: &TextWords<'_>) -> Option<Span> {
    let (start, end) = how_to_opening(words)?;
    Some(words.tokens[start].span.to(words.tokens[end - 1].span))
}

/// The tokens by which a text asks how something is done: where they begin, and where what is done begins.
pub(super) fn how_to_opening(words: &TextWords<'_>) -> Option<(usize, usize)> {
    (0..words.len()).find_map(|at| match words.phrase_in(at, WordList::HowToOpenings) {
        Some((_, len)) => Some((at, at + len)),
        None => is_spanish_how(words, at).then_some((at, at + 1)),
    })
}

/// `cómo cancelo`, where `cómo es`, `cómo está` and `tan ... como` ask something else.
fn is_spanish_how(words: &TextWords<'_>, at: usize) -> bool {
    let token = &words.tokens[at];
    let is_opening = at == 0 || token.is_after_break || token.is_first;
    let is_state = words.is_one_of(
        at + 1,
        &[
            "es", "esta", "estan", "son", "era", "fue", "va", "van", "ha", "han", "estas", "sera", "el",
            "la", "los", "las", "un", "una",
        ],
    );
    token.word == "como" && is_opening && !is_state && at + 1 < words.len()
}

/// The verb of a request that begins at a place.
fn act_at(words: &TextWords<'_>, is_filler: &[bool], at: usize) -> Option<Span> {
    let opening = words.phrase_in(at, WordList::RequestOpenings).map(|(_, len)| len);
    let start = at + opening.unwrap_or(0);
    let verb = (start..words.len().min(at + OPENING_TOKENS)).find(|&place| !is_filler[place])?;
    let is_object = words.is_one_of(verb, &["me", "nos", "te", "le", "lo", "la", "os"]) && opening.is_some();
    let verb = verb + usize::from(is_object);
    let token = words.get(verb)?;
    if words.form_in(verb, WordList::AskingVerbs).is_some() {
        return None;
    }
    let is_verb = match opening {
        Some(_) if words.is_one_of(verb - 1, &["to"]) && words.is_one_of(verb - 2, &["you"]) => true,
        Some(_) => words.form_in(verb, WordList::Verbs).is_some(),
        None => is_imperative(words, verb),
    };
    is_verb.then_some(token.span)
}

/// Whether a word at the start of a clause is an imperative.
fn is_imperative(words: &TextWords<'_>, at: usize) -> bool {
    match words.language {
        super::language::Language::English => {
            words.is_in(at, WordList::Verbs) && !words.is_one_of(at + 1, &["of", "is", "are", "was", "for"])
        }
        super::language::Language::Spanish => {
            let is_noun = words.is_one_of(at + 1, &["de", "del", "es", "son"]);
            let word = words.word(at);
            let is_form = word.ends_with(['a', 'e', 'd', 'n']) || word.ends_with("lo") || word.ends_with("z");
            is_form && !is_noun && !word.ends_with("cion") && words.form_in(at, WordList::Verbs).is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::fillers::fillers;
    use crate::matching::guard::lexicon::Lexicon;

    fn shape(text: &str) -> &'static str {
        let lexicon = Lexicon::builtin();
        let words = TextWords::read(&lexicon, text);
        match request_shape(&words, &fillers(&words)) {
            RequestShape::HowTo(_) => "how",
            RequestShape::Act(_) => "act",
            RequestShape::Other => "other",
        }
    }

    #[test]
    fn asking_how_and_asking_to_do() {
        for (text, expected) in [
            ("How do I cancel my flight?", "how"),
            ("Hi, could you explain how to cancel a flight?", "how"),
            ("What are the steps to cancel a flight?", "how"),
            ("Cancel my flight", "act"),
            ("Hello, please cancel my flight.", "act"),
            ("Can you cancel my flight?", "act"),
            ("I want you to cancel my flight", "act"),
            ("When does my flight leave?", "other"),
            ("Show me flights to Rome", "other"),
            ("¿Cómo cancelo mi vuelo?", "how"),
            ("Cancela mi vuelo, por favor", "act"),
            ("Buenas, cancélame el vuelo", "act"),
            ("Quiero que canceléis mi vuelo", "act"),
            ("¿Cómo está mi vuelo?", "other"),
            ("Enséñame vuelos a Roma", "other"),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }
}
