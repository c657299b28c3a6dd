//! Arbitrary streams of a model: if one is stored as an answer, its replays say exactly what was said live.
//!
//! What is said is read by a client of a few lines that shares nothing with the server's own reading.

use std::collections::{BTreeMap, BTreeSet};

use likewise::dialects::chat_completions::{ChatCompletions, ChunkAssembler, read_reply};
use likewise::dialects::choices::{ChunkReplay, as_json, is_ping};
use likewise::dialects::{Answer, Assembler as _, Replay as _};
use likewise::domain::UnixSeconds;
use likewise::sse::Event;
use serde_json::{Map, Value, json};

const NOW: UnixSeconds = UnixSeconds(5);

/// Texts that a client adds up.
const TEXTS: [&str; 5] = ["content", "refusal", "reasoning", "reasoning_content", "thinking"];
/// What is of a delivery or a chunk, or overtaken by what is said later.
const NO_WORDS: [&str; 10] = [
    "id",
    "created",
    "object",
    "usage",
    "obfuscation",
    "p",
    "token_id",
    "index",
    "timings",
    "content_filter_offsets",
];

/// What a client has received.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Received {
    choices: BTreeMap<u64, ReceivedChoice>,
    usage: Option<Value>,
    /// Everything else: where it stood, and what it was.
    others: BTreeSet<(String, String)>,
    has_error: bool,
}

#[derive(Debug, Default, PartialEq)]
struct ReceivedChoice {
    texts: BTreeMap<String, String>,
    /// Texts of calls, by the call's place and name.
    calls: BTreeMap<(u64, String), String>,
    /// Lists that grow.
    lists: BTreeMap<String, Vec<Value>>,
    /// Entries of reasoning, each with its texts.
    details: Vec<BTreeMap<String, String>>,
    others: BTreeSet<(String, String)>,
}

/// Says the events of a stream that `data` describes, and checks what becomes of it; whether it would be stored.
pub(crate) fn check(data: &[u8]) -> bool {
    let events = Script(data).events();
    let mut assembly = ChunkAssembler::default();
    events.iter().for_each(|event| _ = assembly.push_data(event));
    let answer = assembly.finish().ok().and_then(|json| read_reply(&json));
    let Some(answer) = answer.filter(|answer| answer.unstorable.is_none()) else { return false };
    check_replays(&answer, &Received::read(&events));
    true
}

/// Whether both replays of an answer say the same, within bounds.
pub(crate) fn check_replays(answer: &Answer, live: &Received) {
    assert!(!live.has_error, "an error is stored: {live:?}");
    let whole = as_json::<ChatCompletions>(&answer.json, NOW);
    let hit = Received::read(&[String::from_utf8(as_chunk(&whole)).expect("JSON is UTF-8")]);
    assert_eq!(hit.without_snapshots(), live.without_snapshots(), "the whole answer, and what was said live");
    let Some(mut replay) = ChunkReplay::new::<ChatCompletions>(&answer.json, NOW, true) else { return };
    let stream = std::iter::from_fn(|| replay.next_bytes(1 << 16)).collect::<Vec<_>>().concat();
    assert!(stream.len() <= answer.json.len() * 10, "{} of {}", stream.len(), answer.json.len());
    let stream = String::from_utf8(stream).expect("JSON is UTF-8");
    let events: Vec<String> =
        stream.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(
        Received::read(&events).without_snapshots(),
        live.without_snapshots(),
        "the stream, and what was said live"
    );
}

/// A whole answer as the only chunk of a stream.
fn as_chunk(whole: &[u8]) -> Vec<u8> {
    let mut whole: Value = serde_json::from_slice(whole).expect("a replay is JSON");
    for choice in whole["choices"].as_array_mut().expect("an answer has choices") {
        let choice = choice.as_object_mut().expect("a choice is an object");
        let mut message = choice.remove("message").unwrap_or_default();
        if let Some(calls) = message["tool_calls"].as_array_mut() {
            calls.iter_mut().enumerate().for_each(|(place, call)| call["index"] = place.into());
        }
        choice.insert("delta".into(), message);
    }
    serde_json::to_vec(&whole).expect("it was JSON")
}

