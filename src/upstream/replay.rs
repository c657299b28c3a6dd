//! Writes a kept answer in either of the forms that it can be asked for in.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use super::answer::OF_DELIVERY;
use crate::domain::UnixSeconds;

/// A piece of text ends at the first space behind so many bytes.
const PIECE_BYTES: usize = 24;
/// Members of an answer that each of its chunks has; the others, which may be long, are in the first one.
const IN_EVERY_CHUNK: [&str; 6] = ["id", "object", "created", "model", "system_fingerprint", "service_tier"];
/// Members of a message that its first chunk does not hold.
const IN_PIECES: [&str; 4] = ["content", "refusal", "tool_calls", "function_call"];

/// The answer as one JSON text, as a new delivery.
pub fn as_json(json: &[u8], created: UnixSeconds) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 80);
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(new_id().as_bytes());
    out.extend_from_slice(format!("\",\"created\":{created}").as_bytes());
    let rest = json.get(1..).unwrap_or_default();
    if rest != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    out
}

/// The answer as a stream of events, as a new delivery. None if it is no answer that this program has kept.
pub fn as_events(json: &[u8], created: UnixSeconds, wants_usage: bool) -> Option<Vec<u8>> {
    let Ok(Value::Object(mut whole)) = serde_json::from_slice(json) else { return None };
    let Some(Value::Array(choices)) = whole.remove("choices") else { return None };
    let usage = whole.remove("usage");
    OF_DELIVERY.iter().for_each(|name| _ = whole.remove(*name));
    whole.insert("id".into(), new_id().into());
    whole.insert("created".into(), created.0.into());
    whole.insert("object".into(), "chat.completion.chunk".into());
    let (frame, once): (Map<String, Value>, Map<String, Value>) =
        whole.into_iter().partition(|(name, _)| IN_EVERY_CHUNK.contains(&name.as_str()));
    let mut stream = Stream { frame: open(&frame)?, once: open(&once)?, wants_usage, out: Vec::new() };
    for (place, choice) in choices.into_iter().enumerate() {
        let Value::Object(choice) = choice else { return None };
        stream.choice(place, choice)?;
    }
    if let Some(usage) = usage.filter(|_| wants_usage) {
        stream.event(&format!("[],\"usage\":{usage}"));
    }
    stream.out.extend_from_slice(b"data: [DONE]\n\n");
    Some(stream.out)
}

/// An object, left open for more members.
fn open(members: &Map<String, Value>) -> Option<String> {
    let mut text = serde_json::to_string(members).ok()?;
    text.pop();
    Some(text)
}

/// Events as they are written.
struct Stream {
    /// What every chunk begins with.
    frame: String,
    /// What is said once, by the first chunk, written as an object.
    once: String,
    wants_usage: bool,
    out: Vec<u8>,
}

impl Stream {
    fn choice(&mut self, place: usize, mut choice: Map<String, Value>) -> Option<()> {
        let Some(Value::Object(mut message)) = choice.remove("message") else { return None };
        let index = choice.remove("index").unwrap_or_else(|| place.into());
        let reason = choice.remove("finish_reason").unwrap_or_default();
        let logprobs = choice.remove("logprobs");
        let parts: Vec<Option<Value>> = IN_PIECES.iter().map(|name| message.remove(*name)).collect();
        let [content, refusal, calls, call] = <[Option<Value>; 4]>::try_from(parts).ok()?;
        let has_logprobs = logprobs.is_some();
        let mut tokens = Tokens(logprobs);
        // The first chunk says who speaks, and whatever is said at once.
        for (name, text) in [("content", &content), ("refusal", &refusal)] {
            if let Some(text) = text {
                // What is no text cannot come in pieces.
                let first = match text.as_str() {
                    Some(_) if name == "content" => "".into(),
                    Some(_) => Value::Null,
                    None => text.clone(),
                };
                message.insert(name.into(), first);
            }
        }
        let mut chunk = choice;
        chunk.insert("index".into(), index.clone());
        if has_logprobs {
            chunk.insert("logprobs".into(), tokens.rest_without(&[&content, &refusal]));
        }
        self.chunk(chunk, Value::Object(message), Value::Null);
        for (name, text) in [("content", content), ("refusal", refusal)] {
            let Some(Value::String(text)) = text else { continue };
            for (piece, logprobs) in tokens.pieces(name, &text) {
                self.chunk(bare(&index, logprobs), json!({ name: piece }), Value::Null);
            }
        }
        if let Some(Value::Array(calls)) = calls {
            for (place, call) in calls.into_iter().enumerate() {
                for mut delta in call_pieces(call) {
                    delta.insert("index".into(), place.into());
                    self.chunk(bare(&index, None), json!({ "tool_calls": [delta] }), Value::Null);
                }
            }
        }
        if let Some(call @ Value::Object(_)) = call {
            for delta in call_pieces(call) {
                self.chunk(bare(&index, None), json!({ "function_call": delta }), Value::Null);
            }
        }
        self.chunk(bare(&index, has_logprobs.then_some(Value::Null)), json!({}), reason);
        Some(())
    }

