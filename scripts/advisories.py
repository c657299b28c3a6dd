#!/usr/bin/env python3
"""Writes what RustSec's advisory database says of versions as a table, from a clone of github.com/rustsec/advisory-db.

    scripts/advisories.py CLONE > tests/data/advisories.tsv

A row is an advisory that has not been withdrawn: its id, its kind, the package, the versions that are patched, and those that were
never affected. `tests/it/advisories.rs` compares it with Cargo.lock.
"""

import subprocess
import sys
import tomllib


def git(clone, *arguments):
    return subprocess.run(["git", "-C", clone, *arguments], check=True, capture_output=True, text=True).stdout


def main(clone):
    commit, date = git(clone, "log", "-1", "--format=%H %cs").split()
    print("# RustSec advisory database, https://github.com/rustsec/advisory-db (CC0-1.0, some entries CC-BY-4.0):")
    print("# ids, packages and versions. Written by scripts/advisories.py.")
    print(f"# commit\t{commit}")
    print(f"# date\t{date}")
    print("# id\tkind\tpackage\tpatched\tunaffected")
    names = [name for name in git(clone, "ls-tree", "-r", "--name-only", "HEAD", "crates").split() if name.endswith(".md")]
    for name in sorted(names, key=lambda name: name.split("/")[-1]):
        text = git(clone, "show", f"HEAD:{name}")
        advisory = tomllib.loads(text.split("```toml", 1)[1].split("```", 1)[0])
        about, versions = advisory["advisory"], advisory.get("versions", {})
        if "withdrawn" in about:
            continue
        ranges = [" || ".join(versions.get(field, [])) for field in ("patched", "unaffected")]
        print("\t".join([about["id"], about.get("informational", "vulnerability"), about["package"], *ranges]).rstrip())


if __name__ == "__main__":
    main(*sys.argv[1:])