impl Received {
    pub(crate) fn read(events: &[String]) -> Received {
        let mut received = Received::default();
        let chunks = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
        for chunk in chunks.filter(|chunk| chunk["type"] != "ping") {
            let Value::Object(mut chunk) = chunk else { continue };
            received.has_error |= chunk.get("error").is_some_and(|error| !error.is_null());
            received.usage = chunk.remove("usage").filter(|usage| !usage.is_null()).or(received.usage.take());
            if let Some(Value::Array(choices)) = chunk.remove("choices") {
                choices.into_iter().for_each(|choice| received.choice(choice));
            }
            words("", &Value::Object(chunk), &mut received.others);
        }
        received.choices.values_mut().for_each(ReceivedChoice::renumber);
        received
    }

    fn choice(&mut self, choice: Value) {
        let Value::Object(mut choice) = choice else { return };
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or_default();
        let has_error =
            |members: &Map<String, Value>| members.get("error").is_some_and(|error| !error.is_null());
        self.has_error |= has_error(&choice) || choice.get("finish_reason") == Some(&json!("error"));
        let received = self.choices.entry(index).or_default();
        if let Some(Value::Object(mut delta)) = choice.remove("delta") {
            self.has_error |= has_error(&delta);
            received.delta(&mut delta);
        }
        received.list("token_ids", choice.remove("token_ids"));
        if let Some(Value::Object(mut logprobs)) = choice.remove("logprobs") {
            for name in ["content", "refusal"] {
                received.list(&format!("logprobs.{name}"), logprobs.remove(name));
            }
            words("logprobs", &Value::Object(logprobs), &mut received.others);
        }
        words("", &Value::Object(choice), &mut received.others);
    }

    /// Without what says again what other words say: `message` and `text` beside a delta, whose words must be there.
    fn without_snapshots(&self) -> Received {
        let mut received = Received {
            choices: BTreeMap::new(),
            usage: self.usage.clone(),
            others: self.others.clone(),
            has_error: false,
        };
        for (index, choice) in &self.choices {
            let said: String = choice.texts.values().map(String::as_str).collect::<Vec<_>>().join("\n");
            let mut others = BTreeSet::new();
            for (path, value) in &choice.others {
                match (path.as_str(), serde_json::from_str::<String>(value)) {
                    ("message.role", _) => {}
                    (path, Ok(text)) if path == "text" || path.starts_with("message.") => {
                        assert!(said.contains(&text), "{path} {text:?} is not in {said:?}");
                    }
                    _ => _ = others.insert((path.clone(), value.clone())),
                }
            }
            // Who speaks is the assistant, said or not.
            others.retain(|(path, _)| path != "delta.role");
            let choice = ReceivedChoice {
                texts: choice.texts.clone(),
                calls: choice.calls.clone(),
                lists: choice.lists.clone(),
                details: choice.details.clone(),
                others,
            };
            received.choices.insert(*index, choice);
        }
        received
    }
}

impl ReceivedChoice {
    fn delta(&mut self, delta: &mut Map<String, Value>) {
        for name in TEXTS {
            if let Some(Value::String(text)) = delta.get(name) {
                if !text.is_empty() {
                    self.texts.entry(name.into()).or_default().push_str(text);
                }
                delta.remove(name);
            }
        }
        if let Some(Value::Array(calls)) = delta.remove("tool_calls") {
            for call in calls {
                self.call(call["index"].as_u64().unwrap_or_default(), "", &call);
            }
        }
        if let Some(call @ Value::Object(_)) = delta.remove("function_call") {
            self.call(u64::MAX, "", &call);
        }
        if let Some(Value::Array(details)) = delta.remove("reasoning_details") {
            details.iter().for_each(|entry| self.detail(entry));
        }
        words("delta", &Value::Object(std::mem::take(delta)), &mut self.others);
    }

