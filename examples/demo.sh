#!/bin/sh
# demo.sh - runs examples/demo.lua from the checkout's root. Whatever ends it (done, failure, Ctrl-C,
# TERM), it leaves only when the private server is stopped and its directory removed.
# Exit status: 0 done, 1 failed, 130 on Ctrl-C, 143 on TERM.

cd "$(dirname "$0")/.." || exit 1
output=${RUVECTOR_BUILD:-build}/demo
record=$output/cluster.directory
LUA_PATH='lua/?.lua;examples/?.lua;;'
export LUA_PATH
mkdir -p "$output" || exit 1
rm -f "$record"

# The cluster's guardian removes the directory as soon as the demo is gone, however it ended.
wait_for_guardian() {
    [ -r "$record" ] || return 0
    directory=$(cat "$record")
    tries=0
    while [ -e "$directory" ] && [ "$tries" -lt 600 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    rm -f "$record"
}

stop() {
    trap '' INT TERM HUP
    printf '\nstopping the private server\n' >&2
    kill -TERM "$demo" 2>/dev/null
    wait "$demo" 2>/dev/null
    wait_for_guardian
    exit "$1"
}

# In the background, so that a trap acts at once and not when the demo is done.
luajit examples/demo.lua --output "$output" "$@" &
demo=$!
trap 'stop 130' INT
trap 'stop 143' TERM HUP
wait "$demo"
status=$?
wait_for_guardian
exit "$status"
