//! Makes one whole answer of the chunks of a stream, or none where that could lose something.
//!
//! Texts that grow are known by their names and joined; whatever else a chunk says may be said once. A member that nobody
//! here knows and that is said twice in different ways has no certain sum, and then there is no whole answer.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::answer::{OF_DELIVERY, Usage};

/// Members of a delta whose text grows from chunk to chunk.
const GROWING: [&str; 5] = ["content", "refusal", "reasoning", "reasoning_content", "thinking"];
/// Members of a tool's call whose text grows.
const GROWING_IN_CALLS: [&str; 2] = ["arguments", "input"];
/// Members of a delta or a call that may be said again with every chunk. Of any other text nobody can tell whether the same
/// piece has come twice or is said twice.
const SAID_AGAIN: [&str; 4] = ["id", "name", "role", "type"];
/// Members that are of one chunk and not of the answer: letters that hide the length of a chunk (OpenAI's and Mistral's).
const OF_CHUNK: [&str; 2] = ["obfuscation", "p"];
/// The same of a choice beside its delta (Together's).
const OF_CHOICE_CHUNK: [&str; 1] = ["text"];
/// The same of a delta.
const OF_DELTA: [&str; 1] = ["token_id"];
/// Members of a delta that are lists and grow (OpenRouter's).
const GROWING_LISTS: [&str; 1] = ["reasoning_details"];
/// Members of a choice of which the last word holds: how far the filter has read (Azure's).
const OVERTAKEN: [&str; 1] = ["content_filter_offsets"];
/// Choices, and calls of one choice, that an answer may have.
const PARTS_MAX: u64 = 1024;

/// A stream as far as it has come.
#[derive(Debug, Default)]
pub struct Assembly {
    whole: Map<String, Value>,
    choices: BTreeMap<u64, Choice>,
    is_done: bool,
    has_error: bool,
    is_uncertain: bool,
    has_given_up: bool,
}

/// What one event was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// It tells what the answer used, and nothing else.
    pub is_usage: bool,
    /// It tells that the answer has failed.
    pub is_error: bool,
}

#[derive(Debug, Default)]
struct Choice {
    whole: Map<String, Value>,
    message: Map<String, Value>,
    calls: BTreeMap<u64, Map<String, Value>>,
}

/// Something was said twice in different ways.
struct Uncertain;