    fn call(&mut self, place: u64, path: &str, call: &Value) {
        for (name, value) in call.as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let grows = ["arguments", "input", "name"].contains(&name.as_str());
            if let Some(text) = value.as_str().filter(|_| grows) {
                self.calls.entry((place, path)).or_default().push_str(text);
            } else if value.is_object() {
                self.call(place, &path, value);
            } else if !value.is_null() && name != "index" {
                self.calls.insert((place, path), value.to_string());
            }
        }
    }

    fn detail(&mut self, entry: &Value) {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let place = entry["index"].as_u64().map(|index| index.to_string());
        let is_same = |known: &BTreeMap<String, String>| {
            place.is_some()
                && known.get("index") == place.as_ref()
                && (text("type").is_empty() || known.get("type") == Some(&text("type")))
        };
        let at = self.details.iter().position(is_same).unwrap_or_else(|| {
            self.details.push(BTreeMap::new());
            self.details.len() - 1
        });
        for (name, value) in entry.as_object().into_iter().flatten() {
            let known = self.details[at].entry(name.clone()).or_default();
            let grows = ["text", "summary", "data", "signature"].contains(&name.as_str());
            if let Some(text) = value.as_str() {
                if grows {
                    known.push_str(text);
                } else if !text.is_empty() {
                    text.clone_into(known);
                }
            } else if !value.is_null() {
                *known = value.to_string();
            }
        }
    }

    fn list(&mut self, name: &str, part: Option<Value>) {
        if let Some(Value::Array(part)) = part
            && !part.is_empty()
        {
            self.lists.entry(name.into()).or_default().extend(part);
        }
    }

    /// Calls are identified by their order, not by the numbers that they had; an empty value counts as absent.
    fn renumber(&mut self) {
        let mut places: Vec<u64> = self.calls.keys().map(|(place, _)| *place).collect();
        places.dedup();
        let place = |own: u64| match own {
            u64::MAX => own,
            own => places.iter().position(|place| *place == own).unwrap_or_default() as u64,
        };
        let calls = std::mem::take(&mut self.calls).into_iter();
        self.calls = calls
            .filter(|(_, text)| !text.is_empty() && text != "\"\"")
            .map(|((own, path), text)| ((place(own), path), text))
            .collect();
        self.details.iter_mut().for_each(|entry| entry.retain(|_, text| !text.is_empty()));
    }
}

/// Everything that a value says, and where.
fn words(path: &str, value: &Value, out: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(name, _)| !NO_WORDS.contains(&name.as_str())) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                words(&path, value, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| words(path, item, out)),
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            _ = out.insert((path.into(), value.to_string()))
        }
    }
}

