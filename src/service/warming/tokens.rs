//! An estimate of the tokens that a request sends to a model.

use serde_json::Value;

/// The fields of a request that hold what a model reads.
const READ: [&str; 7] = ["input", "instructions", "messages", "prompt", "query", "queries", "system"];
/// The fields of messages and their parts that hold text. Images and other media are not counted.
const TEXTS: [&str; 2] = ["content", "text"];
/// Tokens around a message (OpenAI's cookbook, "How to count tokens with tiktoken").
const TOKENS_PER_MESSAGE: u64 = 3;

/// Tokens of a request by OpenAI's vocabulary cl100k; other models cut texts into other numbers of tokens.
pub fn estimate(body: &Value) -> u64 {
    READ.iter().filter_map(|field| body.get(field)).map(tokens).sum()
}

fn tokens(value: &Value) -> u64 {
    match value {
        Value::String(text) => tiktoken_rs::cl100k_base_singleton().encode_ordinary(text).len() as u64,
        Value::Array(elements) => elements.iter().map(tokens).sum(),
        Value::Object(fields) => {
            let around = if fields.contains_key("role") { TOKENS_PER_MESSAGE } else { 0 };
            around + TEXTS.iter().filter_map(|field| fields.get(*field)).map(tokens).sum::<u64>()
        }
        // The id of a token.
        Value::Number(_) => 1,
        Value::Null | Value::Bool(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_model_reads_is_counted() {
        assert_eq!(estimate(&json!({ "input": "hello world", "model": "many more words than that" })), 2);
        assert_eq!(estimate(&json!({ "input": ["hello world", "hello"] })), 3);
        assert_eq!(estimate(&json!({ "input": [[1, 2, 3], [4]] })), 4);
        let image = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
        let parts = json!([{ "type": "text", "text": "hello world" }, image]);
        let chat = json!({ "messages": [{ "role": "system", "content": "hello" }, { "role": "user", "content": parts }] });
        assert_eq!(estimate(&chat), 3 + 1 + 3 + 2);
        assert_eq!(estimate(&json!({ "queries": ["hello"], "k": 10 })), 1);
        let message =
            json!([{ "role": "user", "content": [{ "type": "input_text", "text": "hello world" }] }]);
        assert_eq!(estimate(&json!({ "instructions": "hello", "input": message })), 1 + 3 + 2);
    }
}
