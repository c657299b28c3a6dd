#!/usr/bin/env bash
# Builds what can be downloaded, in dist/:
#
#   likewise                     the server, stripped; it needs glibc and libgcc_s, which every Debian has
#   likewise_server-*.whl        a Python wheel that carries it
#   SHA256SUMS
#
# With --program-only the server alone, for the image (Dockerfile).
#
# BLAS, LAPACK, OpenMP and the C++ and Fortran runtimes are linked statically: the linker takes them from a directory that
# holds their archives only. Prints sizes, and the oldest glibc that the binary runs on.
set -euo pipefail
cd "$(dirname "$0")/.."

# The oldest glibc that is promised: that of Debian 12, whose runtime of C++ is linked statically.
readonly GLIBC_MAX=2.36

readonly PROGRAM_ONLY="${1:-}"

say() { echo "dist: $*" >&2; }
fail() { say "$*"; exit 1; }

# Archives of the libraries that another machine may lack.
static_libraries() {
    local name file
    for name in blas lapack gomp stdc++ gfortran quadmath; do
        file=$(gcc -print-file-name="lib$name.a")
        case "$name" in blas | lapack) file=$(dirname "$(readlink -f "$(gcc -print-file-name=libopenblas.a)")")/libopenblas.a ;; esac
        [ -f "$file" ] || fail "lib$name.a is missing: scripts/setup.sh dist"
        ln -sf "$file" "$1/lib$name.a"
    done
}

# The newest symbol version of glibc that the binary asks for.
glibc_of() { objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -Vu | tail -1; }

version=$(cargo metadata --format-version 1 --no-deps --locked | python3 -c '
import json, sys
print(next(package["version"] for package in json.load(sys.stdin)["packages"] if package["name"] == "likewise"))')
target=$(scripts/target_dir.sh)
archives="$target/static-libraries"
rm -rf "$archives" dist
mkdir -p "$archives" dist
static_libraries "$archives"

cargo rustc --profile dist --locked --bin likewise -- \
    -L "native=$archives" -C link-arg=-lgfortran -C link-arg=-lquadmath
cp "$target/dist/likewise" dist/likewise

foreign=$(objdump -p dist/likewise | awk '$1 == "NEEDED" { print $2 }' | grep -vE '^(libc|libm|libgcc_s|ld-linux-x86-64)\.so\.' || true)
[ -z "$foreign" ] || fail "the binary needs libraries that other machines may lack: $foreign"
glibc=$(glibc_of dist/likewise)
[ "$(printf '%s\n' "$glibc" "$GLIBC_MAX" | sort -V | tail -1)" = "$GLIBC_MAX" ] ||
    fail "the binary needs glibc $glibc; $GLIBC_MAX was promised"

[ "$PROGRAM_ONLY" != --program-only ] || { say "version $version, needs glibc $glibc"; exit 0; }

LIKEWISE_VERSION="$version" LIKEWISE_BINARY="$PWD/dist/likewise" \
    LIKEWISE_PLATFORM="manylinux_${GLIBC_MAX/./_}_$(uname -m)" \
    python3 -m pip wheel --quiet --no-deps --wheel-dir dist packaging/python
(cd dist && sha256sum likewise ./*.whl > SHA256SUMS)

say "version $version, needs glibc $glibc (linux $(uname -m))"
size --format=sysv dist/likewise | awk '$2 > 100000 { printf "dist:   %-18s %5.1f MB\n", $1, $2 / 1e6 }' >&2
du --bytes dist/likewise dist/*.whl | awk '{ printf "dist: %5.1f MB  %s\n", $1 / 1e6, $2 }' >&2
