#!/usr/bin/env bash
# What a list of 200,000 names costs: bytes and nanoseconds of the list itself. Fails when a name takes over 10 bytes, or an answer
# about a name or an address over a microsecond (about a name of 127 labels, in a list that has such a name, over 1.5). What a whole
# operation costs with such a list: bench/growth.sh.
#
#   bench/rules.sh
set -euo pipefail
cd "$(dirname "$0")/.."

NAMES=${NAMES:-200000}
. bench/lib.sh

cargo build --release --quiet --workspace

taskset -c $PROXY_CORE "$BENCH" rules --count "$NAMES" | tr ' ' '\n' | tee "$work/figures"
# The deepest name that a client can ask for may cost more than others, but not much.
awk -F= '
    /^bytes_per_/ { limit = 10 }
    /_ns=/ { limit = 1000 }
    /^name_of_127_labels_miss_in_a_deep_list_ns=/ { limit = 1500 }
    limit && !($2 <= limit) { print "too much: " $0; bad = 1 }
    { seen += limit > 0; limit = 0 }
    END { exit bad || seen != 11 }' "$work/figures" || fail "the list takes too much"
