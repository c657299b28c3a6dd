#!/usr/bin/env bash
# Runs the tests of the Python clients against a server of its own.
#
#   scripts/python_tests.sh BINARY MODEL_DIR
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE="${LIKEWISE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/likewise}"
readonly PYTHON="$CACHE/test-venv/bin/python"
[ -x "$PYTHON" ] || { echo "python_tests: no Python environment: run scripts/setup.sh test" >&2; exit 1; }

data=$(mktemp -d)
mkfifo "$data/announcement"
LIKEWISE__MODEL__NAME=all-MiniLM-L6-v2 LIKEWISE__SEARCH__TIDYING__IDLE_MS=50 \
    "$1" serve --listen 127.0.0.1:0 --data-dir "$data/data" --model "$2" > "$data/announcement" &
server=$!
trap 'kill -KILL $server 2>/dev/null || true; rm -rf "$data"' EXIT

exec 3< "$data/announcement"
read -r -t 60 line <&3 || { echo "python_tests: the server did not start" >&2; exit 1; }
LIKEWISE_URL="${line#listening on }" LIKEWISE_BINARY="$1" OMP_NUM_THREADS=1 \
    "$PYTHON" -m pytest --quiet -p no:cacheprovider tests/python

kill -TERM "$server"
wait "$server"
