//! The modules of ARCHITECTURE.md, checked: imports point down, and modules of one layer do not import each other.

use std::path::{Path, PathBuf};

/// Each module with the modules it may import besides itself.
const MODULES: [(&str, &[&str]); 25] = [
    ("labels", &[]),
    ("error", &["labels"]),
    ("metrics", &["labels"]),
    ("domain", &["labels"]),
    ("pacing", &[]),
    ("byte_budget", &["error", "metrics"]),
    ("decompression", &["error"]),
    ("sync", &[]),
    ("sse", &[]),
    ("raw_object", &["error"]),
    ("line_files", &["error"]),
    ("storage", &["domain", "error", "labels", "metrics", "sync"]),
    ("cache", &["storage", "domain", "error", "labels", "metrics", "pacing", "sync"]),
    ("embed", &["domain", "error", "metrics", "pacing", "decompression", "sync"]),
    ("model_fetch", &["embed", "error", "pacing"]),
    ("search", &["storage", "domain", "error", "labels", "metrics", "sync", "raw_object"]),
    ("request_identity", &["domain", "error"]),
    ("matching", &["error", "labels"]),
    ("dialects", &["request_identity", "raw_object", "sse", "domain", "error", "labels"]),
    ("upstream", &["sse", "domain", "error", "metrics", "pacing", "byte_budget", "decompression"]),
    ("nodes", &["cache", "domain", "error", "labels", "metrics", "sync"]),
    (
        "service",
        &[
            "cache",
            "dialects",
            "embed",
            "matching",
            "request_identity",
            "search",
            "sse",
            "upstream",
            "domain",
            "error",
            "labels",
            "line_files",
            "metrics",
            "byte_budget",
            "pacing",
            "sync",
        ],
    ),
    (
        "http",
        &[
            "service",
            "cache",
            "dialects",
            "embed",
            "nodes",
            "request_identity",
            "search",
            "upstream",
            "domain",
            "error",
            "labels",
            "metrics",
            "byte_budget",
            "pacing",
            "sync",
        ],
    ),
    ("config", &["service", "cache", "embed", "nodes", "search", "storage", "upstream", "http", "error"]),
    (
        "app",
        &[
            "config",
            "http",
            "service",
            "cache",
            "embed",
            "nodes",
            "search",
            "storage",
            "upstream",
            "domain",
            "error",
            "metrics",
            "byte_budget",
        ],
    ),
];