impl Assembly {
    /// Adds the data of one event.
    pub fn push(&mut self, data: &str) -> Note {
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Note::default();
        }
        let Ok(Value::Object(chunk)) = serde_json::from_str(data) else {
            self.is_uncertain = true;
            return Note::default();
        };
        let has_error = chunk.get("error").is_some_and(|error| !error.is_null());
        // Some servers send the error itself.
        if has_error || chunk.get("object").is_some_and(|object| object == "error") {
            self.has_error = true;
            return Note { is_error: true, ..Note::default() };
        }
        let has_choices =
            chunk.get("choices").and_then(Value::as_array).is_some_and(|choices| !choices.is_empty());
        let is_usage = !has_choices && chunk.get("usage").is_some_and(|usage| !usage.is_null());
        // What comes after the end belongs to nothing.
        if self.is_done || self.add(chunk).is_err() {
            self.is_uncertain = true;
        }
        Note { is_usage, is_error: false }
    }

    /// Whether the stream has said that it is over.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether every choice has said how it ended.
    pub fn has_ended(&self) -> bool {
        let has_ended = |choice: &Choice| choice.whole.get("finish_reason").is_some_and(Value::is_string);
        !self.choices.is_empty() && self.choices.values().all(has_ended)
    }

    /// What the answer used, if the stream has said so.
    pub fn usage(&self) -> Option<Usage> {
        serde_json::from_value(self.whole.get("usage")?.clone()).ok()
    }

    /// Something was said that cannot be read: there will be no whole answer.
    pub fn doubt(&mut self) {
        self.is_uncertain = true;
    }

    /// There will be no whole answer, and nothing for one is collected any more.
    pub fn give_up(&mut self) {
        self.is_uncertain = true;
        self.has_given_up = true;
        self.whole.retain(|name, _| name == "usage");
        for choice in self.choices.values_mut() {
            choice.message.clear();
            choice.calls.clear();
            choice.whole.retain(|name, _| name == "finish_reason");
        }
    }

    /// The whole answer as JSON; none if the stream has not come to its end, has failed, or cannot be summed up.
    pub fn finish(self) -> Option<Vec<u8>> {
        let is_contiguous = self.choices.keys().copied().eq(0..self.choices.len() as u64);
        if !self.is_done || self.has_error || self.is_uncertain || self.choices.is_empty() || !is_contiguous {
            return None;
        }
        if !self.choices.values().all(Choice::calls_are_whole) {
            return None;
        }
        let mut whole = self.whole;
        whole.insert("object".into(), "chat.completion".into());
        let choices = self.choices.into_iter().map(|(index, choice)| choice.finish(index)).collect();
        whole.insert("choices".into(), Value::Array(choices));
        serde_json::to_vec(&whole).ok()
    }

    fn add(&mut self, mut chunk: Map<String, Value>) -> Result<(), Uncertain> {
        // First, because it is known also of what cannot be summed up. The last word on it holds: some upstreams count along.
        if let Some(usage) = chunk.remove("usage").filter(|usage| !usage.is_null()) {
            self.whole.insert("usage".into(), usage);
        }
        for (name, value) in chunk {
            match name.as_str() {
                "choices" => {
                    let Value::Array(choices) = value else { return Err(Uncertain) };
                    choices.into_iter().try_for_each(|choice| self.add_choice(choice))?;
                }
                _ if self.has_given_up => {}
                "object" => {}
                of_chunk if OF_CHUNK.contains(&of_chunk) => {}
                known if OF_DELIVERY.contains(&known) => {
                    self.whole.entry(name).or_insert(value);
                }
                _ => once(&mut self.whole, name, value, true)?,
            }
        }
        Ok(())
    }

    fn add_choice(&mut self, choice: Value) -> Result<(), Uncertain> {
        let Value::Object(mut choice) = choice else { return Err(Uncertain) };
        let index = place(choice.remove("index"))?;
        let known = self.choices.entry(index).or_default();
        // First, as what was used.
        if let Some(reason) = choice.remove("finish_reason") {
            once(&mut known.whole, "finish_reason".into(), reason, true)?;
        }
        if self.has_given_up {
            return Ok(());
        }
        let has_delta = choice.get("delta").is_some_and(Value::is_object);
        for (name, value) in choice {
            match (name.as_str(), value) {
                ("delta", Value::Object(delta)) => known.add_delta(delta)?,
                (of_chunk, _) if has_delta && OF_CHOICE_CHUNK.contains(&of_chunk) => {}
                (overtaken, value) if OVERTAKEN.contains(&overtaken) => {
                    known.whole.insert(name, value);
                }
                ("logprobs", Value::Object(logprobs)) => known.add_logprobs(logprobs)?,
                (_, value) => once(&mut known.whole, name, value, true)?,
            }
        }
        Ok(())
    }
}

impl Choice {
    fn add_delta(&mut self, delta: Map<String, Value>) -> Result<(), Uncertain> {
        for (name, value) in delta {
            match (name.as_str(), value) {
                ("tool_calls", Value::Array(calls)) => {
                    calls.into_iter().try_for_each(|call| self.add_call(call))?;
                }
                ("function_call", Value::Object(call)) => add_call(within(&mut self.message, name)?, call)?,
                (of_delta, _) if OF_DELTA.contains(&of_delta) => {}
                (growing, Value::Array(more)) if GROWING_LISTS.contains(&growing) => {
                    let so_far = self.message.entry(name).or_insert_with(|| json!([]));
                    so_far.as_array_mut().ok_or(Uncertain)?.extend(more);
                }
                (growing, Value::String(text)) if GROWING.contains(&growing) => {
                    grow(&mut self.message, name, &text)?;
                }
                (known, value) => {
                    let may_repeat = SAID_AGAIN.contains(&known);
                    once(&mut self.message, name, value, may_repeat)?;
                }
            }
        }
        Ok(())
    }

    fn add_call(&mut self, call: Value) -> Result<(), Uncertain> {
        let Value::Object(mut call) = call else { return Err(Uncertain) };
        let index = place(call.remove("index"))?;
        add_call(self.calls.entry(index).or_default(), call)
    }

