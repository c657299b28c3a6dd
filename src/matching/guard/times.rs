//! Times of day.

use super::numbers::number_at;
use super::tokens::TokenForm;
use super::word_list::WordList;
use super::words::TextWords;

/// A time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DayTime {
    pub(super) minutes: u16,
    /// Whether `am`, `pm` or a part of the day says which half it is in. A plain `9:00` can mean either.
    pub(super) is_half_stated: bool,
}

impl DayTime {
    fn new(hour: u16, minute: u16, half: Option<Half>) -> DayTime {
        let hour = match half {
            Some(Half::Second) if hour < 12 => hour + 12,
            Some(Half::First) if hour == 12 => 0,
            _ => hour,
        };
        DayTime { minutes: hour * 60 + minute, is_half_stated: half.is_some() }
    }

    /// Whether both can be the same time.
    pub(super) fn agrees(self, other: DayTime) -> bool {
        let is_half_open = self.is_half_stated != other.is_half_stated;
        let unstated = if self.is_half_stated { other } else { self };
        self.minutes == other.minutes
            || is_half_open && unstated.minutes < 13 * 60 && self.minutes % 720 == other.minutes % 720
    }

    /// The time as `14:05`.
    pub(super) fn canonical(self) -> String {
        format!("{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

/// The time that begins at a place, and the place after it.
pub(super) fn time_at(words: &TextWords<'_>, at: usize) -> Option<(DayTime, usize)> {
    let noon = |minutes| DayTime { minutes, is_half_stated: true };
    match words.word(at) {
        "noon" | "midday" | "mediodia" if words.word(at + 1) != "meal" => return Some((noon(720), at + 1)),
        "midnight" | "medianoche" => return Some((noon(0), at + 1)),
        "half" | "quarter" => return past_or_to(words, at),
        _ => {}
    }
    clock_time(words, at).or_else(|| hour_in_words(words, at))
}

/// `14:00`, `9.30 am`, `9:30 de la noche`.
fn clock_time(words: &TextWords<'_>, at: usize) -> Option<(DayTime, usize)> {
    let token = words.get(at).filter(|token| token.form == TokenForm::Digits)?;
    let (hour, minute) = token.word.split_once([':', '.'])?;
    if hour.len() > 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let half = half_at(words, at + 1);
    if hour > 24 || minute > 59 || half.is_none() && !token.word.contains(':') {
        return None;
    }
    let (half, end) = half.map_or((None, at + 1), |(half, end)| (Some(half), end));
    let end = if words.is_one_of(end, &["h", "hrs", "hours", "horas"]) { end + 1 } else { end };
    Some((DayTime::new(hour % 24, minute, half), end))
}

/// `5 pm`, `five o'clock`, `8 in the morning`, `a las ocho y media`.
fn hour_in_words(words: &TextWords<'_>, at: usize) -> Option<(DayTime, usize)> {
    let number = number_at(words, at).or_else(|| una_at(words, at))?;
    let is_hour = number.value.fract() == 0.0 && (0.0..=24.0).contains(&number.value);
    if !is_hour {
        return None;
    }
    let is_after_article = at >= 2
        && words.is_one_of(at - 1, &["las", "la"])
        && words.is_one_of(at - 2, &["a", "hasta", "desde", "sobre", "de", "entre"]);
    let (minute_shift, end) =
        if is_after_article { spanish_minutes(words, number.end) } else { (0, number.end) };
    let is_oclock = words.is_one_of(end, &["oclock", "o'clock"]);
    let end = end + usize::from(is_oclock);
    let half = half_at(words, end);
    let is_bare = is_after_article && words.word(at - 2) != "de" && words.word(at - 1) == "las";
    if half.is_none() && !is_oclock && !is_bare && minute_shift == 0 {
        return None;
    }
    let is_counted = end == number.end
        && words.get(end).is_some_and(|token| {
            !token.is_after_break
                && token.form == TokenForm::Word
                && words.phrase_in(end, WordList::Units).is_some()
        });
    if half.is_none() && is_counted {
        return None;
    }
    let (half, end) = half.map_or((None, end), |(half, end)| (Some(half), end));
    let time = DayTime::new(number.value as u16 % 24, 0, half);
    let minutes = (i32::from(time.minutes) + minute_shift).rem_euclid(1440);
    Some((DayTime { minutes: minutes as u16, ..time }, end))
}

/// `a la una`, whose article is no number elsewhere.
fn una_at(words: &TextWords<'_>, at: usize) -> Option<super::numbers::ReadNumber> {
    let is_hour = words.word(at) == "una" && at > 0 && words.word(at - 1) == "la";
    is_hour.then_some(super::numbers::ReadNumber { value: 1.0, digits: 0, is_weak: false, end: at + 1 })
}

/// `y media`, `y cuarto`, `menos cuarto`, `y diez`, `en punto` after an hour: minutes, and the place after them.
fn spanish_minutes(words: &TextWords<'_>, at: usize) -> (i32, usize) {
    let sign = match words.word(at) {
        "y" => 1,
        "menos" => -1,
        "en" if words.word(at + 1) == "punto" => return (0, at + 2),
        _ => return (0, at),
    };
    let minutes = match words.word(at + 1) {
        "media" => Some((30, at + 2)),
        "cuarto" => Some((15, at + 2)),
        _ => number_at(words, at + 1).filter(|n| n.value < 60.0).map(|n| (n.value as i32, n.end)),
    };
    minutes.map_or((0, at), |(minutes, end)| (sign * minutes, end))
}

/// `half past five`, `quarter to six`.
fn past_or_to(words: &TextWords<'_>, at: usize) -> Option<(DayTime, usize)> {
    let minutes = if words.word(at) == "half" { 30 } else { 15 };
    let sign = match words.word(at + 1) {
        "past" => 1,
        "to" if minutes == 15 => -1,
        _ => return None,
    };
    let hour =
        number_at(words, at + 2).filter(|n| n.value.fract() == 0.0 && (1.0..=12.0).contains(&n.value))?;
    let (half, end) = half_at(words, hour.end).map_or((None, hour.end), |(half, end)| (Some(half), end));
    let time = DayTime::new(hour.value as u16, 0, half);
    let shifted = (i32::from(time.minutes) + sign * minutes).rem_euclid(1440);
    Some((DayTime { minutes: shifted as u16, ..time }, end))
}

/// The half of the day that a place names: `am`, `in the morning`, `de la tarde`, `at night`.
fn half_at(words: &TextWords<'_>, at: usize) -> Option<(Half, usize)> {
    if words.is_one_of(at, &["a", "p"]) && words.word(at + 1) == "m" {
        let half = if words.word(at) == "a" { Half::First } else { Half::Second };
        return Some((half, at + 2));
    }
    let start = match (words.word(at), words.word(at + 1)) {
        ("am" | "pm", _) => at,
        ("in", "the") | ("de" | "por" | "en", "la") => at + 2,
        ("at", "night") | ("del", "mediodia") => at + 1,
        _ => return None,
    };
    let half = match words.word(start) {
        "am" | "morning" | "manana" | "madrugada" => Half::First,
        "pm" | "afternoon" | "evening" | "night" | "tarde" | "noche" | "mediodia" => Half::Second,
        _ => return None,
    };
    Some((half, start + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::lexicon::Lexicon;

    fn time(text: &str) -> Option<String> {
        let lexicon = Lexicon::builtin();
        let words = TextWords::read(&lexicon, text);
        (0..words.len()).find_map(|at| time_at(&words, at)).map(|(time, _)| time.canonical())
    }

    #[test]
    fn times_in_both_languages() {
        for (text, expected) in [
            ("open at 14:00?", "14:00"),
            ("open at 2 pm?", "14:00"),
            ("open at 2 p.m.", "14:00"),
            ("open at 2pm", "14:00"),
            ("open at 12 am", "00:00"),
            ("open at noon", "12:00"),
            ("open at five o'clock", "05:00"),
            ("open at half past five in the afternoon", "17:30"),
            ("open at quarter to six", "05:45"),
            ("open at eight in the morning", "08:00"),
            ("abre a las 9 de la noche", "21:00"),
            ("abre a las ocho y media de la mañana", "08:30"),
            ("abre a las 10 menos cuarto", "09:45"),
            ("abre a la una de la tarde", "13:00"),
            ("abre a las 17:45 h", "17:45"),
        ] {
            assert_eq!(time(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["buy 5 in the shop", "a las 3 semanas", "the score was 14.30 points"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn an_unstated_half_agrees_with_either() {
        let plain = DayTime::new(9, 0, None);
        assert!(plain.agrees(DayTime::new(9, 0, Some(Half::Second))));
        assert!(plain.agrees(DayTime::new(9, 0, Some(Half::First))));
        assert!(!plain.agrees(DayTime::new(21, 0, None)));
        assert!(!DayTime::new(17, 0, None).agrees(DayTime::new(5, 0, Some(Half::First))));
    }
}
