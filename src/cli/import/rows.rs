//! What is imported, a document at a time: JSON lines, or the rows of an array or an index with lines that describe them.

use std::io::{BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use base64_simd::STANDARD;
use fs_err::File;
use likewise::error::{Error, Kind, Result};
use likewise::search::{Metric, Vectors};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cli::file_kind::{self, FileKind};
use crate::cli::json_lines::{count, lines};
use crate::cli::npy;

/// A document as a line says it, and as the server reads it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a document is a JSON object")]
pub(super) struct ImportedDocument {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vector: Option<VectorField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tags: Option<Vec<String>>,
}

/// Numbers, or base64 of little-endian f32.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "a vector is a list of numbers, or base64 of little-endian f32")]
pub(super) enum VectorField {
    Numbers(Vec<f64>),
    Base64(String),
}

/// Documents with the numbers of their lines or rows, which count from 1.
pub(super) type NumberedDocuments<'a> = Box<dyn Iterator<Item = (usize, Result<ImportedDocument>)> + 'a>;

/// What lines say of the rows of another file; nothing of a row that is left out.
type RowDescriptions<'a> = Box<dyn Iterator<Item = (usize, Result<Option<ImportedDocument>>)> + 'a>;

/// The files of an import.
#[derive(Debug)]
pub(super) struct ImportSource {
    file: PathBuf,
    /// Where the documents of rows are described.
    ids: PathBuf,
    ids_are_named: bool,
    kind: FileKind,
    /// A file of FAISS, whole.
    index: Vec<u8>,
}

impl ImportedDocument {
    /// A document of which only the id is known.
    fn named(id: String) -> ImportedDocument {
        ImportedDocument { id, text: None, vector: None, metadata: None, tags: None }
    }

    /// The document of a line.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub(super) fn read(line: &str) -> Result<ImportedDocument> {
        let fault = |what: String| Error::new(Kind::InvalidInput, format!("cannot read a line: {what}"));
        // serde would also read the fields from a list.
        if line.trim_start().starts_with('[') {
            return Err(fault("a list, and a document is a JSON object".into()));
        }
        serde_json::from_str(line).map_err(|error| fault(error.to_string()))
    }

    /// The text of an id, a document, or `null`.
    fn described(line: &str) -> Result<Option<ImportedDocument>> {
        if line.trim() == "null" {
            return Ok(None);
        }
        if line.trim_start().starts_with('"') {
            let fault = |error| Error::new(Kind::InvalidInput, format!("cannot read a line: {error}"));
            return serde_json::from_str(line).map(|id| Some(ImportedDocument::named(id))).map_err(fault);
        }
        let document = ImportedDocument::read(line)?;
        if document.vector.is_some() {
            let message = "the line has a vector, and so has the row that it describes";
            return Err(Error::new(Kind::InvalidInput, message));
        }
        Ok(Some(document))
    }

    fn with_vector(mut self, bytes: &[u8]) -> ImportedDocument {
        self.vector = Some(VectorField::Base64(STANDARD.encode_to_string(bytes)));
        self
    }
}

impl VectorField {
    /// Its numbers; `Err` says what is wrong.
    pub(super) fn numbers(&self) -> std::result::Result<Vec<f32>, String> {
        match self {
            VectorField::Numbers(numbers) => Ok(numbers.iter().map(|&number| number as f32).collect()),
            VectorField::Base64(text) => {
                let bytes = STANDARD.decode_to_vec(text).map_err(|_| "the vector is not base64")?;
                let (numbers, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err("the vector's bytes are not a multiple of four".into());
                }
                Ok(numbers.iter().map(|&number| f32::from_le_bytes(number)).collect())
            }
        }
    }
}

impl ImportSource {
    /// Opens what is to be imported; by its first bytes, whatever it is called.
    ///
    /// # Errors
    /// `Config` if it cannot be opened; `InvalidInput` for a kind of file that is not read.
    pub(super) fn open(file: &Path, ids: Option<&PathBuf>) -> Result<ImportSource> {
        let kind = file_kind::of_file(file)?;
        if !file.is_file() {
            let message = "the documents are read twice, which a pipe does not allow: name a file";
            return Err(Error::new(Kind::InvalidInput, message).with("file", file.display()));
        }
        let called = |extension: &str| file.extension().is_some_and(|known| known == extension);
        let expected = match kind {
            FileKind::Lines if called("npy") => Some("an array of NumPy"),
            FileKind::Lines if called("faiss") => Some("an index of FAISS"),
            FileKind::Parquet => {
                let message =
                    "the file is a Parquet file: write it as JSON lines or as a .npy file of f32 first";
                return Err(Error::new(Kind::InvalidInput, message).with("file", file.display()));
            }
            FileKind::Lines | FileKind::Npy | FileKind::Faiss => None,
        };
        if let Some(expected) = expected {
            let message = format!("the file is not {expected}, as its name says");
            return Err(Error::new(Kind::InvalidInput, message).with("file", file.display()));
        }
        let index = match kind {
            FileKind::Faiss => fs_err::read(file)
                .map_err(|error| Error::new(Kind::Config, "cannot open the vectors").source(error))?,
            FileKind::Lines | FileKind::Npy | FileKind::Parquet => Vec::new(),
        };
        let ids_are_named = ids.is_some();
        let ids = ids.cloned().unwrap_or_else(|| file.with_file_name("ids.jsonl"));
        Ok(ImportSource { file: file.to_owned(), ids, ids_are_named, kind, index })
    }

