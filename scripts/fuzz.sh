#!/usr/bin/env bash
# Runs each fuzz target for so many seconds, from the committed corpus; what it finds goes to a directory beside the
# build. The coverage flags are those of cargo-fuzz without a sanitizer, which the stable toolchain knows too.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"
target="$(scripts/target_dir.sh)/fuzz"
host="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1 --cfg fuzzing"
# With a target named, the flags reach our code and its libraries, but no build script.
cargo build --locked --quiet --release --package likewise-fuzz --bins --target "$host" --target-dir "$target"
for name in fuzz/fuzz_targets/*.rs; do
  name="$(basename "$name" .rs)"
  mkdir -p "$target/corpus/$name"
  echo "== $name, $seconds s"
  "$target/$host/release/$name" -max_total_time="$seconds" -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$target/" "$target/corpus/$name" "fuzz/corpus/$name"
done