/// Bytes that say which chunks a stream has.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        let mut indexes = BTreeSet::new();
        while !self.0.is_empty() && events.len() < 64 {
            events.push(match self.next() % 16 {
                0 => "{\"type\":\"ping\"}".to_owned(),
                _ => self.chunk(&mut indexes).to_string(),
            });
        }
        for index in indexes {
            let reason = ["stop", "eos", "tool_calls", "STOP"][usize::from(self.next() % 4)];
            events.push(
                json!({ "choices": [{ "index": index, "delta": {}, "finish_reason": reason }] }).to_string(),
            );
        }
        events.push("[DONE]".into());
        events
    }

    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    fn chunk(&mut self, indexes: &mut BTreeSet<u64>) -> Value {
        const BESIDE: [&str; 10] = [
            "model",
            "usage",
            "citations",
            "x_groq",
            "provider",
            "timings",
            "search_results",
            "unheard_of",
            "error",
            "obfuscation",
        ];
        let mut chunk = Map::new();
        self.members(&BESIDE, 12, &mut chunk);
        let choices = (0..self.next() % 8 / 3).map(|_| self.choice(indexes)).collect();
        chunk.insert("choices".into(), Value::Array(choices));
        Value::Object(chunk)
    }

    fn choice(&mut self, indexes: &mut BTreeSet<u64>) -> Value {
        const BESIDE: [&str; 10] = [
            "text",
            "message",
            "logprobs",
            "token_ids",
            "stop_reason",
            "seed",
            "content_filter_results",
            "content_filter_offsets",
            "unheard_of",
            "error",
        ];
        const DELTA: [&str; 20] = [
            "content",
            "content",
            "content",
            "role",
            "refusal",
            "reasoning",
            "reasoning_content",
            "tool_calls",
            "tool_calls",
            "function_call",
            "reasoning_details",
            "reasoning_details",
            "annotations",
            "audio",
            "token_id",
            "name",
            "extra_content",
            "thinking",
            "unheard_of",
            "error",
        ];
        let index = u64::from(self.next() % 8 / 6);
        indexes.insert(index);
        let mut delta = Map::new();
        for _ in 0..=self.next() % 2 {
            self.members(&DELTA, 20, &mut delta);
        }
        let delta = if self.next().is_multiple_of(16) { Value::Null } else { Value::Object(delta) };
        let mut choice = Map::from_iter([("index".to_owned(), index.into()), ("delta".to_owned(), delta)]);
        self.members(&BESIDE, 24, &mut choice);
        Value::Object(choice)
    }

    /// One of the members, or none for numbers past them.
    fn members(&mut self, names: &[&str], of: u8, out: &mut Map<String, Value>) {
        if let Some(name) = names.get(usize::from(self.next() % of)) {
            let value = self.value(name);
            out.insert((*name).to_owned(), value);
        }
    }

    fn value(&mut self, name: &str) -> Value {
        const WORDS: [&str; 8] = ["a", "b ", "{\"x\":", "1}", "", " ñ\n", "\"", "word after word "];
        let odd = self.next();
        let word = WORDS[usize::from(self.next() % 8)];
        if odd.is_multiple_of(32) {
            let any = [
                json!(null),
                json!(""),
                json!("w"),
                json!(7),
                json!([]),
                json!({}),
                json!([7]),
                json!({ "a": "z" }),
            ];
            return any[usize::from(self.next() % 8)].clone();
        }
        let place = u64::from(odd % 4 / 3);
        match name {
            "usage" | "timings" | "content_filter_offsets" => json!({ "total_tokens": odd }),
            "citations" | "search_results" | "annotations" => json!([word]),
            "x_groq" | "extra_content" | "audio" | "content_filter_results" => {
                json!({ WORDS[usize::from(odd % 8)]: word })
            }
            "unheard_of" | "error" if !odd.is_multiple_of(4) => Value::Null,
            "message" => json!({ "role": "assistant", "content": word }),
            "logprobs" => json!({ "content": [{ "token": word }], "refusal": null }),
            "token_ids" => json!([odd % 3]),
            "seed" | "token_id" => json!(odd % 2),
            "role" => "assistant".into(),
            "function_call" => json!({ "arguments": word }),
            "tool_calls" => match odd % 4 {
                0 => {
                    json!([{ "index": place, "id": "c", "type": "function", "function": { "name": "f", "arguments": "" } }])
                }
                _ => json!([{ "index": place, "function": { "arguments": word } }]),
            },
            "reasoning_details" => match odd % 8 {
                0 => json!([{ "type": "reasoning.text", "text": word }]),
                1 => json!([{ "type": "reasoning.encrypted", "index": place, "data": word }]),
                2 => json!([{ "index": place, "signature": word }]),
                _ => json!([{ "type": "reasoning.text", "index": place, "text": word }]),
            },
            _ => word.into(),
        }
    }
}

/// Whole events, as a stream's bytes hold them: none is lost in reading them.
pub(crate) fn data_of(events: &[Event]) -> Vec<String> {
    let said = events.iter().filter(|event| !is_ping(event));
    said.filter_map(|event| event.data.clone()).collect()
}