    /// What the rows are counted by, for messages.
    pub(super) fn unit(&self) -> &'static str {
        if self.kind == FileKind::Lines { "line" } else { "row" }
    }

    /// How the file says that its vectors are compared.
    ///
    /// # Errors
    /// `InvalidInput` for a file that is damaged, or of a kind that is not read.
    pub(super) fn metric(&self) -> Result<Option<Metric>> {
        match self.kind {
            FileKind::Faiss => self.vectors().map(|vectors| Some(vectors.metric())),
            FileKind::Lines | FileKind::Npy | FileKind::Parquet => Ok(None),
        }
    }

    /// The documents, and how many there are at most. Each call begins with the first.
    ///
    /// # Errors
    /// `Config`, `InvalidInput` if the files do not fit each other.
    pub(super) fn rows(&self) -> Result<(NumberedDocuments<'_>, usize)> {
        match self.kind {
            // A Parquet file is not opened.
            FileKind::Lines | FileKind::Parquet => {
                let read = |(number, line): (usize, Result<String>)| {
                    (number, line.and_then(|line| ImportedDocument::read(&line)))
                };
                Ok((Box::new(lines(&self.file)?.map(read)), count(&self.file)?))
            }
            FileKind::Npy => self.of_npy(),
            FileKind::Faiss => self.of_faiss(),
        }
    }

    fn of_npy(&self) -> Result<(NumberedDocuments<'_>, usize)> {
        let file = File::open(&self.file)
            .map_err(|error| Error::new(Kind::Config, "cannot open the vectors").source(error))?;
        let io = |error| Error::io("cannot read the vectors", error);
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::new(file);
        let named = |error: Error| error.with("file", self.file.display());
        let shape = npy::read_header(&mut file).map_err(named)?;
        shape.check(length - file.stream_position().map_err(io)?).map_err(named)?;
        // An array without rows may say that they have any length.
        let mut vector = vec![0; if shape.rows == 0 { 0 } else { shape.columns * 4 }];
        let read = move |(row, document): (usize, Result<Option<ImportedDocument>>)| {
            let document = file
                .read_exact(&mut vector)
                .map_err(io)
                .and(document)
                .map(|document| document.map(|document| document.with_vector(&vector)));
            Some((row, document.transpose()?))
        };
        Ok((Box::new(self.described(shape.rows)?.filter_map(read)), shape.rows))
    }

    fn of_faiss(&self) -> Result<(NumberedDocuments<'_>, usize)> {
        let vectors = self.vectors()?;
        let rows = vectors.len();
        let ids: Option<Vec<i64>> = (0..rows).map(|row| vectors.id(row)).collect();
        let described: RowDescriptions<'_> = match ids.filter(|_| !self.ids_are_named) {
            Some(ids) => {
                let named = |(place, id): (usize, i64)| {
                    (place + 1, Ok(Some(ImportedDocument::named(id.to_string()))))
                };
                Box::new(ids.into_iter().enumerate().map(named))
            }
            None => self.described(rows)?,
        };
        let read = move |(row, document): (usize, Result<Option<ImportedDocument>>)| {
            let with_vector = |document: ImportedDocument| {
                let bytes: Vec<u8> = vectors.row(row - 1).into_iter().flat_map(f32::to_le_bytes).collect();
                document.with_vector(&bytes)
            };
            Some((row, document.transpose()?.map(with_vector)))
        };
        Ok((Box::new(described.filter_map(read)), rows))
    }

    fn vectors(&self) -> Result<Vectors<'_>> {
        Vectors::read(&self.index).map_err(|error| {
            Error::new(Kind::InvalidInput, "cannot read the vectors")
                .with("file", self.file.display())
                .source(error)
        })
    }

    /// What the documents of rows hold besides their vectors, with the numbers of the rows.
    fn described(&self, rows: usize) -> Result<RowDescriptions<'_>> {
        let count = count(&self.ids)?;
        if count != rows {
            let message = format!("{rows} vectors, and {count} lines in {}", self.ids.display());
            return Err(Error::new(Kind::InvalidInput, message));
        }
        let read = |(place, (_, line)): (usize, (usize, Result<String>))| {
            (place + 1, line.and_then(|line| ImportedDocument::described(&line)))
        };
        Ok(Box::new(lines(&self.ids)?.enumerate().map(read)))
    }
}