    /// Lists of tokens, one list for the content and one for a refusal.
    fn add_logprobs(&mut self, logprobs: Map<String, Value>) -> Result<(), Uncertain> {
        let known = self.whole.entry("logprobs").or_insert(Value::Null);
        if known.is_null() {
            *known = json!({});
        }
        let Value::Object(known) = known else { return Err(Uncertain) };
        for (name, value) in logprobs {
            match (known.get_mut(&name), value) {
                (Some(Value::Array(tokens)), Value::Array(more)) => tokens.extend(more),
                (Some(Value::Array(_)), Value::Null) => {}
                (None | Some(Value::Null), value) => _ = known.insert(name, value),
                (Some(_), _) => return Err(Uncertain),
            }
        }
        Ok(())
    }

    /// Whether what every function is called with is one value: two calls under one number would be none.
    fn calls_are_whole(&self) -> bool {
        let functions = self.calls.values().filter_map(|call| call.get("function"));
        functions.chain(self.message.get("function_call")).all(|function| {
            let arguments = function.get("arguments").and_then(Value::as_str).unwrap_or_default();
            arguments.trim().is_empty() || serde_json::from_str::<IgnoredAny>(arguments).is_ok()
        })
    }

    fn finish(mut self, index: u64) -> Value {
        if !self.calls.is_empty() {
            let calls = self.calls.into_values().map(Value::Object).collect();
            self.message.insert("tool_calls".into(), Value::Array(calls));
        }
        self.message.entry("role").or_insert_with(|| "assistant".into());
        self.message.entry("content").or_insert(Value::Null);
        self.whole.insert("index".into(), index.into());
        self.whole.insert("message".into(), Value::Object(self.message));
        self.whole.entry("finish_reason").or_insert(Value::Null);
        Value::Object(self.whole)
    }
}

fn place(index: Option<Value>) -> Result<u64, Uncertain> {
    index.as_ref().and_then(Value::as_u64).filter(|index| *index < PARTS_MAX).ok_or(Uncertain)
}

/// Adds to a call, or to the function within it.
fn add_call(known: &mut Map<String, Value>, call: Map<String, Value>) -> Result<(), Uncertain> {
    for (name, value) in call {
        match (name.as_str(), value) {
            (growing, Value::String(text)) if GROWING_IN_CALLS.contains(&growing) => {
                grow(known, name, &text)?
            }
            (_, Value::Object(inner)) => add_call(within(known, name)?, inner)?,
            (said, value) => {
                let may_repeat = SAID_AGAIN.contains(&said);
                once(known, name, value, may_repeat)?;
            }
        }
    }
    Ok(())
}

/// The object called `name`, which is said bit by bit.
fn within(known: &mut Map<String, Value>, name: String) -> Result<&mut Map<String, Value>, Uncertain> {
    let inner = known.entry(name).or_insert(Value::Null);
    if inner.is_null() {
        *inner = json!({});
    }
    inner.as_object_mut().ok_or(Uncertain)
}

