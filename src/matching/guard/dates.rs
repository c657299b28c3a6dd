//! Dates, with every reading that their writing allows.

use super::numbers::number_at;
use super::tokens::TokenForm;
use super::word_list::WordList;
use super::words::TextWords;

/// A date of which parts may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CalendarDate {
    pub(super) day: Option<u8>,
    pub(super) month: u8,
    pub(super) year: Option<u16>,
    /// Whether day and month can be read the other way round: `03/05`.
    pub(super) is_reversible: bool,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl CalendarDate {
    fn new(day: Option<u8>, month: u8, year: Option<u16>) -> CalendarDate {
        CalendarDate { day, month, year, is_reversible: false }
    }

    /// Whether some reading of both is the same date. A part that one of them leaves out agrees.
    pub(super) fn agrees(self, other: CalendarDate) -> bool {
        let is_year_same = self.year.is_none() || other.year.is_none() || self.year == other.year;
        let is_same = |one: CalendarDate, two: CalendarDate| one.month == two.month && one.day == two.day;
        is_year_same
            && (is_same(self, other)
                || self.is_reversible && is_same(self.reversed(), other)
                || other.is_reversible && is_same(self, other.reversed()))
    }

    fn reversed(self) -> CalendarDate {
        CalendarDate { day: Some(self.month), month: self.day.unwrap_or(self.month), ..self }
    }

    /// The date as `3 may 2024`; an ambiguous one with the day first.
    pub(super) fn canonical(self) -> String {
        let mut text = self.day.map_or(String::new(), |day| format!("{day} "));
        text.push_str(MONTHS[usize::from(self.month.clamp(1, 12)) - 1]);
        if let Some(year) = self.year {
            text.push_str(&format!(" {year}"));
        }
        text
    }
}

/// The date that begins at a place, and the place after it.
pub(super) fn date_at(words: &TextWords<'_>, at: usize) -> Option<(CalendarDate, usize)> {
    numeric_date(words, at).or_else(|| day_and_month(words, at)).or_else(|| month_first(words, at))
}

/// `2024-05-03`, `3/5`, `03.05.2024`.
fn numeric_date(words: &TextWords<'_>, at: usize) -> Option<(CalendarDate, usize)> {
    let token = words.get(at).filter(|token| token.form == TokenForm::Digits)?;
    let mark = token.word.chars().find(|c| !c.is_ascii_digit()).filter(|c| "/-.".contains(*c))?;
    let parts: Vec<&str> = token.word.splitn(4, mark).collect();
    let numbers: Vec<u16> = parts.iter().map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (day, month, year) = match (&numbers[..], parts[0].len()) {
        (&[year, month, day], 4) => {
            return written(Some(day), month, Some(year), false).map(|date| (date, at + 1));
        }
        (&[day, month, year], 1..=2) if matches!(parts[2].len(), 2 | 4) => {
            (day, month, Some(full_year(year)))
        }
        (&[day, month], 1..=2) if mark == '/' && parts[1].len() <= 2 => (day, month, None),
        _ => return None,
    };
    if (day, month) == (24, 7) && year.is_none() {
        return None; // around the clock
    }
    let date =
        written(Some(day), month, year, day <= 12).or_else(|| written(Some(month), day, year, false))?;
    Some((date, at + 1))
}

fn full_year(year: u16) -> u16 {
    if year < 100 { 2000 + year } else { year }
}

fn written(day: Option<u16>, month: u16, year: Option<u16>, is_reversible: bool) -> Option<CalendarDate> {
    let day = day.map(|day| u8::try_from(day).ok().filter(|day| (1..=31).contains(day))).transposed()?;
    let month = u8::try_from(month).ok().filter(|month| (1..=12).contains(month))?;
    let is_year = year.is_none_or(|year| (1000..=2999).contains(&year));
    is_year.then_some(CalendarDate {
        is_reversible: is_reversible && day != Some(month),
        ..CalendarDate::new(day, month, year)
    })
}

/// Turns an optional reading around: absent is fine, present and unreadable is not.
trait Transposed<T> {
    fn transposed(self) -> Option<Option<T>>;
}

impl<T> Transposed<T> for Option<Option<T>> {
    fn transposed(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(None) => None,
            Some(Some(value)) => Some(Some(value)),
        }
    }
}

/// `3 May 2024`, `the 3rd of May`, `tres de mayo de 2024`.
fn day_and_month(words: &TextWords<'_>, at: usize) -> Option<(CalendarDate, usize)> {
    let (day, end) = day_at(words, at)?;
    let end = end + usize::from(words.is_one_of(end, &["of", "de"]));
    let month = month_at(words, end, true)?;
    let (year, end) = year_at(words, end + 1);
    Some((CalendarDate::new(Some(day), month, year), end))
}

