#!/usr/bin/env bash
# Runs the tests of clients against a server of its own, which asks an upstream of its own.
#
#   scripts/client_tests.sh BINARY MODEL_DIR|none python|node|llama-index [FILE or DIRECTORY]...
#
# Without files, all of tests/python with LlamaIndex, or all of tests/node.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE="${LIKEWISE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/likewise}"
readonly PYTHON="$CACHE/test-venv/bin/python" LLAMA_INDEX_PYTHON="$CACHE/llama-index-venv/bin/python"
# Ten times what a run takes.
readonly SECONDS_MAX=900
[ -x "$PYTHON" ] || { echo "client_tests: no Python environment: run scripts/setup.sh clients" >&2; exit 1; }

data=$(mktemp -d)
mkfifo "$data/announcement" "$data/upstream"
"$PYTHON" tests/python/upstream.py > "$data/upstream" &
upstream=$!
disown
trap 'kill -KILL $upstream 2>/dev/null || true; rm -rf "$data"' EXIT
exec 4< "$data/upstream"
read -r -t 60 address <&4 || { echo "client_tests: the upstream did not start" >&2; exit 1; }

[ "$2" = none ] || export LIKEWISE__MODEL__NAME=all-MiniLM-L6-v2
LIKEWISE__ANSWERS__CACHE_TOOL_CALLS=true LIKEWISE__SEARCH__COMPACTION__IDLE_MS=50 \
    "$1" serve --listen 127.0.0.1:0 --data-dir "$data/data" --model "$2" --upstream "$address" \
    > "$data/announcement" &
server=$!
trap 'kill -KILL $server $upstream 2>/dev/null || true; rm -rf "$data"' EXIT

exec 3< "$data/announcement"
read -r -t 60 line <&3 || { echo "client_tests: the server did not start" >&2; exit 1; }
export LIKEWISE_URL="${line#listening on }" LIKEWISE_UPSTREAM="$address" LIKEWISE_BINARY="$1" OMP_NUM_THREADS=1
# What clients would fetch from, or report to, the network.
export LITELLM_LOCAL_MODEL_COST_MAP=True OPENAI_AGENTS_DISABLE_TRACING=1 HAYSTACK_TELEMETRY_ENABLED=False

tests() { timeout "$SECONDS_MAX" "$1" -m pytest --quiet -p no:cacheprovider "${@:2}"; }
case "$3" in
    python)
        [ $# -gt 3 ] || { tests "$LLAMA_INDEX_PYTHON" tests/llama_index && set -- "$@" tests/python; }
        tests "$PYTHON" "${@:4}"
        ;;
    llama-index) tests "$LLAMA_INDEX_PYTHON" tests/llama_index ;;
    node)
        [ $# -gt 3 ] || set -- "$@" tests/node/*.test.cjs tests/node/clients/*.test.cjs
        PATH="$(scripts/node_dir.sh):$PATH" NODE_PATH="$CACHE/test-node/node_modules" \
            timeout "$SECONDS_MAX" node --test --test-concurrency=1 --test-reporter=tap "${@:4}"
        ;;
    *) echo "client_tests: python, node or llama-index" >&2; exit 1 ;;
esac

kill -TERM "$server"
wait "$server"
