//! Files that import each other in a circle can only be read together. In the modules named here there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules in which no files import each other in a circle. The list may only become longer.
const MODULES: [&str; 13] = [
    "cache",
    "dialects",
    "domain",
    "embed",
    "http",
    "matching",
    "metrics",
    "model_fetch",
    "request_identity",
    "search",
    "service",
    "storage",
    "upstream",
];

type ModulePath = Vec<String>;

/// The text of each file by the path of its module, without unit tests.
fn files(dir: &Path, module: &ModulePath, found: &mut BTreeMap<ModulePath, String>) {
    for entry in fs_err::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let stem = name.trim_end_matches(".rs");
        let inner = [&module[..], &[stem.to_owned()]].concat();
        if path.is_dir() {
            files(&path, &inner, found);
        } else if name.ends_with(".rs") && !["tests", "interleavings"].contains(&stem) {
            let text = fs_err::read_to_string(&path).unwrap();
            let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            found.insert(if stem == "mod" { module.clone() } else { inner }, own);
        }
    }
}

/// The paths of a tree of imports: `a::{b, c::d}` has two.
fn paths(tree: &str, before: &[String], found: &mut Vec<ModulePath>) {
    let (head, list) = tree.split_once('{').map_or((tree, None), |(head, rest)| (head, Some(rest)));
    let head = head.split(" as ").next().unwrap();
    let parts = head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(String::from);
    let path: ModulePath = before.iter().cloned().chain(parts).collect();
    // What follows the last comma of a list is no path.
    let Some(list) = list else { return found.extend((!tree.is_empty()).then_some(path)) };
    let (mut depth, mut from) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                paths(list[from..at].trim(), &path, found);
                from = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
}

/// What a file imports, by absolute paths.
fn imports(module: &ModulePath, text: &str) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for statement in text.split(";\n") {
        let last = statement.rfind("\nuse ").or_else(|| statement.rfind("\npub use ")).map_or(0, |at| at + 1);
        if let Some((visibility, tree)) = statement[last..].split_once("use ")
            && (visibility.is_empty() || visibility.starts_with("pub"))
        {
            paths(tree, &[], &mut found);
        }
    }
    found.iter().filter_map(|path| absolute(module, text, path)).collect()
}

fn absolute(module: &ModulePath, text: &str, path: &[String]) -> Option<ModulePath> {
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat())
        }
        first if text.contains(&format!("mod {first};\n")) => Some([module, path].concat()),
        _ => None,
    }
}

/// The file in which a path leads to an item: imports of the modules on its way are followed.
fn definition(
    path: &ModulePath,
    files: &BTreeMap<ModulePath, String>,
    known: &BTreeMap<ModulePath, Vec<ModulePath>>,
) -> Option<ModulePath> {
    let length = (1..=path.len()).rev().find(|&length| files.contains_key(&path[..length]))?;
    let (module, rest) = path.split_at(length);
    let reexported =
        rest.first().and_then(|name| known[module].iter().find(|path| path.last() == Some(name)));
    match reexported {
        Some(target) if target != path => definition(&[target, &rest[1..]].concat(), files, known),
        Some(_) | None => Some(module.to_vec()),
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut files_by_module = BTreeMap::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Vec::new(), &mut files_by_module);
    let known: BTreeMap<_, _> =
        files_by_module.iter().map(|(module, text)| (module.clone(), imports(module, text))).collect();
    let mut open: BTreeMap<&ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
    for (module, text) in &files_by_module {
        let is_used = |path: &&ModulePath| {
            // A name that occurs once is only passed on to others.
            path.last().is_some_and(|name| text.matches(name.as_str()).count() > 1)
        };
        let targets = known[module].iter().filter(is_used);
        let targets = targets.filter_map(|path| definition(path, &files_by_module, &known));
        let is_checked = module.first().is_some_and(|first| MODULES.contains(&first.as_str()));
        if is_checked {
            open.insert(
                module,
                targets.filter(|target| target != module && target[0] == module[0]).collect(),
            );
        }
    }
    assert!(open.values().map(BTreeSet::len).sum::<usize>() > 150, "too few imports were read");
    // Files that import none of those left are in no circle.
    while let Some(&done) =
        open.keys().find(|module| open[**module].iter().all(|path| !open.contains_key(path)))
    {
        open.remove(done);
    }
    let circles: Vec<_> = open.keys().map(|module| module.join("::")).collect();
    assert!(circles.is_empty(), "in circles, or import files that are: {}", circles.join(", "));
}

#[test]
fn a_tree_of_imports_has_all_its_paths() {
    let module = vec!["a".to_owned(), "b".to_owned()];
    let found = imports(
        &module,
        "mod e;\nuse crate::x::{self, y::{Z, W,\n}};\nuse super::v::T;\nfn f() {}\npub use self::c::D;\npub use e::F;\n",
    );
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["x::self", "x::y::Z", "x::y::W", "a::v::T", "a::b::c::D", "a::b::e::F"]);
}
