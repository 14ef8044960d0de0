#!/bin/sh
# Writes the C file of the SQL functions that a build was made without: those that the SQL scripts name
# and that none of the files given defines.
# Usage: absent.sh FILE.c...
set -eu
present=$(mktemp)
trap 'rm -f "$present"' EXIT
sed -n 's/^ *PG_FUNCTION_INFO_V1(\([A-Za-z0-9_]*\)).*/\1/p' "$@" | sort -u >"$present"
echo '/* Made by lua/tools/absent.sh. */'
echo '#include "without/absent.h"'
sed -n "s/.*MODULE_PATHNAME', '\([A-Za-z0-9_]*\)'.*/\1/p" ext/sql/ruvector--*.sql | sort -u |
    comm -23 - "$present" |
    sed -e 's/^ruivf.*/RUV_ABSENT(&, "clustering, which ruivfflat needs", "WITH_ADVANCED");/' \
        -e '/^RUV_ABSENT/!s/.*/RUV_ABSENT(&, "learning", "WITH_LEARNING");/'
