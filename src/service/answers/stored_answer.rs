//! The encoding of a stored answer: what a replay needs to know, the question, the answer.
//!
//! `docs/internals/store-format.md` has the table. Little-endian; bytes of another version, or cut short, are not decoded.

use crate::domain::{Key, TokenUsage, UsageDetails};

/// The version of a record whose usage has no parts. Servers of any version read it.
const VERSION: u8 = 1;
/// The version of a record with the parts of its usage.
const VERSION_WITH_DETAILS: u8 = 2;
const HEAD_BYTES: usize = 48;
/// The parts of the usage, behind the head.
const DETAILS_BYTES: usize = 12;
const HAS_USAGE: u8 = 1;
const IS_TEXT: u8 = 2;
const WAS_USAGE_REQUESTED: u8 = 4;
const IS_TTL_REQUESTED: u8 = 8;
const IS_SEMANTIC: u8 = 16;
const CALLS_TOOLS: u8 = 32;
const IS_TRUNCATED: u8 = 64;
const ENDS_WITH_DONE: u8 = 128;

/// The media type of stored answers, by which tiers decide whether to compress.
pub(in crate::service) const CONTENT_TYPE: &str = "application/vnd.likewise.answer+json";

/// A stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredAnswer<'a> {
    /// The dialect of the answer ([`crate::dialects::Dialect::record_code`]); 0 for a text.
    pub dialect: u8,
    /// Token usage, if it is known.
    pub usage: Option<TokenUsage>,
    /// Whether the upstream was asked for token usage: if it is unknown all the same, the upstream does not report it.
    pub was_usage_requested: bool,
    /// Whether the answer is a text that an application stored, and not a reply of an upstream.
    pub is_text: bool,
    /// Whether a request has set its TTL.
    pub is_ttl_requested: bool,
    /// Whether it may be served to questions in other words.
    pub is_semantic: bool,
    /// Whether it calls tools.
    pub calls_tools: bool,
    /// Whether it ended at the limit of tokens.
    pub is_truncated: bool,
    /// Whether it came as a stream that `data: [DONE]` ended.
    pub ends_with_done: bool,
    /// The scope of the question; of one in other words, that within which such questions are compared.
    pub scope: Key,
    /// The question, word for word.
    pub question: &'a str,
    /// The answer.
    pub answer: &'a [u8],
}

