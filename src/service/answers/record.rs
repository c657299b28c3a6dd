//! The bytes under which an answer is kept: what must be known to replay it, its question, the answer.
//!
//! `docs/store-format.md` has the table. Little-endian; a record of another version, or cut short, is no record.

use crate::domain::Key;
use crate::upstream::Usage;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 48;
const HAS_USAGE: u8 = 1;
const IS_TEXT: u8 = 2;
const WAS_ASKED_FOR_USAGE: u8 = 4;
const IS_TTL_ASKED: u8 = 8;

/// The media type of records, for those that compress by it.
pub(super) const CONTENT_TYPE: &str = "application/vnd.likewise.answer+json";

/// A kept answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the answer used, if it is known.
    pub usage: Option<Usage>,
    /// Whether it was to tell what it used: if that is not known all the same, nobody can tell.
    pub was_asked_for_usage: bool,
    /// Whether the answer is any text, given to be kept, and not a chat completion.
    pub is_text: bool,
    /// Whether its lifetime is one that somebody has asked for.
    pub is_ttl_asked: bool,
    /// The scope within which it is an answer.
    pub scope: Key,
    /// The question, word for word.
    pub question: &'a str,
    /// The answer.
    pub answer: &'a [u8],
}

impl<'a> Record<'a> {
    /// Its bytes.
    ///
    /// # Panics
    /// If the question has more than `u32::MAX` bytes; bodies are limited far below.
    pub fn encode(&self) -> Vec<u8> {
        let usage = self.usage.unwrap_or_default();
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.usage.is_some(), HAS_USAGE)
            | flag(self.is_text, IS_TEXT)
            | flag(self.was_asked_for_usage, WAS_ASKED_FOR_USAGE)
            | flag(self.is_ttl_asked, IS_TTL_ASKED);
        let question_bytes =
            u32::try_from(self.question.len()).expect("bodies are limited below: this is a bug");
        let mut out = Vec::with_capacity(self.bytes());
        out.extend([VERSION, flags, 0, 0]);
        out.extend(usage.prompt_tokens.to_le_bytes());
        out.extend(usage.completion_tokens.to_le_bytes());
        out.extend(question_bytes.to_le_bytes());
        out.extend(self.scope.0);
        out.extend(self.question.as_bytes());
        out.extend(self.answer);
        out
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.question.len() + self.answer.len()
    }

    /// The record of some bytes; none if they are no whole one of this version.
    pub fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let question_bytes = usize::try_from(number(12)).ok()?;
        let (question, answer) = rest.split_at_checked(question_bytes)?;
        let usage = Usage { prompt_tokens: number(4), completion_tokens: number(8) };
        (head[0] == VERSION).then_some(())?;
        Some(Record {
            usage: (head[1] & HAS_USAGE != 0).then_some(usage),
            was_asked_for_usage: head[1] & WAS_ASKED_FOR_USAGE != 0,
            is_text: head[1] & IS_TEXT != 0,
            is_ttl_asked: head[1] & IS_TTL_ASKED != 0,
            scope: Key(std::array::from_fn(|at| head[16 + at])),
            question: std::str::from_utf8(question).ok()?,
            answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_a_cut_one_does_not() {
        let usage = Some(Usage { prompt_tokens: 3, completion_tokens: 5 });
        let was_asked_for_usage = true;
        let base = Record {
            usage,
            was_asked_for_usage,
            is_text: false,
            is_ttl_asked: true,
            scope: Key([7; 32]),
            question: "¿qué?",
            answer: b"{}",
        };
        for record in [
            base,
            Record {
                usage: None,
                was_asked_for_usage: false,
                is_text: true,
                is_ttl_asked: false,
                question: "",
                ..base
            },
        ] {
            let bytes = record.encode();
            assert_eq!(bytes.len(), record.bytes());
            assert_eq!(Record::decode(&bytes), Some(record));
            let cuts = 0..HEAD_BYTES + record.question.len();
            assert!(cuts.into_iter().all(|end| Record::decode(&bytes[..end]).is_none()));
            assert_eq!(Record::decode(&[&[9], &bytes[1..]].concat()), None, "of another version");
        }
    }
}
