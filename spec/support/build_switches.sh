#!/bin/sh
# Builds the extension without what the switches leave out, installs each build into a PostgreSQL of its
# own, and runs the SQL tests that such a build has to pass.
# Usage: build_switches.sh BUILD   (from the repository's root; MAKE, PG_CONFIG)
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

. "$(dirname "$0")/private_postgres.sh"

without_luajit() { [ -f "$1" ] && ! ldd "$1" | grep luajit; }

try() { # NAME SWITCH TEST...
    name=$1
    switch=$2
    shift 2
    check "$switch: a PostgreSQL of its own" private_postgres "$name"
    own=$(private_pg_config "$name")
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
