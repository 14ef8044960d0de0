#!/bin/sh
# Runs one test tier, keeps its output for the tally, and passes on its exit status.
# Usage: tier.sh LOG COMMAND...
set -u
log=$1
shift
mkdir -p "$(dirname "$log")"
# The command does not get the descriptors 3 and 4: a server that it leaves behind would hold them open.
status=$( { { "$@" 2>&1 3>&- 4>&-; echo $? >&3; } | tee "$log" >&4; } 3>&1 ) 4>&1
[ "$status" = 0 ] || echo "exit status $status: $*" >>"$log"
exit "$status"
