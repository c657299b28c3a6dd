//! The JSON of search results, written from their stored bytes: at once, or in pieces.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::response::chunked::CHUNK_BYTES;
use crate::search::{Hit, Results};

/// A field of a result besides id and score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Field {
    Text,
    Metadata,
    Tags,
    Vector,
}

/// An answer that is being written, in pieces or at once.
pub(super) struct ResultsWriter {
    results: Vec<Results>,
    include: Vec<Field>,
    is_batch: bool,
    version: u64,
    /// Which results are next, and where among their bytes.
    query: usize,
    at: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Results,
    Done,
}

impl ResultsWriter {
    pub(super) fn new(
        results: Vec<Results>,
        include: Vec<Field>,
        is_batch: bool,
        version: u64,
    ) -> ResultsWriter {
        ResultsWriter { results, include, is_batch, version, query: 0, at: 0, stage: Stage::Head }
    }

    /// Writes on until there are `bytes` or more, or all is written.
    pub(super) fn write(&mut self, json: &mut Vec<u8>, bytes: usize) {
        if self.stage == Stage::Head {
            self.stage = Stage::Results;
            json.extend_from_slice(br#"{"results":"#);
            json.extend(self.is_batch.then_some(b'['));
        }
        while self.stage == Stage::Results && json.len() < bytes {
            self.write_next(json);
        }
    }

    /// Writes one result, or the end of a list.
    fn write_next(&mut self, json: &mut Vec<u8>) {
        let Some(results) = self.results.get(self.query) else {
            self.stage = Stage::Done;
            json.extend(self.is_batch.then_some(b']'));
            json.extend_from_slice(br#","version":"#);
            value(json, &self.version);
            return json.push(b'}');
        };
        if self.at == 0 {
            json.extend((self.query > 0).then_some(b','));
            json.push(b'[');
        }
        if let Some((hit, next)) = results.at(self.at) {
            json.extend((self.at > 0).then_some(b','));
            write_hit(json, &hit, &self.include);
            self.at = next;
        } else {
            json.push(b']');
            (self.query, self.at) = (self.query + 1, 0);
        }
    }
}

impl Iterator for ResultsWriter {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut json = Vec::new();
        self.write(&mut json, CHUNK_BYTES);
        (!json.is_empty()).then(|| json.into())
    }
}

fn write_hit(json: &mut Vec<u8>, hit: &Hit<'_>, include: &[Field]) {
    json.extend_from_slice(br#"{"id":"#);
    value(json, hit.document.id);
    json.extend_from_slice(br#","score":"#);
    value(json, &hit.score);
    if include.contains(&Field::Text)
        && let Some(text) = hit.document.text
    {
        json.extend_from_slice(br#","text":"#);
        value(json, text);
    }
    if include.contains(&Field::Metadata) && !hit.document.metadata.is_empty() {
        // It was a JSON object when it came in, and is kept as it was.
        json.extend_from_slice(br#","metadata":"#);
        json.extend_from_slice(hit.document.metadata.as_bytes());
    }
    if include.contains(&Field::Tags) {
        json.extend_from_slice(br#","tags":"#);
        separated(json, hit.document.tags(), value);
    }
    if include.contains(&Field::Vector) {
        json.extend_from_slice(br#","vector":"#);
        let numbers = hit.vector.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number));
        separated(json, numbers, |json, number| value(json, &number));
    }
    json.push(b'}');
}

/// A JSON list.
fn separated<T>(json: &mut Vec<u8>, items: impl Iterator<Item = T>, mut item: impl FnMut(&mut Vec<u8>, T)) {
    json.push(b'[');
    for (place, each) in items.enumerate() {
        if place > 0 {
            json.push(b',');
        }
        item(json, each);
    }
    json.push(b']');
}

fn value<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("a plain value into memory: this is a bug");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    fn writer(queries: usize, hits: usize, is_batch: bool) -> ResultsWriter {
        let document = [&0_u32.to_le_bytes()[..], &2_u32.to_le_bytes(), &[1, 0, 0, 0], b"a{}"].concat();
        let hit =
            [&1.5_f32.to_le_bytes()[..], &(document.len() as u32).to_le_bytes(), &[0; 4], &document].concat();
        let results = vec![Results::from_bytes(hit.repeat(hits).into()); queries];
        ResultsWriter::new(results, vec![Field::Metadata], is_batch, 7)
    }

    #[test]
    fn an_answer_in_pieces_is_the_answer_at_once() {
        for (queries, hits, is_batch) in
            [(1, 0, false), (1, 3, false), (3, 0, true), (2, 5000, true), (0, 0, true)]
        {
            let mut whole = Vec::new();
            writer(queries, hits, is_batch).write(&mut whole, usize::MAX);
            let pieces: Vec<Bytes> = writer(queries, hits, is_batch).collect();
            assert!(pieces.iter().all(|piece| piece.len() < CHUNK_BYTES + 100));
            assert_eq!(pieces.concat(), whole);
            let json: Json = serde_json::from_slice(&whole).unwrap();
            let lists: Vec<&Json> = if is_batch {
                json["results"].as_array().unwrap().iter().collect()
            } else {
                vec![&json["results"]]
            };
            assert_eq!(lists.len(), queries);
            let hit = serde_json::json!({ "id": "a", "score": 1.5, "text": "", "metadata": {} });
            let hit = |found: &Json| found["id"] == hit["id"] && found["metadata"] == hit["metadata"];
            for list in lists {
                assert!(
                    list.as_array().unwrap().len() == hits && list.as_array().unwrap().iter().all(hit),
                    "{list}"
                );
            }
            assert_eq!(json["version"], 7);
        }
    }
}
