#!/usr/bin/env python3
"""A bad link between two network namespaces, as `tc netem` makes one, for any kernel: packets go through this process.

    link.py SEED DEVICE ADDRESS NAMESPACE PEER-DEVICE PEER-ADDRESS

Makes the TUN device DEVICE in the namespace in which it runs and PEER-DEVICE in NAMESPACE, each with its ADDRESS/BITS, and
carries packets from one to the other until stdin ends. An order is a line of JSON that changes what it names, for
both directions, and is answered with what happened to packets since the last order:

    {"loss": 0.02, "delay_ms": 10, "jitter_ms": 5, "kbyte_s": 500, "queue_kbyte": 64, "up": false}

Each packet is lost by itself. Its delay is `delay_ms` and up to `jitter_ms` more, drawn for each: later ones overtake. `kbyte_s`
(0 is no limit) has a queue of `queue_kbyte` in front, and what finds it full is dropped. A link that is not up
loses everything, also what is under way.

TUN rather than veth: what comes out of it is what would be on the wire, cut into segments and with its checksums.
"""
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
PACKET_BYTES = 2048  # more than the MTU
BURST = 64


def device(name, address, namespace=None):
    """A TUN device that is up; one in another namespace stays with its descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    there = []
    if namespace:
        subprocess.run(["ip", "link", "set", name, "netns", namespace], check=True)
        there = ["-n", namespace]
    subprocess.run(["ip", *there, "addr", "add", address, "dev", name], check=True)
    subprocess.run(["ip", *there, "link", "set", name, "up"], check=True)
    return tun


class Direction:
    def __init__(self, source, sink, chance):
        self.source, self.sink, self.chance = source, sink, chance
        self.under_way, self.number = [], 0
        self.free_at, self.last_due = 0.0, 0.0
        self.seen = {"passed": 0, "lost": 0, "overtaken": 0, "overflowed": 0}

    def take(self, now, how):
        for _ in range(BURST):
            try:
                packet = os.read(self.source, PACKET_BYTES)
            except OSError:  # none left, or the device is down
                return
            self.send(packet, now, how)

    def send(self, packet, now, how):
        if not how["up"] or self.chance.random() < how["loss"]:
            self.seen["lost"] += 1
            return
        leaves = now
        if how["kbyte_s"]:
            leaves = max(now, self.free_at)
            if (leaves - now) * how["kbyte_s"] > how["queue_kbyte"]:
                self.seen["overflowed"] += 1
                return
            leaves += len(packet) / how["kbyte_s"] / 1000
            self.free_at = leaves
        due = leaves + (how["delay_ms"] + self.chance.random() * how["jitter_ms"]) / 1000
        if due < self.last_due:
            self.seen["overtaken"] += 1
        self.last_due = max(due, self.last_due)
        self.number += 1
        heapq.heappush(self.under_way, (due, self.number, packet))

    def deliver(self, now):
        while self.under_way and self.under_way[0][0] <= now:
            _, _, packet = heapq.heappop(self.under_way)
            try:
                os.write(self.sink, packet)
                self.seen["passed"] += 1
            except OSError:  # the device is down
                self.seen["lost"] += 1

    def cut(self):
        self.seen["lost"] += len(self.under_way)
        self.under_way.clear()


def main():
    seed, name, address, namespace, peer_name, peer_address = sys.argv[1:]
    near, far = device(name, address), device(peer_name, peer_address, namespace)
    chance = random.Random(int(seed))
    directions = {near: Direction(near, far, chance), far: Direction(far, near, chance)}
    how = {"loss": 0, "delay_ms": 0, "jitter_ms": 0, "kbyte_s": 0, "queue_kbyte": 64, "up": True}
    print("ready", flush=True)
    while True:
        due = min((each.under_way[0][0] for each in directions.values() if each.under_way), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([*directions, 0], [], [], wait)
        now = time.monotonic()
        for source in readable:
            if source in directions:
                directions[source].take(now, how)
        for each in directions.values():
            each.deliver(now)
        if 0 in readable:
            order = sys.stdin.readline()
            if not order:
                return
            change = json.loads(order)
            assert change.keys() <= how.keys(), order
            how.update(change)
            seen = {}
            for each in directions.values():
                if not how["up"]:
                    each.cut()
                for what in each.seen:
                    seen[what] = seen.get(what, 0) + each.seen[what]
                    each.seen[what] = 0
            print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
