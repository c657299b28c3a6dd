//! The documents, checked: links lead somewhere, the Spanish pages have the commands of the English ones, and the commands give what
//! the pages show.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::program::{Server, likewise};
use crate::upstream::Upstream;

/// The model that the pages ask for, and the address at which they find the server.
const MODEL: &str = "all-MiniLM-L6-v2";
const ADDRESS: &str = "http://127.0.0.1:8420";
/// The program, as the pages call it.
const PROGRAM: &str = "target/release/likewise";

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

/// The anchor that renderers give a heading.
fn anchor(heading: &str) -> String {
    let letters = heading.to_lowercase();
    let letters = letters.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    letters.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> HashSet<String> {
    let text = fs_err::read_to_string(page).unwrap();
    let (_, prose) = split(&text);
    prose
        .iter()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// The targets of the links in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// What is wrong with a link.
fn fault(page: &Path, target: &str) -> Option<String> {
    let (path, wanted) = target.split_once('#').map_or((target, None), |(path, name)| (path, Some(name)));
    let file = if path.is_empty() { page.to_path_buf() } else { page.parent().unwrap().join(path) };
    if !file.exists() {
        return Some(format!("{}: `{target}` does not exist", page.display()));
    }
    let is_missing = wanted.is_some_and(|name| !anchors(&file).contains(name));
    is_missing.then(|| format!("{}: `{target}` has no such heading", page.display()))
}

#[test]
fn links_lead_somewhere() {
    let mut pages = pages(&root().join("docs"));
    pages.extend(["README.md", "README.es.md"].map(|page| root().join(page)));
    let (mut links, mut to_headings, mut faults) = (0, 0, Vec::new());
    for page in &pages {
        let text = fs_err::read_to_string(page).unwrap();
        let (_, prose) = split(&text);
        for target in prose.iter().flat_map(|line| targets(line)).filter(|target| !target.contains("://")) {
            links += 1;
            to_headings += usize::from(target.contains('#'));
            faults.extend(fault(page, target));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(pages.len() > 40 && links > 100 && to_headings > 5, "{} {links} {to_headings}", pages.len());
    let readme = root().join("README.md");
    assert!(fault(&readme, "docs/missing.md").is_some() && fault(&readme, "#missing").is_some());
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

/// A line without the numbers that differ from run to run: those behind `=`, such as lifetimes and durations.
fn masked(line: &str) -> String {
    let mut parts = line.trim_end().split('=');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = if rest.len() < part.len() { "N" } else { "" };
        format!("{line}={number}{rest}")
    })
}

/// Runs a block as a reader would, and returns the lines of its output.
async fn run(server: &Server, block: &str) -> Vec<String> {
    assert!(block.contains(ADDRESS), "{block}");
    let script = block.replace(ADDRESS, server.url()).replace(PROGRAM, env!("CARGO_BIN_EXE_likewise"));
    let mut shell = Command::new("bash");
    shell.args(["-euc", &script]).stdin(Stdio::null()).current_dir(root());
    shell.env("LIKEWISE_URL", server.url()).env("no_proxy", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{block}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(masked).collect()
}

/// Runs the commands of a page on a new server, and returns how many there are.
async fn follow(page: &str) -> usize {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut program = likewise("serve", dir.path());
    program.env("LIKEWISE__MODEL__NAME", MODEL).env("OPENAI_API_KEY", "sk-ours");
    let server = Server::spawn(program.arg("--upstream").arg(&upstream.url));
    let text = read(page);
    let (blocks, _) = split(&text);
    let is_command = |block: &CodeBlock| block.language == "sh" && block.text.contains("curl ");
    let mut commands = 0;
    for (n, block) in blocks.iter().enumerate().filter(|(_, block)| is_command(block)) {
        let shown = blocks.get(n + 1).filter(|next| next.language == "text");
        let shown = &shown.unwrap_or_else(|| panic!("{page}: no output of {}", block.text)).text;
        assert!(shown.starts_with("HTTP/1.1 "), "{page}: {shown}");
        let lines = run(&server, &block.text).await;
        let mut rest = lines.iter();
        for line in shown.lines().map(masked) {
            assert!(rest.any(|said| *said == line), "{page}: no `{line}` in {lines:#?}\nof {}", block.text);
        }
        commands += 1;
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_give_what_the_pages_show() {
    assert_eq!(follow("README.md").await, 2);
    assert_eq!(follow("docs/getting-started.md").await, 12);
    assert_eq!(follow("docs/guides/objects.md").await, 4);
    for page in ["invalidation", "llm-answers", "search"] {
        assert_eq!(follow(&format!("docs/guides/{page}.md")).await, 1, "{page}");
    }
}

/// The headers of the first column of a table.
fn documented_headers(page: &str) -> HashSet<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let cells = rows.map(|(cell, _)| cell);
    cells.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`'))).collect()
}

#[test]
fn one_table_has_all_headers_of_the_contract() {
    let contract: serde_json::Value = serde_json::from_str(&likewise::http::openapi()).unwrap();
    let page = read("docs/reference/headers.md");
    let documented = documented_headers(&page);
    let mut names = HashSet::new();
    let operations =
        contract["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    for operation in operations {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let sent = parameters.filter(|parameter| parameter["in"] == "header");
        names.extend(sent.map(|parameter| parameter["name"].as_str().unwrap().to_owned()));
        let responses = operation["responses"].as_object().unwrap().values();
        names.extend(
            responses
                .filter_map(|response| response["headers"].as_object())
                .flat_map(|all| all.keys().cloned()),
        );
    }
    let missing: Vec<_> = names.iter().filter(|name| !documented.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    assert!(names.len() > 25, "only {} headers were read", names.len());
    let reasons = contract["components"]["schemas"]["Reason"]["enum"].as_array().unwrap();
    assert!(reasons.len() > 10);
    let missing: Vec<_> =
        reasons.iter().filter(|word| !page.contains(&format!("`{}`", word.as_str().unwrap()))).collect();
    assert!(missing.is_empty(), "not in the list: {missing:?}");
}

#[test]
fn only_numbers_that_vary_are_masked() {
    assert_eq!(
        masked("cache-status: likewise; hit; ttl=1794; detail=memory\r"),
        "cache-status: likewise; hit; ttl=N; detail=memory"
    );
    assert_ne!(masked("HTTP/1.1 200 OK"), masked("HTTP/1.1 404 OK"));
    assert_ne!(masked("cache-status: likewise; fwd=miss"), masked("cache-status: likewise; fwd=stale"));
}
