//! `docs/reference/configuration.md`, from `examples/config.toml`, which other tests prove to hold every option with its default.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use likewise::config::{Config, LISTS};
use serde_json::Value;

use super::{cell, compare};
use crate::docs::read;

const HEAD: &str = "# Configuration

Options come from the defaults, a file (`likewise serve --config FILE`), the environment and flags; the later one wins. Options without a default
are not set. A list in the environment is separated by commas. An unknown key is an error that names the nearest known one.
[`examples/config.toml`](../../examples/config.toml) has the same options as a file.
";

/// The policies of namespaces: each has the options of `default`.
const POLICIES: &str = "cache.namespaces.";

/// An option as the file documents it.
struct Entry {
    section: String,
    name: String,
    /// The value in the file: the default, or an example of an option that is not set.
    value: String,
    is_set: bool,
    comment: Vec<String>,
}

impl Entry {
    fn key(&self) -> String {
        format!("{}.{}", self.section, self.name).trim_start_matches('.').to_owned()
    }
}

/// A section with what is said of it.
struct Section {
    name: String,
    comment: Vec<String>,
}

/// Name and value of an option in a line.
fn option(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(" = ")?;
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (is_name && !name.is_empty()).then_some((name, value))
}

/// The sections and options of the file.
fn parse(file: &str) -> (Vec<Section>, Vec<Entry>) {
    // Some options precede the first section.
    let first = Section { name: String::new(), comment: Vec::new() };
    let (mut sections, mut entries) = (vec![first], Vec::<Entry>::new());
    let mut comment = Vec::new();
    let mut lines = file.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push(Section { name: name.to_owned(), comment: std::mem::take(&mut comment) });
            continue;
        }
        let (text, is_set) = line.strip_prefix("# ").map_or((line, true), |text| (text, false));
        let Some((name, value)) = option(text) else {
            if line.is_empty() {
                comment.clear();
            } else {
                comment.push(text.to_owned());
            }
            continue;
        };
        let mut value = value.to_owned();
        while value.starts_with('[') && !value.ends_with(']') {
            write!(value, "\n{}", lines.next().expect("a list ends")).unwrap();
        }
        let section = sections.last().expect("options have a section").name.clone();
        let shared = entries.last().filter(|last| last.section == section && comment.is_empty());
        let comment = shared.map_or_else(|| std::mem::take(&mut comment), |last| last.comment.clone());
        entries.push(Entry { section, name: name.to_owned(), value, is_set, comment });
    }
    (sections, entries)
}

fn kind(value: &str) -> &'static str {
    match value.chars().next() {
        Some('"') => "string",
        Some('[') => "list",
        Some('t' | 'f') => "boolean",
        _ if value.contains('.') => "number",
        _ => "integer",
    }
}

/// The words of a comment, without the lines of TOML in it.
fn words(comment: &[String]) -> String {
    let words: Vec<_> = comment.iter().filter(|line| !line.starts_with("  ")).map(String::as_str).collect();
    cell(&words.join(" "))
}

/// The lines of TOML in a comment.
fn example(entry: &Entry) -> Option<String> {
    let lines: Vec<_> = entry.comment.iter().filter_map(|line| line.strip_prefix("  ")).collect();
    let is_long = entry.value.contains('\n');
    match (lines.is_empty(), is_long) {
        (false, _) => Some(lines.join("\n")),
        (true, true) => Some(format!("[{}]\n{} = {}", entry.section, entry.name, entry.value)),
        (true, false) => None,
    }
}

fn row(entry: &Entry) -> String {
    let default = match (entry.is_set, entry.value.contains('\n')) {
        (true, true) => "below".to_owned(),
        (true, false) => format!("`{}`", entry.value),
        (false, _) => String::new(),
    };
    let variable = format!("`LIKEWISE__{}`", entry.key().replace('.', "__").to_uppercase());
    let is_in_environment = kind(&entry.value) != "list" || LISTS.contains(&entry.key().as_str());
    let variable = if is_in_environment { variable } else { "only in a file".to_owned() };
    let (name, kind, meaning) = (&entry.name, kind(&entry.value), words(&entry.comment));
    format!("| `{name}` | {kind} | {} | {meaning} | {variable} |\n", cell(&default))
}

