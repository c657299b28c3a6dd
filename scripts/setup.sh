#!/usr/bin/env bash
# Installs what is missing on a Debian machine.
#
#   scripts/setup.sh run      to build and serve
#   scripts/setup.sh check    to check the source
#   scripts/setup.sh book     to build the book of docs/
#   scripts/setup.sh dist     to build what can be downloaded
#   scripts/setup.sh image    to build and check the image
#   scripts/setup.sh test     to run all tests
#   scripts/setup.sh clients  to run the tests of clients
#   scripts/setup.sh peers    to run the benches' rivals that are Python packages
#   scripts/setup.sh litellm  the same for LiteLLM, which wants an environment of its own
#   scripts/setup.sh verifier to train the verifier
#
# Installs system packages with apt where it may, and otherwise prints the one command to type.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE="${LIKEWISE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/likewise}"
readonly CARGO_DENY_VERSION=0.20.2
# A compiler for C and C++, and what FAISS needs.
readonly BUILD_PACKAGES=(build-essential cmake libopenblas-serial-dev)
# Servers that the tests start; Valkey comes with the Python packages. `openssl` makes their certificates.
readonly REDIS_PACKAGES=(redis-server redis-sentinel redis-tools openssl)

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "type this and try again: sudo apt-get install --yes ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update --quiet=2 >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 "${missing[@]}" >&2
}

rust() {
    command -v cargo >/dev/null || fail "cargo is missing: install rustup, then open a new shell"
    # The pinned toolchain comes by itself where rustup may fetch it.
    cargo --version >/dev/null || fail "the toolchain of rust-toolchain.toml is missing: rustup toolchain install"
}

cargo_deny() {
    cargo deny --version 2>/dev/null | grep -qF "$CARGO_DENY_VERSION" && return
    say "building cargo-deny $CARGO_DENY_VERSION (once, some minutes)"
    # Unoptimised: it is built for minutes and runs for seconds.
    cargo install --quiet --debug --locked --version "$CARGO_DENY_VERSION" cargo-deny >&2
}

# A Python environment of its own for what a file of requirements names.
python_venv() {
    local venv="$CACHE/$1" requirements="$2" wanted
    wanted=$(sha256sum "$requirements" | cut -d' ' -f1)
    [ "$(cat "$venv/.requirements" 2>/dev/null)" = "$wanted" ] && return
    say "making the Python environment of $requirements"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$requirements" >&2
    echo "$wanted" > "$venv/.requirements"
}

# The packages of the Node tests. Their Node is a package of the Python environment: Debian's is too old for them.
node_packages() {
    local home="$CACHE/test-node" wanted bin
    wanted=$(sha256sum tests/node/package-lock.json | cut -d' ' -f1)
    [ "$(cat "$home/.requirements" 2>/dev/null)" = "$wanted" ] && return
    say "installing the packages of tests/node"
    rm -rf "$home"
    mkdir -p "$home"
    cp tests/node/package.json tests/node/package-lock.json "$home"
    bin=$(scripts/node_dir.sh)
    "$bin/node" "$bin/../lib/node_modules/npm/bin/npm-cli.js" \
        ci --prefix "$home" --ignore-scripts --no-audit --no-fund --silent >&2
    echo "$wanted" > "$home/.requirements"
}

# What clients of others run in. LlamaIndex wants an older `openai` than all others.
client_environments() {
    python_venv test-venv tests/python/requirements.txt
    python_venv llama-index-venv tests/llama_index/requirements.txt
    node_packages
}

case "${1:-}" in
    run) packages "${BUILD_PACKAGES[@]}" && rust ;;
    check) packages "${BUILD_PACKAGES[@]}" && rust && cargo_deny ;;
    book) packages python3 python3-venv python3-pip && python_venv book-venv docs/requirements.txt ;;
    dist) packages "${BUILD_PACKAGES[@]}" libgfortran-12-dev python3 python3-pip && rust ;;
    image) packages buildah debootstrap uidmap python3 ;;
    test) packages "${BUILD_PACKAGES[@]}" "${REDIS_PACKAGES[@]}" libfaketime python3 python3-venv python3-pip curl && rust && client_environments ;;
    clients) packages "${BUILD_PACKAGES[@]}" python3 python3-venv python3-pip && rust && client_environments ;;
    peers) packages "${REDIS_PACKAGES[@]}" python3 python3-venv python3-pip && python_venv peers-venv benches/peers/requirements.txt ;;
    litellm) packages "${REDIS_PACKAGES[@]}" python3 python3-venv python3-pip && python_venv litellm-venv benches/peers/litellm.txt ;;
    verifier) packages python3 python3-venv python3-pip && python_venv verifier-venv tools/verifier/requirements.txt ;;
    *) fail "usage: scripts/setup.sh run|check|book|dist|image|test|clients|peers|litellm|verifier" ;;
esac
