//! Reads a complete reply, and decides whether it may be stored.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ReplyChoice, ReplyFormat};
use crate::dialects::usage::OF_CHOICES;
use crate::dialects::{Answer, HostedFeatures, Unstorable};
use crate::raw_object::{RawObject, on_one_line};

/// What names one delivery of an answer and not the answer; replays get new ones.
pub(super) const OF_DELIVERY: [&str; 2] = ["id", "created"];
/// Members that replays repeat with every chunk.
pub(super) const OF_ENVELOPE: [&str; 3] = ["model", "system_fingerprint", "service_tier"];
/// How long one of these may be, as JSON. Names of models have at most so many bytes in requests too.
pub(super) const ENVELOPE_BYTES_MAX: usize = 258;
/// Choices that an answer may have.
const CHOICES_MAX: u64 = 1024;

/// Words for an end by the model's own decision, of any case. OpenAI: `stop`. Together: `eos`. Text Generation Inference and
/// watsonx: `eos_token`, `stop_sequence`. Anthropic by way of gateways: `end_turn`, `stop_sequence`. Cohere: `COMPLETE`,
/// `STOP_SEQUENCE`. Gemini by way of gateways: `STOP`, `FINISH_REASON_STOP`. AI21: `endoftext`. Titan: `FINISH`.
const ENDS: [&str; 9] = [
    "stop",
    "eos",
    "eos_token",
    "stop_sequence",
    "end_turn",
    "complete",
    "finish_reason_stop",
    "endoftext",
    "finish",
];

/// Words for an end at the limit of tokens, of any case. OpenAI: `length`. Gemini by way of gateways: `MAX_TOKENS`. Anthropic by way of
/// gateways: `max_tokens`.
const LIMITS: [&str; 2] = ["length", "max_tokens"];

#[derive(Deserialize)]
struct Wire<'a, C> {
    choices: Vec<C>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// The answer in the body of a reply. `None` for anything but a reply with at least one choice.
pub fn read_reply<F: ReplyFormat>(body: &[u8]) -> Option<Answer> {
    let wire: Wire<'_, F::Reply<'_>> = serde_json::from_slice(body).ok()?;
    let members = RawObject::read(body)?;
    if wire.choices.is_empty() || members.get("error").is_some_and(|error| error != "null") {
        return None;
    }
    let unstorable = wire.choices.iter().find_map(ReplyChoice::unstorable);
    Some(Answer {
        json: on_one_line(members.write_without(&OF_DELIVERY)).into(),
        // An answer that counts in a way of its own is an answer all the same.
        usage: wire.usage.and_then(|usage| OF_CHOICES.read(&serde_json::from_str(usage.get()).ok()?)),
        unstorable: unstorable.or_else(|| unstorable_envelope(&members, &wire.choices)),
        hosted: HostedFeatures::default(),
        calls_tools: wire.choices.iter().any(ReplyChoice::calls_tools),
        is_truncated: wire.choices.iter().any(ReplyChoice::is_truncated),
        ends_with_done: false,
    })
}

/// The text of an answer. `None` if it has several choices, or says anything else than one text.
pub fn text_of_answer<F: ReplyFormat>(answer: &[u8]) -> Option<String> {
    let wire: Wire<'_, F::Reply<'_>> = serde_json::from_slice(answer).ok()?;
    match wire.choices.as_slice() {
        [choice] if !choice.calls_tools() => choice.text(),
        _ => None,
    }
}

/// Why an answer cannot be replayed whose choices can.
fn unstorable_envelope(members: &RawObject<'_>, choices: &[impl ReplyChoice]) -> Option<Unstorable> {
    let is_long = |name: &&str| members.get(name).is_some_and(|value| value.len() > ENVELOPE_BYTES_MAX);
    if OF_ENVELOPE.iter().chain(&OF_DELIVERY).chain(&["object"]).any(is_long) {
        return Some(Unstorable::Envelope);
    }
    if members.get("object").is_some_and(|object| object == "\"error\"") {
        return Some(Unstorable::Error);
    }
    // A client that reads a stream adds up what has the same number.
    let numbers = choices.iter().enumerate().map(|(place, choice)| number(place, choice.index()));
    let apart: BTreeSet<u64> = numbers.flatten().collect();
    (apart.len() < choices.len()).then_some(Unstorable::UnknownMember)
}

/// The number of a choice; its place if it has none.
pub(in crate::dialects) fn number(place: usize, index: Option<&RawValue>) -> Option<u64> {
    let number = match index {
        Some(index) => index.get().parse().ok()?,
        None => place as u64,
    };
    (number < CHOICES_MAX).then_some(number)
}

/// Whether a finish reason says that the model ended the choice itself.
pub(in crate::dialects) fn ends_by_itself(finish_reason: Option<&str>) -> bool {
    is_one_of(finish_reason, &ENDS)
}

/// Whether a finish reason says that the choice ended at the limit of tokens.
pub(in crate::dialects) fn ends_at_limit(finish_reason: Option<&str>) -> bool {
    is_one_of(finish_reason, &LIMITS)
}

/// Whether a finish reason is one of `known`, in any case.
pub(in crate::dialects) fn is_one_of(finish_reason: Option<&str>, known: &[&str]) -> bool {
    finish_reason.is_some_and(|reason| known.iter().any(|known| reason.eq_ignore_ascii_case(known)))
}

/// Whether a value is neither blank text nor an empty list or object.
pub(in crate::dialects) fn says_something(json: &str) -> bool {
    if json.starts_with('"') {
        return serde_json::from_str::<String>(json).is_ok_and(|text| !text.trim().is_empty());
    }
    let inner = json.strip_prefix(['[', '{']).and_then(|rest| rest.strip_suffix([']', '}']));
    json != "null" && inner.is_none_or(|inner| !inner.trim_ascii().is_empty())
}
