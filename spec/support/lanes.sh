#!/bin/sh
# Runs tests side by side, as many at once as there are lanes. Each writes its log, for the tally, and is
# shown as a whole when it has ended, so that outputs do not mix. One that lasts LANE_SECONDS (1,800; the
# longest takes a sixth of that) hangs: it is ended, and fails with what its processes were doing.
# Usage: lanes.sh LANES DIRECTORY <LIST     (a line of the list: NAME COMMAND; the log is DIRECTORY/NAME.log)
#
# The exit status is 0 only when every command's was. Long ones belong first in the list.
set -u
lanes=$1
here=$(dirname "$0")
limit=${LANE_SECONDS:-1800}
export directory="$2" here limit
mkdir -p "$directory"

exec xargs -P "$lanes" -d '\n' -n 1 sh -c '
    name=${1%% *}
    started=$(date +%s)
    status=0
    sh -c "exec sh \"$here/tier.sh\" \"$directory/$name.log\" sh \"$here/limit.sh\" $limit ${1#* }" >/dev/null ||
        status=1
    exec 9>"$directory/lock"
    flock 9
    echo "== $name: $(($(date +%s) - started)) s"
    cat "$directory/$name.log"
    exit $status' lane
