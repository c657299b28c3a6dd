//! Links lead somewhere.

use std::collections::HashSet;
use std::path::Path;

use super::{pages, root, split};

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
