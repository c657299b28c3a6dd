//! The files of answers and of refusals, in OpenAI's form: one line each, written whole.

use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write};
use std::path::Path;

use fs_err::{File, OpenOptions};
use likewise::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::custom_ids::CustomIds;
use crate::cli::line_requests::LineAnswer;

/// How each line begins.
const BEGINNING: &[u8] = br#"{"id":"batch_req_"#;

/// A line of an output.
#[derive(Serialize)]
pub(super) struct AnsweredLine<'a> {
    id: String,
    custom_id: Option<&'a str>,
    response: Option<LineResponse<'a>>,
    error: Option<LineRefusal>,
}

/// What the server answered.
#[derive(Serialize)]
pub(super) struct LineResponse<'a> {
    status_code: u16,
    request_id: &'a str,
    body: Box<RawValue>,
}

/// What is wrong with a line that was not sent.
#[derive(Serialize)]
pub(super) struct LineRefusal {
    code: &'static str,
    message: String,
    line: usize,
}

/// What an output says of a line that is answered.
#[derive(Deserialize)]
struct AnsweredId {
    custom_id: String,
}

/// A file to which lines are added.
pub(super) struct AnswerFile {
    writer: Box<dyn Write>,
    /// The file, if it is one that can be synced.
    file: Option<File>,
}

impl<'a> AnsweredLine<'a> {
    pub(super) fn new(
        number: usize,
        custom_id: Option<&'a str>,
        response: Option<LineResponse<'a>>,
        error: Option<LineRefusal>,
    ) -> AnsweredLine<'a> {
        let hash = blake3::hash(format!("{number} {}", custom_id.unwrap_or_default()).as_bytes());
        let id = format!("batch_req_{}", &hash.to_hex()[..24]);
        AnsweredLine { id, custom_id, response, error }
    }
}

impl<'a> LineResponse<'a> {
    /// # Errors
    /// `Internal` if the body cannot be written as JSON.
    pub(super) fn of(answer: &'a LineAnswer) -> Result<LineResponse<'a>> {
        // Between the tokens of JSON a line's end is white space, and within a text there is none.
        let one_line = String::from_utf8_lossy(&answer.body).replace(['\n', '\r'], " ");
        let as_text = |_| serde_json::value::to_raw_value(&String::from_utf8_lossy(&answer.body));
        let body = RawValue::from_string(one_line).or_else(as_text).map_err(unwritable)?;
        Ok(LineResponse { status_code: answer.status, request_id: &answer.request_id, body })
    }
}

impl LineRefusal {
    pub(super) fn of(line: usize, fault: &Error) -> LineRefusal {
        LineRefusal { code: "invalid_line", message: fault.to_string(), line }
    }
}

impl AnswerFile {
    /// A new file, or what stands in its place.
    ///
    /// # Errors
    /// `Config` if it cannot be created.
    pub(super) fn create(path: &Path) -> Result<AnswerFile> {
        let file = File::create(path).map_err(uncreated)?;
        Ok(AnswerFile { writer: Box::new(file), file: None })
    }

    /// The output of a run, or of one that was ended, with the ids that it has; a last line that was cut short is removed. Standard output
    /// without a path. Nothing else may write to the file meanwhile.
    ///
    /// # Errors
    /// `Config` if it cannot be opened, `Locked` if another process writes to it, `Conflict` if it holds something else.
    pub(super) fn resume(path: Option<&Path>) -> Result<(AnswerFile, CustomIds)> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Ok((AnswerFile { writer: Box::new(io::stdout()), file: None }, CustomIds::default()));
        };
        if path.exists() && !path.is_file() {
            return Ok((AnswerFile::create(path)?, CustomIds::default()));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(uncreated)?;
        file.file().try_lock().map_err(|error| {
            Error::new(Kind::Locked, "another process writes to the output")
                .with("file", path.display())
                .source(error)
        })?;
        let (ids, whole) = scan(&file).map_err(|error| error.with("file", path.display()))?;
        let failed = |error| Error::io("cannot go on with the output", error);
        file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).map_err(failed)?;
        let writer = file.try_clone().map_err(failed)?;
        Ok((AnswerFile { writer: Box::new(writer), file: Some(file) }, ids))
    }

    /// Adds a line, by one write.
    ///
    /// # Errors
    /// `Io` or `DiskFull`.
    pub(super) fn write(&mut self, line: &AnsweredLine<'_>) -> Result<()> {
        let mut bytes = serde_json::to_vec(line).map_err(unwritable)?;
        bytes.push(b'\n');
        self.writer
            .write_all(&bytes)
            .and_then(|()| self.writer.flush())
            .map_err(|error| Error::io("cannot write an answer", error))
    }

    /// Makes what was written survive a loss of power.
    ///
    /// # Errors
    /// `Io` or `DiskFull`.
    pub(super) fn sync(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|error| Error::io("cannot write the answers", error))
    }
}