    fn chunk(&mut self, mut choice: Map<String, Value>, delta: Value, reason: Value) {
        choice.insert("delta".into(), delta);
        choice.insert("finish_reason".into(), reason);
        let usage = if self.wants_usage { ",\"usage\":null" } else { "" };
        self.event(&format!("[{}]{usage}", Value::Object(choice)));
    }

    fn event(&mut self, choices: &str) {
        self.out.extend_from_slice(b"data: ");
        self.out.extend_from_slice(self.frame.as_bytes());
        if self.once.len() > 1 {
            self.out.push(b',');
            self.out.extend_from_slice(&std::mem::take(&mut self.once).as_bytes()[1..]);
        }
        self.out.extend_from_slice(b",\"choices\":");
        self.out.extend_from_slice(choices.as_bytes());
        self.out.extend_from_slice(b"}\n\n");
    }
}

fn bare(index: &Value, logprobs: Option<Value>) -> Map<String, Value> {
    let mut choice = Map::from_iter([("index".to_owned(), index.clone())]);
    if let Some(logprobs) = logprobs {
        choice.insert("logprobs".into(), logprobs);
    }
    choice
}

/// The probabilities of a choice, which go out with the words that they are of.
struct Tokens(Option<Value>);

impl Tokens {
    /// Pieces of a text, each with its probabilities: a token each where tokens are told, words where not.
    fn pieces<'t>(&self, name: &str, text: &'t str) -> Vec<(&'t str, Option<Value>)> {
        let list = self.0.as_ref().and_then(|logprobs| logprobs.get(name)).and_then(Value::as_array);
        if let Some(list) = list
            && let Some(pieces) = of_tokens(text, list)
        {
            // As the model sends them: what says nothing of the whole says nothing of a piece.
            let members = self.0.as_ref().and_then(Value::as_object).into_iter().flatten();
            let empty: Map<String, Value> = members
                .filter(|(_, list)| list.is_null())
                .map(|(name, list)| (name.clone(), list.clone()))
                .collect();
            let with = |(piece, token): (&'t str, &Value)| {
                let mut logprobs = empty.clone();
                logprobs.insert(name.to_owned(), json!([token]));
                (piece, Some(Value::Object(logprobs)))
            };
            return pieces.into_iter().zip(list).map(with).collect();
        }
        let nothing = self.0.as_ref().map(|_| Value::Null);
        of_words(text).into_iter().map(|piece| (piece, nothing.clone())).collect()
    }

    /// What does not go out with words: lists that do not spell the text, and empty ones.
    fn rest_without(&mut self, texts: &[&Option<Value>; 2]) -> Value {
        let Some(Value::Object(logprobs)) = &self.0 else { return Value::Null };
        let spells = |name: &str, list: &Value| {
            let text = if name == "refusal" { texts[1] } else { texts[0] };
            let text = text.as_ref().and_then(Value::as_str);
            let known = ["content", "refusal"].contains(&name);
            known
                && list.as_array().is_some_and(|list| {
                    !list.is_empty() && text.is_some_and(|text| of_tokens(text, list).is_some())
                })
        };
        let rest: Map<String, Value> = logprobs
            .iter()
            .filter(|(name, list)| !spells(name, list))
            .map(|(name, list)| (name.clone(), list.clone()))
            .collect();
        let is_told = rest.len() < logprobs.len() && rest.values().all(Value::is_null);
        if is_told { Value::Null } else { Value::Object(rest) }
    }
}