/// Crates that only few files may name.
const CRATE_USERS: [(&str, &[&str]); 17] = [
    ("axum", &["src/http/"]),
    ("hyper", &["src/http/"]),
    (
        "likewise_encoder",
        &[
            "src/embed/encoder/",
            "src/embed/verifier/",
            "src/embed/model_dir/",
            "src/embed/local.rs",
            "src/embed/mod.rs",
        ],
    ),
    ("tokenizers", &["src/embed/"]),
    (
        "reqwest",
        &["src/embed/remote", "src/nodes/transport.rs", "src/upstream/", "src/model_fetch/", "src/cli/"],
    ),
    ("memmap2", &["src/storage/files/mapped_file.rs"]),
    ("redb", &["src/storage/"]),
    ("quick_cache", &["src/cache/memory/s3fifo.rs"]),
    ("lru", &["src/cache/memory/"]),
    ("redis", &["src/cache/redis/"]),
    ("zstd", &["src/cache/compression.rs", "src/http/content_coding.rs", "src/decompression.rs"]),
    ("likewise_index", &["src/search/", "src/service/answers/semantic/"]),
    ("ring::digest", &["src/model_fetch/digest.rs", "src/embed/verifier/shipped.rs"]),
    ("zip", &["src/model_fetch/package.rs"]),
    ("csv", &["src/cli/embed/csv_texts.rs"]),
    ("parquet", &["src/cli/embed/parquet_texts.rs", "src/cli/embed/vector_table.rs"]),
    ("arc_swap", &["src/search/", "src/dialects/parse_cache.rs", "src/cache/redis/"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(dir).expect("src is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The path below the root, with forward slashes.
fn place(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/")
}

/// The module of a source file: `src/cache/disk.rs` and `src/cache.rs` are both `cache`.
fn module(place: &str) -> &str {
    let inside = place.strip_prefix("src/").expect("below src");
    inside.split('/').next().expect("a first part").trim_end_matches(".rs")
}

/// The modules named in `use crate::...` and `crate::...` paths of a text.
fn imports(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or("").split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let name: String =
                name.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                modules.push(name);
            }
        }
    }
    modules
}

#[test]
fn imports_point_down() {
    let mut faults = Vec::new();
    for path in sources(&root().join("src")) {
        let place = place(&path);
        let module = module(&place);
        if ["main", "lib", "cli"].contains(&module) {
            continue;
        }
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{place}: the module `{module}` is not in ARCHITECTURE.md"));
            continue;
        };
        let text = fs_err::read_to_string(&path).expect("a source file");
        for import in imports(&text) {
            let is_module = MODULES.iter().any(|(name, _)| *name == import);
            if is_module && import != module && !allowed.contains(&import.as_str()) {
                faults.push(format!("{place}: `{module}` must not import `{import}`"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_heavy_crate_is_named_in_few_files() {
    let mut faults = Vec::new();
    for path in sources(&root().join("src")) {
        let place = place(&path);
        let text = fs_err::read_to_string(&path).expect("a source file");
        for (name, files) in CRATE_USERS {
            let names_it = text.lines().any(|line| {
                let line = line.trim();
                names_crate(line, name) && !line.starts_with("//")
            });
            if names_it && !files.iter().any(|file| place.starts_with(file)) {
                faults.push(format!("{place}: only {} may name {name}", files.join(" and ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether a line has a path that begins with a crate. Modules of ours may have its name: `cache::redis::` is no path of it.
fn names_crate(line: &str, name: &str) -> bool {
    let is_beginning =
        |at: usize| !line[..at].ends_with(|c: char| c == ':' || c == '_' || c.is_alphanumeric());
    line.match_indices(&format!("{name}::")).any(|(at, _)| is_beginning(at))
}

/// A route beside the table would be missing from the contract, from admission, or from what is never forwarded.
#[test]
fn routes_are_in_the_table_only() {
    const TABLE: &str = "src/http/routes.rs";
    let builds_router = |text: &str| text.contains("Router::new(") || text.contains("OpenApiRouter");
    let mut faults = Vec::new();
    for path in sources(&root().join("src/http")) {
        let place = place(&path);
        let text = fs_err::read_to_string(&path).expect("a source file");
        if builds_router(&text) != (place == TABLE) {
            faults.push(place);
        }
    }
    assert!(faults.is_empty(), "only {TABLE} builds a router: {}", faults.join(", "));
}

#[test]
fn unsafe_code_is_in_named_files_only() {
    const FILES: [&str; 3] = ["src/storage/files/mapped_file.rs", "index/src/kernels/", "index/src/ffi.rs"];
    for path in ["src", "index/src", "encoder/src"].into_iter().flat_map(|dir| sources(&root().join(dir))) {
        let place = place(&path);
        let text = fs_err::read_to_string(&path).expect("a source file");
        let has_unsafe =
            text.lines().any(|line| line.trim_start().starts_with("unsafe ") || line.contains("unsafe {"));
        assert!(!has_unsafe || FILES.iter().any(|file| place.starts_with(file)), "{place} has unsafe code");
    }
}

/// The program contains nothing of the failing file layer.
#[test]
fn only_tests_use_the_recording_files() {
    let mut users = 0;
    for path in sources(&root().join("src")) {
        let place = place(&path);
        let text = fs_err::read_to_string(&path).expect("a source file");
        let own = text.split("#[cfg(test)]\nmod tests {").next().expect("a first part");
        users += usize::from(text.contains("RecordingFiles"));
        let is_allowed = place.starts_with("src/storage/files/recording/") || place.ends_with("tests.rs");
        assert!(is_allowed || !own.contains("RecordingFiles"), "{place} names the recording files");
    }
    assert!(users > 3, "only {users} files name them");
}

#[test]
fn the_reader_of_imports_sees_them() {
    let text = "use crate::{cache, embed};\nuse crate::error::Error;\nlet x = crate::http::serve();";
    assert_eq!(imports(text), ["cache", "embed", "error", "http"]);
}
