#!/bin/sh
# Builds the extension without what the switches leave out, installs each build into a PostgreSQL of its
# own, and runs the SQL tests that such a build has to pass.
# Usage: build_switches.sh BUILD   (from the repository's root; MAKE, PG_CONFIG)
#
# The private PostgreSQL is a copy of the programs with links to everything else: PostgreSQL finds its
# files by the place of its programs, so nothing goes into the installed one.
set -u
build=$1
make=${MAKE:-make}
pg_config=${PG_CONFIG:-pg_config}
passed=0
failed=0

check() { # WHAT COMMAND...
    what=$1
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok       $what"
    else
        failed=$((failed + 1))
        echo "FAILED   $what"
        echo "$output"
    fi
}

work=$(mktemp -d "${TMPDIR:-/tmp}/ruvector-switches-XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$work"

# The directory that all of PostgreSQL's lie below, and the parts behind it.
bin=$("$pg_config" --bindir) lib=$("$pg_config" --pkglibdir) share=$("$pg_config" --sharedir)
root=$bin
while case "$lib" in "$root"/*) false ;; esac || case "$share" in "$root"/*) false ;; esac; do
    root=$(dirname "$root")
done
[ "$root" = / ] && root=

private_postgres() { # DIRECTORY
    mkdir -p "$1${bin#"$root"}" "$1${lib#"$root"}" "$1${share#"$root"}" &&
        cp -L "$bin/postgres" "$bin/initdb" "$bin/pg_ctl" "$bin/psql" "$bin/pg_config" "$1${bin#"$root"}/" &&
        cp -rs "$(realpath "$lib")/." "$1${lib#"$root"}/" &&
        cp -rs "$(realpath "$share")/." "$1${share#"$root"}/" &&
        rm -f "$1${lib#"$root"}/ruvector.so" "$1${share#"$root"}"/extension/ruvector*
}

without_luajit() { [ -f "$1" ] && ! ldd "$1" | grep luajit; }

try() { # NAME SWITCH TEST...
    name=$1
    switch=$2
    shift 2
    private=$work/$name
    check "$switch: a PostgreSQL of its own" private_postgres "$private"
    own=$private${bin#"$root"}/pg_config
    check "$switch: builds and installs" "$make" -s BUILD="$build/$name" PG_CONFIG="$own" \
        PG_INCLUDE="$("$pg_config" --includedir-server)" "$switch" install
    for test in "$@"; do
        check "$switch: $test" env PG_CONFIG="$own" BUILD="$build/$name" sh ext/test/run.sh "$test"
    done
}

try without_learning WITH_LEARNING=no extension type_io index_build index_scan index_rows ivf_build ivf_scan \
    without_learning
check "WITH_LEARNING=no: LuaJIT is not linked" without_luajit "$build/without_learning/ruvector.so"
try without_clustering WITH_ADVANCED=no extension type_io index_build index_scan learning_surface \
    without_clustering
echo "build-switches: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
