# Sourced by the measuring scripts, from the root of the repository: a working directory, an end without leftovers, packages,
# and what is started on which core.
# shellcheck shell=bash disable=SC2034 # what is set here is read there

# The first two cores that we may use; where there is only one, all share it.
read -r PROXY_CORE LOAD_CORE _ <<<"$(sed -n 's/^Cpus_allowed_list:\t*//p' /proc/self/status | tr ',' '\n' |
    while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done | head -2 | xargs)"
LOAD_CORE=${LOAD_CORE:-$PROXY_CORE}
TARGET=${CARGO_TARGET_DIR:-target}
ADIT=${ADIT:-$TARGET/release/adit}
BENCH=$TARGET/release/adit-bench

work=$(mktemp -d)
data=$work/data
proxy_pid='' trace_pid='' helper_pids=()
cleanup() {
    for pid in $trace_pid $proxy_pid "${helper_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

install_missing() { # PROGRAM:PACKAGE... (a path is a program as well)
    local missing=() pair
    PATH=$PATH:/usr/sbin:/sbin
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing: ${missing[*]}" >&2
    $sudo apt-get update -qq >/dev/null
    # RUNLEVEL=1 keeps Debian from starting the daemons.
    $sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 ||
        { tail -20 "$work/apt.log" >&2; fail "packages cannot be installed"; }
}

listening() { # FILE: waits for "listening on ADDR" there, prints ADDR
    for _ in $(seq 100); do
        grep -oE 'listening on [^ ]+' "$1" 2>/dev/null | head -1 | cut -d' ' -f3 | grep . && return
        sleep 0.05
    done
    cat "$1" >&2
    fail "nothing listens"
}

wait_for_port() { # PORT
    for _ in $(seq 200); do (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.05; done
    echo "nothing listens on port $1" >&2
    return 1
}

start_origin() { # OPTIONS...: sets origin (ADDR:PORT)
    taskset -c $LOAD_CORE "$BENCH" origin "$@" 2>"$work/origin.log" &
    helper_pids+=($!)
    origin=$(listening "$work/origin.log")
}

start_adit() { # OPTIONS...: sets proxy_pid and proxy (ADDR:PORT)
    : >"$work/adit.log"
    taskset -c $PROXY_CORE "$ADIT" --listen "${LISTEN:-127.0.0.1:0}" -n "${LOOPS:-1}" --allow 127.0.0.0/8 "$@" >/dev/null 2>"$work/adit.log" &
    proxy_pid=$!
    proxy=$(listening "$work/adit.log")
}

stop() {
    kill "$proxy_pid" 2>/dev/null || true
    for _ in $(seq 20); do kill -0 "$proxy_pid" 2>/dev/null || break; sleep 0.05; done
    kill -9 "$proxy_pid" 2>/dev/null || true
    wait "$proxy_pid" 2>/dev/null || true
    proxy_pid=''
}

value() { tr ' ' '\n' <<<"$2" | sed -n "s/^$1=//p"; } # KEY LINE

keep() { # COLUMN PREFIX KEYS LINE: notes the values of these keys
    local key
    for key in $3; do echo "$1 $2$key $(value "$key" "$4")" >>"$data"; done
}

trace_start() { # counts the proxy's system calls from now on
    strace -f -c -o "$work/strace" -p "$proxy_pid" >/dev/null 2>&1 &
    trace_pid=$!
    for _ in $(seq 100); do grep -q '^TracerPid:.*[1-9]' "/proc/$proxy_pid/status" && break; sleep 0.05; done
    sleep 0.2
}
trace_stop() { # sets calls to their number; the list by name is in $work/strace
    kill -INT "$trace_pid"
    wait "$trace_pid" || true
    trace_pid=''
    calls=$(awk '$NF == "total" {print $4}' "$work/strace")
}

machine() { # the line above a table
    local dirty=''
    # Texts and plots are not what is measured.
    git diff --quiet HEAD -- . ':!*.md' ':!*.svg' 2>/dev/null || dirty=-dirty
    echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo none)$dirty, Linux $(uname -r), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
}

# Of the values in a file of the working directory. The best round counts where the same proxy is compared with itself: what else
# runs on the machine only ever adds.
least() { sort -g "$work/$1" | head -1; }
most() { sort -g "$work/$1" | tail -1; }
