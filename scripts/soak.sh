#!/usr/bin/env bash
# Does it run for a year? All shapes of traffic mixed, clients that die in the middle, reloads, log rotations and origins
# that restart, for so many minutes; each minute ends in a quiet moment in which everything must be back where it was.
#
#   scripts/soak.sh MINUTES [--seed N]    a table with a line a minute, and a summary; fails at the first minute's end with a fault
#   scripts/soak.sh --self-test           what must be found is planted, and found: three minutes
#
# Needs python3. ADIT=BINARY takes another binary than the release build. What it does in detail: scripts/soak/__main__.py.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${ADIT:-}" ]; then
    cargo build --release --locked -p adit
    ADIT=${CARGO_TARGET_DIR:-target}/release/adit
fi
exec python3 scripts/soak "$ADIT" "$@"
