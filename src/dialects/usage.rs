//! Reads what an answer used, as OpenAI's APIs report it.
//!
//! Sources: the references of OpenAI's chat completions and responses; OpenRouter's `cache_write_tokens`; DeepSeek's
//! `prompt_cache_hit_tokens`; xAI's reference, whose completion does not include its reasoning.

use serde_json::Value;

use crate::domain::{TokenUsage, UsageDetails};

/// The words by which an API names its counts.
pub(super) struct UsageWords {
    prompt: &'static str,
    prompt_details: &'static str,
    completion: &'static str,
    completion_details: &'static str,
}

/// Those of chat completions and completions.
pub(super) const OF_CHOICES: UsageWords = UsageWords {
    prompt: "prompt_tokens",
    prompt_details: "prompt_tokens_details",
    completion: "completion_tokens",
    completion_details: "completion_tokens_details",
};

/// Those of responses.
pub(super) const OF_RESPONSES: UsageWords = UsageWords {
    prompt: "input_tokens",
    prompt_details: "input_tokens_details",
    completion: "output_tokens",
    completion_details: "output_tokens_details",
};

impl UsageWords {
    /// Reads a member `usage`. `None` if it is no object, or if one of its two sums is no number of tokens; parts that cannot be read are
    /// taken as none.
    pub(super) fn read(&self, usage: &Value) -> Option<TokenUsage> {
        let members = usage.as_object()?;
        let sum = |name: &str| members.get(name).map_or(Some(0), tokens);
        let (prompt, completion) = (sum(self.prompt)?, sum(self.completion)?);
        let part = |value: &Value| tokens(value).unwrap_or(0);
        let of_prompt = &usage[self.prompt_details];
        let cached = tokens(&of_prompt["cached_tokens"]);
        let reasoning = part(&usage[self.completion_details]["reasoning_tokens"]);
        let total = members.get("total_tokens").and_then(tokens);
        let beside = prompt.checked_add(completion).and_then(|sum| sum.checked_add(reasoning));
        let is_beside = reasoning > 0 && beside.is_some() && beside == total;
        let completion = if is_beside { completion + reasoning } else { completion };
        Some(TokenUsage::new(prompt, completion).with_details(UsageDetails {
            cached_prompt_tokens: cached.unwrap_or_else(|| part(&usage["prompt_cache_hit_tokens"])),
            written_prompt_tokens: part(&of_prompt["cache_write_tokens"]),
            reasoning_tokens: reasoning,
        }))
    }
}

/// A number of tokens: at least 0, and the most that can be counted if it is more. `None` for anything else.
pub(super) fn tokens(value: &Value) -> Option<u32> {
    // The cast saturates, and drops what is behind the point.
    value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn details(cached: u32, written: u32, reasoning: u32) -> UsageDetails {
        UsageDetails {
            cached_prompt_tokens: cached,
            written_prompt_tokens: written,
            reasoning_tokens: reasoning,
        }
    }

    #[test]
    fn parts_are_read_by_the_words_of_each_api() {
        let chat = json!({ "prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130,
            "prompt_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 20, "audio_tokens": 0 },
            "completion_tokens_details": { "reasoning_tokens": 25 } });
        let responses = json!({ "input_tokens": 100, "output_tokens": 30, "total_tokens": 130,
            "input_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 20 },
            "output_tokens_details": { "reasoning_tokens": 25 } });
        let expected = TokenUsage::new(100, 30).with_details(details(60, 20, 25));
        assert_eq!(OF_CHOICES.read(&chat), Some(expected));
        assert_eq!(OF_RESPONSES.read(&responses), Some(expected));
        assert_eq!(OF_RESPONSES.read(&chat), Some(TokenUsage::default()), "other words");
        let deepseek = json!({ "prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 8 });
        assert_eq!(OF_CHOICES.read(&deepseek).unwrap().details(), details(8, 0, 0));
    }

    #[test]
    fn reasoning_that_is_counted_beside_the_completion_is_added_to_it() {
        let usage = |total: u32| {
            json!({ "prompt_tokens": 37, "completion_tokens": 530, "total_tokens": total,
                "completion_tokens_details": { "reasoning_tokens": 233 } })
        };
        let read = |total| OF_CHOICES.read(&usage(total)).unwrap();
        assert_eq!(read(800), TokenUsage::new(37, 763).with_details(details(0, 0, 233)));
        assert_eq!(read(567), TokenUsage::new(37, 530).with_details(details(0, 0, 233)));
    }

    #[test]
    fn odd_parts_are_none_and_odd_sums_make_no_usage() {
        for odd in [json!(null), json!(-1), json!("7"), json!([7]), json!({})] {
            let usage = json!({ "prompt_tokens": 10, "completion_tokens": 5,
                "prompt_tokens_details": { "cached_tokens": odd, "cache_write_tokens": odd },
                "completion_tokens_details": { "reasoning_tokens": odd } });
            assert_eq!(OF_CHOICES.read(&usage), Some(TokenUsage::new(10, 5)), "{odd}");
            let usage = json!({ "prompt_tokens": 10, "completion_tokens": 5,
                "prompt_tokens_details": odd, "completion_tokens_details": odd });
            assert_eq!(OF_CHOICES.read(&usage), Some(TokenUsage::new(10, 5)), "{odd}");
            assert_eq!(OF_CHOICES.read(&json!({ "prompt_tokens": odd })), None, "{odd}");
            assert_eq!(OF_CHOICES.read(&json!({ "completion_tokens": odd })), None, "{odd}");
        }
        let huge = json!({ "prompt_tokens": 10.9, "completion_tokens": 1e30, "total_tokens": 1e30,
            "prompt_tokens_details": { "cached_tokens": 7.5, "cache_write_tokens": u64::MAX },
            "completion_tokens_details": { "reasoning_tokens": 1e300 } });
        let expected = TokenUsage::new(10, u32::MAX).with_details(details(7, 3, u32::MAX));
        assert_eq!(OF_CHOICES.read(&huge), Some(expected));
        assert_eq!(OF_CHOICES.read(&json!([1, 2])), None);
    }
}
