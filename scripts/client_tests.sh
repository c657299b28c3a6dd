#!/usr/bin/env bash
# Runs the tests of a client against a server of its own, which asks an upstream of its own.
#
#   scripts/client_tests.sh BINARY MODEL_DIR python|node [FILE of tests/python]...
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE="${LIKEWISE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/likewise}"
readonly PYTHON="$CACHE/test-venv/bin/python"
[ -x "$PYTHON" ] || { echo "client_tests: no Python environment: run scripts/setup.sh test" >&2; exit 1; }
if [ "$3" = node ] && ! command -v node >/dev/null; then
    echo "skipped: there is no Node on this machine"
    exit 0
fi

data=$(mktemp -d)
mkfifo "$data/announcement" "$data/upstream"
"$PYTHON" tests/python/upstream.py > "$data/upstream" &
upstream=$!
disown
trap 'kill -KILL $upstream 2>/dev/null || true; rm -rf "$data"' EXIT
exec 4< "$data/upstream"
read -r -t 60 address <&4 || { echo "client_tests: the upstream did not start" >&2; exit 1; }

LIKEWISE__MODEL__NAME=all-MiniLM-L6-v2 LIKEWISE__ANSWERS__CACHE_TOOL_CALLS=true LIKEWISE__SEARCH__COMPACTION__IDLE_MS=50 \
    "$1" serve --listen 127.0.0.1:0 --data-dir "$data/data" --model "$2" --upstream "$address" \
    > "$data/announcement" &
server=$!
trap 'kill -KILL $server $upstream 2>/dev/null || true; rm -rf "$data"' EXIT

exec 3< "$data/announcement"
read -r -t 60 line <&3 || { echo "client_tests: the server did not start" >&2; exit 1; }
export LIKEWISE_URL="${line#listening on }" LIKEWISE_BINARY="$1" OMP_NUM_THREADS=1
[ $# -gt 3 ] || set -- "$@" tests/python
case "$3" in
    python) "$PYTHON" -m pytest --quiet -p no:cacheprovider "${@:4}" ;;
    node) NODE_PATH="$CACHE/test-node/node_modules" node --test --test-reporter=tap tests/node/*.test.cjs ;;
    *) echo "client_tests: python or node" >&2; exit 1 ;;
esac

kill -TERM "$server"
wait "$server"
