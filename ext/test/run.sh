#!/bin/sh
# Runs the SQL tests with PostgreSQL's own pg_regress against a private, temporary server.
#
#   sh ext/test/run.sh [TEST...]        all of ext/test/sql in order, or the tests named
#
#   PG_CONFIG         which PostgreSQL; the extension must be installed there
#   BUILD             where results are kept: $BUILD/regress/results (default: build)
#   RUVECTOR_VERSION  the extension's version to test (default: the control file's)
#
# Every test gets a database of its own in which the extension exists, so tests neither depend on an
# order nor see what another one left. The server preloads ruvector, listens on a unix socket only
# and runs as a user who is not root; it is stopped and removed at the end, on Ctrl-C too. Files are
# copied to the server's directory because that user may not be allowed to read the checkout.
#
# A failing test prints its diff. The last line is "regress: N passed, N failed", and the exit status
# is 0 only when all passed.
set -u

here=$(cd "$(dirname "$0")" && pwd)
BUILD=${BUILD:-build}
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}

give_up() {
    echo "run.sh: $*" >&2
    echo "regress: 0 passed, 1 failed"
    exit 2
}

bindir=$("$PG_CONFIG" --bindir) || give_up "cannot run $PG_CONFIG; set PG_CONFIG"
pg_regress=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/regress/pg_regress
[ -x "$pg_regress" ] || give_up "no pg_regress at $pg_regress; install postgresql-server-dev-15"
[ -f "$("$PG_CONFIG" --sharedir)/extension/ruvector.control" ] ||
    give_up "ruvector is not installed in $bindir; run make install"

if [ $# -eq 0 ]; then
    for file in "$here"/sql/*.sql; do
        case $file in */without_*) continue ;; esac # of builds that leave something out
        set -- "$@" "$(basename "$file" .sql)"
    done
fi
for test in "$@"; do
    [ -f "$here/sql/$test.sql" ] || give_up "no test $test in $here/sql"
done

mkdir -p "$BUILD/regress" || give_up "cannot create $BUILD/regress"
results=$(cd "$BUILD/regress" && pwd)/results
rm -rf "$results" && mkdir "$results"

if [ "$(id -u)" -eq 0 ]; then
    as_server() { runuser -u postgres -- "$@"; }
else
    as_server() { "$@"; }
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/ruvector-regress-XXXXXX") || give_up "no temporary directory"
clean_up() {
    trap - EXIT INT TERM HUP
    [ ! -f "$work/data/postmaster.pid" ] ||
        as_server "$bindir/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null 2>&1
    cp "$work/log" "$results/../server.log" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
cp -R "$here/sql" "$here/expected" "$work/" || give_up "cannot copy the tests"
[ "$(id -u)" -ne 0 ] || chown -R postgres "$work"
cd "$work" || give_up "cannot enter $work"

# The settings fix what would make results differ between machines.
as_server "$bindir/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C --no-sync \
    >"$work/initdb.log" 2>&1 || { cat "$work/initdb.log"; give_up "initdb failed"; }
as_server tee -a "$work/data/postgresql.conf" >/dev/null <<EOF
listen_addresses = ''
unix_socket_directories = '$work'
shared_preload_libraries = 'ruvector'
fsync = off
shared_buffers = 64MB
autovacuum = off
jit = off
timezone = 'UTC'
EOF
as_server "$bindir/pg_ctl" -D "$work/data" -l "$work/log" -w start >/dev/null 2>&1 ||
    { tail -n 20 "$work/log"; give_up "the server did not start"; }

sql() { # DATABASE STATEMENT
    as_server "$bindir/psql" -X -q -h "$work" -U postgres -d "$1" -v ON_ERROR_STOP=1 -c "$2"
}

passed=0
failed=0
for test in "$@"; do
    sql postgres "CREATE DATABASE \"$test\" TEMPLATE template0" &&
        sql "$test" "CREATE EXTENSION ruvector ${RUVECTOR_VERSION:+VERSION '$RUVECTOR_VERSION'}" ||
        { tail -n 20 "$work/log"; give_up "cannot create the extension"; }
    rm -f "$work/regression.diffs"
    if as_server "$pg_regress" --use-existing --bindir="$bindir" --host="$work" --user=postgres \
        --dbname="$test" --inputdir="$work" --outputdir="$work" "$test" >"$work/regress.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok       $test"
    else
        failed=$((failed + 1))
        echo "FAILED   $test"
        if [ -s "$work/regression.diffs" ]; then
            cat "$work/regression.diffs"
        else
            cat "$work/regress.log"
        fi
    fi
    cp "$work/results/$test.out" "$results/" 2>/dev/null
    # Connections of the extension's worker must not keep the database.
    sql postgres "DROP DATABASE \"$test\" WITH (FORCE)"
done

[ "$failed" -eq 0 ] ||
    echo "Results are in $results; the server's log is $(dirname "$results")/server.log."
echo "regress: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
