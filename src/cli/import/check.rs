//! Checks all documents of an import before the first is sent.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};

use likewise::domain::Tag;
use likewise::error::{Error, Kind, Result};
use likewise::search::{ID_BYTES_MAX, METADATA_BYTES_MAX, Metric, TAGS_MAX, Unfit, check_metadata};

use super::rows::{ImportedDocument, NumberedDocuments};

/// Faults that are shown; the others are counted.
const SHOWN_MAX: usize = 10;
/// The longest vector that the server takes.
const NORM_MAX: f64 = 1e18;

/// What documents must be to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct DocumentRules {
    pub(super) metric: Metric,
    /// Length of the vectors; that of the first one if it is not known yet.
    pub(super) dimensions: Option<usize>,
    /// Whether texts without vectors can be embedded, if that is known.
    pub(super) embeds: Option<bool>,
}

/// What was found of the documents.
#[derive(Debug, Default)]
pub(super) struct CheckReport {
    /// Documents that can be stored.
    pub(super) good: usize,
    /// The numbers of those that cannot.
    pub(super) bad: HashSet<usize>,
    /// What is wrong with the first of them.
    shown: Vec<String>,
    /// Length of the vectors, if there are any.
    pub(super) dimensions: Option<usize>,
    /// Whether the first document brings its vector.
    pub(super) begins_with_vector: bool,
    /// The number and the text of the longest one that is to be embedded.
    pub(super) longest: Option<(usize, String)>,
}

impl CheckReport {
    /// Reads all documents.
    pub(super) fn of(rows: NumberedDocuments<'_>, mut rules: DocumentRules) -> CheckReport {
        let mut checked = CheckReport::default();
        let mut ids: HashMap<String, usize> = HashMap::new();
        for (number, document) in rows {
            let document = match document {
                Ok(document) => document,
                Err(error) => {
                    checked.refuse(number, &error.to_string());
                    continue;
                }
            };
            if checked.good == 0 {
                checked.begins_with_vector = document.vector.is_some();
                // Texts are embedded by the server's model, unless the collection is made for vectors that are brought.
                rules.embeds = rules.embeds.or_else(|| document.vector.is_some().then_some(false));
            }
            match check(&document, &mut rules) {
                Err(fault) => checked.refuse(number, &fault),
                Ok(()) => checked.take(number, document, &mut ids),
            }
        }
        checked.dimensions = rules.dimensions;
        checked
    }

    fn take(&mut self, number: usize, document: ImportedDocument, ids: &mut HashMap<String, usize>) {
        match ids.entry(document.id) {
            Entry::Occupied(first) => {
                let fault = format!("the id {:?} is that of number {} already", first.key(), first.get());
                return self.refuse(number, &fault);
            }
            Entry::Vacant(place) => _ = place.insert(number),
        }
        self.good += 1;
        let longest = self.longest.as_ref().map_or(0, |(_, text)| text.len());
        if let (Some(text), None) = (document.text, document.vector)
            && text.len() > longest
        {
            self.longest = Some((number, text));
        }
    }

    /// Leaves a document out.
    pub(super) fn refuse(&mut self, number: usize, fault: &str) {
        self.bad.insert(number);
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(format!("{number}: {fault}"));
        }
    }

    /// What is wrong, a line each; `unit` is what the numbers count.
    pub(super) fn report(&self, unit: &str) -> String {
        let mut report: String = self.shown.iter().map(|fault| format!("{unit} {fault}\n")).collect();
        if self.bad.len() > self.shown.len() {
            report += &format!("and {} more\n", self.bad.len() - self.shown.len());
        }
        report
    }

    /// Refuses all documents if one is bad.
    ///
    /// # Errors
    /// `InvalidInput` with what is wrong.
    pub(super) fn all_good(&self, unit: &str) -> Result<()> {
        if self.bad.is_empty() {
            return Ok(());
        }
        let message = format!(
            "nothing was stored: {} of {} documents cannot be (--continue stores the others)\n{}",
            self.bad.len(),
            self.bad.len() + self.good,
            self.report(unit).trim_end()
        );
        Err(Error::new(Kind::InvalidInput, message))
    }
}

