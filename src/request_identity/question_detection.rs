//! Detects whether a sentence is a question, with or without its question mark.
//!
//! Few beginnings do for certain: `when it rains.` states, `Cuánto lo siento` exclaims, `do it now` orders. The
//! first words together decide, in English and Spanish; every other sentence counts as undecided.

/// Words that open a question if a verb of [`VERBS`] follows.
const OPENING: [&str; 9] = ["what", "which", "who", "whom", "whose", "where", "when", "why", "how"];

/// Verbs that stand there in questions.
const VERBS: [&str; 20] = [
    "am", "are", "aren't", "can", "can't", "could", "did", "didn't", "do", "does", "doesn't", "don't", "has",
    "have", "is", "isn't", "should", "was", "were", "would",
];

/// Words with the verb in them.
const CONTRACTED: [&str; 5] = ["what's", "who's", "where's", "how's", "when's"];

/// Words that are verbs and open a question before anything.
const VERBS_FIRST: [&str; 4] = ["are", "did", "does", "is"];

/// Verbs that do so before a person; before `it` they may be orders.
const VERBS_BEFORE_PERSONS: [&str; 3] = ["can", "could", "do"];
const PERSONS: [&str; 5] = ["he", "i", "they", "we", "you"];

/// Measures that stand between `how` and its verb, as anything does between `which` and its.
const MEASURES: [&str; 6] = ["far", "long", "many", "much", "often", "soon"];

/// Words that only ask.
const ONLY_ASKING: [&str; 5] = ["adónde", "cuál", "cuáles", "cuándo", "dónde"];

/// Words that ask or exclaim; they ask if one of [`FOLLOWING`] comes next.
const ASKING_OR_EXCLAIMING: [&str; 8] =
    ["cuánta", "cuántas", "cuánto", "cuántos", "cómo", "quién", "quiénes", "qué"];
const FOLLOWING: [&str; 36] = [
    "activo",
    "años",
    "cambio",
    "cancelo",
    "compro",
    "contacto",
    "cuesta",
    "cuestan",
    "debo",
    "devuelvo",
    "días",
    "es",
    "está",
    "están",
    "funciona",
    "funcionan",
    "hacer",
    "hago",
    "hay",
    "necesito",
    "pago",
    "pido",
    "podemos",
    "puede",
    "puedo",
    "recupero",
    "se",
    "significa",
    "solicito",
    "son",
    "talla",
    "tarda",
    "tardan",
    "tengo",
    "vale",
    "valen",
];

/// Whether the sentence that begins with `first` and goes on with `rest` asks. `first` is without its capital.
pub(super) fn asks(first: &str, rest: &str) -> bool {
    let mut words = rest.split(' ');
    let (second, third) = (words.next().unwrap_or_default(), words.next());
    let is_verb = |word: &str| VERBS.contains(&word);
    let is_chosen = first == "which" || (first == "how" && MEASURES.contains(&second));
    let is_english = (OPENING.contains(&first) && (is_verb(second) || (first, second) == ("how", "to")))
        || (is_chosen && third.is_some_and(is_verb))
        || CONTRACTED.contains(&first)
        || VERBS_FIRST.contains(&first)
        || (VERBS_BEFORE_PERSONS.contains(&first) && is_person(second));
    let is_spanish = ONLY_ASKING.contains(&first)
        || (ASKING_OR_EXCLAIMING.contains(&first) && FOLLOWING.contains(&second));
    !rest.is_empty() && (is_english || is_spanish)
}

fn is_person(word: &str) -> bool {
    PERSONS.contains(&word) || word == "I"
}

/// Whether `word` may only ask, so that its capital says nothing. `who` may be a name.
pub(super) fn is_asking(word: &str) -> bool {
    let in_any = [&OPENING[..], &CONTRACTED, &VERBS_FIRST, &ONLY_ASKING, &ASKING_OR_EXCLAIMING];
    word != "who" && in_any.iter().any(|words| words.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_question(text: &str) -> bool {
        text.split_once(' ').is_some_and(|(first, rest)| asks(first, rest))
    }

    #[test]
    fn what_asks_asks_without_its_mark() {
        for text in [
            "what is the capital of France",
            "how do I return it",
            "how much does it cost",
            "which size do I need",
            "how to return it",
            "what's my balance",
            "does it fit",
            "can I return it",
            "qué es esto",
            "cómo cambio mi PIN",
            "cuánto cuesta el envío",
            "dónde está mi pedido",
        ] {
            assert!(is_question(text), "{text}");
        }
    }

    #[test]
    fn what_states_exclaims_or_orders_does_not() {
        for text in [
            "when I restart the pod it crashes",
            "where there is smoke there is fire",
            "what I need is a refund",
            "what matters is price",
            "why not",
            "qué va",
            "qué bonito es",
            "cuánto lo siento",
            "cómo no",
            "quién pudiera",
            "do it now",
            "can albums",
            "is",
        ] {
            assert!(!is_question(text), "{text}");
        }
    }
}