/// The text cut into its tokens; none if they do not spell it, as where one holds half a letter.
fn of_tokens<'t>(text: &'t str, tokens: &[Value]) -> Option<Vec<&'t str>> {
    let mut rest = text;
    let cut = |token: &Value| {
        let word = token.get("token")?.as_str()?;
        let piece = rest.get(..word.len()).filter(|piece| *piece == word)?;
        rest = &rest[word.len()..];
        Some(piece)
    };
    let pieces = tokens.iter().map(cut).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then_some(pieces)
}

/// The text cut behind spaces.
fn of_words(text: &str) -> Vec<&str> {
    let (mut pieces, mut begin, mut end) = (Vec::new(), 0, 0);
    for word in text.split_inclusive(char::is_whitespace) {
        end += word.len();
        if end - begin >= PIECE_BYTES {
            pieces.push(&text[begin..end]);
            begin = end;
        }
    }
    if begin < text.len() {
        pieces.push(&text[begin..]);
    }
    pieces
}

/// A call as it is streamed: its name first, then what it is called with.
fn call_pieces(call: Value) -> Vec<Map<String, Value>> {
    let Value::Object(mut call) = call else { return Vec::new() };
    call.remove("index");
    let mut later = Vec::new();
    let mut take = |members: &mut Map<String, Value>, within: Option<&str>| {
        for name in ["arguments", "input"] {
            if let Some(Value::String(text)) = members.get_mut(name) {
                let text = std::mem::take(text);
                later.extend(of_words(&text).into_iter().map(|piece| match within {
                    Some(within) => Map::from_iter([(within.to_owned(), json!({ name: piece }))]),
                    None => Map::from_iter([(name.to_owned(), piece.into())]),
                }));
            }
        }
    };
    take(&mut call, None);
    for within in ["function", "custom"] {
        if let Some(Value::Object(members)) = call.get_mut(within) {
            take(members, Some(within));
        }
    }
    std::iter::once(call).chain(later).collect()
}

