//! The fields of a block's documents, turned round: from values to rows.

use std::collections::HashMap;
use std::ops::Bound;

use likewise_index::Bits;

use super::document::DocumentRef;
use super::filter::{Filter, Test};
use super::scalar::Scalar;
use super::values::Values;

/// For each field, its values in order, each with its row. Built once for a block that is filtered.
#[derive(Debug, Default)]
pub(super) struct MetadataIndex {
    /// The place of each field in `columns`.
    places: HashMap<String, usize>,
    columns: Vec<Vec<(Scalar, u32)>>,
    tags: HashMap<String, Vec<u32>>,
    rows: usize,
}

impl MetadataIndex {
    /// Of documents in the order of their rows.
    ///
    /// Cost: reads all metadata once, and sorts the values of each field.
    pub(super) fn of<'a>(documents: impl Iterator<Item = DocumentRef<'a>>) -> MetadataIndex {
        let mut fields = MetadataIndex::default();
        for (row, document) in (0..).zip(documents) {
            let (names, values) = Values::of(document.metadata).into_parts();
            let places: Vec<usize> = names.into_iter().map(|name| fields.place(name)).collect();
            for (name, value) in values {
                fields.columns[places[name]].push((value, row));
            }
            for tag in document.tags() {
                fields.tags.entry(tag.to_owned()).or_default().push(row);
            }
            fields.rows += 1;
        }
        for column in &mut fields.columns {
            column.sort_unstable();
            column.dedup();
        }
        fields
    }

    /// The place of a field's column, which is made if it is missing.
    fn place(&mut self, name: String) -> usize {
        *self.places.entry(name).or_insert_with(|| {
            self.columns.push(Vec::new());
            self.columns.len() - 1
        })
    }

    /// The rows that a filter means.
    pub(super) fn rows(&self, filter: &Filter) -> Bits {
        match filter {
            Filter::All(filters) => {
                let mut rows = Bits::with_len(self.rows, true);
                filters.iter().for_each(|filter| rows.and(&self.rows(filter)));
                rows
            }
            Filter::Any(filters) => {
                let mut rows = Bits::with_len(self.rows, false);
                filters.iter().for_each(|filter| rows.or(&self.rows(filter)));
                rows
            }
            Filter::Not(filter) => {
                let mut rows = self.rows(filter);
                rows.not();
                rows
            }
            Filter::Field(field, test) => self.rows_of(field, test),
            Filter::Tagged(tags) => {
                self.collect(tags.iter().filter_map(|tag| self.tags.get(tag)).flatten().copied())
            }
        }
    }

    fn rows_of(&self, field: &str, test: &Test) -> Bits {
        let column = self.places.get(field).map_or(&[][..], |&place| &self.columns[place]);
        let rows = |values: &[(Scalar, u32)]| values.iter().map(|(_, row)| *row).collect::<Vec<_>>();
        match test {
            Test::Exists => self.collect(column.iter().map(|(_, row)| *row)),
            Test::In(values) => self.collect(values.iter().flat_map(|value| {
                let from = column.partition_point(|(known, _)| known < value);
                let to = column.partition_point(|(known, _)| known <= value);
                rows(&column[from..to])
            })),
            Test::Range(from, to) => {
                let start = match from {
                    Bound::Included(limit) => column.partition_point(|(known, _)| known < limit),
                    Bound::Excluded(limit) => column.partition_point(|(known, _)| known <= limit),
                    Bound::Unbounded => 0,
                };
                let end = match to {
                    Bound::Included(limit) => column.partition_point(|(known, _)| known <= limit),
                    Bound::Excluded(limit) => column.partition_point(|(known, _)| known < limit),
                    Bound::Unbounded => column.len(),
                };
                // A range that is open on one side would run into values of another kind.
                let inside = column.get(start..end.max(start)).unwrap_or_default();
                self.collect(inside.iter().filter(|(value, _)| test.passes(value)).map(|(_, row)| *row))
            }
        }
    }

    fn collect(&self, rows: impl Iterator<Item = u32>) -> Bits {
        let mut bits = Bits::with_len(self.rows, false);
        rows.for_each(|row| bits.set(row as usize, true));
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Tag;
    use crate::search::document::Document;
    use crate::search::scalar::number;
    use proptest::prelude::*;

    fn scalar() -> impl Strategy<Value = Scalar> {
        prop_oneof![
            any::<bool>().prop_map(Scalar::Bool),
            (-3..4_i32).prop_map(|value| number(f64::from(value) / 2.0)),
            prop::sample::select(vec!["", "a", "año", "b"]).prop_map(|text| Scalar::Text(text.into())),
        ]
    }

    fn bound() -> impl Strategy<Value = Bound<Scalar>> {
        prop_oneof![
            Just(Bound::Unbounded),
            scalar().prop_map(Bound::Included),
            scalar().prop_map(Bound::Excluded),
        ]
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let field = || prop::sample::select(vec!["a", "b", "b.c", "none"]).prop_map(str::to_owned);
        let test = prop_oneof![
            prop::collection::vec(scalar(), 0..3).prop_map(Test::In),
            (bound(), bound()).prop_map(|(from, to)| Test::Range(from, to)),
            Just(Test::Exists),
        ];
        let tags = prop::collection::vec(prop::sample::select(vec!["x", "y:1", "z"]), 0..3);
        let leaf = prop_oneof![
            4 => (field(), test).prop_map(|(field, test)| Filter::Field(field, test)),
            1 => tags.prop_map(|tags| Filter::Tagged(tags.into_iter().map(str::to_owned).collect())),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::All),
                prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::Any),
                inner.prop_map(|filter| Filter::Not(Box::new(filter))),
            ]
        })
    }

    fn document() -> impl Strategy<Value = Document> {
        let metadata = prop::sample::select(vec![
            "",
            "{}",
            r#"{"a": 1, "b": "año"}"#,
            r#"{"a": [0.5, true, "a"], "b": {"c": -1.5}}"#,
            r#"{"a": null, "b": {"c": ["b", {"d": 1}]}}"#,
            r#"{"a": -0.0, "b": false}"#,
            r#"{"a": "", "b": 0}"#,
        ]);
        let tags = prop::sample::subsequence(vec!["x", "y:1", "z"], 0..=3);
        (metadata, tags).prop_map(|(metadata, tags)| Document {
            id: "1".into(),
            metadata: metadata.into(),
            tags: tags.into_iter().filter_map(Tag::named).collect(),
            ..Document::default()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3_000, ..ProptestConfig::default() })]

        #[test]
        fn the_turned_fields_say_what_each_document_says(
            documents in prop::collection::vec(document(), 0..12), filter in filter(),
        ) {
            let bytes: Vec<Vec<u8>> = documents.iter().map(Document::encode).collect();
            let documents: Vec<DocumentRef<'_>> =
                bytes.iter().map(|bytes| DocumentRef::decode(bytes).unwrap()).collect();
            let rows = MetadataIndex::of(documents.iter().copied()).rows(&filter);
            for (row, document) in documents.iter().enumerate() {
                let values = Values::of(document.metadata);
                prop_assert_eq!(rows.get(row), filter.means(document, &values), "{:?}", document);
            }
        }
    }
}
