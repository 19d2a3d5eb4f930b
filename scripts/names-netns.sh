#!/usr/bin/env bash
# Names and dialing where the network itself is broken: black holes, dead nameservers, addresses that come late. Two network
# namespaces stand for two machines; scripts/names-netns.py tells what happens between them and prints the figures.
#
#   scripts/names-netns.sh [SCENE...]     ADIT=path takes another binary; scenes: six dead-server cached holes late
#
# Needs root, `ip` and python3. The machine's own network is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/netns.sh
near=adit-near-$$ far=adit-far-$$
make_namespaces $near $far
ip link add near0 netns $near type veth peer name far0 netns $far

# Clients and proxy are near; origin and nameserver are far. What is routed to the far machine without being its own ends
# there in silence: no reset, no ICMP, as behind a dead route.
for side in "$near near0 1" "$far far0 2"; do
    read -r space device last <<<"$side"
    # No duplicate address detection: until it is over, no neighbour is found. The larger of the two settings counts.
    ip netns exec "$space" sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 "net.ipv6.conf.$device.accept_dad=0" net.ipv6.conf.all.accept_dad=0
    ip -n "$space" addr add "10.77.0.$last/24" dev "$device"
    ip -n "$space" addr add "fd77::$last/64" dev "$device" nodad
    ip -n "$space" link set "$device" up
done
ip -n $near route add 10.77.9.0/24 via 10.77.0.2
ip -n $near route add fd77:dead::/64 via fd77::2
ip -n $far route add blackhole 10.77.9.0/24
ip -n $far route add blackhole fd77:dead::/64

ip netns exec $near python3 scripts/names-netns.py scenes "$ADIT" $far "$@"