/// The policies of the namespaces that exist without being configured, side by side.
fn policies(entries: &[Entry]) -> String {
    let of = |entry: &&Entry| entry.section.starts_with(POLICIES) && entry.is_set;
    let (mut names, mut options) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(of) {
        let namespace = entry.section.trim_start_matches(POLICIES);
        if !names.contains(&namespace) {
            names.push(namespace);
        }
        if !options.contains(&&entry.name) {
            options.push(&entry.name);
        }
    }
    let mut table = "\nThe defaults of the namespaces that the server itself uses:\n\n| option |".to_owned();
    names.iter().for_each(|name| write!(table, " `{name}` |").unwrap());
    write!(table, "\n|---|{}\n", "---|".repeat(names.len())).unwrap();
    for option in options {
        write!(table, "| `{option}` |").unwrap();
        for name in &names {
            let is_it =
                |entry: &&Entry| entry.name == *option && entry.section == format!("{POLICIES}{name}");
            let value = entries.iter().find(is_it).map_or("", |entry| &entry.value);
            write!(table, " `{}` |", cell(value)).unwrap();
        }
        table += "\n";
    }
    table
}

fn page() -> String {
    let file = read("examples/config.toml");
    let (sections, entries) = parse(&file);
    let mut page = HEAD.to_owned();
    for section in &sections {
        let policy = section.name.strip_prefix(POLICIES);
        if policy.is_some_and(|name| name != "default") {
            continue;
        }
        let heading = match policy {
            Some(_) => "cache.namespaces.NAME",
            None if section.name.is_empty() => "models",
            None => &section.name,
        };
        write!(page, "\n## {heading}\n").unwrap();
        if !section.comment.is_empty() {
            write!(page, "\n{}\n", words(&section.comment)).unwrap();
        }
        page += "\n| option | type | default | meaning | environment |\n|---|---|---|---|---|\n";
        let own: Vec<_> = entries.iter().filter(|entry| entry.section == section.name).collect();
        own.iter().for_each(|entry| page += &row(entry).replace("__DEFAULT__", "__NAME__"));
        for (name, example) in own.iter().filter_map(|entry| Some((&entry.name, example(entry)?))) {
            write!(page, "\n`{name}`:\n\n```toml\n{example}\n```\n").unwrap();
        }
        if policy.is_some() {
            page += &policies(&entries);
        }
    }
    page
}

/// The keys of a configuration.
fn keys(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        Some(fields) => fields.iter().for_each(|(name, value)| {
            keys(&format!("{prefix}.{name}"), value, found);
        }),
        None => drop(found.insert(prefix.trim_start_matches('.').to_owned())),
    }
}

#[test]
fn the_options_are_those_of_the_example() {
    compare("configuration.md", &page());
}

#[test]
fn every_option_has_its_row() {
    let mut known = BTreeSet::new();
    keys("", &serde_json::to_value(Config::default()).unwrap(), &mut known);
    let (_, entries) = parse(&read("examples/config.toml"));
    let documented: BTreeSet<_> = entries.iter().map(Entry::key).collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    // Optional in each policy, and documented in that of `default`.
    let optional = [".cache_tool_calls", ".cache_truncated", ".durability"];
    let is_optional = |key: &&&String| optional.iter().any(|name| key.ends_with(name));
    let missing: Vec<_> = missing.iter().filter(|key| !is_optional(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(known.len() > 100, "{}", known.len());
    let unsaid: Vec<_> = entries.iter().filter(|entry| entry.comment.is_empty()).map(Entry::key).collect();
    let unsaid: Vec<_> = unsaid.iter().filter(|key| !key.starts_with(POLICIES)).collect();
    assert!(unsaid.is_empty(), "without a comment: {unsaid:?}");
}
