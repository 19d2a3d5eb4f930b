#!/usr/bin/env python3
"""What happens in the namespaces of scripts/faults.sh, which see.

    faults.py scenes ADIT SEED CLIENT PROXY ORIGIN [SCENE...]   the scenes, in the client's namespace; the others are named
    faults.py origin                                           the origin, in its namespace; orders come on stdin
    faults.py list                                             what the scenes show
"""
import asyncio
import collections
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import zlib

import netns
from netns import Failed, Nameserver, NotRun, figure, require

PROXY, ORIGIN = "10.77.1.1", "10.77.2.2"
HTTP, ECHO, FULL = 8000, 8001, 8002
PART = 16 * 1024
BULK = 1_000_000
DEADLINE_S = 40  # reached only by failures
RSS_SLACK_KIB = 2048  # rings that bad links make the transfers of a scene need, and that then stay with the loops


@functools.cache
def content(seed, length):
    return random.Random(seed).randbytes(length)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---- the origin ------------------------------------------------------------------------------------------------------

class Origin:
    """Sends what a path /SEED/LENGTH/WAY names, tells the hash of what it is sent, and echoes on another port."""

    def __init__(self):
        self.open = 0
        self.full = socket.socket()
        self.full.bind((ORIGIN, FULL))
        self.full.listen(0)

    async def serve(self, handle, reader, writer):
        self.open += 1
        # So that a connection whose other end is gone is over here within seconds.
        keep_alive(writer.get_extra_info("socket"), after_s=1, every_s=1)
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # what the client has seen of it is what counts
        finally:
            self.open -= 1
            writer.close()

    async def echo(self, reader, writer):
        while data := await reader.read(PART):
            writer.write(data)
            await writer.drain()

    async def http(self, reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            method, path = head.split(b" ")[:2]
            if method == b"GET":
                seed, length, way = path.decode().strip("/").split("/")
                if way == "never":
                    await reader.read()
                    return
                if not await respond(writer, content(int(seed), int(length)), way):
                    return
            else:
                hashed = hashlib.sha256()
                await body(reader, head, hashed.update)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + hashed.hexdigest().encode())

    async def main(self):
        loop = asyncio.get_running_loop()
        names = Nameserver({"origin.test": [ORIGIN]}, ttl_s=1)
        await loop.create_datagram_endpoint(lambda: names, local_addr=(ORIGIN, 53))
        for port, handle in ((HTTP, self.http), (ECHO, self.echo)):
            await asyncio.start_server(functools.partial(self.serve, handle), ORIGIN, port, backlog=1024)
        print("ready", flush=True)
        orders = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while order := (await orders.readline()).decode().strip():
            match order:
                case "open":
                    print(self.open, flush=True)
                    continue
                case "silent" | "speak":
                    names.silent = order == "silent"
                case "accept":
                    await asyncio.start_server(functools.partial(self.serve, self.echo), sock=self.full)
            print("done", flush=True)


def keep_alive(connection, after_s, every_s):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, after_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every_s)


