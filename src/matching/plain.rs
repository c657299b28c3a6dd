//! The plain form of a question: equal for questions that differ only in what cannot change what is asked.
//!
//! Joined are: composed and decomposed letters (Unicode NFC), the kinds and number of spaces, typographic apostrophes, the
//! capital that a sentence begins with where its first word is one of a closed list, a final full stop, and the question
//! marks of a sentence that begins as only questions do. Nothing else: an accent makes another word, and so may a capital
//! (`Polish`, `US`); `it works` and `it works?` are two things to say.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

/// Longer texts are taken as they are: they are documents, not questions, and compared by their bytes.
const PLAIN_BYTES_MAX: usize = 2048;

/// Letters below it are composed: the first that may join the one before it (Unicode Annex 15, section 9).
const COMBINING_MIN: char = '\u{300}';

/// Words that ask, in English and Spanish; a sentence that begins with one is a question with or without its mark.
const ASKING: [&str; 30] = [
    "what", "what's", "which", "who", "who's", "whom", "whose", "where", "where's", "when", "why", "how",
    "how's", "qué", "cuál", "cuáles", "quién", "quiénes", "dónde", "cuándo", "cómo", "cuánto", "cuánta",
    "cuántos", "cuántas", "adónde", "does", "did", "is", "are",
];

/// Words that mean the same with and without a capital at the beginning of a sentence.
const BEGINNING: [&str; 26] = [
    "do", "can", "could", "should", "would", "the", "a", "an", "please", "tell", "explain", "give", "show",
    "list", "if", "my", "i'm", "there", "por", "para", "puedo", "puedes", "dime", "explica", "el", "la",
];

/// The plain form; none for a text that may be more than prose, where every byte may matter: one with line breaks,
/// quotes, code or symbols.
pub fn plain(text: &str) -> Option<String> {
    if text.len() > PLAIN_BYTES_MAX || !text.chars().all(is_prose) || quotes(text) {
        return None;
    }
    let composed = composed(text);
    let words: Vec<&str> = composed.split_whitespace().collect();
    let joined = words.join(" ");
    let (body, mark) = without_marks(&joined);
    let (first, rest) = match body.split_once(' ') {
        Some((first, rest)) => (first, Some(rest)),
        None => (body, None),
    };
    let first = uncapitalised(first);
    let asks = ASKING.contains(&first.as_str());
    // An auxiliary may also begin a request or a name; only with more words after it does a question follow.
    let mark = if asks && rest.is_some() && mark.is_empty() { "?" } else { mark };
    let form = match rest {
        Some(rest) => format!("{first} {rest}{mark}"),
        None => format!("{first}{mark}"),
    };
    (!body.is_empty()).then_some(form)
}

/// Letters composed, and apostrophes as they are typed.
fn composed(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c < COMBINING_MIN) {
        return Cow::Borrowed(text);
    }
    text.nfc().map(|c| if c == '’' { '\'' } else { c }).collect()
}

fn is_prose(c: char) -> bool {
    // Categories by what std knows: letters and digits of any script, their combining marks, spaces, a few signs.
    c.is_alphanumeric()
        || unicode_normalization::char::is_combining_mark(c)
        || matches!(c, ' ' | '\u{a0}' | '\u{202f}')
        || matches!(c, '.' | ',' | ';' | '?' | '!' | '¿' | '¡' | '\'' | '’' | '-' | '(' | ')')
        || matches!(c, '%' | '€' | '$' | '£' | '&' | '/')
}

/// Whether an apostrophe stands where none belongs, at the edge of a word: it is a quotation mark, and what it quotes may be
/// asked about letter by letter. So may what follows a colon, which is no prose here.
fn quotes(text: &str) -> bool {
    let is_within = |at: usize, len: usize| {
        let (before, after) = (text[..at].chars().next_back(), text[at + len..].chars().next());
        [before, after].iter().all(|c| c.is_some_and(char::is_alphanumeric))
    };
    text.match_indices(['\'', '’']).any(|(at, mark)| !is_within(at, mark.len()))
}

/// The text without the marks around a single question or the full stop of a single sentence, and which mark it had.
fn without_marks(text: &str) -> (&str, &'static str) {
    let opened = text.strip_prefix('¿').map(str::trim_start);
    if let Some(body) = opened.unwrap_or(text).strip_suffix('?').map(str::trim_end)
        && !body.contains(['?', '¿', '!', '¡', '.'])
    {
        return (body, "?");
    }
    match text.strip_suffix('.') {
        // Neither an ellipsis nor the stop of an abbreviation: `etc.` alone is no sentence.
        Some(body) if !body.contains(['.', '?', '!', '¿', '¡']) && body.contains(' ') => {
            (body.trim_end(), "")
        }
        Some(_) | None => (text, ""),
    }
}

/// The first word of a sentence without its capital, if it is a word that has none elsewhere.
fn uncapitalised(word: &str) -> String {
    let mut chars = word.chars();
    let Some(first) = chars.next() else { return String::new() };
    let lower: String = first.to_lowercase().chain(chars).collect();
    let is_listed = ASKING.contains(&lower.as_str()) || BEGINNING.contains(&lower.as_str());
    if is_listed { lower } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_the_question_is_joined() {
        for (one, two) in [
            ("What is the capital of France?", "what is  the capital of France"),
            ("What is the capital of France?", " What is the capital of France ? "),
            ("¿Cómo cambio mi PIN?", "cómo cambio mi PIN"),
            ("¿Cómo cambio mi PIN?", "Co\u{301}mo cambio mi PIN?"),
            ("How do I top up?", "How do I\u{a0}top up?"),
            ("What’s my balance?", "what's my balance?"),
            ("Tell me about Spain.", "tell me about Spain"),
        ] {
            assert_eq!(plain(one).unwrap(), plain(two).unwrap(), "{one} / {two}");
        }
    }

    #[test]
    fn what_may_change_it_is_not() {
        for (one, two) in [
            ("cuántos años tienes", "cuántos anos tienes"),
            ("you are coming", "you are coming?"),
            ("it works.", "it works?"),
            ("Do it now", "do it now?"),
            ("Polish furniture", "polish furniture"),
            ("call US now", "call us now"),
            ("Apple price", "apple price"),
            ("WHO is responsible", "who is responsible"),
            ("what is 5-3", "what is 53"),
            ("what is 1.5", "what is 15"),
            ("lets eat, grandma", "lets eat grandma"),
            ("hello, what is my balance", "what is my balance"),
            ("Is", "is?"),
            ("stop!", "stop"),
            ("wait...", "wait"),
        ] {
            assert_ne!(plain(one), plain(two), "{one} / {two}");
        }
    }

    #[test]
    fn what_may_be_more_than_prose_has_no_plain_form() {
        let long = "a ".repeat(2000);
        for text in [
            "if a:\n    b",
            "is it 'a  b'?",
            "correct it: he left.",
            "say \"yes  no\"",
            "`x`",
            "a\tb",
            "x = 1",
            "",
            "  ",
            "{}",
            long.as_str(),
        ] {
            assert_eq!(plain(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_plain_form_is_its_own_plain_form() {
        for text in ["¿Qué hora es?", "What is this", "Show the map.", "a. b. c.", "is it?", "???"] {
            if let Some(form) = plain(text) {
                assert_eq!(plain(&form).as_deref(), Some(form.as_str()), "{text}");
            }
        }
    }
}
