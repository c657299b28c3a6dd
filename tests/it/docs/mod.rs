//! The documents, checked: links lead somewhere, the Spanish pages have the commands of the English ones, all code is run or says that
//! it is not, and commands give what the pages show.

use std::path::{Path, PathBuf};

use likewise::config::{Config, Overrides};

mod commands;
mod generated;
mod links;
mod several_nodes;
mod tables;

/// The language of blocks that `commands` runs.
const RUN: &str = "sh";
/// The page whose commands start servers of their own; `several_nodes` follows it.
const SEVERAL_NODES: &str = "docs/guides/several-nodes.md";
/// The languages of blocks, and what becomes of them.
const LANGUAGES: [(&str, &str); 12] = [
    (RUN, "run, and compared with the `text` behind it"),
    ("python", "run by `tests/python/test_docs.py`"),
    ("python,no-run", "needs a package that is not installed beside the others"),
    ("js", "run by `tests/node/docs.test.cjs`"),
    ("sh,no-run", "needs what a test has not: root, a secret, the network, a build, an hour"),
    ("yaml", "parsed by `tests/python/test_docs.py`"),
    ("nginx", "shown: a configuration of nginx"),
    ("caddyfile", "shown: a configuration of Caddy"),
    ("ini", "shown: a unit of systemd"),
    ("text", "shown: what a command prints, a layout"),
    ("json", "parsed"),
    ("toml", "parsed as a configuration"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs_err::read_to_string(root().join(page)).unwrap()
}

/// A fenced block of code.
#[derive(Debug, PartialEq, Eq)]
struct CodeBlock {
    language: String,
    text: String,
}

/// The blocks of a page, and its lines outside of them.
fn split(page: &str) -> (Vec<CodeBlock>, Vec<&str>) {
    let (mut blocks, mut prose, mut is_inside) = (Vec::new(), Vec::new(), false);
    for line in page.lines() {
        match (line.strip_prefix("```"), is_inside) {
            (Some(language), false) => {
                blocks.push(CodeBlock { language: language.into(), text: String::new() });
                is_inside = true;
            }
            (Some(_), true) => is_inside = false,
            (None, true) => blocks.last_mut().unwrap().text.push_str(&format!("{line}\n")),
            (None, false) => prose.push(line),
        }
    }
    assert!(!is_inside, "a block does not end");
    (blocks, prose)
}

/// The pages below a directory.
fn pages(dir: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| if path.is_dir() { pages(&path) } else { vec![path] });
    below.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect()
}

/// The pages that readers are meant to follow: all but the decisions.
fn guides() -> Vec<String> {
    let below = pages(&root().join("docs"));
    let below = below.iter().map(|path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
    let own = ["README.md", "README.es.md", "CONTRIBUTING.md"].map(str::to_owned);
    below.filter(|page| !page.starts_with("docs/adr/")).chain(own).collect()
}

/// Those whose blocks are run. The blocks of the Spanish ones are the same.
fn in_english() -> impl Iterator<Item = String> {
    guides().into_iter().filter(|page| !page.ends_with(".es.md"))
}

/// Reads a block as a configuration file.
fn configure(page: &str, text: &str) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    fs_err::write(file.path(), text).unwrap();
    let read = Config::load(Some(file.path()), &Overrides::default());
    read.unwrap_or_else(|error| panic!("{page}: {error:?} in\n{text}"));
}

#[test]
fn all_code_is_run_or_says_that_it_is_not() {
    let mut blocks = 0;
    for page in guides() {
        let text = read(&page);
        let (code, prose) = split(&text);
        let indented = prose.iter().find(|line| line.starts_with("    ") && !line.trim().is_empty());
        assert_eq!(indented, None, "{page}: put it into a fenced block");
        for block in &code {
            let is_known = LANGUAGES.iter().any(|(language, _)| block.language == *language);
            assert!(is_known, "{page}: `{}` is none of {LANGUAGES:#?}", block.language);
            match block.language.as_str() {
                "json" => drop(serde_json::from_str::<serde_json::Value>(&block.text).unwrap()),
                "toml" => configure(&page, &block.text),
                _ => {}
            }
        }
        blocks += code.len();
    }
    assert!(blocks > 90, "only {blocks} blocks were read");
}

#[test]
fn spanish_pages_have_the_commands_of_the_english_ones() {
    for (page, blocks_min) in [("README", 7), ("docs/getting-started", 20)] {
        let (english, spanish) = (read(&format!("{page}.md")), read(&format!("{page}.es.md")));
        let (english, spanish) = (split(&english).0, split(&spanish).0);
        assert!(english.len() >= blocks_min, "{page}: {} blocks", english.len());
        assert_eq!(english, spanish, "{page}");
    }
}
