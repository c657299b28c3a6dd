//! Which documents two views of one collection have not in common: what a generation still lacks of another one.

use super::document::Document;
use super::view::{Cursor, View};

/// Documents of a view that another one lacks, or has otherwise.
#[derive(Debug, Default)]
pub struct Difference {
    /// The documents, in the order in which they were written.
    pub documents: Vec<Document>,
    /// Documents on the way there that both have.
    pub common: usize,
    /// Where the next ones begin; `None` at the end.
    pub next: Option<Cursor>,
}

impl View {
    /// The next documents, from a place on, that `other` lacks or has with another text, metadata or tags: at most `documents_max` of at
    /// most `rows_max` rows that are looked at. Vectors are not compared. Cost: one lookup by id for each row.
    pub fn difference(
        &self,
        from: Cursor,
        other: &View,
        documents_max: usize,
        rows_max: usize,
    ) -> Difference {
        let mut difference = Difference::default();
        let (mut number, mut start) = from;
        while let Some(part) = self.parts.get(number) {
            for row in start..part.block.len() {
                let looked_at = difference.documents.len() + difference.common;
                if difference.documents.len() == documents_max || looked_at == rows_max {
                    difference.next = Some((number, row));
                    return difference;
                }
                if !part.live.get(row) {
                    continue;
                }
                let document = part.block.document(row);
                if other.get(document.id).is_some_and(|(there, _)| there == document) {
                    difference.common += 1;
                } else {
                    difference.documents.push(document.to_document());
                }
            }
            (number, start) = (number + 1, 0);
        }
        difference
    }

    /// The ids of documents, from a place on, that `other` lacks, of at most `rows_max` rows that are looked at; and where the next ones
    /// begin.
    pub fn ids_missing_in(
        &self,
        other: &View,
        from: Cursor,
        rows_max: usize,
    ) -> (Vec<String>, Option<Cursor>) {
        let (page, next) = self.page(from, rows_max);
        let missing = page.into_iter().filter(|(document, _)| other.find(document.id).is_none());
        (missing.map(|(document, _)| document.id.to_owned()).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use likewise_index::Metric;

    use super::*;

    fn view(documents: &[(&str, &str)]) -> View {
        let mut view = View { metric: Metric::L2, dim: 1, parts: Vec::new(), index: None, version: 0 };
        for (id, text) in documents {
            let document = Document { id: (*id).into(), text: Some((*text).into()), ..Document::default() };
            view.add(vec![1.0], vec![document.encode().into()]);
        }
        view.merge_delta();
        view
    }

    #[test]
    fn what_is_missing_or_changed_is_found_in_its_order_whatever_the_limits_are() {
        let source = view(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("b", "5"), ("e", "6")]);
        let target = view(&[("a", "1"), ("b", "2"), ("d", "4"), ("gone", "7")]);
        for (documents_max, rows_max) in [(1, 1), (1, 9), (2, 2), (9, 2), (9, 9)] {
            let (mut found, mut common, mut from) = (Vec::new(), 0, Some((0, 0)));
            while let Some(cursor) = from {
                let difference = source.difference(cursor, &target, documents_max, rows_max);
                assert!(difference.documents.len() <= documents_max);
                found.extend(difference.documents.into_iter().map(|document| document.id));
                common += difference.common;
                from = difference.next;
            }
            assert_eq!((found, common), (["c", "b", "e"].map(str::to_owned).to_vec(), 2), "{rows_max}");
            let (mut gone, mut from) = (Vec::new(), Some((0, 0)));
            while let Some(cursor) = from {
                let (ids, next) = target.ids_missing_in(&source, cursor, rows_max);
                gone.extend(ids);
                from = next;
            }
            assert_eq!(gone, ["gone"]);
        }
    }
}
