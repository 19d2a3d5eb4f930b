#!/usr/bin/env bash
# Fuzzes everything that parses what a peer or an operator wrote. Prints a table; any finding fails the script.
#
#   scripts/fuzz.sh SECONDS [TARGET...]      all targets, or these, for so long each, one after the other on one core
#
# Needs a nightly Rust toolchain and a C++ compiler; cargo-fuzz is installed by cargo where it is missing. Seeds stand in
# tests/fuzz/seeds; what the fuzzer adds to them goes to tests/fuzz/corpus, what it finds to tests/fuzz/artifacts (neither is
# committed).
set -uo pipefail # no -e: a target with a finding is noted, and the others still run
cd "$(dirname "$0")/.." || exit 1

fail() { echo "fuzz.sh: $*" >&2; exit 1; }

fuzz=$PWD/tests/fuzz
read -ra all <<<"$(sed -n '/^\[\[bin\]\]/,$ s/^name = "\(.*\)"/\1/p' "$fuzz/Cargo.toml" | tr '\n' ' ')"
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "usage: scripts/fuzz.sh SECONDS [TARGET...], targets: ${all[*]}"
seconds=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [[ " ${all[*]} " = *" $target "* ]] || fail "no target $target, targets: ${all[*]}"
done

cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal >&2 ||
    fail "nothing was fuzzed: that needs a nightly Rust toolchain (rustup toolchain install nightly), and there is none to be had"
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet ||
    fail "nothing was fuzzed: cargo-fuzz cannot be installed"

longest() { # TARGET: bytes of the longest input; the limits (16 KiB for a head, 8 KiB for trailers) must be within reach
    case $1 in request_head | response_head) echo 17000 ;; chunked_body) echo 9000 ;; *) echo 4096 ;; esac
}

# ASAN looks at what is not our code: httparse and the standard library.
(cd "$fuzz" && nice -n 19 cargo +nightly fuzz build --fuzz-dir "$fuzz" >&2) || fail "the targets do not build"

fuzz_once() { # TARGET LOG
    (cd "$fuzz" && nice -n 19 cargo +nightly fuzz run --fuzz-dir "$fuzz" "$1" "$fuzz/corpus/$1" "$fuzz/seeds/$1" -- \
        -max_total_time="$seconds" -max_len="$(longest "$1")" -timeout=10 -report_slow_units=3600 -print_final_stats=1) >"$2" 2>&1
}

# A time-out is measured in wall-clock time: a machine or a process that was stopped for a while has one with any input.
stood_still() { # TARGET MARK: all that was found since MARK are time-outs that do not come again
    local inputs input
    mapfile -t inputs < <(find "$fuzz/artifacts/$1" -type f -newer "$2")
    [ ${#inputs[@]} -gt 0 ] || return
    for input in "${inputs[@]}"; do
        [[ $input = */timeout-* ]] || return
        (cd "$fuzz" && nice -n 19 cargo +nightly fuzz run --fuzz-dir "$fuzz" "$1" "$input" -- -timeout=10) >/dev/null 2>&1 || return
    done
    rm -f "${inputs[@]}"
}

found=0
printf '%-18s %12s %9s %9s\n' target runs seconds findings
for target in "${targets[@]}"; do
    mkdir -p "$fuzz/corpus/$target" "$fuzz/artifacts/$target"
    # What is found again is a finding again, so what was kept of earlier runs does not count.
    log=$fuzz/artifacts/$target.log mark=$(mktemp) begin=$SECONDS
    fuzz_once "$target" "$log"
    code=$?
    if [ $code -ne 0 ] && stood_still "$target" "$mark"; then
        printf '%-18s stood still for a while; once more\n' "$target"
        begin=$SECONDS
        fuzz_once "$target" "$log"
        code=$?
    fi
    findings=$(find "$fuzz/artifacts/$target" -type f -newer "$mark" | wc -l)
    rm -f "$mark"
    [ $code -eq 0 ] || [ "$findings" -gt 0 ] || findings=1
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-18s %12s %9s %9s\n' "$target" "${runs:--}" $((SECONDS - begin)) "$findings"
    if [ "$findings" -gt 0 ]; then
        found=$((found + findings))
        grep -E -A3 'panicked at|^==[0-9]+== ?ERROR' "$log" | head -8 | cut -c1-300 | sed 's/^/    | /'
        find "$fuzz/artifacts/$target" -type f -printf '    | %p\n'
    fi
done
[ $found -eq 0 ] || { echo "$found findings; the logs are in $fuzz/artifacts"; exit 1; }
