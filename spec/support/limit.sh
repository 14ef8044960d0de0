#!/bin/sh
# Runs a command that must not last for ever: after some seconds it is shown what it and its servers are
# doing, and it is ended, so that a test that hangs fails by name and with its evidence.
# Usage: limit.sh SECONDS COMMAND...
#
# The exit status is the command's, or 124. The command leads a process group of its own; servers have left
# that, and end by what guards them (lua/ruvector/cluster.lua) once the command has.
set -u
seconds=$1
shift

# The processes of a group, what these started, servers among them, and servers that belong to nobody.
processes_of() { # GROUP
    ps -e -o pid= -o ppid= -o pgid= -o comm= | awk -v group="$1" '
        { parent[$1] = $2; of[$1] = $3; name[$1] = $4 }
        END {
            for (pid in parent) {
                last = pid
                for (up = pid; up > 1 && of[up] != group; up = parent[up]) last = up
                if (up > 1 || name[last] == "postgres") print pid
            }
        }' | sort -n
}

stack() { # PID
    case $(ps -o comm= -p "$1") in luajit | postgres) ;; *) return ;; esac
    echo "---- stack of $1"
    timeout 30 gdb -p "$1" -batch -nx -ex 'thread apply all backtrace 40' 2>/dev/null |
        grep -E '^(Thread|#)' | cut -c 1-200
}

# What is said last is what the tally repeats.
report() { # PID...
    if command -v gdb >/dev/null; then
        for pid; do stack "$pid"; done
    fi
    for pid; do
        ps -o pid=,ppid=,stat=,etimes=,wchan:20=,args= -p "$pid" | cut -c 1-250
    done
}

# Follows the process, so that nothing is left asleep when the command ends early. In the background, since
# a trap waits for what is in the foreground.
ends_within() { # SECONDS
    timeout --foreground "$1" tail -s 0.2 --pid="$command" -f /dev/null &
    wait $!
}

setsid "$@" &
command=$!
trap 'kill -TERM "-$command"; exit 130' INT TERM HUP
if ! ends_within "$seconds" && kill -0 "$command" 2>/dev/null; then
    echo "limit.sh: still running after $seconds s: $*"
    report $(processes_of "$command")
    kill -TERM "-$command"
    ends_within 60 || kill -KILL "-$command"
    wait "$command"
    exit 124
fi
wait "$command"
