//! An upstream that answers every question after a time, so that an answer tells which question it is to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream;
use likewise::dialects::chat_completions::reply_in_words;
use likewise::domain::{Credential, TokenUsage};
use likewise::error::Result;
use likewise::service::answers::Body;
use likewise::upstream::{Headers, Origin, Reply, UpstreamCall};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The model that the questions are put to.
pub(super) const MODEL: &str = "simulated";
/// English has about four bytes to a token.
const BYTES_PER_TOKEN: usize = 4;

/// An upstream that answers everything.
pub(super) struct SimulatedUpstream {
    pub(super) takes: Duration,
    pub(super) completion_tokens: u32,
    /// The number of the question that a text asks, by the text.
    pub(super) numbers: HashMap<String, usize>,
}

/// The question of a request in words.
#[derive(Deserialize)]
struct SimulatedBody {
    messages: Vec<SimulatedMessage>,
}

#[derive(Deserialize)]
struct SimulatedMessage {
    content: String,
}

/// What stands before the number of the question in an answer, and behind it.
const ANSWER: (&str, &str) = ("answer ", ": ");

impl SimulatedUpstream {
    /// The answer to the question of a request.
    fn answer(&self, body: &[u8]) -> String {
        let asked: Option<SimulatedBody> = serde_json::from_slice(body).ok();
        let text = asked.and_then(|mut asked| asked.messages.pop()).map(|message| message.content);
        let number = text.and_then(|text| self.numbers.get(&text).copied()).unwrap_or(usize::MAX);
        format!("{}{number}{}", ANSWER.0, ANSWER.1) + &"word ".repeat(self.completion_tokens as usize)
    }
}

/// What a request costs.
pub(super) fn usage_of(body: &[u8], completion_tokens: u32) -> TokenUsage {
    let prompt_tokens = u32::try_from(body.len() / BYTES_PER_TOKEN).unwrap_or(u32::MAX);
    TokenUsage::new(prompt_tokens, completion_tokens)
}

impl Origin for SimulatedUpstream {
    fn name(&self, _: Option<&str>) -> Result<Arc<str>> {
        Ok(MODEL.into())
    }

    fn ask(&self, call: UpstreamCall) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            let text = self.answer(&call.body);
            let answer = reply_in_words(MODEL, &text, usage_of(&call.body, self.completion_tokens));
            let headers: Headers = vec![("content-type".into(), "application/json".into())];
            let body = stream::iter([Ok(answer.into())]);
            Ok(Reply::new(200, headers, Box::pin(body)))
        })
    }

    fn needs_clients_key(&self, _: &str, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn models(&self, _: Option<Credential>, _: Headers) -> BoxFuture<'_, Result<Vec<Box<RawValue>>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn refuse_own(&self, _: &Headers) -> Result<()> {
        Ok(())
    }

    fn share_under_way(&self) -> f64 {
        0.0
    }
}

/// The number of the question that a complete answer is to.
pub(super) fn number_of(body: &Body) -> Option<usize> {
    #[derive(Deserialize)]
    struct Choice {
        message: SimulatedMessage,
    }
    #[derive(Deserialize)]
    struct Completion {
        choices: Vec<Choice>,
    }
    let Body::Whole(bytes) = body else { return None };
    let completion: Completion = serde_json::from_slice(bytes).ok()?;
    let content = &completion.choices.first()?.message.content;
    let (number, _) = content.strip_prefix(ANSWER.0)?.split_once(ANSWER.1)?;
    number.parse().ok()
}
