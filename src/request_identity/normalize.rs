//! Normalizes a question by closed lists of words: equal for questions whose differences the lists show to be without meaning.
//!
//! The lists are never complete, so it takes an option to use them. Ignored are: composed and decomposed letters
//! (Unicode NFC), the kinds of spaces, those around the text, typographic apostrophes, the capital that a sentence begins
//! with where its first word is one of a closed list, the final full stop of an order, and the marks of what asks with or
//! without them. Nothing else: an accent makes another word, and so may a capital (`Polish`, `US`); `it works` and
//! `it works?` are two things to say, and the password may be `hunter2.`.

use std::borrow::Cow;
use std::cell::Cell;

use unicode_normalization::UnicodeNormalization as _;

use super::composition::{COMBINING_MIN, QUESTION_BYTES_MAX, is_itself_composed};
use super::json::Json;
use super::question_detection::{asks, is_asking};
use super::text_operations::mentions_text_operations;

/// Bytes of the scope that are searched.
const SCOPE_BYTES_MAX: usize = 64 * 1024;

/// Marks that end or open a sentence.
const MARKS: [char; 5] = ['.', '?', '!', '¿', '¡'];

/// Words that mean the same with and without a capital at the beginning of a sentence, unless a name begins with them: then
/// the next word has a capital too.
const BEGINNING: [&str; 24] = [
    "an", "could", "dime", "do", "el", "explain", "explica", "give", "i'm", "if", "la", "list", "my", "para",
    "please", "por", "puedes", "puedo", "should", "show", "tell", "the", "there", "would",
];

/// Those of them that open an order, whose full stop says nothing.
const ORDERING: [&str; 9] =
    ["dime", "explain", "explica", "give", "list", "please", "puedes", "show", "tell"];

/// How a sentence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Without a mark, or with one that may be part of it.
    Open,
    Stop,
    Question,
}

/// Normalizes a question within a scope. `None` where the scope mentions operations on texts.
pub(super) fn normalize_within(scope: &Json<'_>, question: &str) -> Option<String> {
    if mentions_text_operations_within(scope) { None } else { normalize(question) }
}

/// Whether a scope mentions operations on texts, as an order to correct the user's text does, or is too long to be searched. The words
/// of a question may matter then.
pub fn mentions_text_operations_within(scope: &Json<'_>) -> bool {
    let left = Cell::new(SCOPE_BYTES_MAX);
    let matters = |text: &str| {
        left.set(left.get().saturating_sub(text.len()));
        left.get() == 0 || mentions_text_operations(text)
    };
    matters_in(scope, &matters)
}

/// Whether any text of a scope matters. What the members of a request are called does not, nor that a part of a message, or the
/// answer, is a text.
fn matters_in(scope: &Json<'_>, matters: &impl Fn(&str) -> bool) -> bool {
    let Json::Object(members) = scope else { return scope.any_text(matters) };
    members.iter().any(|(name, value)| match name.as_ref() {
        "messages" | "modalities" | "response_format" => {
            value.any_text(&|text| text != "text" && matters(text))
        }
        _ => value.any_text(matters),
    })
}

/// Normalizes a question. `None` for a text that may be more than prose, where every byte may matter: one with line breaks,
/// quotes, code, symbols or spaces with a meaning, or one about texts.
pub(super) fn normalize(text: &str) -> Option<String> {
    let is_short = text.len() <= QUESTION_BYTES_MAX;
    if !is_short || !text.chars().all(is_prose) || quotes(text) || mentions_text_operations(text) {
        return None;
    }
    let composed = composed(text.trim());
    if composed.contains("  ") {
        return None;
    }
    let (body, end) = ended(&composed);
    let (first, rest) = body.split_once(' ').unwrap_or((body, ""));
    let first = uncapitalised(first, rest);
    let space = if rest.is_empty() { "" } else { " " };
    let mark = match end {
        End::Open | End::Question if asks(&first, rest) && !rest.contains(MARKS) => "?",
        // A space before it may make it a word of its own, as in `ls ?`.
        End::Question if composed.ends_with(" ?") => " ?",
        End::Question => "?",
        End::Stop if ORDERING.contains(&first.as_str()) => "",
        End::Stop => ".",
        End::Open => "",
    };
    (!body.is_empty()).then(|| format!("{first}{space}{rest}{mark}"))
}

/// Letters composed, and apostrophes and spaces as they are typed.
fn composed(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c < COMBINING_MIN && c != '\u{a0}') {
        return Cow::Borrowed(text);
    }
    let typed = |c| match c {
        '’' => '\'',
        '\u{a0}' | '\u{202f}' => ' ',
        c => c,
    };
    text.nfc().map(typed).collect()
}

