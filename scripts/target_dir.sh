#!/usr/bin/env bash
# Prints the directory that cargo builds into.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo metadata --format-version 1 --no-deps --locked | sed -E 's/.*"target_directory":"([^"]+)".*/\1/'