async def respond(writer, data, way):
    """Whether the connection goes on."""
    length = f"Content-Length: {len(data)}\r\n"
    frame = {"length": length, "reset": length, "chunked": "Transfer-Encoding: chunked\r\n", "close": ""}
    writer.write(f"HTTP/1.1 200 OK\r\n{frame[way]}\r\n".encode())
    if way == "reset":
        # If the head were lost on its way, and the reset not, there would be no answer that could be cut.
        await acknowledged(writer)
        # A lingering time of zero makes the close a reset, which overtakes what was sent before.
        await send(writer, data[:len(data) // 2], False)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        return False
    await send(writer, data, way == "chunked")
    return way != "close"


async def acknowledged(writer):
    """Waits until all that was written has arrived: SIOCOUTQ counts the bytes of which that is not known."""
    connection = writer.get_extra_info("socket")
    while struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]:
        await asyncio.sleep(0.005)


# ---- both ends -------------------------------------------------------------------------------------------------------

async def send(writer, data, chunked, moved=lambda: None):
    for at in range(0, len(data), PART):
        part = data[at:at + PART]
        writer.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        await writer.drain()
        moved()
    if chunked:
        writer.write(b"0\r\n\r\n")


async def body(reader, head, part):
    """Reads a body as its head frames it."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            part(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif b"content-length" in fields:
        left = int(fields[b"content-length"])
        while left:
            data = await reader.read(min(left, PART))
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            part(data)
            left -= len(data)
    else:
        while data := await reader.read(PART):
            part(data)


# ---- the client ------------------------------------------------------------------------------------------------------

@contextlib.asynccontextmanager
async def connection():
    # A small window, so that the link is where bytes wait.
    reader, writer = await asyncio.open_connection(PROXY, 8080, limit=PART)
    try:
        yield reader, writer
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def tunnel(host, port):
    async with connection() as (reader, writer):
        writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        require(head.startswith(b"HTTP/1.1 200 "), f"CONNECT {host}:{port}: {head!r}")
        yield reader, writer


async def echo(reader, writer, data=b"are you there?"):
    writer.write(data)
    require(await reader.readexactly(len(data)) == data, "another echo than what was sent")


class Transfer:
    """One body each; knows when bytes of it moved."""

    def __init__(self, road, direction, way, length=BULK, within_s=DEADLINE_S):
        self.road, self.direction, self.way, self.length, self.within_s = road, direction, way, length, within_s
        self.name = f"{road} {direction} {way}"
        self.seed = zlib.crc32(self.name.encode())
        self.moved_at, self.over = 0.0, False

    def __str__(self):
        return self.name

    def move(self):
        self.moved_at = time.monotonic()

    async def run(self):
        data = content(self.seed, self.length)
        path = f"/{self.seed}/{self.length}/{self.way}"
        if self.way.startswith("curl"):
            hashed = await self.curl(data, path)
        else:
            whole = self.road == "tunnel"
            async with tunnel(ORIGIN, HTTP) if whole else connection() as (reader, writer):
                url = path if whole else f"http://{ORIGIN}:{HTTP}{path}"
                hashed = await (self.down if self.direction == "down" else self.up)(reader, writer, url, data)
        require(hashed == sha256(data), f"{self}: not what was sent")
        self.over = True

    async def down(self, reader, writer, url, _):
        writer.write(f"GET {url} HTTP/1.1\r\nHost: {ORIGIN}:{HTTP}\r\n\r\n".encode())
        hashed = hashlib.sha256()

        def part(data):
            hashed.update(data)
            self.move()

        head = await reader.readuntil(b"\r\n\r\n")
        require(head.startswith(b"HTTP/1.1 200 "), f"{self}: {head!r}")
        await body(reader, head, part)
        return hashed.hexdigest()

    async def up(self, reader, writer, url, data):
        frame = "Transfer-Encoding: chunked" if self.way == "chunked" else f"Content-Length: {len(data)}"
        writer.write(f"PUT {url} HTTP/1.1\r\nHost: {ORIGIN}:{HTTP}\r\n{frame}\r\n\r\n".encode())
        await send(writer, data, self.way == "chunked", self.move)
        head = await reader.readuntil(b"\r\n\r\n")
        require(head.startswith(b"HTTP/1.1 200 "), f"{self}: {head!r}")
        return (await reader.readexactly(64)).decode()

    async def curl(self, data, path):
        command = ["curl", "-q", "-sS", "--fail", "--noproxy", "", "-x", f"http://{PROXY}:8080", "--max-time", str(self.within_s)]
        command += ["-p"] * (self.road == "tunnel")
        command += ["-H", "Expect:", "-T", "-"] * (self.direction == "up")
        command += [f"http://{ORIGIN}:{HTTP}{path.replace('curl', 'length')}"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        out, err = await process.communicate(data if self.direction == "up" else b"")
        require(process.returncode == 0, f"{self}: {err.decode().strip()}")
        return out.decode() if self.direction == "up" else sha256(out)


def bulk(length=BULK, within_s=DEADLINE_S):
    ways = {"tunnel down": ["length", "chunked", "curl"], "tunnel up": ["length", "chunked", "curl"],
            "http down": ["length", "chunked", "close", "curl"], "http up": ["length", "chunked", "curl"]}
    return [Transfer(*road.split(), way, length, within_s) for road in ways for way in ways[road]]


async def gather(*what, within_s=DEADLINE_S):
    """All of them, and each must come to its end."""
    running = asyncio.gather(*what, return_exceptions=True)
    try:
        results = await asyncio.wait_for(running, within_s)
    except TimeoutError:
        raise Failed(f"{len(what)} connections are not over after {within_s} s") from None
    wrong = [result for result in results if isinstance(result, Exception)]
    require(not wrong, f"{len(wrong)} of {len(what)} were lost, the first: {wrong[:1]}")


async def visit(host=ORIGIN, port=ECHO):
    async with tunnel(host, port) as (reader, writer):
        await echo(reader, writer)
        writer.write_eof()
        require(await reader.read() == b"", "more than the echo")


# ---- the proxy and the links -----------------------------------------------------------------------------------------

class Link(netns.Helper):
    def __init__(self, *arguments, namespace):
        super().__init__(os.path.join(os.path.dirname(__file__), "link.py"), *arguments, namespace=namespace)

    def become(self, **how):
        """What happened to packets since the last time."""
        return json.loads(self.order(json.dumps(how)))


class World:
    """The links, the origin, and in each scene a proxy of its own."""

    def __init__(self, adit, seed, client, proxy, origin):
        netns.Proxy.adit = adit
        self.space = proxy
        ends = ((("toclient", f"{PROXY}/24"), ("toproxy", "10.77.1.2/24"), client),
                (("toorigin", "10.77.2.1/24"), ("toproxy", f"{ORIGIN}/24"), origin))
        self.links = [Link(seed, *near, space, *far, namespace=proxy) for near, far, space in ends]
        self.client_link, self.origin_link = self.links
        self.origin = netns.Helper(__file__, "origin", namespace=origin)
        self.rows = []

    def both(self, **how):
        return [link.become(**how) for link in self.links]

    def stop(self):
        for helper in (*self.links, self.origin):
            helper.stop()


HAPPENS = ("passed", "lost", "overtaken", "overflowed")
GOOD = {"loss": 0, "delay_ms": 0, "jitter_ms": 0, "kbyte_s": 0, "queue_kbyte": 64, "up": True}


class Scene:
    """A proxy with its access log, and what must be the same behind as before."""

    def __init__(self, world, name, *options, by=()):
        self.world, self.name = world, name
        self.work = tempfile.TemporaryDirectory(prefix="adit-faults-")
        self.log = os.path.join(self.work.name, "access.log")
        self.options, self.by, self.adit = options, by, netns.Proxy.adit
        if by:
            # Whoever it is run as can reach it, and write the log.
            os.chmod(self.work.name, 0o777)
            self.adit = shutil.copy(self.adit, self.work.name)
        world.both(**GOOD)
        self.proxy = self.start(self.log)
        self.exchanges = 0
        self.recovery_s = None

    def start(self, log):
        options = ["--client=10.77.0.0/16", "--allow=10.77.0.0/16", f"--nameserver={ORIGIN}", "-n2", f"--access-log={log}",
                   *self.options]
        if not any(option.startswith("--keepalive-timeout") for option in options):
            options.append("--keepalive-timeout=1")
        return netns.Proxy(*options, listen=[f"{PROXY}:8080"], namespace=self.world.space, by=self.by, adit=self.adit)

    def stop(self):
        self.proxy.stop()
        self.work.cleanup()

    async def begin(self, crowd):
        """About as much as the scene will ask of it, over good links."""
        await self.transfer(bulk())
        await self.storm(crowd)
        self.before = await self.settled()
        self.world.both()

    @property
    def pid(self):
        return self.proxy.process.pid

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self):
        """Seconds of CPU time so far, and how often a thread was given the CPU."""
        seconds = times = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/schedstat") as file:
                on_cpu, _, slices = map(int, file.read().split())
                seconds, times = seconds + on_cpu / 1e9, times + slices
        return seconds, times

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

    async def settled(self):
        """Descriptors when no connection is left, resident memory."""
        async with asyncio.timeout(DEADLINE_S):
            while self.world.origin.order("open") != "0":
                await asyncio.sleep(0.05)
        least = self.descriptors()
        for _ in range(20):
            await asyncio.sleep(0.05)
            least = min(least, self.descriptors())
        return least, self.rss_kib()

    async def transfer(self, transfers):
        self.exchanges += len(transfers)
        await gather(*(transfer.run() for transfer in transfers), within_s=max(transfer.within_s for transfer in transfers))

    async def storm(self, visits, host=ORIGIN, port=ECHO):
        self.exchanges += visits
        await gather(*(visit(host, port) for _ in range(visits)))

    async def recovers(self, transfers):
        """Waits until all that are not over move again."""
        began = time.monotonic()
        async with asyncio.timeout(DEADLINE_S):
            while not all(each.over or each.moved_at > began for each in transfers):
                await asyncio.sleep(0.02)
        self.recovery_s = max(self.recovery_s or 0.0, time.monotonic() - began)

    def words(self):
        """Of all access lines, also of files that were moved away."""
        words = collections.Counter()
        for name in os.listdir(self.work.name):
            if name.startswith("access"):
                with open(os.path.join(self.work.name, name)) as log:
                    words.update(line.rsplit("end=", 1)[1].strip() for line in log)
        return words

    async def end(self, fault, **others):
        """`fault` is what must have happened to packets; `others` are the exchanges that did not end as done, by their word."""
        seen = sum(map(collections.Counter, self.world.both()), collections.Counter())
        self.world.both(**GOOD)
        await self.transfer([Transfer("tunnel", "down", "length"), Transfer("http", "up", "length")])
        after = await self.settled()
        wanted = collections.Counter({"done": self.exchanges - sum(others.values()), **others})
        words = netns.eventually(2, lambda: (words := self.words()).total() >= wanted.total() and words) or self.words()
        (fds, rss), (fds_after, rss_after) = self.before, after
        ended = ", ".join(f"{word} {count}" for word, count in words.items())
        row = [self.name, ended, "-" if self.recovery_s is None else f"{self.recovery_s:.1f} s",
               f"{fds} / {fds_after}", f"{rss} / {rss_after}", " / ".join(str(seen[each]) for each in HAPPENS)]
        self.world.rows.append(row)
        require(not fault or seen[fault], f"nothing was tested: no packet was {fault}")
        require(words == wanted, f"access lines: {dict(words)}, wanted: {dict(wanted)}")
        require(fds_after == fds, f"{fds} descriptors before, {fds_after} after")
        require(rss_after <= rss + RSS_SLACK_KIB, f"{rss} KiB resident before, {rss_after} after")


def scene(name, *options, crowd=100, fault=None, by=(), slow=False):
    """Makes a scene of a function: it is given a proxy that has seen so many at once, and what is left behind is checked, and
    that the fault happened to packets. A slow one is played only if it is named."""
    def decorate(play):
        @functools.wraps(play)
        def run(world):
            async def whole():
                here = Scene(world, name, *options, by=by)
                try:
                    await here.begin(crowd)
                    others = await play(here)
                    await here.end(fault, **(others or {}))
                finally:
                    here.stop()
            asyncio.run(whole())
        SCENES[name] = run
        if not slow:
            USUAL.append(name)
        return run
    return decorate


SCENES, USUAL = {}, []
DOWN_S = 2


async def bad_links(here, **how):
    here.world.both(**how)
    await asyncio.gather(here.transfer(bulk()), here.storm(50))


@scene("loss", fault="lost")
async def loss(here):
    """one packet in fifty is lost, on each link and each way"""
    await bad_links(here, loss=0.02, delay_ms=5)


@scene("reorder", fault="overtaken")
async def reorder(here):
    """packets overtake each other"""
    await bad_links(here, delay_ms=5, jitter_ms=10)


@scene("rate", fault="overflowed")
async def rate(here):
    """both links are narrow, with a short queue that overflows"""
    await bad_links(here, delay_ms=10, kbyte_s=2000, queue_kbyte=32)


@scene("down")
async def down(here):
    """in the middle of bulk a link is silent, then the other, then a device of the proxy's is down; idle tunnels beside"""
    world = here.world
    # With a short queue, 13 transfers that share so little starve each other for up to a minute: no fault of a cut.
    world.both(delay_ms=5, kbyte_s=1000, queue_kbyte=512)

    def silence(link):
        return link, (lambda: link.become(up=False)), (lambda: link.become(up=True))

    def device(name, link):
        command = ["ip", "-n", world.space, "link", "set", name]
        return link, (lambda: subprocess.run([*command, "down"], check=True)), (lambda: subprocess.run([*command, "up"], check=True))

    async with contextlib.AsyncExitStack() as idle:
        tunnels = [await idle.enter_async_context(tunnel(ORIGIN, ECHO)) for _ in range(20)]
        here.exchanges += len(tunnels)
        # More than goes over the links until they have recovered from each cut, however long that takes: three times, a
        # recovery may take what all of another scene may.
        transfers = bulk(8 * BULK, 3 * DEADLINE_S)
        running = asyncio.create_task(here.transfer(transfers))
        cuts = silence(world.client_link), silence(world.origin_link), device("toorigin", world.origin_link)
        for number, (link, cut, mend) in enumerate(cuts):
            await asyncio.sleep(1)
            link.become()
            cut()
            try:
                await asyncio.sleep(DOWN_S)
                missed = link.become()["lost"]
                unfinished = sum(not each.over for each in transfers)
                require(missed and unfinished, f"cut {number} was in nobody's way: {missed} packets, {unfinished} transfers")
            finally:
                mend()
            await here.recovers([each for each in transfers if each.way != "curl"])
        world.both(kbyte_s=0)
        await running
        await gather(*(echo(*each) for each in tunnels))


@scene("vanish", "--idle-timeout=3", "--head-timeout=3", "--response-timeout=3")
async def vanish(here):
    """the client's machine vanishes: every kind of connection is given up in time"""
    here.world.both(delay_ms=5, kbyte_s=2000)
    get = f"GET http://{ORIGIN}:{HTTP}/1/1000"
    host = f"Host: {ORIGIN}:{HTTP}\r\n"
    async with contextlib.AsyncExitStack() as stack:
        async def many(make, says=""):
            made = [await stack.enter_async_context(make()) for _ in range(5)]
            for _, writer in made:
                writer.write(says.encode())
            return made

        await many(lambda: tunnel(ORIGIN, ECHO))
        await many(connection, "GET http")
        await many(connection, f"{get}/never HTTP/1.1\r\n{host}\r\n")
        for reader, _ in await many(connection, f"{get}/length HTTP/1.1\r\n{host}\r\n"):
            await body(reader, await reader.readuntil(b"\r\n\r\n"), lambda _: None)
        transfers = [Transfer(road, direction, "length", 10 * BULK) for road in ("tunnel", "http") for direction in ("down", "up")]
        running = [asyncio.create_task(transfer.run()) for transfer in transfers]
        async with asyncio.timeout(DEADLINE_S):
            while not all(transfer.moved_at for transfer in transfers):
                await asyncio.sleep(0.05)
        here.world.client_link.become(up=False)
        gone_at = time.monotonic()
        async with asyncio.timeout(DEADLINE_S):
            while here.descriptors() > here.before[0]:
                await asyncio.sleep(0.05)
        here.recovery_s = time.monotonic() - gone_at
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    here.exchanges += 24
    return {"idle_timeout": 8, "http_request_error": 6, "http_response_timeout": 5}


@scene("storm", "--head-timeout=30", "--dial-timeout=30", crowd=400, fault="lost")
async def storm(here):
    """four hundred connections at once over links that lose packets, while settings are read anew and the log rotates"""
    here.world.both(loss=0.02, delay_ms=10)
    busy = asyncio.gather(here.storm(400), here.transfer(bulk(BULK // 2)))
    rounds = 0
    while not busy.done():
        rounds += 1
        os.rename(here.log, f"{here.log}.{rounds}")
        os.kill(here.pid, signal.SIGUSR1)
        os.kill(here.pid, signal.SIGHUP)
        await asyncio.sleep(0.25)
        require(os.path.exists(here.log), "the log was not opened anew")
    await busy
    said = here.proxy.said()
    require(rounds > 3 and "not reloaded" not in said, f"{rounds} rounds: {said}")
    figure(f"{rounds} reloads and rotations meanwhile")


@scene("takeover")
async def takeover(here):
    """three times a new process takes over and the old one is stopped, while clients keep coming and bulk goes on"""
    here.world.both(delay_ms=10, jitter_ms=5, kbyte_s=2000)
    over = False

    async def visitor():
        while not over:
            await here.storm(1)

    busy = [asyncio.create_task(one) for one in (here.transfer(bulk()), *(visitor() for _ in range(30)))]
    for number in range(3):
        await asyncio.sleep(0.5)
        old = here.proxy
        here.proxy = here.start(f"{here.log}.{number}")
        await asyncio.sleep(0.2)
        old.process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            while old.process.poll() is None:
                await asyncio.sleep(0.02)
        require(old.process.returncode == 0, f"the old one ends with {old.process.returncode}: {old.said()}")
        old.stop()
    over = True
    await gather(*busy)


@scene("resets")
async def resets(here):
    """the origin resets in the middle of bodies, with bytes under way on narrow links"""
    # None is lost or overtaken: Linux questions a reset that has come before what was sent before it, once in half a second at
    # most (RFC 5961, tcp_invalid_ratelimit), and nobody repeats it. Who has not been told waits for a timeout.
    here.world.both(delay_ms=5, kbyte_s=4000, queue_kbyte=1024)
    cut = [Transfer(road, "down", "reset") for road in ("tunnel", "http") for _ in range(10)]

    async def is_cut(transfer):
        try:
            await transfer.run()
        except (OSError, asyncio.IncompleteReadError):
            return
        raise Failed(f"{transfer}: looks complete")

    here.exchanges += len(cut)
    await asyncio.gather(gather(*map(is_cut, cut)), here.transfer(bulk()))
    return {"upstream_reset": 20}


@scene("full")
async def full(here):
    """the queue of an origin is full: it drops SYNs until it accepts"""
    here.world.both(delay_ms=5)
    busy = asyncio.create_task(here.storm(30, port=FULL))
    await asyncio.sleep(1.5)
    require(not busy.done(), "nobody was held up")
    here.world.origin.order("accept")
    began = time.monotonic()
    await busy
    here.recovery_s = time.monotonic() - began


@scene("names")
async def names(here):
    """the nameserver is silent for a while, and far away"""
    here.world.both(delay_ms=100)
    here.world.origin.order("silent")
    busy = [asyncio.create_task(here.storm(1, host=f"n{number % 10}.origin.test")) for number in range(50)]
    await asyncio.sleep(DOWN_S)
    require(not any(each.done() for each in busy), "somebody was served before there was an answer")
    here.world.origin.order("speak")
    began = time.monotonic()
    await gather(*busy)
    here.recovery_s = time.monotonic() - began


FILE_MAX = "/proc/sys/fs/file-max"
QUIET_S = 2
CPU_MAX = 0.05  # of one core; a loop that spins takes all of it


@contextlib.contextmanager
def no_files_left():
    """The table of open files is full, for all of the machine but for root: a limit below what is open already. However it ends,
    the limit is what it was."""
    with open(FILE_MAX) as file:
        before = file.read()

    def become(limit):
        with open(FILE_MAX, "w") as file:
            file.write(limit)

    # A signal that would end this program is an exception, so that what it has done is undone.
    def end(*_):
        raise SystemExit("ended by a signal")

    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        become("1")
        yield
    finally:
        become(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def require_file_max():
    try:
        with open(FILE_MAX, "r+") as file:
            file.write(file.read())
        with no_files_left():
            tried = subprocess.run([*NOBODY, "true"], capture_output=True)
    except OSError as error:
        raise NotRun(f"{FILE_MAX} cannot be set: {error}") from None
    if tried.returncode == 0:
        raise NotRun(f"{FILE_MAX} is set, but binds nobody: not this kernel's own")


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


KEPT_S = 8


# Only if it is named, for everybody on the machine feels it.
@scene("enfile", f"--keepalive-timeout={KEPT_S}", by=NOBODY, slow=True)
async def enfile(here):
    """the system's table of open files is full for some seconds, for all but root"""
    require_file_max()
    get = f"GET http://{ORIGIN}:{HTTP}/1/1000/length HTTP/1.1\r\nHost: {ORIGIN}:{HTTP}\r\n\r\n".encode()
    async with contextlib.AsyncExitStack() as stack:
        tunnels = [await stack.enter_async_context(tunnel(ORIGIN, ECHO)) for _ in range(20)]
        idle = [await stack.enter_async_context(connection()) for _ in range(20)]
        for reader, writer in idle:
            writer.write(get)
            await body(reader, await reader.readuntil(b"\r\n\r\n"), lambda _: None)
        accepted = here.descriptors()
        asks = await stack.enter_async_context(connection())
        here.exchanges += len(tunnels) + len(idle) + 1
        async with asyncio.timeout(DEADLINE_S / 2):
            while here.descriptors() == accepted:
                await asyncio.sleep(0.02)
            with no_files_left():
                began = time.monotonic()
                # They stand in the queues of the listeners.
                waiting = asyncio.create_task(here.storm(50))
                for reader, _ in idle:
                    require(await reader.read() == b"", "an idle client is told something")
                gave_up = time.monotonic() - began
                require(gave_up < KEPT_S / 2, f"idle clients were given up after {gave_up:.1f} s")
                asks[1].write(f"CONNECT {ORIGIN}:{ECHO} HTTP/1.1\r\nHost: {ORIGIN}:{ECHO}\r\n\r\n".encode())
                answer = await asks[0].read()
                require(answer.startswith(b"HTTP/1.1 503 "), f"no socket for an upstream, and the answer is {answer!r}")
                (cpu, times), began = here.cpu(), time.monotonic()
                await asyncio.sleep(QUIET_S)
                (cpu_after, times_after), took = here.cpu(), time.monotonic() - began
                for each in tunnels:
                    await echo(*each)
                require(not waiting.done(), "nothing was tested: all are served")
            began = time.monotonic()
            await waiting
            here.recovery_s = time.monotonic() - began
        share, wakeups = (cpu_after - cpu) / took, (times_after - times) / took
        figure(f"{share:.2%} of a core and {wakeups:.0f} wake-ups a second while 50 clients wait to be accepted")
        require(share < CPU_MAX, f"it spins: {share:.1%} of a core")
        said = here.proxy.said()
        counts = [said.count(text) for text in ("not accepting connections: ", "accepting connections again")]
        require(1 <= counts[0] == counts[1] <= 2, f"each loop says once that it stops accepting, and that it goes on: {said}")
        for each in tunnels:
            await echo(*each)
    return {"connection_limit_reached": 1}


PROBES_S = 150  # the proxy's sockets are asked after 60 s and given up 60 s later; an upstream's from its tenth second on


@scene("probes", crowd=10, slow=True)
async def probes(here):
    """a machine vanishes while tunnels to it are idle, the client's and then the origin's: keep-alive probes find out (4 minutes)"""
    ends = {"client_vanished": here.world.client_link, "upstream_vanished": here.world.origin_link}
    for word, link in ends.items():
        async with contextlib.AsyncExitStack() as idle:
            for _ in range(5):
                await echo(*await idle.enter_async_context(tunnel(ORIGIN, ECHO)))
            here.exchanges += 5
            await asyncio.sleep(1)  # until all is acknowledged: what is not would be repeated for a quarter of an hour instead
            link.become(up=False)
            gone_at = time.monotonic()
            async with asyncio.timeout(PROBES_S):
                while here.words()[word] < 5:
                    await asyncio.sleep(0.1)
            took_s = time.monotonic() - gone_at
            lost = link.become(up=True)["lost"]
        require(lost >= 5 * 4, f"{lost} packets were lost: nobody has asked")
        figure(f"{word} after {took_s:.1f} s, {lost} packets lost")
        here.recovery_s = max(here.recovery_s or 0.0, took_s)
    return dict.fromkeys(ends, 5)


def table(rows):
    head = ["scene", "exchanges, by their last word", "recovery", "descriptors before / after", "resident KiB before / after",
            f"packets {' / '.join(HAPPENS)}"]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in [head, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


def main():
    match sys.argv[1:]:
        case ["scenes", adit, seed, client, proxy, origin, *names]:
            functions = netns.chosen(SCENES, names or USUAL)
            world = World(os.path.abspath(adit), seed, client, proxy, origin)
            try:
                failed = netns.run(functions, world)
            finally:
                world.stop()
            table(world.rows)
            sys.exit(1 if failed else 0)
        case ["origin"]:
            asyncio.run(Origin().main())
        case ["list"]:
            for name, play in SCENES.items():
                print(f"{name:10}{play.__doc__}")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
