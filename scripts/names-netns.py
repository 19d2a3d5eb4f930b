#!/usr/bin/env python3
"""What happens inside the namespaces of scripts/names-netns.sh, which see for the addresses.

    names-netns.py scenes ADIT FAR [SCENE...]   the scenes, in the near namespace
    names-netns.py far                          origin and nameserver, in the far one; orders come on stdin
    names-netns.py crowd PROXY CLIENTS SECONDS  so many clients at once, each asking for names that nobody has asked for
    names-netns.py dns PORT NAME ADDRESS        a nameserver on 127.0.0.1 that knows one name (bench/names.sh)
"""
import asyncio
import itertools
import os
import socket
import statistics
import subprocess
import sys
import time

import netns
from netns import Failed, Nameserver, eventually, figure, require

PORT = 8000
FAR4, FAR6 = "10.77.0.2", "fd77::2"
HOLE4, OTHER_HOLE4, HOLE6 = "10.77.9.1", "10.77.9.2", "fd77:dead::1"
DEAD_SERVER = "10.77.9.53"
LATE = "10.77.0.99"
ZONES = {  # every name below one of these has its addresses, in this order
    "four.test": [FAR4],
    "six.test": [FAR6],
    "both.test": [HOLE6, FAR4],
    "third.test": [HOLE4, OTHER_HOLE4, FAR4],
    "holes.test": [HOLE4, OTHER_HOLE4],
}

# The proxy's promises.
RACE_MS = 400  # more than with IPv4 alone, when IPv6 is a black hole
TWO_HOLES_MS = 700  # two attempts at 250 ms each, and some
SERVER_TIMEOUT_MS = 1250  # --resolve-timeout 5 shared by two servers and two attempts
SLACK_MS = 300
CACHED_P99_MS, CACHED_MAX_MS = 25, 400


# ---- the far machine -------------------------------------------------------------------------------------------------

async def origin(reader, writer):
    """Holds a connection until the other side ends it."""
    try:
        while await reader.read(4096):
            pass
    except OSError:
        pass
    writer.close()


async def far():
    loop = asyncio.get_running_loop()
    server = Nameserver(ZONES)
    await loop.create_datagram_endpoint(lambda: server, local_addr=(FAR4, 53))
    for address in (FAR4, FAR6):
        await asyncio.start_server(origin, address, PORT, backlog=1024)
    print("ready", flush=True)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := (await orders.readline()).decode().strip():
        if order in ("silent", "speak"):
            server.silent = order == "silent"
        print(server.asked, flush=True)
        server.asked = 0


async def dns(port, name, address):
    server = Nameserver({name: [address]}, ttl_s=86400)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", port))
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


