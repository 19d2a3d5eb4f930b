#!/usr/bin/env python3
"""What scripts/soak.sh runs.

    python3 scripts/soak ADIT MINUTES [--seed N] [--crowd N] [--keep]
    python3 scripts/soak ADIT --self-test
    python3 scripts/soak origin PORT [DNS_PORT]     the other side: an origin, and a nameserver that knows *.test

The proxy runs with two loops and short timeouts. A minute is a mix of clients, each of which says in advance which access
lines it should leave: status, end word, and bytes where they are certain. Meanwhile the configuration changes (HUP, now and
then to a broken one), the access log is rotated (USR1), and one of the two origins is killed and started again. Then all
clients end, and the proxy must come to rest: the descriptors, sockets and memory that it had before, hardly any CPU time, every
expected line and no other, nothing in its log but what was provoked, and not a byte in a wrong place. Tunnels that are
held through the whole minute must not notice any of it.

The seed decides what each client does; when it does it is for the machine to decide. If the machine leaves no time to this
program itself (column "lag"), clients seem silent to the proxy, and timeouts in that minute are no faults; they are counted.
"""
import argparse
import asyncio
import contextlib
import resource
import shutil
import sys
import tempfile

import limits
from mix import Soak
from origin import origin
from plants import FOUND_BY
from proxy import Proxy


async def soak_once(arguments, directory, plant, body):
    proxy = Proxy(arguments.adit, directory)
    soak = Soak(proxy, arguments.seed, plant)
    try:
        await soak.start_origin(proxy.steady, proxy.dns_port)
        await soak.start_origin(proxy.flaky)
        await proxy.start()
        await body(soak)
        await soak.end()
    finally:
        if proxy.process and proxy.process.poll() is None:
            proxy.process.kill()
            proxy.process.wait()
        for port in list(soak.origins):
            await soak.stop_origin(port)
    return soak


async def self_test(arguments, directory):
    """With each fault that is planted its checks fail (others may, too), and without one none does."""
    limits.HEAD_S, limits.RESOLVE_S, limits.RESPONSE_S, limits.KEEPALIVE_S = 2, 1, 2, 1
    limits.IDLE_S, limits.HALF_OPEN_S, limits.REST_S = 3, 2, 7
    bad = 0

    async def body(soak):
        plant, soak.plant = soak.plant, contextlib.nullcontext
        await soak.one_round(2)
        soak.plant = plant
        await soak.one_round(1)

    for plant in (contextlib.nullcontext, *FOUND_BY):
        soak = await soak_once(arguments, tempfile.mkdtemp(dir=directory), plant, body)
        found, wanted = {check for check, _ in soak.faults}, FOUND_BY.get(plant, set())
        name = plant.__name__.replace("_", " ") if wanted else "nothing planted"
        fine = wanted <= found and bool(wanted) == bool(found)
        verdict = "ok  " if fine else "FAIL"
        bad += not fine
        print(f"{verdict} {name}: found by {', '.join(sorted(found)) or 'nobody'}")
        if not fine:
            print(*soak.faults[:10], sep="\n")
    return 1 if bad else 0


async def main(arguments, directory):
    def body(soak):
        return soak.run(arguments.minutes, arguments.crowd)

    soak = await soak_once(arguments, directory, contextlib.nullcontext, body)
    for check in dict.fromkeys(check for check, _ in soak.faults):
        texts = [text for each, text in soak.faults if each == check]
        print(*(f"FAIL {check}: {text}" for text in texts[:8]), sep="\n")
        if len(texts) > 8:
            print(f"FAIL {check}: {len(texts)} in all")
    return 1 if soak.faults else 0


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["origin"]:
        asyncio.run(origin(int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
    parser = argparse.ArgumentParser()
    parser.add_argument("adit")
    parser.add_argument("minutes", type=int, nargs="?", default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crowd", type=int, default=limits.CROWD)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the files")
    parsed = parser.parse_args()
    # The proxy has two descriptors for each tunnel, and the origin and this program one each.
    if parsed.crowd > (most := min(limits.CROWD, (hard - 1000) // 2)):
        if most < 1:
            parser.error(f"{hard} descriptors are too few (ulimit -Hn)")
        print(f"a crowd of {most} instead of {parsed.crowd}: {limits.CROWD} at most, and what {hard} descriptors suffice for")
        parsed.crowd = most
    with contextlib.ExitStack() as stack:
        where = tempfile.mkdtemp(prefix="adit-soak-")
        if parsed.keep:
            print(where)
        else:
            stack.callback(shutil.rmtree, where)
        sys.exit(asyncio.run((self_test if parsed.self_test else main)(parsed, where)))
