#!/usr/bin/env bash
# The one door: everything that must hold before a change goes in. One line a step; stops at the first that fails.
#
#   scripts/check.sh
#
# Needs Rust (with rustfmt and clippy) and python3. The last line counts what passed: steps and tests together.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

target=${CARGO_TARGET_DIR:-target}
logs=$target/check
mkdir -p "$logs"
passed=0

step() { # NAME COMMAND...
    local name=$1 log=$logs/${1// /-}.log begin=$SECONDS note
    shift
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        note=$(sed -n 's/^note: //p' "$log" | tail -1)
        printf 'ok    %-22s %3d s  %s\n' "$name" $((SECONDS - begin)) "$note"
        return
    fi
    printf 'FAIL  %s: see %s\n' "$name" "$log"
    # First which tests have failed, then why each has: the end below may be another program's, or all of one message.
    awk '/^test .* FAILED$/ && n++ < 40 { sub(/ \.\.\. .*/, ""); print "failed:", $2 }' "$log"
    awk '/ panicked at / { more = 8; if (n++ == 20) exit } /^$|^----/ { more = 0 } more-- > 0 { print substr($0, 1, 300) }' "$log"
    # What cargo compiled does not help; what failed does.
    grep -vE '^ *(Compiling|Downloaded|Downloading|Checking|Documenting|Fresh|Locking|Updating) |^test .* ok$|^$' "$log" | tail -60
    echo "$passed passed, $((failed_tests > 0 ? failed_tests : 1)) failed"
    exit 1
}

failed_tests=0
tests() {
    local log=$logs/test-run.log code
    RUST_BACKTRACE=0 cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log"
    code=$?
    read -r tests_passed failed_tests ignored <<<"$(awk '
        /^test result:/ { for (i = 2; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1); if ($i == "ignored;") g += $(i-1) } }
        END { print p + 0, f + 0, g + 0 }' "$log")"
    passed=$((passed + tests_passed))
    echo "note: $tests_passed passed, $failed_tests failed, $ignored ignored"
    # A test that is ignored proves nothing.
    [ $code -eq 0 ] && [ "$failed_tests" -eq 0 ] && [ "$ignored" -eq 0 ]
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked; }

layers() {
    python3 scripts/layers.py >"$logs/layers.out" || return 1
    echo "note: $(cat "$logs/layers.out")"
}

dependencies() { # the committed list is what is really built in of others' code, with licences
    cargo tree --locked -p adit -e normal --prefix none -f '{p} {l}' >"$logs/tree.txt" || return 1
    # A line for each version of each: how many lines there are is what scripts/footprint.sh checks.
    sed -E '/^adit(-no-backtrace)? v/d; s/ \(\*\)$//' "$logs/tree.txt" | LC_ALL=C sort -u |
        sed -E 's/^([^ ]+) v[^ ]+ /\1 /' >"$logs/dependencies.txt"
    if ! diff -u scripts/dependencies.txt "$logs/dependencies.txt"; then
        echo "scripts/dependencies.txt (-) is not what is built in (+)"
        return 1
    fi
}

footprint() { cargo build --release --locked -p adit && scripts/footprint.sh; }

readme_options() { # each long option of --help stands in the README
    local options option missing=0
    options=$("$target/release/adit" --help | grep -oE -- '--[a-z][a-z0-9-]*' | sort -u)
    [ -n "$options" ] || { echo "--help shows no option"; return 1; }
    for option in $options; do
        grep -qE -- "(^|[^a-z0-9-])$option($|[^a-z0-9-])" README.md || { echo "README.md does not mention $option"; missing=1; }
    done
    echo "note: $(wc -w <<<"$options") options"
    return $missing
}

step "format" cargo fmt --all --check
step "layers self-test" python3 scripts/layers.py --self-test
step "layers" layers
step "dependencies" dependencies
step "advisories self-test" python3 scripts/advisories.py --self-test
step "advisories" python3 scripts/advisories.py
step "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
step "tests" tests
step "planted bugs" python3 scripts/planted-bugs.py
step "docs" docs
step "footprint" footprint
step "readme options" readme_options
echo "$passed passed, 0 failed"
