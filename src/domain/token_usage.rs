//! Tokens that an answer used.

/// Tokens that an answer used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Tokens of the prompt, those of the provider's cache included.
    pub prompt_tokens: u32,
    /// Tokens of the completion, those of its reasoning included.
    pub completion_tokens: u32,
    /// The parts with prices of their own. Together they are at most as much as what they are parts of.
    details: UsageDetails,
}

/// The parts of a usage that providers bill apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageDetails {
    /// Tokens of the prompt that the provider has read from its own cache.
    pub cached_prompt_tokens: u32,
    /// Tokens of the prompt that it has written to its own cache.
    pub written_prompt_tokens: u32,
    /// Tokens of the completion that were reasoning.
    pub reasoning_tokens: u32,
}

impl TokenUsage {
    /// A usage of which no parts are known.
    pub fn new(prompt_tokens: u32, completion_tokens: u32) -> TokenUsage {
        TokenUsage { prompt_tokens, completion_tokens, details: UsageDetails::default() }
    }

    /// The same usage with its parts. One that is larger than what it is a part of is cut to that.
    #[must_use]
    pub fn with_details(self, details: UsageDetails) -> TokenUsage {
        let cached_prompt_tokens = details.cached_prompt_tokens.min(self.prompt_tokens);
        let uncached_tokens = self.prompt_tokens - cached_prompt_tokens;
        let details = UsageDetails {
            cached_prompt_tokens,
            written_prompt_tokens: details.written_prompt_tokens.min(uncached_tokens),
            reasoning_tokens: details.reasoning_tokens.min(self.completion_tokens),
        };
        TokenUsage { details, ..self }
    }

    /// The parts with prices of their own.
    pub fn details(&self) -> UsageDetails {
        self.details
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_at_most_the_whole() {
        let details = |cached_prompt_tokens, written_prompt_tokens, reasoning_tokens| UsageDetails {
            cached_prompt_tokens,
            written_prompt_tokens,
            reasoning_tokens,
        };
        let usage = TokenUsage::new(10, 5);
        assert_eq!(usage.with_details(details(4, 6, 5)).details(), details(4, 6, 5));
        assert_eq!(usage.with_details(details(4, 7, 6)).details(), details(4, 6, 5));
        assert_eq!(usage.with_details(details(u32::MAX, 1, u32::MAX)).details(), details(10, 0, 5));
    }
}