/// Checks one document; what is wrong is said in words.
fn check(document: &ImportedDocument, rules: &mut DocumentRules) -> Result<(), String> {
    if !(1..=ID_BYTES_MAX).contains(&document.id.len()) {
        return Err(format!("id must have 1 to {ID_BYTES_MAX} bytes, got {}", document.id.len()));
    }
    let metadata = document.metadata.as_ref().map(|raw| raw.get()).filter(|&raw| raw != "null");
    if let Some(metadata) = metadata {
        if metadata.len() > METADATA_BYTES_MAX {
            return Err(format!(
                "metadata must have at most {METADATA_BYTES_MAX} bytes, got {}",
                metadata.len()
            ));
        }
        check_metadata(metadata)?;
    }
    let tags = document.tags.as_deref().unwrap_or_default();
    if tags.len() > TAGS_MAX {
        return Err(format!("a document must have at most {TAGS_MAX} tags, got {}", tags.len()));
    }
    if let Some(tag) = tags.iter().find(|tag| Tag::named(tag).is_none()) {
        let shown: String = tag.chars().take(100).collect();
        return Err(format!("the tag {shown:?}: {}", Tag::RULE));
    }
    match (&document.vector, document.text.as_deref()) {
        (Some(vector), _) => check_vector(vector.numbers()?, rules),
        (None, None) => Err("a document has a text, a vector, or both".into()),
        (None, Some("")) => Err("text must not be empty without a vector".into()),
        (None, Some(_)) if rules.embeds == Some(false) => {
            Err("a text without a vector, and the collection has no model".into())
        }
        (None, Some(_)) => Ok(()),
    }
}

fn check_vector(mut numbers: Vec<f32>, rules: &mut DocumentRules) -> Result<(), String> {
    let dimensions = rules.dimensions.unwrap_or(numbers.len());
    if numbers.len() != dimensions || numbers.is_empty() {
        return Err(format!("the vector has {} numbers, the others have {dimensions}", numbers.len()));
    }
    rules.metric.prepare(&mut numbers).map_err(|unfit| match unfit {
        Unfit::NotFinite { at } => format!("number {at} of the vector is not a finite number"),
        Unfit::Zero => "the vector is zero: it has no direction, which the cosine needs".into(),
    })?;
    let square: f64 = numbers.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    if square > NORM_MAX * NORM_MAX {
        return Err(format!("the vector is longer than {NORM_MAX:e}"));
    }
    rules.dimensions = Some(dimensions);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &[&str], embeds: Option<bool>) -> CheckReport {
        let read = |(place, line): (usize, &&str)| (place + 1, ImportedDocument::read(line));
        let rules = DocumentRules { metric: Metric::Cosine, dimensions: None, embeds };
        CheckReport::of(Box::new(lines.iter().enumerate().map(read)), rules)
    }

    #[test]
    fn each_bad_document_is_named_by_its_number() {
        let bad = [
            (r#"{"id":"a","vector":[3,4]}"#, "number 1"),
            (r#"{"id":"b","vector":[1,0,0]}"#, "3 numbers, the others have 2"),
            (r#"{"id":"c","vector":[0,0]}"#, "zero"),
            (r#"{"id":"d","vector":[1,1e39]}"#, "finite"),
            (r#"{"id":"e","vector":[1,1e400]}"#, "number out of range"),
            (r#"{"id":"f","vector":"AAAA"}"#, "multiple of four"),
            (r#"{"id":"g"}"#, "a text, a vector"),
            (r#"{"id":"","vector":[1,0]}"#, "1 to 512 bytes"),
            (r#"{"id":"h","vector":[1,0],"tags":["a b"]}"#, "tag"),
            (r#"{"id":"i","vector":[1,0],"metadata":[1]}"#, "JSON object"),
            (r#"{"id":"j","vector":[1,0],"metadata":{"a":1e400}}"#, "number out of range"),
            (r#"{"id":"k","vector":[1,0],"vectors":[]}"#, "unknown field"),
            (r#"{"id":"l","id":"m","vector":[1,0]}"#, "duplicate field"),
            (r#"{"vector":[1,0]}"#, "missing field `id`"),
            (r#"{"id":7,"vector":[1,0]}"#, "string"),
            (r#"["n"]"#, "read a line"),
            (r#"{"id":"o","text":"uno"}"#, "no model"),
            ("not json", "read a line"),
        ];
        let good = r#"{"id":"a","vector":[1,0],"text":null,"tags":null,"metadata":null}"#;
        let lines: Vec<&str> = std::iter::once(good).chain(bad.iter().map(|(line, _)| *line)).collect();
        for (at, (line, what)) in bad.iter().enumerate() {
            let found = checked(&[good, lines[at + 1]], None);
            assert_eq!((found.good, found.bad.len(), found.dimensions), (1, 1, Some(2)), "{line}");
            let said = found.all_good("line").unwrap_err().to_string();
            assert!(said.contains("line 2: ") && said.contains(what), "{said}");
        }
        let all = checked(&lines, None);
        assert_eq!((all.good, all.bad.len()), (1, bad.len()));
        assert!(all.report("row").ends_with("and 8 more\n"), "{}", all.report("row"));
    }

    #[test]
    fn texts_are_good_where_a_model_embeds_them() {
        let lines = [r#"{"id":"a","text":"uno"}"#, r#"{"id":"b","text":"otros"}"#, r#"{"id":"c","text":""}"#];
        let found = checked(&lines, None);
        assert_eq!((found.good, found.longest), (2, Some((2, "otros".to_owned()))));
        assert!(!found.begins_with_vector);
        assert_eq!(checked(&lines, Some(false)).good, 0);
    }
}
