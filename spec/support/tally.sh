#!/bin/sh
# Sums what the tiers' logs say and prints "N passed, N failed", with ", N skipped" behind it when specs
# were pending (each has said why); fails when anything failed, when a tier ended badly, or when
# nothing ran. Before that line come the last lines of every log that failed, since what ran side by side
# is far up in the output by then. Reads the closing lines of busted, of cmocka and of the plain form
# "NAME: N passed, N failed".
# Usage: tally.sh LOG...
set -u
for log in "$@"; do
    grep -q '^exit status ' "$log" || continue
    echo "== $log ends with:"
    tail -n 40 "$log" | cut -c 1-300
done
awk '
/^[0-9]+ success(es)? \/ [0-9]+ failures? \/ [0-9]+ errors? \/ [0-9]+ pending/ {
    passed += $1; failed += $4 + $7; skipped += $10; next }
/^\[  PASSED  \] [0-9]+ test/ { passed += $4; next }
/^\[  FAILED  \] [0-9]+ test/ { failed += $4; next }
/^[a-z0-9_-]+: [0-9]+ passed, [0-9]+ failed/ { passed += $2; failed += $4; next }
/^exit status [0-9]+: / { broken++ }
END {
    if (broken && !failed) failed = broken
    printf "%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : ""
    exit (failed > 0 || passed == 0)
}' "$@"