/// A name that no other delivery has: counted from a random number, and mixed (SplitMix64).
fn new_id() -> String {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));
    let mut mixed = NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("chatcmpl-{:016x}", mixed ^ (mixed >> 31))
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Assembly, Events};
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixSeconds = UnixSeconds(7);

    /// A stream read as a client reads it.
    fn read(stream: &[u8]) -> (Vec<Value>, Value) {
        let (mut events, mut assembly, mut chunks) = (Events::default(), Assembly::default(), Vec::new());
        events.push(stream);
        while let Some(event) = events.next_event() {
            let data = event.data.unwrap();
            assembly.push(&data);
            chunks.extend(serde_json::from_str::<Value>(&data));
        }
        assert!(events.rest().is_empty());
        let whole = serde_json::from_slice(&assembly.finish().expect("it adds up")).unwrap();
        (chunks, whole)
    }

    fn without_delivery(mut value: Value) -> Value {
        OF_DELIVERY.iter().for_each(|name| _ = value.as_object_mut().unwrap().remove(*name));
        value
    }

    fn assert_round_trip(whole: &Value) -> Vec<Value> {
        let answer = Answer::read(whole.to_string().as_bytes()).expect("an answer");
        let json: Value = serde_json::from_slice(&as_json(&answer.json, NOW)).unwrap();
        assert_eq!(without_delivery(json.clone()), without_delivery(whole.clone()));
        assert_eq!(json["created"], 7);
        let (chunks, again) = read(&as_events(&answer.json, NOW, true).unwrap());
        assert_eq!(without_delivery(again), without_delivery(whole.clone()));
        assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["created"] == 7));
        chunks
    }

    fn answer(choices: Value) -> Value {
        json!({ "id": "x", "created": 1, "object": "chat.completion", "model": "m", "system_fingerprint": "fp",
            "choices": choices, "usage": { "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 } })
    }

    #[test]
    fn an_answer_of_every_kind_is_the_same_in_both_forms() {
        let token =
            |token: &str| json!({ "token": token, "logprob": -0.25, "bytes": [1], "top_logprobs": [] });
        let text = "uno dos tres cuatro cinco seis siete ocho nueve diez\n\nonce 😀";
        let calls = json!([
            { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"a\": [1, 2], \"b\": \"c d\"}" } },
            { "id": "b", "type": "custom", "custom": { "name": "g", "input": "some free text that is long enough" } },
        ]);
        let chunks = assert_round_trip(&answer(json!([
            { "index": 0, "finish_reason": "stop", "logprobs": null,
              "message": { "role": "assistant", "content": text, "refusal": null, "annotations": [] } },
            { "index": 1, "finish_reason": "stop", "message": { "role": "assistant", "content": "ab c" },
              "logprobs": { "content": [token("ab"), token(" c")], "refusal": null } },
            { "index": 2, "finish_reason": "tool_calls", "logprobs": null,
              "message": { "role": "assistant", "content": null, "refusal": null, "tool_calls": calls } },
            { "index": 3, "finish_reason": "stop", "logprobs": { "content": null, "refusal": [token("no")] },
              "message": { "role": "assistant", "content": null, "refusal": "no" } },
            { "index": 4, "finish_reason": "function_call",
              "message": { "role": "assistant", "content": null, "function_call": { "name": "f", "arguments": "{}" } } },
            { "index": 5, "finish_reason": "stop", "message": { "role": "assistant", "content": "" } },
            { "index": 6, "finish_reason": "stop", "message": { "role": "assistant", "content": "ñ" },
              "logprobs": { "content": [token("\u{fffd}"), token("\u{fffd}")], "refusal": null } },
        ])));
        assert!(chunks.len() > 20, "not one giant chunk");
        let of_second = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == 1);
        let told: Vec<&Value> = of_second.map(|choice| &choice["logprobs"]).collect();
        let piece = |text| json!({ "content": [token(text)], "refusal": null });
        assert_eq!(told, [&Value::Null, &piece("ab"), &piece(" c"), &Value::Null]);
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let last = chunks.last().unwrap();
        assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(3)));
        assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["usage"].is_null()));
    }

    #[test]
    fn usage_is_told_to_those_who_ask() {
        let whole = answer(json!([{ "index": 0, "finish_reason": "stop", "message": { "content": "a" } }]));
        let answer = Answer::read(whole.to_string().as_bytes()).unwrap();
        let (chunks, _) = read(&as_events(&answer.json, NOW, false).unwrap());
        assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    }

    #[test]
    fn two_deliveries_have_two_names() {
        assert_ne!(as_json(b"{}", NOW), as_json(b"{}", NOW));
        assert!(serde_json::from_slice::<Value>(&as_json(b"{}", NOW)).is_ok());
    }

    #[test]
    fn what_is_no_part_of_every_chunk_is_said_once() {
        let long = "cited ".repeat(1000);
        let choice = |content: Value| json!({ "message": { "content": content }, "finish_reason": "stop" });
        let parts = json!([{ "type": "text", "text": "two" }]);
        let whole = json!({ "model": "m", "citations": [long], "choices": [choice(long.clone().into()), choice(parts.clone())] });
        let json = whole.to_string();
        let events = as_events(json.as_bytes(), UnixSeconds(7), false).unwrap();
        assert!(events.len() < json.len() * 20, "{} bytes", events.len());
        let (chunks, again) = read(&events);
        assert_eq!(chunks.iter().filter(|chunk| chunk.get("citations").is_some()).count(), 1);
        assert_eq!(again["citations"], whole["citations"]);
        assert_eq!(again["choices"][0]["message"]["content"], long);
        assert_eq!(again["choices"][1]["message"]["content"], parts, "what is no text stays what it is");
    }

    #[test]
    fn what_is_no_answer_is_not_streamed() {
        for json in ["", "[]", "{}", r#"{"choices":[1]}"#, r#"{"choices":[{}]}"#] {
            assert!(as_events(json.as_bytes(), NOW, true).is_none(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_out_of_its_pieces(text in "(?s).{0,200}") {
            assert_round_trip(&answer(json!([
                { "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } },
            ])));
        }
    }
}