/// `May 3rd, 2024`, `May 2024`, `May`.
fn month_first(words: &TextWords<'_>, at: usize) -> Option<(CalendarDate, usize)> {
    let is_beside_number = words.get(at + 1).is_some_and(|token| token.form == TokenForm::Digits)
        || at > 0 && words.is_one_of(at - 1, &MONTH_OPENINGS);
    let month = month_at(words, at, is_beside_number)?;
    if let Some((day, end)) =
        day_at(words, at + 1).filter(|_| !words.is_one_of(at + 1, &["una", "un", "uno"]))
    {
        let is_time = words.is_one_of(end, &["am", "pm"]);
        if !is_time {
            let (year, end) = year_at(words, end);
            return Some((CalendarDate::new(Some(day), month, year), end));
        }
    }
    let (year, end) = year_at(words, at + 1);
    Some((CalendarDate::new(None, month, year), end))
}

/// Words after which `may` and `march` are months.
const MONTH_OPENINGS: [&str; 20] = [
    "in", "of", "since", "until", "till", "by", "during", "last", "next", "this", "early", "late", "mid",
    "before", "after", "for", "en", "de", "desde", "hasta",
];

/// A day in digits or words, with or without the ending of an ordinal.
fn day_at(words: &TextWords<'_>, at: usize) -> Option<(u8, usize)> {
    let day = |value: f64| (value.fract() == 0.0 && (1.0..=31.0).contains(&value)).then_some(value as u8);
    if words.get(at).is_some_and(|token| token.form == TokenForm::Digits && token.word.len() <= 2) {
        let value = day(words.word(at).parse().ok()?)?;
        let ending = words.get(at + 1).filter(|token| token.is_glued);
        let is_ordinal =
            ending.is_some_and(|token| matches!(token.word.as_str(), "st" | "nd" | "rd" | "th" | "º"));
        return Some((value, at + 1 + usize::from(is_ordinal)));
    }
    if let Some(value) = words.number_in(at, WordList::Ordinals) {
        return Some((day(value)?, at + 1));
    }
    if words.is_one_of(at, &["uno", "primero"]) {
        return Some((1, at + 1));
    }
    let number = number_at(words, at).filter(|number| number.digits == 0)?;
    Some((day(number.value)?, number.end))
}

/// The month of a word of either language.
fn month_at(words: &TextWords<'_>, at: usize, is_beside_number: bool) -> Option<u8> {
    let token = words.get(at).filter(|token| token.form == TokenForm::Word)?;
    let in_list = |list| {
        super::language::Language::ALL
            .iter()
            .find_map(|&language| words.lexicon.word(language, list, token.key))
    };
    let phrase = in_list(WordList::Months)
        .or_else(|| is_beside_number.then(|| in_list(WordList::AmbiguousMonths)).flatten())?;
    Some(phrase.number as u8)
}

/// A year of four digits, with `de` or `of` before it.
fn year_at(words: &TextWords<'_>, at: usize) -> (Option<u16>, usize) {
    let start = at + usize::from(words.is_one_of(at, &["of", "de", "del"]));
    let token = words.get(start).filter(|token| token.form == TokenForm::Digits && token.word.len() == 4);
    let year = token.and_then(|token| token.word.parse().ok()).filter(|year| (1000..=2999).contains(year));
    (year, if year.is_some() { start + 1 } else { at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::lexicon::Lexicon;

    fn dates(text: &str) -> Vec<CalendarDate> {
        let lexicon = Lexicon::builtin();
        let words = TextWords::read(&lexicon, text);
        let (mut found, mut at) = (Vec::new(), 0);
        while at < words.len() {
            match date_at(&words, at) {
                Some((date, end)) => {
                    found.push(date);
                    at = end;
                }
                None => at += 1,
            }
        }
        found
    }

    #[test]
    fn dates_in_both_languages() {
        for (text, expected) in [
            ("on 3 May", "3 may"),
            ("on May 3rd", "3 may"),
            ("on the 3rd of May 2024", "3 may 2024"),
            ("on 03/05", "3 may"),
            ("on 13/05/2024", "13 may 2024"),
            ("on 05/13/24", "13 may 2024"),
            ("on 2024-05-03", "3 may 2024"),
            ("for Oct 2022", "october 2022"),
            ("since March", "march"),
            ("el 3 de mayo de 2024", "3 may 2024"),
            ("el tres de mayo", "3 may"),
            ("el veintiuno de feb. de 2024", "21 february 2024"),
            ("en enero", "january"),
        ] {
            let found: Vec<_> = dates(text).into_iter().map(CalendarDate::canonical).collect();
            assert_eq!(found, [expected], "{text}");
        }
        for text in ["may I march on?", "open 24/7", "version 1.2.3", "may 5 people join"] {
            assert!(dates(text).len() <= usize::from(text.starts_with("may 5")), "{text}");
        }
    }

    #[test]
    fn some_reading_agrees() {
        let date = |text| dates(text)[0];
        assert!(date("on 03/05").agrees(date("on 3 May")));
        assert!(date("on 03/05").agrees(date("on 5 March")));
        assert!(!date("on 03/05").agrees(date("on 3 June")));
        assert!(!date("on 13/05").agrees(date("on 3 May")));
        assert!(date("on 3 May").agrees(date("el 3 de mayo de 2024")));
        assert!(!date("on 3 May 2023").agrees(date("on 3 May 2024")));
    }
}
