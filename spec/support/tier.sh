#!/bin/sh
# Runs one test tier, keeps its output for the tally, and passes on its exit status.
# Usage: tier.sh LOG COMMAND...
set -u
log=$1
shift
mkdir -p "$(dirname "$log")"
status=$( { { "$@" 2>&1; echo $? >&3; } | tee "$log" >&4; } 3>&1 ) 4>&1
[ "$status" = 0 ] || echo "exit status $status: $*" >>"$log"
exit "$status"