fn is_prose(c: char) -> bool {
    // Categories by what std knows: letters and digits of any script, their combining marks, spaces, a few signs.
    let is_of_word = c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c);
    // A letter that is another one by itself, as the sign of Ohm is, may be what is asked about.
    (is_of_word && is_itself_composed(c))
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

/// The text without the marks around a single question or the full stop of a single sentence.
fn ended(text: &str) -> (&str, End) {
    let opened = text.strip_prefix('¿').map(str::trim_start);
    if let Some(body) = opened.unwrap_or(text).strip_suffix('?').map(str::trim_end)
        && !body.contains(MARKS)
    {
        return (body, End::Question);
    }
    match text.strip_suffix('.') {
        // Neither an ellipsis, nor the stop of an abbreviation alone, nor a word of its own, as in `git add .`.
        Some(body) if !body.contains(MARKS) && body.contains(' ') && !body.ends_with(' ') => {
            (body, End::Stop)
        }
        Some(_) | None => (text, End::Open),
    }
}

/// The first word of a sentence without its capital, if its capital says nothing.
fn uncapitalised(word: &str, rest: &str) -> String {
    let mut chars = word.chars();
    let Some(first) = chars.next() else { return String::new() };
    let lower: String = first.to_lowercase().chain(chars).collect();
    let begins_name = rest.starts_with(char::is_uppercase) && !rest.starts_with("I ");
    let says_nothing = !rest.is_empty()
        && (is_asking(&lower) || asks(&lower, rest) || (BEGINNING.contains(&lower.as_str()) && !begins_name));
    if says_nothing { lower } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_the_question_is_joined() {
        for (one, two) in [
            ("What is the capital of France?", "what is the capital of France"),
            ("What is the capital of France?", " What is the capital of France ? "),
            ("¿Cómo cambio mi PIN?", "cómo cambio mi PIN"),
            ("¿Cómo cambio mi PIN?", "Co\u{301}mo cambio mi PIN?"),
            ("How do I top up?", "How do I\u{a0}top up?"),
            ("What’s my balance?", "what's my balance?"),
            ("Tell me about Spain.", "tell me about Spain"),
            ("Explain it", "Explain it."),
            ("Can I return it?", "can I return it"),
            ("How much does it cost?", "how much does it cost"),
        ] {
            assert_eq!(normalize(one).unwrap(), normalize(two).unwrap(), "{one} / {two}");
        }
    }

    #[test]
    fn what_may_change_it_is_not() {
        for (one, two) in [
            ("cuántos años tienes", "cuántos anos tienes"),
            ("you are coming", "you are coming?"),
            ("it works.", "it works?"),
            ("the door code is hunter2.", "the door code is hunter2"),
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
            ("What does git add .", "What does git add"),
            ("Explain docker build .", "Explain docker build"),
            ("Explain ls ?", "Explain ls?"),
            ("Why not.", "Why not?"),
            ("What is done is done.", "What is done is done?"),
            ("Qué va.", "¿Qué va?"),
            ("When I restart the pod it crashes.", "When I restart the pod it crashes?"),
            ("What I need is a refund", "What I need is a refund?"),
            ("Cuánto lo siento", "¿Cuánto lo siento?"),
            ("El Salvador en la Biblia", "el Salvador en la Biblia"),
            ("A major in music", "a major in music"),
            ("Can albums", "can albums"),
            ("Who albums", "who albums"),
        ] {
            assert_ne!(normalize(one), normalize(two), "{one} / {two}");
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
            "What is \u{2126}?",
            "is it a  b",
            "corrige esto",
            long.as_str(),
        ] {
            assert_eq!(normalize(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_scope_that_speaks_of_texts_leaves_no_plain_form() {
        let form = |scope: &str| normalize_within(&Json::parse(scope.as_bytes()).unwrap(), "What is it?");
        let shop = r#"{"messages":[{"content":[{"type":"text","text":"you sell shoes"}]}],"max_tokens":5,
            "modalities":["text"],"response_format":{"type":"text"}}"#;
        assert_eq!(form(shop), normalize("What is it?"));
        let long = format!("[\"{}\"]", "a ".repeat(SCOPE_BYTES_MAX));
        let mut orders = vec![long.as_str()];
        orders.extend([r#"["a\nCorrige lo que escribe el usuario"]"#, r#"{"tools":[{"a":{"text":1}}]}"#]);
        for scope in orders {
            assert_eq!(form(scope), None, "{scope:.60}");
        }
    }

    #[test]
    fn a_plain_form_is_its_own_plain_form() {
        for text in [
            "¿Qué hora es?",
            "What is this",
            "Show the map.",
            "a. b. c.",
            "is it?",
            "???",
            "ls ?",
            "What is a? b?",
            "what is a.",
        ] {
            if let Some(form) = normalize(text) {
                assert_eq!(normalize(&form).as_deref(), Some(form.as_str()), "{text}");
            }
        }
    }
}
