"""The mix, and what is asked behind it."""
import asyncio
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import limits
from clients import SHAPES, TIMEOUT_WORDS, Client, requests, round_trips, stranger, wrong_login
from proxy import until
from wire import Short, WrongBytes


class Soak:
    def __init__(self, proxy, seed, plant=contextlib.nullcontext):
        self.proxy, self.seed, self.plant = proxy, seed, plant
        self.expected = collections.defaultdict(list)
        # Of clients of this round that need not leave all of their lines: others' would be taken for those.
        self.loose = set()
        self.ends = collections.Counter()
        self.faults, self.rows, self.baseline = [], [], None
        self.connections = self.bytes = self.restarts = self.exchanges = self.starved = self.vanished = 0
        self.round, self.lag_ms = 0, 0
        self.origins = {}

    def fault(self, check, text):
        self.faults.append((check, text))

    def address(self, rng, shape=None, second=False):
        """An access line tells its client by address and port alone. So each round has its own addresses, and so has the
        second listener, lest a port be taken for another's. Whoever shows wrong credentials is slowed down by his address:
        these have many."""
        if shape is wrong_login:
            return f"127.{96 + self.round % 16}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        return "127.200.0.1" if shape is stranger else f"127.{64 + self.round % 32}.{self.round // 32}.{rng.randrange(1, 9) + 100 * second}"

    async def start_origin(self, port, *dns_port):
        command = [sys.executable, os.path.dirname(os.path.abspath(__file__)), "origin", str(port), *map(str, dns_port)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        self.origins[port] = process
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the origin did not start")

    async def stop_origin(self, port):
        process = self.origins.pop(port)
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def client(self, shape, rng):
        """One client from its connection to its end; what it meets that nobody has provoked is a fault."""
        second = shape in (round_trips, requests) and rng.random() < 0.1
        client = Client(self, rng, self.address(rng, shape, second))
        try:
            try:
                await client.connect(self.proxy.second_port if second else self.proxy.port)
            except ConnectionRefusedError:
                # The second listener comes and goes, but not with a connection in its queue.
                if not second:
                    raise
                return
            await asyncio.wait_for(shape(client, rng), 40)
        except WrongBytes as error:
            self.fault("content", f"{shape.__name__}: {error}")
        except asyncio.TimeoutError:
            # No origin excuses silence. (Since Python 3.11 this is an OSError, too, so it comes first.)
            self.fault("client", f"{shape.__name__} {getattr(client, 'key', '')}: it has no end")
        except (OSError, Short) as error:
            if not client.flaky:
                self.fault("client", f"{shape.__name__} {getattr(client, 'key', '')}: {type(error).__name__} {error}")
        finally:
            client.close()

    async def worker(self, number, end):
        rng = random.Random(f"{self.seed}/{self.round}/{number}")
        shapes, weights = list(SHAPES), list(SHAPES.values())
        while time.monotonic() < end:
            await self.client(rng.choices(shapes, weights)[0], rng)

    async def held(self, number, end):
        """A tunnel that is all but idle, from the beginning of the mix to its end."""
        rng = random.Random(f"{self.seed}/{self.round}/held/{number}")

        async def shape(client, rng):
            client.expect(200, "done")
            await client.request_connect(limits.ORIGINS[number % 4], self.proxy.steady, early=b"echo\n")
            await client.answer()
            sent = 0
            while time.monotonic() < end:
                await client.send_pattern(number, sent + 64, sent)
                if await client.take_pattern(number, sent + 64, sent) != sent + 64:
                    raise Short("a held tunnel")
                sent += 64
                await asyncio.sleep(rng.uniform(0.3, limits.IDLE_S / 3))
            client.shut()
            if await client.some():
                raise WrongBytes("behind the last echo of a held tunnel")

        client = Client(self, rng, self.address(rng))
        try:
            await client.connect(self.proxy.port)
            await shape(client, rng)
        except (OSError, Short, WrongBytes) as error:
            self.fault("held", f"a held tunnel: {type(error).__name__} {error}")
        finally:
            client.close()

    async def trouble(self, end):
        """Reloads, rotations and restarts."""
        rng = random.Random(f"{self.seed}/{self.round}/trouble")
        while time.monotonic() < end:
            await asyncio.sleep(rng.uniform(0.3, 2.5))
            what = rng.randrange(6)
            if what < 2:
                await self.proxy.reload()
            elif what == 2:
                await self.proxy.reload(broken=True)
            elif what < 5:
                await self.proxy.rotate()
            else:
                await self.stop_origin(self.proxy.flaky)
                await asyncio.sleep(rng.random())
                await self.start_origin(self.proxy.flaky)
                self.restarts += 1

    async def watch_lag(self):
        while True:
            asked = time.monotonic()
            await asyncio.sleep(0.05)
            self.lag_ms = max(self.lag_ms, int((time.monotonic() - asked - 0.05) * 1000))

    async def mix(self, seconds, workers, held):
        end = time.monotonic() + seconds
        self.lag_ms = 0
        lag = asyncio.ensure_future(self.watch_lag())
        clients = [self.worker(number, end) for number in range(workers)]
        try:
            await asyncio.gather(*clients, *(self.held(number, end) for number in range(held)), self.trouble(end))
        finally:
            lag.cancel()

    # -- the quiet moment

    async def rest(self):
        """All clients have ended: what does the proxy still have? The configuration is the first one, so that the same
        listeners are open each time."""
        await self.proxy.reload(0)
        begin = time.monotonic()
        while time.monotonic() < begin + limits.REST_S:
            books = self.proxy.books()
            if self.baseline is None:
                # Questions to the nameserver and the thread that verifies logins have ended by then.
                if (books.sockets, books.pipes) == (0, 0) and time.monotonic() > begin + limits.IDLE_S + limits.RESOLVE_S:
                    break
            elif (books.sockets, books.pipes, books.descriptors) == (0, 0, self.baseline.descriptors):
                break
            await asyncio.sleep(0.1)
        # One more look, for lines wait for others a tenth of a second.
        await asyncio.sleep(0.3)
        return self.proxy.books()

    async def idle_cpu(self):
        cpu, wakeups = self.proxy.cpu()
        await asyncio.sleep(limits.IDLE_WINDOW_S)
        cpu_after, wakeups_after = self.proxy.cpu()
        return cpu_after - cpu, wakeups_after - wakeups

    def check_books(self, books, cpu_ms, wakeups, slack_kib=limits.MEMORY_SLACK_KIB):
        base = self.baseline
        if books.sockets:
            self.fault("sessions", f"{books.sockets} connections are left")
        if books.descriptors != base.descriptors:
            self.fault("descriptors", f"{books.descriptors} descriptors, {base.descriptors} before")
        if books.pipes:
            self.fault("descriptors", f"{books.pipes} ends of pipes are left")
        if books.heap_kib > base.heap_kib + slack_kib:
            self.fault("memory", f"{books.heap_kib} KiB of its own, {base.heap_kib} before, {slack_kib} more are fine")
        if cpu_ms > limits.IDLE_CPU_MS or wakeups > limits.IDLE_WAKEUPS:
            self.fault("idle", f"{cpu_ms:.1f} ms of CPU time and {wakeups} wake-ups in {limits.IDLE_WINDOW_S} s of rest")

    def check_lines(self):
        """Every line is expected, and everything that was expected has its line, in the order of its connection."""
        waiting, self.expected, self.loose = self.expected, collections.defaultdict(list), set()
        for line in self.proxy.rotated_lines():
            self.exchanges += 1
            self.ends[(line["status"], line["end"])] += 1
            queue = waiting.get((line["client"], line["client_port"]))
            if not queue:
                self.fault("lines", f"nobody did this: {line}")
            elif not (expected := queue.pop(0)).fits(line):
                if self.lag_ms > limits.LAG_MS and line["end"] in TIMEOUT_WORDS:
                    self.starved += 1
                else:
                    self.fault("lines", f"{expected} was expected of {line}")
        for key, queue in waiting.items():
            if missing := [expected for expected in queue if not expected.optional]:
                self.fault("lines", f"no line of {key}: {missing}")

    async def one_round(self, seconds, workers=limits.CLIENTS, held=limits.HELD):
        begin = time.monotonic()
        before = (self.connections, self.exchanges, self.bytes, self.proxy.reloads, self.proxy.refused_reloads,
                  self.proxy.rotations, self.restarts)
        self.ends.clear()
        await self.mix(seconds, workers, held)
        ended = time.monotonic()
        async with self.plant(self):
            books = await self.rest()
            rested = time.monotonic()
            cpu_ms, wakeups = await self.idle_cpu()
        if self.baseline is None:
            self.baseline = books
        self.check_books(books, cpu_ms, wakeups)
        await self.proxy.rotate()
        self.check_lines()
        for complaint in self.proxy.complaints():
            self.fault("log", complaint)
        after = (self.connections, self.exchanges, self.bytes, self.proxy.reloads, self.proxy.refused_reloads,
                 self.proxy.rotations, self.restarts)
        done = self.ends[(200, "done")] + self.ends[(101, "done")]
        row = Row(self.round, *(now - then for now, then in zip(after, before)), sum(self.ends.values()) - done,
                  *books, rested - ended, cpu_ms, wakeups, self.lag_ms, time.monotonic() - begin)
        self.rows.append(row)
        print(row.line(), flush=True)
        self.round += 1

    async def crowd(self, count):
        """So many tunnels at once, each with an echo, and all of them ended: three times over. Each time memory returns. It
        comes last, because what the allocator keeps could hide a leak."""
        # However slow the machine is, none of them is to be idle for too long.
        self.proxy.idle_s = 900
        await self.proxy.reload(0)
        gate, figures = asyncio.Semaphore(limits.CROWD_AT_ONCE), [self.proxy.books()]
        self.baseline = self.baseline._replace(heap_kib=figures[0].heap_kib)
        fine_kib = figures[0].heap_kib + limits.CROWD_SLACK_KIB
        for _ in range(3):
            clients = [Client(self, random.Random(number), self.address(random.Random(number))) for number in range(count)]

            async def enter(number, client):
                async with gate:
                    await client.connect(self.proxy.port)
                    client.expect(200, "done", 5 + 64, 64)
                    await client.request_connect(limits.ORIGINS[number % 4], self.proxy.steady, early=b"echo\n")
                    status, head = await client.answer()
                    if status != 200:
                        raise Short(f"tunnel {number} of {count} got {head}")
                    await client.send_pattern(number, 64)
                    if await client.take_pattern(number, 64) != 64:
                        raise Short("an echo in a crowd")

            async def leave(client):
                async with gate:
                    client.shut()
                    await client.to_end()
                    client.close()

            try:
                await asyncio.gather(*(enter(number, client) for number, client in enumerate(clients)))
                most = self.proxy.books()
                await asyncio.gather(*map(leave, clients))
            except (OSError, Short, WrongBytes) as error:
                self.fault("crowd", f"{type(error).__name__} {error}")
                most = self.proxy.books()
            finally:
                for client in clients:
                    client.close()
            await self.rest()
            with contextlib.suppress(TimeoutError):
                await until("memory is given back", lambda: self.proxy.books().heap_kib <= fine_kib, limits.GIVEN_BACK_S)
            after = self.proxy.books()
            self.check_books(after, *await self.idle_cpu(), limits.CROWD_SLACK_KIB)
            figures += [most, after]
            await self.proxy.rotate()
            self.check_lines()
            self.round += 1
        self.proxy.idle_s = limits.IDLE_S
        await self.proxy.reload(0)
        for complaint in self.proxy.complaints():
            self.fault("log", complaint)
        resident = ", ".join(f"{most.rss_kib} → {after.rss_kib}" for most, after in zip(figures[1::2], figures[2::2]))
        print(f"{count} tunnels opened, echoed in and closed, three times: resident {figures[0].rss_kib} KiB before, "
              f"then at most → behind: {resident}; of its own: {figures[0].heap_kib} KiB before, behind: "
              f"{', '.join(str(after.heap_kib) for after in figures[2::2])}; {figures[-1].descriptors} descriptors behind", flush=True)

    async def run(self, minutes, crowd):
        print(Row.head(), flush=True)
        await self.one_round(limits.WARM_UP_S)
        self.rows.clear()
        begin = time.monotonic()
        for minute in range(minutes):
            await self.one_round(limits.MIX_S)
            if self.faults:
                return
            await asyncio.sleep(max(0, begin + (minute + 1) * limits.ROUND_S - time.monotonic()))
        heaps = [row.heap_kib for row in self.rows]
        quarter = len(heaps) // 4
        if quarter >= 3:
            first, last = (sorted(some)[quarter // 2] for some in (heaps[:quarter], heaps[-quarter:]))
            if last > first + limits.MEMORY_DRIFT_KIB:
                self.fault("memory", f"it grows: {first} KiB in the first quarter, {last} in the last")
        await self.crowd(crowd)
        if self.rows:
            self.summary(minutes)

    async def end(self):
        """TERM, and everything goes."""
        self.proxy.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self.proxy.process.wait, limits.GRACE_S + 10)
        if code != 0:
            self.fault("exit", f"exit code {code}")

    def summary(self, minutes):
        total = lambda field: sum(getattr(row, field) for row in self.rows)
        span = lambda field: "{} to {}".format(*(f(getattr(row, field) for row in self.rows) for f in (min, max)))
        print(f"""
| {minutes} minutes, seed {self.seed} | |
|---|---|
| connections, exchanges | {total('connections'):,}, {total('exchanges'):,} |
| GiB moved and compared | {total('bytes') / (1 << 30):.1f} |
| exchanges that were made to fail | {total('failed'):,} |
| reloads, refused reloads, rotations, restarts of an origin | {total('reloads'):,}, {total('refused'):,}, {total('rotations'):,}, {total('restarts'):,} |
| descriptors at rest | {span('descriptors')} |
| resident at rest, KiB | {span('rss_kib')} |
| of its own, KiB: first, last | {self.rows[0].heap_kib}, {self.rows[-1].heap_kib} |
| CPU time in {limits.IDLE_WINDOW_S} s of rest, at most | {max(row.cpu_ms for row in self.rows):.1f} ms |
| clients that vanished (without CAP_NET_ADMIN none can: they reset) | {self.vanished:,} |
| unexpected lines, bytes, messages, connections left | {len(self.faults)} |
| timeouts because the machine was too slow for this script | {self.starved} |""")


class Row(collections.namedtuple("Row", "minute connections exchanges bytes reloads refused rotations restarts failed "
                                 "descriptors pipes sockets rss_kib heap_kib rest_s cpu_ms wakeups lag_ms seconds")):
    @staticmethod
    def head():
        return ("   # connect. exchanges    MiB  made to fail  reloads refused rotated restarts | fds pipes conns    Rss    own KiB"
                "  rest s  cpu ms wakes | lag ms")

    def line(self):
        return (f"{self.minute:4} {self.connections:8} {self.exchanges:9} {self.bytes >> 20:6} {self.failed:13} "
                f"{self.reloads:8} {self.refused:7} {self.rotations:7} {self.restarts:8} | {self.descriptors:3} {self.pipes:5} "
                f"{self.sockets:5} {self.rss_kib:6} {self.heap_kib:10} {self.rest_s:7.1f} {self.cpu_ms:7.2f} {self.wakeups:5} "
                f"| {self.lag_ms:6}")
