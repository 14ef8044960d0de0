#!/bin/sh
# Builds the extension with assertions and traps, installs it into a PostgreSQL of its own, and runs specs
# against that.
# Usage: checked_build.sh BUILD FLAGS SPEC...   (from the repository's root; MAKE, PG_CONFIG)
set -u
build=$1
flags=$2
shift 2
make=${MAKE:-make}
pg_config=${PG_CONFIG:-pg_config}
. "$(dirname "$0")/private_postgres.sh"

private_postgres checked || exit 2
own=$(private_pg_config checked)
"$make" -s BUILD="$build" SANITIZE="$flags" PG_CONFIG="$own" \
    PG_INCLUDE="$("$pg_config" --includedir-server)" install || exit 2
RUVECTOR_BUILD=$build PG_CONFIG=$own busted -o plainTerminal "$@"
