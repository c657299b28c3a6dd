//! Files of judged questions: pairs of which is known whether they ask the same, or questions with what answers them.

use std::collections::HashMap;
use std::path::Path;

use likewise::error::{Error, Kind, Result};
use serde::Deserialize;

use crate::cli::json_lines::{lines, parsed};

/// What a file asks, and what is known of the answers.
#[derive(Debug, Default)]
pub(in crate::cli) struct JudgedFile {
    /// All different texts.
    pub(in crate::cli) texts: Vec<String>,
    /// The questions in the order of the file; of pairs both questions of each.
    pub(in crate::cli) requests: Vec<StreamRequest>,
    /// The pairs, if it is a file of pairs.
    pub(in crate::cli) pairs: Vec<TextPair>,
}

/// A question that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct StreamRequest {
    /// The place of its text.
    pub(in crate::cli) text: usize,
    /// Which answer is right: two questions with the same number share it. `None` if that is not known.
    pub(in crate::cli) answer: Option<usize>,
}

/// Two questions, by the places of their texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct TextPair {
    pub(in crate::cli) first: usize,
    pub(in crate::cli) second: usize,
    pub(in crate::cli) is_same: bool,
    /// What kind of pair it is; empty if the file does not say.
    pub(in crate::cli) kind: String,
    pub(in crate::cli) language: String,
}

#[derive(Deserialize)]
struct Line {
    a: Option<String>,
    b: Option<String>,
    label: Option<u8>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    lang: String,
    text: Option<String>,
    #[serde(alias = "intent")]
    answer: Option<String>,
}

impl JudgedFile {
    /// Reads JSON lines: `a`, `b`, `label` (1: they ask the same, 0: they do not), `kind` and `lang`; or `text` and `answer` (anything that names the
    /// answer, such as an intent; absent if it is not known).
    ///
    /// # Errors
    /// `Config` if the file cannot be opened; `InvalidInput`, with the line, for a line that is neither, and for an empty file.
    pub(in crate::cli) fn read(path: &Path) -> Result<JudgedFile> {
        let (mut file, mut places, mut answers) = (JudgedFile::default(), HashMap::new(), HashMap::new());
        for (number, line) in lines(path)? {
            let read = line.and_then(|line| parsed::<Line>(&line)).and_then(|line| {
                let mut place_of = |text: String| {
                    let next = places.len();
                    *places.entry(text).or_insert(next)
                };
                match line {
                    Line {
                        a: Some(a),
                        b: Some(b),
                        label: Some(label @ (0 | 1)),
                        text: None,
                        kind,
                        lang: language,
                        ..
                    } => {
                        let [first, second] = [a, b].map(&mut place_of);
                        file.pairs.push(TextPair { first, second, is_same: label == 1, kind, language });
                    }
                    Line { a: None, b: None, text: Some(text), answer, .. } => {
                        let next = answers.len();
                        let answer = answer.map(|answer| *answers.entry(answer).or_insert(next));
                        file.requests.push(StreamRequest { text: place_of(text), answer });
                    }
                    _ => {
                        let message = "a line must have a, b and label (0 or 1), or text and answer";
                        return Err(Error::new(Kind::InvalidInput, message));
                    }
                }
                Ok(())
            });
            read.map_err(|error| error.with("file", path.display()).with("line", number))?;
        }
        let fault = |message: &str| Err(Error::new(Kind::InvalidInput, message).with("file", path.display()));
        if places.is_empty() {
            return fault("there are no questions");
        }
        if !file.pairs.is_empty() && !file.requests.is_empty() {
            return fault("a file has pairs or questions, not both");
        }
        file.texts = vec![String::new(); places.len()];
        places.into_iter().for_each(|(text, place)| file.texts[place] = text);
        if !file.pairs.is_empty() {
            let answers = components(file.texts.len(), &file.pairs);
            let both = file.pairs.iter().flat_map(|pair| [pair.first, pair.second]);
            file.requests = both.map(|text| StreamRequest { text, answer: Some(answers[text]) }).collect();
        }
        Ok(file)
    }
}

/// The number of the component of each text, where pairs that ask the same are joined.
fn components(texts: usize, pairs: &[TextPair]) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..texts).collect();
    fn root_of(parents: &mut [usize], text: usize) -> usize {
        let mut root = text;
        while parents[root] != root {
            // Each step halves the way of the next search.
            parents[root] = parents[parents[root]];
            root = parents[root];
        }
        root
    }
    for pair in pairs.iter().filter(|pair| pair.is_same) {
        let [first, second] = [pair.first, pair.second].map(|text| root_of(&mut parents, text));
        parents[first] = second;
    }
    (0..texts).map(|text| root_of(&mut parents, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<JudgedFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("judged.jsonl");
        fs_err::write(&path, content).unwrap();
        JudgedFile::read(&path)
    }

    #[test]
    fn pairs_that_ask_the_same_share_an_answer_by_way_of_others() {
        let line = |a, b, label| format!("{{\"a\":\"{a}\",\"b\":\"{b}\",\"label\":{label}}}\n");
        let content = [line("one", "two", 1), line("three", "two", 1), line("one", "four", 0)].concat();
        let file = read(&content).unwrap();
        assert_eq!(file.texts, ["one", "two", "three", "four"]);
        let answers: Vec<_> = file.requests.iter().map(|request| request.answer.unwrap()).collect();
        assert!(answers[..5].iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_ne!(answers[5], answers[0]);
    }

    #[test]
    fn questions_keep_their_order_and_may_have_no_answer() {
        let file =
            read("{\"text\":\"a\",\"intent\":\"x\"}\n{\"text\":\"b\"}\n{\"text\":\"a\",\"answer\":\"x\"}\n")
                .unwrap();
        let request = |text, answer| StreamRequest { text, answer };
        assert_eq!(file.requests, [request(0, Some(0)), request(1, None), request(0, Some(0))]);
    }

    #[test]
    fn lines_that_are_neither_are_named() {
        let question = "{\"text\":\"a\"}\n";
        for (content, named) in [
            ("".to_owned(), "no questions"),
            (format!("{question}{{\"a\":\"x\",\"b\":\"y\"}}"), "line: 2"),
            ("{\"a\":\"x\",\"b\":\"y\",\"label\":2}".to_owned(), "0 or 1"),
            (format!("{question}{{\"a\":\"x\",\"b\":\"y\",\"label\":1}}"), "not both"),
            (format!("{question}x"), "line: 2"),
        ] {
            let error = read(&content).unwrap_err();
            assert!(error.to_string().contains(named), "{content}: {error}");
        }
    }
}