impl<'a> StoredAnswer<'a> {
    /// The encoded bytes.
    ///
    /// # Panics
    /// If the question has more than `u32::MAX` bytes; bodies are limited far below.
    pub fn encode(&self) -> Vec<u8> {
        let usage = self.usage.unwrap_or_default();
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.usage.is_some(), HAS_USAGE)
            | flag(self.is_text, IS_TEXT)
            | flag(self.was_usage_requested, WAS_USAGE_REQUESTED)
            | flag(self.is_ttl_requested, IS_TTL_REQUESTED)
            | flag(self.is_semantic, IS_SEMANTIC)
            | flag(self.calls_tools, CALLS_TOOLS)
            | flag(self.is_truncated, IS_TRUNCATED)
            | flag(self.ends_with_done, ENDS_WITH_DONE);
        let question_bytes =
            u32::try_from(self.question.len()).expect("bodies are limited below: this is a bug");
        let mut out = Vec::with_capacity(self.bytes());
        let details = self.details();
        let version = if details.is_some() { VERSION_WITH_DETAILS } else { VERSION };
        out.extend([version, flags, self.dialect, 0]);
        out.extend(usage.prompt_tokens.to_le_bytes());
        out.extend(usage.completion_tokens.to_le_bytes());
        out.extend(question_bytes.to_le_bytes());
        out.extend(self.scope.0);
        if let Some(details) = details {
            out.extend(details.cached_prompt_tokens.to_le_bytes());
            out.extend(details.written_prompt_tokens.to_le_bytes());
            out.extend(details.reasoning_tokens.to_le_bytes());
        }
        out.extend(self.question.as_bytes());
        out.extend(self.answer);
        out
    }

    /// The number of encoded bytes.
    pub fn bytes(&self) -> usize {
        let details_bytes = if self.details().is_some() { DETAILS_BYTES } else { 0 };
        HEAD_BYTES + details_bytes + self.question.len() + self.answer.len()
    }

    /// The parts of the usage. `None` if it has none.
    fn details(&self) -> Option<UsageDetails> {
        self.usage.map(|usage| usage.details()).filter(|details| *details != UsageDetails::default())
    }

    /// Decodes bytes. `None` if they are not complete or of another version.
    pub fn decode(bytes: &'a [u8]) -> Option<StoredAnswer<'a>> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let (details, rest) = match head[0] {
            VERSION => (UsageDetails::default(), rest),
            VERSION_WITH_DETAILS => {
                let (details, rest) = rest.split_first_chunk::<DETAILS_BYTES>()?;
                let details = UsageDetails {
                    cached_prompt_tokens: number(details, 0),
                    written_prompt_tokens: number(details, 4),
                    reasoning_tokens: number(details, 8),
                };
                (details, rest)
            }
            _ => return None,
        };
        let question_bytes = usize::try_from(number(head, 12)).ok()?;
        let (question, answer) = rest.split_at_checked(question_bytes)?;
        let usage = TokenUsage::new(number(head, 4), number(head, 8)).with_details(details);
        Some(StoredAnswer {
            dialect: head[2],
            usage: (head[1] & HAS_USAGE != 0).then_some(usage),
            was_usage_requested: head[1] & WAS_USAGE_REQUESTED != 0,
            is_text: head[1] & IS_TEXT != 0,
            is_ttl_requested: head[1] & IS_TTL_REQUESTED != 0,
            is_semantic: head[1] & IS_SEMANTIC != 0,
            calls_tools: head[1] & CALLS_TOOLS != 0,
            is_truncated: head[1] & IS_TRUNCATED != 0,
            ends_with_done: head[1] & ENDS_WITH_DONE != 0,
            scope: Key(std::array::from_fn(|at| head[16 + at])),
            question: std::str::from_utf8(question).ok()?,
            answer,
        })
    }
}

/// The number that begins at `at`.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_answer_survives_encoding_and_a_truncated_one_is_refused() {
        let usage = Some(TokenUsage::new(3, 5));
        let was_usage_requested = true;
        let base = StoredAnswer {
            dialect: 0,
            usage,
            was_usage_requested,
            is_text: false,
            is_ttl_requested: true,
            is_semantic: false,
            calls_tools: true,
            is_truncated: false,
            ends_with_done: true,
            scope: Key([7; 32]),
            question: "¿qué?",
            answer: b"{}",
        };
        let details = UsageDetails { cached_prompt_tokens: 2, written_prompt_tokens: 1, reasoning_tokens: 4 };
        for (version, record) in [
            (1, base),
            (2, StoredAnswer { usage: usage.map(|usage| usage.with_details(details)), ..base }),
            (
                1,
                StoredAnswer {
                    dialect: 7,
                    usage: None,
                    was_usage_requested: false,
                    is_text: true,
                    is_ttl_requested: false,
                    is_semantic: true,
                    calls_tools: false,
                    is_truncated: true,
                    ends_with_done: false,
                    question: "",
                    ..base
                },
            ),
        ] {
            let bytes = record.encode();
            assert_eq!((bytes[0], bytes.len()), (version, record.bytes()));
            assert_eq!(StoredAnswer::decode(&bytes), Some(record));
            let cuts = 0..bytes.len() - record.answer.len();
            assert!(cuts.into_iter().all(|end| StoredAnswer::decode(&bytes[..end]).is_none()));
            assert_eq!(StoredAnswer::decode(&[&[9], &bytes[1..]].concat()), None, "of another version");
        }
    }

    #[test]
    fn a_record_of_an_older_server_is_read() {
        let record = [
            &[1, HAS_USAGE | WAS_USAGE_REQUESTED, 0, 0][..],
            &[7, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0],
            &[5; 32],
            b"hi{}",
        ]
        .concat();
        let read = StoredAnswer::decode(&record).unwrap();
        assert_eq!(read.usage, Some(TokenUsage::new(7, 9)));
        assert_eq!((read.question, read.answer, read.scope), ("hi", &b"{}"[..], Key([5; 32])));
    }
}
