//! The names of word lists, and the lines of their files.

use super::folding::fold;
use crate::error::{Error, Kind, Result};

macro_rules! word_lists {
    ($($(#[doc = $doc:literal])* $list:ident = $name:literal,)*) => {
        /// A list of words: one file a language.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum WordList {
            $($(#[doc = $doc])* $list,)*
        }

        impl WordList {
            /// Every list.
            pub const ALL: &[WordList] = &[$(WordList::$list,)*];

            /// The name of the list, which is that of its file.
            pub fn name(self) -> &'static str {
                match self { $(WordList::$list => $name,)* }
            }
        }
    };
}

word_lists! {
    /// Words that stand for numbers: `two = 2`, `hundred = x100`.
    Numbers = "numbers",
    /// Words that stand for places in an order: `second = 2`.
    Ordinals = "ordinals",
    /// Units: `kilogram = mass 1000`.
    Units = "units",
    /// Units that are so short that they count only right after digits: `g = mass 1`.
    UnitSuffixes = "unit_suffixes",
    /// Months: `may = 5`.
    Months = "months",
    /// Months whose names are also other words, which count only beside a number or a word like `in`.
    AmbiguousMonths = "ambiguous_months",
    /// Days of the week, and the weekend.
    Weekdays = "weekdays",
    /// Days by their distance from today.
    RelativeDays = "relative_days",
    /// Parts of a day.
    DayParts = "day_parts",
    /// Words with a grammatical function only.
    FunctionWords = "function_words",
    /// Function words of other languages, which tell texts that are in none of the known ones.
    ForeignWords = "foreign_words",
    /// Words that carry little: verbs and nouns of every question.
    LightWords = "light_words",
    /// Greetings, thanks and politeness, which are left out.
    Fillers = "fillers",
    /// Words that mean the same: `purchase = buy`.
    Synonyms = "synonyms",
    /// Words that mean the opposite: `buy <> sell`.
    Antonyms = "antonyms",
    /// Inflected forms that no rule makes: `bought = buy`.
    IrregularForms = "irregular_forms",
    /// Words written as one, with or without apostrophe: `don't = do not`.
    Contractions = "contractions",
    /// Abbreviations of the canonical form: `info = information`.
    Abbreviations = "abbreviations",
    /// Words that negate.
    Negations = "negations",
    /// Words that can say the same as a negation: `fail`.
    SoftNegations = "soft_negations",
    /// What stands behind the verb that begins a question: `it` of `isn't it`.
    Subjects = "subjects",
    /// Phrases with a word that negates, and which negate nothing: `not only`.
    NegationIdioms = "negation_idioms",
    /// Prepositions with the role of what follows: `from = source`.
    Prepositions = "prepositions",
    /// Words between things whose order does not count: `and`.
    Coordinators = "coordinators",
    /// Comparisons.
    Comparators = "comparators",
    /// Particles of verbs: `on` of `turn on`.
    Particles = "particles",
    /// Permission, obligation and advice: `may`, `have to`, `should`.
    Modality = "modality",
    /// Words for how many, and which of several.
    Quantifiers = "quantifiers",
    /// Colours.
    Colours = "colours",
    /// Sizes.
    Sizes = "sizes",
    /// Plans and levels of service.
    Plans = "plans",
    /// Languages.
    Languages = "languages",
    /// Forms of an answer.
    Formats = "formats",
    /// Countries, regions and cities.
    Places = "places",
    /// Companies and products.
    Brands = "brands",
    /// Words that are names where they have capital letters: `us`, `windows`.
    Homographs = "homographs",
    /// Words that are often written without their accents where they need them: question words.
    OptionalAccents = "optional_accents",
    /// Persons by their role.
    Persons = "persons",
    /// How often.
    Periods = "periods",
    /// The present moment.
    Freshness = "freshness",
    /// What is usual, in general.
    Generality = "generality",
    /// Question words with what they ask for.
    QuestionWords = "question_words",
    /// Openings that ask how something is done.
    HowToOpenings = "how_to_openings",
    /// Openings that ask for an act.
    RequestOpenings = "request_openings",
    /// Verbs that a request can begin with.
    Verbs = "verbs",
    /// Verbs of requests that are answered with words.
    AskingVerbs = "asking_verbs",
    /// Verbs of exchange, which give `for` a direction.
    ExchangeVerbs = "exchange_verbs",
    /// Words before a version: `android 14`.
    VersionWords = "version_words",
    /// Verbs that change the state of something that belongs to a user.
    ChangeVerbs = "change_verbs",
    /// What belongs to a user and is changed by a request.
    ChangeObjects = "change_objects",
    /// Openings of questions that lean on an earlier one.
    LeaningOpenings = "leaning_openings",
    /// Definite articles and possessives, which introduce a thing.
    Determiners = "determiners",
    /// Pronouns for things that a text may have named.
    Pronouns = "pronouns",
    /// Openings that say what the user wants to do.
    Wishes = "wishes",
    /// Phrases about the text of the question itself.
    TextForms = "text_forms",
    /// Words for facts that change from moment to moment.
    LiveFacts = "live_facts",
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WordLine {
    /// The word is in the list.
    Member(String),
    /// The first word counts as the second one, which is folded unless it is a value.
    Same(String, String),
    /// The words are opposites.
    Opposite(String, String),
}

impl std::fmt::Display for WordLine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WordLine::Member(word) => formatter.write_str(word),
            WordLine::Same(one, two) => write!(formatter, "{one} = {two}"),
            WordLine::Opposite(one, two) => write!(formatter, "{one} <> {two}"),
        }
    }
}

/// Reads the lines of a list. Words are folded.
///
/// # Errors
/// `Config` with list and line for a line that is not `a`, `a = b` or `a <> b`.
pub(super) fn read_lines(list: &str, text: &str) -> Result<Vec<(usize, WordLine)>> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            lines.push((number, read_line(line).ok_or_else(|| line_error(list, number, line))?));
        }
    }
    Ok(lines)
}

/// The error about a line.
pub(super) fn line_error(list: &str, number: usize, line: &str) -> Error {
    Error::new(Kind::Config, "a line of a word list must be `a`, `a = b` or `a <> b`, as the list needs")
        .with("list", list)
        .with("line", number)
        .with("got", line)
}

fn read_line(line: &str) -> Option<WordLine> {
    if let Some((one, two)) = line.split_once("<>") {
        return Some(WordLine::Opposite(words(one)?, words(two)?));
    }
    if let Some((one, two)) = line.split_once('=') {
        return Some(WordLine::Same(words(one)?, words(two)?));
    }
    words(line).map(WordLine::Member)
}

/// The folded words of one side of a line, one space between them.
fn words(side: &str) -> Option<String> {
    let folded = fold(side);
    let words: Vec<&str> = folded.split_whitespace().collect();
    let is_text = !words.is_empty() && !folded.contains(['=', '<', '>']);
    is_text.then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_bad_ones_named() {
        let lines = read_lines("x", "# list\nBuy\n\nmás  que = Gt # more\nbuy <> sell").unwrap();
        let (numbers, lines): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
        assert_eq!(numbers, [2, 4, 5]);
        let expected = [
            WordLine::Member("buy".into()),
            WordLine::Same("mas que".into(), "gt".into()),
            WordLine::Opposite("buy".into(), "sell".into()),
        ];
        assert_eq!(lines, expected);
        for bad in ["a\n= b", "a\na = b = c", "a\na <> "] {
            let error = read_lines("colours", bad).unwrap_err().to_string();
            assert!(error.contains("colours") && error.contains('2'), "{error}");
        }
    }
}
