//! Goal: no version in `Cargo.lock` has a known advisory that is not listed, with a reason, in `deny.toml`. Method: the versions of
//! RustSec's database, which `tests/data/advisories.tsv` holds with its date; nothing is fetched.

use semver::{Version, VersionReq};

const ADVISORIES: &str = include_str!("../data/advisories.tsv");
const LOCK: &str = include_str!("../../Cargo.lock");
const DENY: &str = include_str!("../../deny.toml");

struct Advisory {
    id: &'static str,
    package: &'static str,
    /// Versions that it does not concern: patched ones and earlier ones.
    others: Vec<VersionReq>,
}

fn advisories() -> Vec<Advisory> {
    let read = |row: &'static str| {
        let mut fields = row.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        let (id, _kind, package) = (next(), next(), next());
        let ranges = [next(), next()];
        let ranges = ranges.iter().flat_map(|ranges| ranges.split("||")).map(str::trim);
        let read =
            |range: &str| VersionReq::parse(range).unwrap_or_else(|fault| panic!("{id}: {range}: {fault}"));
        Advisory { id, package, others: ranges.filter(|range| !range.is_empty()).map(read).collect() }
    };
    ADVISORIES.lines().filter(|row| !row.starts_with('#')).map(read).collect()
}

/// Names and versions of a lock file.
fn locked(lock: &str) -> Vec<(&str, Version)> {
    let value = |line: &'_ str, name: &str| -> Option<(usize, usize)> {
        let start = line.strip_prefix(name)?.strip_prefix(" = \"")?;
        Some((line.len() - start.len(), line.len() - 1))
    };
    let mut packages = Vec::new();
    for block in lock.split("[[package]]").skip(1) {
        let field =
            |name| block.lines().find_map(|line| value(line, name).map(|(start, end)| &line[start..end]));
        let (name, version) = (field("name").expect("a name"), field("version").expect("a version"));
        packages.push((name, Version::parse(version).expect("a version")));
    }
    packages
}

/// What is known of the packages of a lock file.
fn found(lock: &str) -> Vec<String> {
    let packages = locked(lock);
    let mut found = Vec::new();
    for advisory in advisories() {
        let concerns = |(name, version): &&(&str, Version)| {
            *name == advisory.package && !advisory.others.iter().any(|range| range.matches(version))
        };
        found.extend(
            packages
                .iter()
                .filter(concerns)
                .map(|(name, version)| format!("{} {name} {version}", advisory.id)),
        );
    }
    found
}

#[test]
fn no_version_has_an_advisory_that_is_not_listed() {
    let found = found(LOCK);
    let listed = |advisory: &String| DENY.contains(&format!("id = \"{}\"", &advisory[..17]));
    let unlisted: Vec<&String> = found.iter().filter(|advisory| !listed(advisory)).collect();
    assert!(unlisted.is_empty(), "update these, or list them with a reason in deny.toml: {unlisted:?}");
    // A reason outlives its advisory otherwise.
    let ids = DENY.split("id = \"").skip(1).map(|rest| &rest[..17]);
    let stale: Vec<&str> = ids.filter(|id| !found.iter().any(|advisory| advisory.starts_with(id))).collect();
    assert!(stale.is_empty(), "these are listed in deny.toml and concern nothing: {stale:?}");
}

#[test]
fn the_table_has_its_date_and_finds_what_it_should() {
    let date =
        ADVISORIES.lines().find_map(|line| line.strip_prefix("# date\t")).expect("the table has a date");
    assert!(date.len() == 10 && date > "2026-08-01", "{date}");
    assert!(advisories().len() > 1000 && locked(LOCK).len() > 300);
    let old = "[[package]]\nname = \"tokio\"\nversion = \"1.18.3\"\n\n[[package]]\nname = \"bincode\"\nversion = \"1.3.3\"\n";
    let found = found(old).join(", ");
    for known in ["RUSTSEC-2023-0001 tokio", "RUSTSEC-2025-0023 tokio", "RUSTSEC-2025-0141 bincode"] {
        assert!(found.contains(known), "{known} in {found}");
    }
    assert!(!found.contains("RUSTSEC-2021-0072"), "patched in 1.8.1: {found}");
}