fn grow(known: &mut Map<String, Value>, name: String, text: &str) -> Result<(), Uncertain> {
    match known.entry(name).or_insert(Value::Null) {
        Value::String(so_far) => so_far.push_str(text),
        nothing @ Value::Null => *nothing = text.into(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => return Err(Uncertain),
    }
    Ok(())
}

/// What is said once, or, if it may be, again in the same way. An object may be said bit by bit; nothing and the empty say
/// nothing.
fn once(
    known: &mut Map<String, Value>,
    name: String,
    value: Value,
    may_repeat: bool,
) -> Result<(), Uncertain> {
    match (known.get_mut(&name), value) {
        (Some(_), value) if says_nothing(&value) => Ok(()),
        (Some(Value::Object(before)), Value::Object(more)) => {
            more.into_iter().try_for_each(|(name, value)| once(before, name, value, may_repeat))
        }
        (Some(before), value) if !says_nothing(before) => {
            let is_piece = value.is_string() || value.is_array();
            if *before == value && (may_repeat || !is_piece) { Ok(()) } else { Err(Uncertain) }
        }
        (_, value) => {
            known.insert(name, value);
            Ok(())
        }
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(chunks: &[Value]) -> Option<Value> {
        let mut assembly = Assembly::default();
        chunks.iter().for_each(|chunk| _ = assembly.push(&chunk.to_string()));
        assembly.push("[DONE]");
        assembly.finish().map(|json| serde_json::from_slice(&json).unwrap())
    }

    fn chunk(delta: Value, reason: Value) -> Value {
        json!({ "id": "c", "created": 1, "object": "chat.completion.chunk", "model": "m",
            "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason }], "usage": null })
    }

    #[test]
    fn words_logprobs_and_usage_add_up() {
        let token =
            |token: &str| json!({ "content": [{ "token": token, "logprob": -0.1 }], "refusal": null });
        let mut one = chunk(json!({ "content": "Ho" }), Value::Null);
        one["choices"][0]["logprobs"] = token("Ho");
        let mut two = chunk(json!({ "content": "la" }), Value::Null);
        two["choices"][0]["logprobs"] = token("la");
        let usage =
            json!({ "id": "c", "created": 1, "model": "m", "choices": [], "usage": { "total_tokens": 3 } });
        let first = chunk(json!({ "role": "assistant", "content": "", "refusal": null }), Value::Null);
        let whole = assemble(&[first, one, two, chunk(json!({}), "stop".into()), usage]).unwrap();
        let choice = &whole["choices"][0];
        assert_eq!(choice["message"], json!({ "role": "assistant", "content": "Hola", "refusal": null }));
        assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 2);
        assert_eq!(choice["finish_reason"], "stop");
        assert_eq!(
            (&whole["usage"]["total_tokens"], &whole["object"]),
            (&json!(3), &json!("chat.completion"))
        );
    }

    #[test]
    fn choices_and_calls_come_to_their_own_places() {
        let call = |choice: u64, call: Value| json!({ "model": "m", "choices": [{ "index": choice, "delta": { "tool_calls": [call] } }] });
        let end = |choice: u64| json!({ "choices": [{ "index": choice, "delta": {}, "finish_reason": "tool_calls" }] });
        let named = json!({ "id": "a", "type": "function", "index": 0, "function": { "name": "f", "arguments": "" } });
        let other = json!({ "id": "b", "type": "function", "index": 1, "function": { "name": "g", "arguments": "{}" } });
        let more = |text: &str| json!({ "index": 0, "function": { "arguments": text } });
        let whole = assemble(&[
            call(1, named.clone()),
            call(0, named),
            call(0, other),
            call(1, more("{\"x\"")),
            call(1, more(":1}")),
            end(0),
            end(1),
        ])
        .unwrap();
        let calls = &whole["choices"][1]["message"]["tool_calls"];
        let expected =
            json!([{ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } }]);
        assert_eq!(*calls, expected);
        assert_eq!(whole["choices"][0]["message"]["tool_calls"][1]["function"]["name"], "g");
        assert_eq!(whole["choices"][0]["message"]["content"], Value::Null);
    }

    #[test]
    fn what_cannot_be_summed_up_is_no_answer() {
        let end = || chunk(json!({}), "stop".into());
        let audio = |data: &str| chunk(json!({ "audio": { "data": data } }), Value::Null);
        assert!(assemble(&[audio("a"), audio("b"), end()]).is_none());
        assert!(assemble(&[audio("a"), audio("a"), end()]).is_none(), "two pieces may be alike");
        assert!(assemble(&[audio("a"), audio(""), end()]).is_some());
        assert!(assemble(&[]).is_none());
        assert!(assemble(&[json!({ "choices": [{ "index": 3, "delta": {} }] }), end()]).is_none(), "a gap");
        assert!(assemble(&[json!({ "error": { "message": "no" } }), end()]).is_none());
        assert!(assemble(&[json!({ "object": "error", "message": "no" }), end()]).is_none());
        assert!(assemble(&[json!({ "choices": [{ "delta": {} }] })]).is_none(), "no index");
        let mut cut = Assembly::default();
        cut.push(&end().to_string());
        assert!(cut.finish().is_none(), "it has not said that it is over");
        let mut wrong = Assembly::default();
        wrong.push("{nonsense");
        wrong.push(&end().to_string());
        wrong.push("[DONE]");
        assert!(wrong.finish().is_none());
    }

    #[test]
    fn what_is_told_bit_by_bit_is_put_together() {
        let beside = |name: &str, told: Value| {
            let mut chunk = chunk(json!({ "role": "assistant", "content": "a" }), Value::Null);
            chunk[name] = told;
            chunk
        };
        let end = chunk(json!({}), "stop".into());
        let groq = [
            beside("x_groq", json!({ "id": "r" })),
            beside("x_groq", json!({ "usage": { "total_tokens": 3 } })),
            end.clone(),
        ];
        let whole = assemble(&groq).unwrap();
        assert_eq!(whole["x_groq"], json!({ "id": "r", "usage": { "total_tokens": 3 } }));
        assert_eq!(whole["choices"][0]["message"]["content"], "aa");
        let filters = |told: Value| {
            let mut chunk = end.clone();
            chunk["choices"][0]["content_filter_results"] = told;
            chunk
        };
        let safe = json!({ "hate": { "filtered": false, "severity": "safe" } });
        let whole = assemble(&[filters(json!({})), filters(safe.clone()), filters(safe.clone())]).unwrap();
        assert_eq!(whole["choices"][0]["content_filter_results"], safe);
        let low = json!({ "hate": { "filtered": false, "severity": "low" } });
        assert!(assemble(&[filters(safe), filters(low)]).is_none(), "nobody knows which one holds");
    }

    #[test]
    fn what_was_used_is_known_also_of_a_stream_without_a_sum() {
        let mut assembly = Assembly::default();
        assembly.push(&chunk(json!({ "audio": "a" }), Value::Null).to_string());
        assert!(!assembly.has_ended());
        assembly.push(&chunk(json!({ "audio": "b" }), "stop".into()).to_string());
        assembly.push(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#);
        assert!(assembly.has_ended());
        assert_eq!(assembly.usage(), Some(Usage { prompt_tokens: 3, completion_tokens: 2 }));
        assert!(assembly.finish().is_none());
    }

    #[test]
    fn the_event_that_tells_only_what_was_used_is_known() {
        let mut assembly = Assembly::default();
        let usage = json!({ "choices": [], "usage": { "total_tokens": 3 } });
        assert!(assembly.push(&usage.to_string()).is_usage);
        assert!(!assembly.push(&chunk(json!({ "content": "a" }), Value::Null).to_string()).is_usage);
        assert!(assembly.push(r#"{"error":{"message":"no"}}"#).is_error);
    }

    /// Streams as they come from servers that add something of their own to each chunk.
    #[test]
    fn what_is_of_a_chunk_is_not_of_the_answer() {
        let mut mistral =
            [chunk(json!({ "content": "a" }), Value::Null), chunk(json!({ "content": "b" }), json!("stop"))];
        mistral[0]["p"] = json!("abc");
        mistral[1]["p"] = json!("abcdef");
        let mut together = mistral.clone();
        together[0]["choices"][0]["text"] = json!("a");
        together[1]["choices"][0]["text"] = json!("b");
        together[0]["choices"][0]["delta"]["token_id"] = json!(32);
        together[1]["choices"][0]["delta"]["token_id"] = json!(33);
        let mut azure = mistral.clone();
        for (at, end) in [(0, 5), (1, 9)] {
            azure[at]["choices"][0]["content_filter_offsets"] = json!({ "end_offset": end });
        }
        for chunks in [&mistral, &together, &azure] {
            let whole = assemble(chunks).expect("it adds up");
            assert_eq!(whole["choices"][0]["message"]["content"], "ab");
            assert!(whole.get("p").is_none() && whole["choices"][0].get("text").is_none());
        }
        assert_eq!(assemble(&azure).unwrap()["choices"][0]["content_filter_offsets"]["end_offset"], 9);
        let thought = |text: &str| chunk(json!({ "reasoning_details": [{ "text": text }] }), Value::Null);
        let whole =
            assemble(&[thought("x"), thought("x"), chunk(json!({ "content": "y" }), json!("stop"))]).unwrap();
        let details = &whole["choices"][0]["message"]["reasoning_details"];
        assert_eq!(*details, json!([{ "text": "x" }, { "text": "x" }]));
    }

    #[test]
    fn two_calls_under_one_number_are_none() {
        let call = |arguments: &str| {
            let call = json!({ "index": 0, "function": { "name": "", "arguments": arguments } });
            chunk(json!({ "function_call": null, "tool_calls": [call] }), Value::Null)
        };
        let end = chunk(json!({}), json!("tool_calls"));
        assert!(assemble(&[call("{\"a\":"), call("1}"), end.clone()]).is_some());
        assert!(assemble(&[call("{\"a\":1}"), call("{\"a\":2}"), end]).is_none());
    }
}