async def crowd(proxy, clients, seconds):
    """Prints how many answers came, by status, when the time is over."""
    host, port = proxy.rsplit(":", 1)
    end, numbers, statuses = time.monotonic() + seconds, itertools.count(), {}

    async def client():
        while time.monotonic() < end:
            reader, writer = await asyncio.open_connection(host, int(port))
            name = f"n{next(numbers)}.crowd.test:{PORT}"
            writer.write(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            status = (await reader.read(64))[9:12].decode()
            statuses[status] = statuses.get(status, 0) + 1
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    print(statuses, flush=True)


# ---- the near machine ------------------------------------------------------------------------------------------------

class Proxy(netns.Proxy):
    def __init__(self, *options, listen=("127.0.0.1:0",)):
        super().__init__("--access-log=off", "--allow=10.77.0.0/16", "--allow=fd77::/16", *options, listen=listen)

    def connect(self, host, address=None):
        """Milliseconds from the first SYN to the proxy until its answer, and the status."""
        proxy_host, proxy_port = (address or self.address).rsplit(":", 1)
        begin = time.perf_counter()
        with socket.create_connection((proxy_host, int(proxy_port)), timeout=30) as client:
            client.sendall(f"CONNECT {host}:{PORT} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                more = client.recv(4096)
                if not more:
                    raise Failed(f"{host}: the proxy closed without an answer")
                answer += more
        return (time.perf_counter() - begin) * 1000, int(answer[9:12])

    def reach(self, host):
        took_ms, status = self.connect(host)
        if status != 200:
            raise Failed(f"{host}: {status} after {took_ms:.0f} ms")
        return took_ms


def percentiles(values):
    values = sorted(values)
    return [values[min(len(values) * percent // 100, len(values) - 1)] for percent in (50, 99, 100)]


def network(_far):
    """the network is what the scenes need: holes are silent, the rest is there"""
    for address in (FAR4, FAR6):  # a link that has just come up needs a moment
        require(eventually(10, lambda: answers(address)), f"{address} is not there")
    for address in (HOLE4, OTHER_HOLE4, HOLE6):
        try:
            socket.create_connection((address, PORT), timeout=0.7)
        except TimeoutError:
            continue
        except OSError as error:
            raise Failed(f"{address} is not silent: {error}") from error
        raise Failed(f"{address} is there")


def answers(address):
    try:
        socket.create_connection((address, PORT), timeout=0.3).close()
        return True
    except OSError:
        return False


def six(_far):
    """IPv6 is a black hole, IPv4 is fine"""
    with Proxy(f"--nameserver={FAR4}") as proxy:
        pairs = [(proxy.reach(f"n{n}.four.test"), proxy.reach(f"n{n}.both.test")) for n in range(7)]
        alone_ms, raced_ms = (statistics.median(column) for column in zip(*pairs))
        worst_ms = max(raced for _, raced in pairs)
        figure(f"IPv4 alone {alone_ms:.1f} ms; with a dead IPv6 {raced_ms:.1f} ms, at worst {worst_ms:.1f} ms")
        require(worst_ms - alone_ms <= RACE_MS, f"that is more than {RACE_MS} ms more")
        figure(f"IPv6 alone, alive: {proxy.reach('n.six.test'):.1f} ms")


def dead_server(_far):
    """the first nameserver is dead"""
    with Proxy("-n1", f"--nameserver={DEAD_SERVER}", f"--nameserver={FAR4}") as proxy:
        first_ms = proxy.reach("first.four.test")
        later_ms = [proxy.reach(f"later{n}.four.test") for n in range(5)]
        figure(f"first name {first_ms:.0f} ms, then {', '.join(f'{ms:.1f}' for ms in later_ms)} ms")
        require(first_ms <= SERVER_TIMEOUT_MS + SLACK_MS, "the first name waits for more than one time-out")
        require(max(later_ms) <= SLACK_MS, "the server that answers is not preferred")


def cached(far_side):
    """200 clients ask for names on a dead server, others connect to a cached name"""
    with Proxy("-n1", f"--nameserver={FAR4}") as proxy:
        proxy.reach("cached.four.test")
        far_side.order("count")
        quiet = connects(proxy, "cached.four.test", 3)
        asked = int(far_side.order("count"))
        figure(f"without them: {len(quiet)} connects, p50/p99/max {'/'.join(f'{ms:.1f}' for ms in percentiles(quiet))} ms")
        require(asked == 0, f"{asked} questions about a name that was known")
        far_side.order("silent")
        command = [sys.executable, __file__, "crowd", proxy.address, "200", "7"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as others:
            try:
                time.sleep(0.5)
                busy = connects(proxy, "cached.four.test", 5)
                statuses = others.stdout.readline().strip()
            finally:
                others.kill()
                asked = int(far_side.order("speak"))
        figure(f"with them:    {len(busy)} connects, p50/p99/max {'/'.join(f'{ms:.1f}' for ms in percentiles(busy))} ms")
        figure(f"their own answers, by status: {statuses}; {asked} questions that nobody answered")
        require(set(eval(statuses)) == {"504"} and asked >= 400, "the 200 have not had what they were meant to have")
        (_, quiet_ms, _), (_, p99_ms, max_ms) = percentiles(quiet), percentiles(busy)
        require(p99_ms <= quiet_ms + CACHED_P99_MS and max_ms <= CACHED_MAX_MS, "the others are delayed")


def connects(proxy, host, seconds):
    end, took_ms = time.monotonic() + seconds, []
    while time.monotonic() < end:
        took_ms.append(proxy.reach(host))
        time.sleep(0.004)
    return took_ms


def holes(_far):
    """two black holes in front of the address that works, and nothing but black holes"""
    with Proxy(f"--nameserver={FAR4}", "--dial-timeout=2") as proxy:
        alone_ms = proxy.reach("n.four.test")
        took_ms = [proxy.reach(f"n{n}.third.test") for n in range(3)]
        figure(f"alone {alone_ms:.1f} ms; behind two holes {', '.join(f'{ms:.0f}' for ms in took_ms)} ms")
        require(max(took_ms) <= alone_ms + TWO_HOLES_MS, f"that is more than {TWO_HOLES_MS} ms more")
        waited_ms, status = proxy.connect("n.holes.test")
        figure(f"two holes and nothing else, --dial-timeout 2: {status} after {waited_ms:.0f} ms")
        require(status == 504 and 1900 <= waited_ms <= 2000 + SLACK_MS, "the time-out is not one over all")


def late(_far):
    """an address to listen on comes late"""
    address = f"{LATE}:8099"
    with Proxy("--client=10.77.0.0/16", "--client=127.0.0.0/8", listen=("127.0.0.1:0", address)) as proxy:
        figure(f"the address that is there serves meanwhile: {proxy.reach(FAR4):.1f} ms")
        time.sleep(3)
        said = [line for line in proxy.said().splitlines() if address in line]
        for line in said:
            figure(line)
        require(len(said) == 1, f"{len(said)} lines about {address} in three seconds")
        subprocess.run(["ip", "addr", "add", f"{LATE}/24", "dev", "near0"], check=True)
        begin = time.perf_counter()

        def serves():
            try:
                return proxy.connect(FAR4, address)[1] == 200
            except OSError:
                return False

        require(eventually(10, serves), "it does not serve within 10 s of the address being there")
        figure(f"serves {(time.perf_counter() - begin) * 1000:.0f} ms after the address was there")
        require(f"listening on {address}" in proxy.said(), "it does not say that it listens now")


SCENES = {"six": six, "dead-server": dead_server, "cached": cached, "holes": holes, "late": late}


def scenes(adit, namespace, names):
    functions = netns.chosen(SCENES, names)
    Proxy.adit = adit
    far_side = netns.Helper(__file__, "far", namespace=namespace)
    failed = netns.run([network, *functions], far_side)
    far_side.stop()
    sys.exit(1 if failed else 0)


def main():
    match sys.argv[1:]:
        case ["scenes", adit, namespace, *names]:
            scenes(os.path.abspath(adit), namespace, names)
        case ["far"]:
            asyncio.run(far())
        case ["crowd", proxy, clients, seconds]:
            asyncio.run(crowd(proxy, int(clients), float(seconds)))
        case ["dns", port, name, address]:
            asyncio.run(dns(int(port), name, address))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
