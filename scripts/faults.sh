#!/usr/bin/env bash
# Nothing is lost by bad networks, reloads and restarts. Three network namespaces stand for a client's machine, one on which
# the proxy runs, and an origin's; the two links between them lose, delay, reorder and throttle packets, and go down and up
# (scripts/link.py: no kernel module is needed). scripts/faults.py tells what happens and prints what was lost, how long recovery took,
# and descriptors and resident memory of the proxy before and after.
#
#   scripts/faults.sh [SCENE...]     ADIT=path takes another binary; SEED=7 loses other packets
#   scripts/faults.sh list           the scenes; those that take minutes, or that others feel, are played only if they are named
#
# Needs root, python3 and a kernel with tun; installs `ip`, curl and sysctl (Debian). The machine's own network is not touched. One
# scene, enfile, lets nobody on the machine but root open a file for some seconds; where it may not, it says that it was not run.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${1:-}" != list ] || exec python3 scripts/faults.py list
. scripts/netns.sh
# A container may lack it, though its kernel does not.
[ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; } || fail "nothing was tested: /dev/net/tun cannot be made"
{ true <>/dev/net/tun; } 2>/dev/null || fail "nothing was tested: /dev/net/tun cannot be opened"
client=adit-client-$$ proxy=adit-proxy-$$ origin=adit-origin-$$
make_namespaces $client $proxy $origin
for space in $client $proxy $origin; do
    # Only what the scenes send shall be on the links.
    ip netns exec "$space" sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
done
ip netns exec $client python3 scripts/faults.py scenes "$ADIT" "${SEED:-1}" $client $proxy $origin "$@"
