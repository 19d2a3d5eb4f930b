#!/usr/bin/env bash
# How small it is: bytes of the binary, dependencies built in, resident memory at start. Fails where one is above its limit.
#
#   scripts/footprint.sh                                        # the release binary, which must have been built
#   scripts/footprint.sh BINARY MAX_BINARY_KIB MAX_RESIDENT_KIB # another one
#
# Resident memory is VmRSS of a proxy with two loops and no other options that has begun to listen. The kernel maps all cached
# pages of the 64 KiB around one that is touched, and where these 64 KiB begin in libc is drawn anew for each start: of 60
# starts, half lay between 2,112 and 2,132 KiB and the last three at 2,296. Hence the median of STARTS. Whoever runs more loops
# adds 30 KiB for each.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-${CARGO_TARGET_DIR:-target}/release/adit}
max_binary_kib=${2:-640}
max_resident_kib=${3:-2300}
max_dependencies=40
starts=${STARTS:-31}

dir=$(mktemp -d)
said=$dir/said
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$dir"' EXIT

start() { # prints VmRSS in KiB
    : >"$said"
    "$binary" --listen 127.0.0.1:0 --loops 2 --access-log off >/dev/null 2>"$said" &
    pid=$!
    # The second line comes when all loops have been started; a loop sleeps when its thread does.
    until grep -q ' loops, ' "$said" && [ "$(cut -d' ' -f3 /proc/$pid/task/*/stat | sort -u)" = S ]; do
        kill -0 "$pid" 2>/dev/null || { echo "$binary ended: $(cat "$said")" >&2; exit 1; }
    done
    sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$pid/status"
    kill "$pid"
    wait "$pid" || { echo "$binary ended with $?" >&2; exit 1; }
    pid=
}

failed=0
note=
row() { # WHAT NUMBER LIMIT UNIT
    local verdict=ok
    if [ "$2" -gt "$3" ]; then
        verdict="too much"
        failed=1
    fi
    printf '%-24s %6d of at most %5d %-12s %s\n' "$1" "$2" "$3" "$4" "$verdict"
    note+="${note:+, }$1 $2 of $3${4:+ $4}"
}

bytes=$(stat -c %s "$binary")
row binary $(((bytes + 1023) / 1024)) "$max_binary_kib" KiB
# scripts/check.sh sees to it that the list is what is built in.
[ $# -gt 0 ] || row dependencies "$(wc -l <scripts/dependencies.txt)" $max_dependencies ""
for _ in $(seq "$starts"); do start; done >"$dir/starts"
resident=$(sort -n "$dir/starts" | sed -n "$(((starts + 1) / 2))p")
row resident "$resident" "$max_resident_kib" KiB
echo "note: $note"
exit $failed