/// The ids of an output as it stands.
///
/// # Errors
/// `Config` if it cannot be read, `Conflict` if it holds something else.
pub(super) fn answered(path: &Path) -> Result<CustomIds> {
    if !path.is_file() {
        return Ok(CustomIds::default());
    }
    let file = File::open(path).map_err(uncreated)?;
    scan(&file).map(|(ids, _)| ids).map_err(|error| error.with("file", path.display()))
}

/// The ids of an output, and the length of its whole lines.
fn scan(file: &File) -> Result<(CustomIds, u64)> {
    let mut reader = BufReader::new(file);
    let (mut ids, mut whole) = (CustomIds::default(), 0);
    for number in 1.. {
        let mut line = Vec::new();
        let read = reader.read_until(b'\n', &mut line);
        let read = read.map_err(|error| Error::io("cannot read the output", error))?;
        let fault = || {
            let message = "the output holds lines of something else; name another file by --output";
            Error::new(Kind::Conflict, message).with("line", number)
        };
        if !line.ends_with(b"\n") {
            // The end, or what a run that was killed has left of a line.
            let common = line.len().min(BEGINNING.len());
            return if line[..common] == BEGINNING[..common] { Ok((ids, whole)) } else { Err(fault()) };
        }
        let id: AnsweredId = serde_json::from_slice(&line).map_err(|error| fault().source(error))?;
        ids.insert(&id.custom_id, number);
        whole += read as u64;
    }
    Ok((ids, whole))
}

fn uncreated(error: io::Error) -> Error {
    Error::new(Kind::Config, "cannot open the output").source(error)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, "cannot write an answer").source(error)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cli::line_requests::Served;

    fn answer(body: &str) -> LineAnswer {
        LineAnswer { status: 200, request_id: "r".into(), body: body.into(), served: Served::Cache }
    }

    fn written(id: &str, body: &str) -> String {
        let answer = answer(body);
        let line = AnsweredLine::new(1, Some(id), Some(LineResponse::of(&answer).unwrap()), None);
        serde_json::to_string(&line).unwrap()
    }

    #[test]
    fn an_answer_is_one_line_with_the_bytes_of_its_numbers() {
        let line = written("a", "{\n  \"n\": 1.250,\r\n\t\"t\": \"a\\nb\"\n}");
        assert!(line.starts_with(r#"{"id":"batch_req_"#) && !line.contains('\n'), "{line}");
        assert!(line.contains("1.250"), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["response"]["body"]["t"], &read["error"]), (&"a\nb".into(), &Value::Null));
        let read: Value = serde_json::from_str(&written("a", "bad\ngateway")).unwrap();
        assert_eq!(read["response"]["body"], "bad\ngateway");
    }

    #[test]
    fn a_run_goes_on_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let (first, second) = (written("a", "{}"), written("b", "{}"));
        fs_err::write(&path, format!("{first}\n{}", &second[..40])).unwrap();
        let (mut file, ids) = AnswerFile::resume(Some(&path)).unwrap();
        assert!(ids.contains("a") && !ids.contains("b"));
        let answer = answer("{}");
        file.write(&AnsweredLine::new(2, Some("b"), Some(LineResponse::of(&answer).unwrap()), None)).unwrap();
        assert_eq!(AnswerFile::resume(Some(&path)).map(|_| ()).unwrap_err().kind(), Kind::Locked);
        drop(file);
        let lines = fs_err::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().count(), 2);
        let (_, ids) = AnswerFile::resume(Some(&path)).unwrap();
        assert!(ids.contains("a") && ids.contains("b"));
    }

    #[test]
    fn a_file_of_something_else_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        for text in ["dear diary", "dear diary\n", "{\"id\":\"batch_req_1\",\"custom_id\":\"a\"}\n{\"id\":7"]
        {
            fs_err::write(&path, text).unwrap();
            let refused = AnswerFile::resume(Some(&path)).map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), Kind::Conflict, "{text}");
            assert_eq!(fs_err::read_to_string(&path).unwrap(), text);
        }
    }
}
