//! The chunks of one choice of a stored completion.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use crate::dialects::choices::{ReplayedChoice, Step, Text, number};
use crate::raw_object::{RawObject, write_member};

/// One choice of the answer.
pub struct ReplayedText<'a> {
    number: u64,
    /// Members beside those that are written apart.
    rest: Vec<(String, &'a RawValue)>,
    text: &'a RawValue,
    logprobs: Option<&'a RawValue>,
    finish_reason: &'a str,
}

impl<'a> ReplayedChoice<'a> for ReplayedText<'a> {
    fn read(place: usize, choice: RawObject<'a>) -> Option<ReplayedText<'a>> {
        let (mut index, mut text, mut logprobs, mut finish_reason) = (None, None, None, "null");
        let mut rest = Vec::new();
        for (name, value) in choice.0 {
            match name.as_str() {
                "index" => index = Some(value).filter(|index| index.get() != "null"),
                "text" => text = Some(value),
                "logprobs" => logprobs = Some(value),
                "finish_reason" => finish_reason = value.get(),
                _ => rest.push((name, value)),
            }
        }
        let text = text.filter(|text| text.get().starts_with('"'))?;
        Some(ReplayedText { number: number(place, index)?, rest, text, logprobs, finish_reason })
    }

    fn add_steps(&self, steps: &mut VecDeque<Step>) {
        let has_logprobs = self.logprobs.is_some_and(|logprobs| logprobs.get() != "null");
        let text = serde_json::from_str::<String>(self.text.get()).ok().filter(|text| !text.is_empty());
        // Logprobs are lists over the whole text, which therefore goes out with them in one chunk.
        let Some(text) = text.filter(|_| !has_logprobs) else {
            let mut entry = Vec::new();
            self.write_whole(&mut entry);
            steps.push_back(Step::Entries(entry));
            return;
        };
        if !self.rest.is_empty() {
            let mut first = self.open();
            self.rest.iter().for_each(|(name, value)| write_member(&mut first, name, value.get()));
            write_member(&mut first, "text", "\"\"");
            self.close(&mut first, "null");
            steps.push_back(Step::Entries(first));
        }
        let (mut before, mut after) = (self.open(), Vec::new());
        before.extend_from_slice(b",\"text\":");
        self.close(&mut after, "null");
        steps.push_back(Step::Text(Text::new(before, after, text, None)));
        let mut last = self.open();
        write_member(&mut last, "text", "\"\"");
        self.close(&mut last, self.finish_reason);
        steps.push_back(Step::Entries(last));
    }

    fn write_whole(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.open());
        self.rest.iter().for_each(|(name, value)| write_member(out, name, value.get()));
        write_member(out, "text", self.text.get());
        if let Some(logprobs) = self.logprobs {
            write_member(out, "logprobs", logprobs.get());
        }
        write_member(out, "finish_reason", self.finish_reason);
        out.push(b'}');
    }
}

impl ReplayedText<'_> {
    /// The beginning of an entry.
    fn open(&self) -> Vec<u8> {
        format!("{{\"index\":{}", self.number).into_bytes()
    }

    /// Writes the end of an entry of a choice without logprobs, behind its text.
    fn close(&self, out: &mut Vec<u8>, finish_reason: &str) {
        if self.logprobs.is_some() {
            write_member(out, "logprobs", "null");
        }
        write_member(out, "finish_reason", finish_reason);
        out.push(b'}');
    }
}
