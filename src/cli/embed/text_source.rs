//! The texts of a file, each as it is needed: lines, JSON lines, or rows of a table.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use clap::Args;
use likewise::error::{Error, Kind, Result};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{csv_texts, parquet_texts};
use crate::cli::file_kind::{self, FileKind};
use crate::cli::json_lines::{count, is_standard_input, lines_of, open_lines, parsed};

/// A form of files of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum TextFormat {
    Plain,
    Jsonl,
    Csv,
    Tsv,
    Parquet,
}

/// Which fields of JSON lines, and columns of tables, are read.
#[derive(Debug, Args)]
pub(super) struct TextColumns {
    /// The field or column of the texts.
    #[arg(long = "text-column", value_name = "NAME", default_value = "text")]
    pub(super) text: String,
    /// The field or column of the ids; by default `id`, or the place in the file, from 0, where there is none.
    #[arg(long = "id-column", value_name = "NAME")]
    pub(super) id: Option<String>,
}

/// A text with its id.
pub(super) struct TextLine {
    /// The line or row that it stands in, from 1.
    pub(super) number: usize,
    pub(super) id: Value,
    pub(super) text: String,
}

/// Texts with the numbers of their lines or rows.
pub(super) type TextLines = Box<dyn Iterator<Item = (usize, Result<TextLine>)>>;

/// A file of texts.
pub(super) struct TextSource {
    pub(super) texts: TextLines,
    /// How many there are, where that is known before they are read.
    pub(super) count: Option<usize>,
    /// What their numbers count.
    pub(super) unit: &'static str,
}

impl TextColumns {
    /// The column of the ids.
    pub(super) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or("id")
    }
}

impl TextSource {
    /// Opens a file, or with `-` standard input. Its name says in which form it is, unless `format` does.
    ///
    /// # Errors
    /// `Config` if it cannot be opened or lacks a column; `InvalidInput` for a kind of file that is not read.
    pub(super) fn open(path: &Path, format: Option<TextFormat>, columns: &TextColumns) -> Result<TextSource> {
        let is_file = !is_standard_input(path);
        let kind = if is_file { file_kind::of_file(path)? } else { FileKind::Lines };
        let format = match (kind, format) {
            (FileKind::Parquet, None | Some(TextFormat::Parquet)) => {
                return parquet_texts::texts(path, columns);
            }
            (FileKind::Lines, format) => format.unwrap_or_else(|| TextFormat::of_name(path)),
            (FileKind::Parquet | FileKind::Npy | FileKind::Faiss, _) => {
                let message = "the file holds vectors, or a table that is none of lines";
                return Err(Error::new(Kind::InvalidInput, message).with("file", path.display()));
            }
        };
        let reader = open_lines(path)?;
        let counted = || if path.is_file() { count(path).map(Some) } else { Ok(None) };
        match format {
            TextFormat::Plain => {
                let texts = Box::new(lines_of(reader).map(plain));
                Ok(TextSource { texts, count: counted()?, unit: "line" })
            }
            TextFormat::Jsonl => {
                Ok(TextSource { texts: json_texts(reader, columns), count: counted()?, unit: "line" })
            }
            TextFormat::Csv => csv_texts::texts(reader, b',', columns),
            TextFormat::Tsv => csv_texts::texts(reader, b'\t', columns),
            TextFormat::Parquet => {
                let message = "the file is not a Parquet file, which is also not read from a pipe";
                Err(Error::new(Kind::InvalidInput, message).with("file", path.display()))
            }
        }
    }
}

impl TextFormat {
    fn of_name(path: &Path) -> TextFormat {
        match path.extension().and_then(|name| name.to_str()) {
            Some("jsonl" | "ndjson") => TextFormat::Jsonl,
            Some("csv") => TextFormat::Csv,
            Some("tsv") => TextFormat::Tsv,
            Some("parquet") => TextFormat::Parquet,
            _ => TextFormat::Plain,
        }
    }
}

fn plain((number, line): (usize, Result<String>)) -> (usize, Result<TextLine>) {
    (number, line.map(|text| TextLine { number, id: (number - 1).into(), text }))
}

fn json_texts(reader: impl BufRead + 'static, columns: &TextColumns) -> TextLines {
    let (text, id) = (columns.text.clone(), columns.id.clone());
    let read = move |(number, line): (usize, Result<String>)| {
        (number, line.and_then(|line| json_text(number, &line, &text, id.as_deref())))
    };
    Box::new(lines_of(reader).map(read))
}

/// # Errors
/// `InvalidInput` for a line that is no JSON object, or whose field is missing.
fn json_text(number: usize, line: &str, text_field: &str, id_field: Option<&str>) -> Result<TextLine> {
    let fault = |field: &str, what: &str| Error::new(Kind::InvalidInput, format!("{field} {what}"));
    let fields: BTreeMap<String, Box<RawValue>> = parsed(line)?;
    let text = fields.get(text_field).ok_or_else(|| fault(text_field, "is missing"))?;
    let text: String = serde_json::from_str(text.get()).map_err(|_| fault(text_field, "must be a string"))?;
    if text.is_empty() {
        return Err(fault(text_field, "must not be empty"));
    }
    let id = match (fields.get(id_field.unwrap_or("id")), id_field) {
        (Some(id), _) => serde_json::from_str(id.get()).map_err(|_| fault("id", "must be JSON"))?,
        (None, Some(named)) => return Err(fault(named, "is missing")),
        (None, None) => Value::Null,
    };
    let id = if id.is_null() { (number - 1).into() } else { id };
    Ok(TextLine { number, id, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_says_its_form() {
        let forms = ["a.txt", "a", "a.jsonl", "a.ndjson", "a.csv", "a.tsv", "a.parquet", "-"]
            .map(|name| TextFormat::of_name(Path::new(name)));
        use TextFormat::{Csv, Jsonl, Parquet, Plain, Tsv};
        assert_eq!(forms, [Plain, Plain, Jsonl, Jsonl, Csv, Tsv, Parquet, Plain]);
    }

    #[test]
    fn fields_of_json_lines_are_read_by_their_names() {
        let read = |line: &str, text: &str, id: Option<&str>| json_text(3, line, text, id);
        let line = r#"{"sku": 7, "title": "uno", "text": "dos", "id": null}"#;
        let named = read(line, "title", Some("sku")).unwrap();
        assert_eq!((named.id, &*named.text), (7.into(), "uno"));
        let plain = read(line, "text", None).unwrap();
        assert_eq!((plain.id, &*plain.text), (2.into(), "dos"));
        for (line, text, id, what) in [
            ("uno", "text", None, "cannot read a line"),
            (line, "body", None, "body is missing"),
            (line, "sku", None, "sku must be a string"),
            (line, "text", Some("ean"), "ean is missing"),
            (r#"{"text":""}"#, "text", None, "text must not be empty"),
        ] {
            let error = read(line, text, id).map(|_| ()).unwrap_err();
            assert!(error.message().contains(what), "{line}: {error}");
        }
    }
}
