//! Words that an operator adds to the lists of the guard.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::matching::guard::{Language, Lexicon};

/// The words that come with the program, and those of a directory: in `en` and `es` one file for each list, such as `es/synonyms.txt`.
/// Files whose names begin with a dot are left out.
///
/// # Errors
/// `Config`, naming the file: one that cannot be read, is of no known language or list, or has a line that its list does not take.
pub fn lexicon_with(words_dir: Option<&Path>) -> Result<Lexicon> {
    let mut lexicon = Lexicon::builtin();
    for dir in words_dir.map(entries).transpose()?.unwrap_or_default() {
        let name = file_name(&dir);
        let Some(language) = Language::ALL.into_iter().find(|language| language.code() == name) else {
            let codes = Language::ALL.map(Language::code).join(" and ");
            let message =
                format!("answers.semantic.words_dir must have the directories {codes} only, got {name}");
            return Err(Error::new(Kind::Config, message).with("path", dir.display()));
        };
        for path in entries(&dir)? {
            let added = read(&path).and_then(|text| {
                let list = path.file_stem().unwrap_or_default().to_string_lossy();
                lexicon.extend(language, &list, &text)
            });
            added.map_err(|error| error.with("path", path.display()))?;
        }
    }
    Ok(lexicon)
}

fn read(path: &Path) -> Result<String> {
    if path.extension().is_none_or(|extension| extension != "txt") {
        return Err(Error::new(Kind::Config, "the name of a word list must end in .txt"));
    }
    if !fs_err::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Error::new(Kind::Config, "a word list must be a file"));
    }
    fs_err::read_to_string(path).map_err(unreadable)
}

/// What a directory has, in the order of names.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs_err::read_dir(dir).map_err(unreadable)?;
    let paths = listed.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    paths.retain(|path| !file_name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(Kind::Config, "cannot read answers.semantic.words_dir").source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::guard::{Guard, Strictness};

    const QUESTIONS: [&str; 2] =
        ["How do I sharpen the wimble of a bench?", "How do I sharpen the drill of a bench?"];

    fn allows(lexicon: Lexicon) -> bool {
        let guard = Guard::new(lexicon);
        let [first, second] = QUESTIONS.map(|question| guard.features(question));
        guard.veto(Strictness::Strict, &first, &second).is_none()
    }

    #[test]
    fn words_of_a_directory_are_added() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!allows(lexicon_with(None).unwrap()) && !allows(lexicon_with(Some(dir.path())).unwrap()));
        fs_err::create_dir(dir.path().join("en")).unwrap();
        fs_err::write(dir.path().join("en/.synonyms.txt.swp"), "x").unwrap();
        fs_err::write(dir.path().join("en/synonyms.txt"), "wimble = drill # ours\n").unwrap();
        assert!(allows(lexicon_with(Some(dir.path())).unwrap()));
    }

    #[test]
    fn files_that_are_no_lists_are_named() {
        for (file, text, named) in [
            ("fr/synonyms.txt", "a = b", "fr"),
            ("en/wordz.txt", "a = b", "wordz"),
            ("en/synonyms.csv", "a = b", "synonyms.csv"),
            ("es/synonyms.txt", "a = b\nc = d = e", "line: 2"),
            ("es/months.txt", "enero", "months"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(file);
            fs_err::create_dir(path.parent().unwrap()).unwrap();
            fs_err::write(&path, text).unwrap();
            let error = lexicon_with(Some(dir.path())).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(lexicon_with(Some(Path::new("/no/such"))).is_err());
    }
}
