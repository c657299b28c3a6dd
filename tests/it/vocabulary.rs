//! The words of the project, checked: its texts name the actor in the field's terms, a type's name stands for one thing, and a
//! search for a term of the field finds the code that does it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Words that hide who acts, or that the field does not use.
const WORDS: [&str; 12] = [
    "whoever", "whomever", "nobody", "somebody", "anybody", "anew", "told", "he", "him", "his", "himself",
    "hers",
];

/// Files that may use a word, and why.
const EXCEPTIONS: [(&str, &str, &str); 4] = [
    ("tests/it/vocabulary.rs", "", "the list itself"),
    ("Makefile", "he", "an option of grep"),
    ("src/request_identity/question_detection.rs", "he", "a word of questions that are compared"),
    ("src/request_identity/normalize.rs", "he", "a question of a test"),
];

/// What holds texts of the project.
const TEXTS: [&str; 15] = [
    "src",
    "index",
    "encoder",
    "tests/it",
    "benches",
    "fuzz",
    "docs",
    "examples",
    "scripts",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
];
const ENDINGS: [&str; 8] = ["rs", "md", "toml", "py", "mjs", "sh", "", "json"];

/// Names of several types that their modules distinguish, as in `storage::Options`. The list may only become shorter.
const QUALIFIED: [&str; 23] = [
    "Batch",
    "Change",
    "ChunkAssembler",
    "Endpoint",
    "Found",
    "Header",
    "KeyGuard",
    "Listing",
    "Manifest",
    "Options",
    "Pending",
    "Place",
    "Records",
    "Replay",
    "Result",
    "Row",
    "Salvaged",
    "Shard",
    "State",
    "Stats",
    "Table",
    "Writer",
    "Written",
];

/// Terms of the field, and where a reader finds what they mean.
const TERMS: [(&str, &str); 8] = [
    ("coalesce", "src/service/answers/coalesce.rs"),
    ("inflight", "src/service/answers/inflight.rs"),
    ("broadcast", "src/service/answers/broadcast.rs"),
    ("replay", "src/dialects/chat_completions/replay/mod.rs"),
    ("normalize", "src/request_identity/normalize.rs"),
    ("retry", "src/upstream/client.rs"),
    ("evict", "src/cache/memory/lru.rs"),
    ("compact", "src/search/writer.rs"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a path that are read as text. Results of benches and what tools write are left out.
fn texts(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        return Vec::from_iter(ENDINGS.contains(&&*ending).then(|| path.to_path_buf()));
    }
    let entries = fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let is_written =
        |path: &PathBuf| !["target", "results", "corpus"].iter().any(|name| path.ends_with(name));
    entries.filter(is_written).flat_map(|path| texts(&path)).collect()
}

fn place(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn is_excepted(place: &str, word: &str) -> bool {
    EXCEPTIONS.iter().any(|(file, own, _)| *file == place && (own.is_empty() || *own == word))
}

#[test]
fn texts_name_the_actor() {
    let mut faults = Vec::new();
    let mut files = 0;
    for path in TEXTS.iter().flat_map(|path| texts(&root().join(path))) {
        files += 1;
        let place = place(&path);
        for (n, line) in fs_err::read_to_string(&path).unwrap().lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
            for word in words.filter(|word| WORDS.contains(&word.as_str()) && !is_excepted(&place, word)) {
                faults.push(format!("{place}:{}: `{word}`", n + 1));
            }
        }
    }
    assert!(files > 300, "only {files} files were read");
    assert!(faults.is_empty(), "{} words\n{}", faults.len(), faults.join("\n"));
}

/// The name of a type that is defined in this line, which is not indented.
fn type_name(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => line.strip_prefix("pub ").unwrap_or(line),
    };
    let rest =
        ["struct ", "enum ", "trait ", "type ", "union "].iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

#[test]
fn a_types_name_stands_for_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in ["src", "index/src", "encoder/src"].iter().flat_map(|path| texts(&root().join(path))) {
        let place = place(&path);
        if place.contains("tests") {
            continue;
        }
        let text = fs_err::read_to_string(&path).unwrap();
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for name in own.lines().filter_map(type_name) {
            places.entry(name.into()).or_default().push(place.clone());
        }
    }
    assert!(places.len() > 300, "only {} names were read", places.len());
    let is_shared = |name: &str| places.get(name).is_some_and(|places| places.len() > 1);
    let faults: Vec<_> = places
        .iter()
        .filter(|(name, _)| is_shared(name) && !QUALIFIED.contains(&name.as_str()))
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(faults.is_empty(), "{} names\n{}", faults.len(), faults.join("\n"));
    let stale: Vec<_> = QUALIFIED.iter().filter(|name| !is_shared(name)).collect();
    assert!(stale.is_empty(), "shared no longer: {stale:?}");
}

#[test]
fn terms_of_the_field_find_the_code() {
    for (term, file) in TERMS {
        let text =
            fs_err::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{term}: {error}"));
        let names_it = text
            .lines()
            .any(|line| !line.trim_start().starts_with("//") && line.to_lowercase().contains(term));
        assert!(names_it, "no code of {file} is called `{term}`");
    }
}

#[test]
fn the_reader_of_types_sees_them() {
    let lines = [
        "pub struct A;",
        "pub(in crate::http) enum B {",
        "trait C: D {",
        "    struct E;",
        "pub fn f() {}",
        "type G<T> = T;",
    ];
    let names: Vec<_> = lines.iter().filter_map(|line| type_name(line)).collect();
    assert_eq!(names, ["A", "B", "C", "G"]);
}
