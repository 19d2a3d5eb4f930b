"""Clients of all shapes. Each says in advance which access lines it will leave."""
import asyncio
import base64
import contextlib
import socket

import limits
from wire import Short, Wire, WrongBytes, pattern


TCP_REPAIR = 19


class Expected:
    """What an access line may say. `optional`: or there is none."""

    def __init__(self, statuses, ends, up=None, down=None, optional=False):
        self.statuses = statuses if isinstance(statuses, set) else {statuses}
        self.ends = ends if isinstance(ends, set) else {ends}
        self.up, self.down, self.optional = up, down, optional

    def fits(self, line):
        return (line["status"] in self.statuses and line["end"] in self.ends
                and self.up in (None, line["up"]) and self.down in (None, line["down"]))

    def __repr__(self):
        return f"{self.statuses} {self.ends} up={self.up} down={self.down}"


TIMEOUT_WORDS = {"idle_timeout", "half_open_timeout", "http_response_timeout", "dns_timeout", "connection_timeout",
                 "http_request_error", "grace"}
# An origin that may be gone at any moment.
FLAKY_STATUSES = {None, 200, 502}
FLAKY_ENDS = {"done", "connection_refused", "connection_terminated", "upstream_reset", "http_response_incomplete",
              "client_left", "client_reset"}
DEAD_ENDS = {"client_reset", "client_left"}


class Client(Wire):
    """A connection to the proxy that says what it will leave in the access log."""

    def __init__(self, soak, rng, address):
        super().__init__(self.at(address))
        self.soak, self.rng, self.flaky = soak, rng, False
        self.user = rng.choice(sorted(limits.USERS))

    @staticmethod
    def at(address):
        sock = socket.socket()
        sock.setblocking(False)
        # The port is chosen at connect, so that it only needs to be free towards the proxy.
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, 0))
        return sock

    async def connect(self, port):
        while True:
            await self.loop.sock_connect(self.sock, ("127.0.0.1", port))
            self.key = self.sock.getsockname()
            if self.key not in self.soak.loose:
                break
            # A connection that is closed without a byte leaves no line.
            self.sock.close()
            self.sock = self.at(self.key[0])
        self.soak.connections += 1
        return self

    def expect(self, *args, **kwargs):
        expected = Expected(*args, **kwargs)
        self.soak.expected[self.key].append(expected)
        if expected.optional:
            self.soak.loose.add(self.key)
        return expected

    def vanish(self):
        """As if the cable had been cut: nothing is sent any more, but whoever sends here is answered by a reset. Needs
        CAP_NET_ADMIN; without, it is a reset now."""
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError:
            self.reset()
        else:
            self.sock.close()
            self.soak.vanished += 1

    def authorization(self, user=None, word=None):
        user = user or self.user
        token = base64.b64encode(f"{user}:{word or limits.USERS[user]}".encode()).decode()
        return f"Proxy-Authorization: Basic {token}\r\n"

    def choose_origin(self):
        """Host and port."""
        self.flaky = self.rng.random() < 0.2
        port = self.soak.proxy.flaky if self.flaky else self.soak.proxy.steady
        host = self.rng.choice([*limits.ORIGINS, "hosts.test", f"name{self.rng.randrange(400)}.test", "Same.test"])
        return host, port

    async def request_connect(self, host, port, extra="", early=b""):
        head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{self.authorization()}{extra}\r\n"
        await self.send(head.encode() + early)

    async def answer(self):
        """Status and head."""
        head = await self.until(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head.lower()

    async def tunnel(self, order, ends="done", up=None, down=None):
        """To an origin that is given an order; the order is sent with the head, or behind the answer."""
        host, port = self.choose_origin()
        if self.flaky:
            self.expect(FLAKY_STATUSES, FLAKY_ENDS | ({ends} if isinstance(ends, str) else ends))
        else:
            self.expect(200, ends, up=up, down=down)
        early = self.rng.random() < 0.3
        await self.request_connect(host, port, early=order if early else b"")
        status, _ = await self.answer()
        if status != 200:
            raise Short(f"CONNECT to an origin got {status}")
        if not early:
            await self.send(order)

    async def get(self, path, host, port, method="GET", fields=""):
        head = f"{method} http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}\r\n{self.authorization()}{fields}\r\n"
        await self.send(head.encode())

    def expect_http(self, first=True, ends="done", statuses=200):
        if self.flaky:
            self.expect(FLAKY_STATUSES, FLAKY_ENDS | ({ends} if isinstance(ends, str) else ends), optional=not first)
        else:
            self.expect(statuses, ends)

    async def response(self, tag):
        """Reads it to its end; how many bytes of pattern there were."""
        status, head = await self.answer()
        if status != 200:
            raise Short(f"an origin's answer is {status}")
        if b"transfer-encoding: chunked" in head:
            return await self.chunks(tag)
        if b"content-length: " in head:
            length = int(head.split(b"content-length: ")[1].split(b"\r")[0])
            count = await self.take_pattern(tag, length)
            if count != length:
                raise Short(f"{count} of {length} bytes of a body")
            return count
        return await self.take_pattern(tag, 1 << 40)


def bytes_of(rng, most):
    """Few or many, as likely."""
    return int(2 ** rng.uniform(0, most.bit_length() - 1))


async def round_trips(client, rng):
    """A tunnel in which each message waits for the one before; ended in order, or not."""
    leaves = rng.choice(["fin", "fin", "fin", "reset", "close", "vanish"])
    ends = {"fin": "done", "reset": "client_reset", "close": {"done", "client_reset"},
            "vanish": {"idle_timeout", "client_reset"}}[leaves]
    tag, sizes = rng.randrange(1 << 16), [bytes_of(rng, 1 << 14) for _ in range(rng.randrange(1, 30))]
    total = sum(sizes)
    exact = (total + 5, total) if leaves == "fin" else (None, None)
    await client.tunnel(b"echo\n", ends, *exact)
    sent = 0
    for size in sizes:
        await client.send_pattern(tag, sent + size, sent)
        if await client.take_pattern(tag, sent + size, sent) != sent + size:
            raise Short("an echo")
        sent += size
    client.soak.bytes += 2 * total
    if leaves == "fin":
        client.shut()
        if await client.some():
            raise WrongBytes("behind the last echo")
    elif leaves == "reset":
        client.reset()
    elif leaves == "vanish":
        client.vanish()


async def bulk_down(client, rng):
    tag, count, dies = rng.randrange(1 << 16), bytes_of(rng, 8 << 20), rng.random() < 0.3
    order = b"send %d %d\n" % (tag, count)
    # Where all was read, there was nothing left to die in.
    await client.tunnel(order, "client_reset" if dies else "done", *((None, None) if dies else (len(order), count)))
    got = await client.take_pattern(tag, rng.randrange(count + 1) if dies else 1 << 40)
    client.soak.bytes += got
    if dies:
        client.reset()
    elif got != count:
        raise Short(f"{got} of {count} bytes down")
    else:
        client.shut()


async def bulk_up(client, rng):
    tag, count, dies = rng.randrange(1 << 16), bytes_of(rng, 8 << 20), rng.random() < 0.3
    order = b"take %d\n" % tag
    await client.tunnel(order, "client_reset" if dies else "done", None if dies else len(order) + count)
    await client.send_pattern(tag, rng.randrange(count + 1) if dies else count)
    client.soak.bytes += count
    if dies:
        client.reset()
        return
    client.shut()
    if (answer := await client.to_end()) != b"ok %d\n" % count:
        raise WrongBytes(f"the origin counted {answer} of {count}") if answer else Short("no answer")


async def bulk_both(client, rng):
    tag, count = rng.randrange(1 << 16), bytes_of(rng, 4 << 20)
    await client.tunnel(b"echo\n", "done", count + 5, count)

    async def send():
        await client.send_pattern(tag, count)
        client.shut()

    sending = asyncio.ensure_future(send())
    try:
        got = await client.take_pattern(tag, 1 << 40)
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    client.soak.bytes += 2 * got
    if got != count:
        raise Short(f"{got} of {count} bytes both ways")


async def requests(client, rng):
    """Kept alive, to several origins, pipelined at times; ended by the client."""
    for nth in range(rng.randrange(1, 12)):
        host, port = client.choose_origin()
        tag = rng.randrange(1 << 16)
        count = rng.choice([0, 100, 1 << 10, 1 << 16, 1 << 18])
        kind = rng.choice(["bytes", "bytes", "chunked"])
        client.expect_http(nth == 0)
        await client.get(f"/{kind}/{tag}/{count}", host, port)
        if (got := await client.response(tag)) != count:
            raise WrongBytes(f"{got} instead of {count} bytes")
        client.soak.bytes += count


async def pipeline(client, rng):
    host, port = client.choose_origin()
    wanted = [(rng.randrange(1 << 16), bytes_of(rng, 1 << 16)) for _ in range(rng.randrange(2, 8))]
    for nth, (tag, count) in enumerate(wanted):
        client.expect_http(nth == 0)
        await client.get(f"/bytes/{tag}/{count}", host, port)
    for tag, count in wanted:
        if await client.response(tag) != count:
            raise WrongBytes("in a pipeline")


async def request_closing(client, rng):
    host, port = client.choose_origin()
    tag, count, kind = rng.randrange(1 << 16), bytes_of(rng, 1 << 18), rng.choice(["bytes", "chunked", "until-close"])
    client.expect_http()
    await client.get(f"/{kind}/{tag}/{count}", host, port, fields="Connection: close\r\n")
    if await client.response(tag) != count:
        raise Short("a response until the end")
    if await client.some():
        raise WrongBytes("behind a response")
    client.soak.bytes += count


async def request_dying(client, rng):
    """The client goes before, or in the middle of, the response."""
    host, port = client.choose_origin()
    tag, count = rng.randrange(1 << 16), bytes_of(rng, 4 << 20)
    # The proxy may have got rid of all of it before.
    client.expect_http(ends=DEAD_ENDS | {"done"}, statuses={None, 200})
    await client.get(f"/bytes/{tag}/{count}", host, port)
    if rng.random() < 0.7:
        status, _ = await client.answer()
        if status != 200:
            raise Short(f"an origin's answer is {status}")
        client.soak.bytes += await client.take_pattern(tag, rng.randrange(count + 1))
    rng.choice([client.reset, client.close])()


async def upload(client, rng):
    host, port = client.choose_origin()
    tag, count, dies = rng.randrange(1 << 16), bytes_of(rng, 4 << 20), rng.random() < 0.3
    chunked = rng.random() < 0.5
    client.expect_http(ends=DEAD_ENDS if dies else "done", statuses=None if dies else 200)
    fields = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {count}\r\n"
    await client.get(f"/take/{tag}/{count}", host, port, "POST", fields)
    if dies:
        if chunked:
            await client.send(b"5\r\n%s" % pattern(tag, 0, 2))
        else:
            await client.send_pattern(tag, rng.randrange(count))
        client.reset()
        return
    await (client.send_chunks(tag, count) if chunked else client.send_pattern(tag, count))
    status, _ = await client.answer()
    if status != 200:
        raise Short(f"an upload got {status}")
    client.soak.bytes += count
    answer = b"ok %d\n" % count
    if await client.exactly(len(answer)) != answer:
        raise WrongBytes("the origin counted otherwise")


async def upgrade(client, rng):
    host, port = client.choose_origin()
    client.expect_http(statuses=101)
    if client.flaky:
        client.soak.expected[client.key][-1].statuses.add(101)
    await client.get("/upgrade/0/0", host, port, fields="Connection: Upgrade\r\nUpgrade: soak\r\n")
    status, _ = await client.answer()
    if status != 101:
        raise Short(f"an upgrade got {status}")
    await client.send_pattern(7, 5000)
    if await client.take_pattern(7, 5000) != 5000:
        raise Short("an echo behind an upgrade")
    client.shut()
    await client.to_end()


async def origin_faults(client, rng):
    """The origin resets, cuts its answer off, is silent, or keeps its direction open for too long."""
    host, port = rng.choice(limits.ORIGINS), client.soak.proxy.steady
    tag, count = rng.randrange(1 << 16), bytes_of(rng, 1 << 18) + 2
    fault = rng.choice(["reset", "cut", "silent", "hold"])
    if fault == "reset":
        client.expect(200, "upstream_reset")
        await client.request_connect(host, port, early=b"reset %d %d\n" % (tag, count))
        await client.answer()
        with contextlib.suppress(ConnectionResetError):
            await client.take_pattern(tag, count)
            await client.some()
            raise WrongBytes("a reset looks like an end")
    elif fault == "cut":
        client.expect(200, "http_response_incomplete")
        await client.get(f"/cut/{tag}/{count}", host, port)
        try:
            await client.response(tag)
        except (Short, ConnectionResetError):
            return
        raise WrongBytes("a response that was cut off looks complete")
    elif fault == "silent":
        client.expect(504, "http_response_timeout")
        await client.get("/silent/0/0", host, port)
        await client.answer()
    else:
        client.expect(200, "half_open_timeout")
        await client.request_connect(host, port, early=b"hold\n")
        await client.answer()
        await client.exactly(5)
        client.shut()
        with contextlib.suppress(ConnectionResetError):
            await client.to_end()


async def refused(client, rng):
    """What the proxy itself says no to."""
    proxy = client.soak.proxy
    cases = {
        "denied": (f"x.denied.test:{proxy.steady}", 403, "http_request_denied"),
        "guard": ("10.0.0.1:443", 403, "destination_ip_prohibited"),
        "port": ("example.test:22", 403, "http_request_denied"),
        "closed": (f"{limits.ORIGINS[0]}:{proxy.closed}", 502, "connection_refused"),
        "none": (f"none{rng.randrange(99)}.test:443", 502, "dns_error"),
        "silent": (f"silent{rng.randrange(1 << 20)}.test:443", 504, "dns_timeout"),
        "bad": ("no port", 400, "http_request_error"),
    }
    target, status, end = cases[rng.choice(sorted(cases))]
    client.expect(status, end)
    await client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{client.authorization()}\r\n".encode())
    got, _ = await client.answer()
    if got != status:
        raise WrongBytes(f"{target} got {got} instead of {status}")
    await client.to_end()


async def sometimes(client, rng):
    """A name that every other configuration denies."""
    client.expect({200, 403}, {"done", "http_request_denied"})
    await client.request_connect("sometimes.test", client.soak.proxy.steady, early=b"echo\n")
    status, _ = await client.answer()
    client.shut()
    await client.to_end()


async def impatient(client, rng):
    """Leaves while its name is asked for."""
    client.expect({None, 504}, DEAD_ENDS | {"dns_timeout"})
    await client.request_connect(f"silent{rng.randrange(1 << 20)}.test", 443)
    await asyncio.sleep(rng.random())
    client.reset() if rng.random() < 0.5 else client.close()


async def wrong_login(client, rng):
    client.expect(407, "http_request_denied")
    shown = client.authorization("alice", f"guess{rng.randrange(99)}") if rng.random() < 0.7 else ""
    await client.send(f"CONNECT {limits.ORIGINS[0]}:{client.soak.proxy.steady} HTTP/1.1\r\nHost: x\r\n{shown}\r\n".encode())
    status, head = await client.answer()
    if status != 407 or b"proxy-authenticate: basic" not in head:
        raise WrongBytes(f"a wrong login got {status}")
    await client.to_end()


async def stranger(client, rng):
    client.expect(403, "http_request_denied")
    await client.request_connect(limits.ORIGINS[0], client.soak.proxy.steady)
    await client.to_end()


async def slow_head(client, rng):
    """A head that comes byte by byte, or not at all."""
    leaves = rng.choice(["waits", "reset", "vanish", "nothing"])
    if leaves == "nothing":
        await client.to_end()  # no byte, no line
        return
    client.expect({None, 408}, {"http_request_error"} if leaves == "waits" else {"http_request_error", *DEAD_ENDS})
    # On a machine that is too slow for this script its time may be over before all is sent. Its access line is checked all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in b"CONNECT slow":
            await client.send(bytes([byte]))
            await asyncio.sleep(rng.random() * 0.1)
        if leaves == "waits":
            await client.to_end()
    if leaves == "reset":
        client.reset()
    elif leaves == "vanish":
        client.vanish()


async def idle(client, rng):
    """A tunnel in which nothing moves for too long; the client is there, or is not any more."""
    vanishes = rng.random() < 0.5
    client.expect(200, {"idle_timeout", "client_reset"} if vanishes else "idle_timeout")
    await client.request_connect(rng.choice(limits.ORIGINS), client.soak.proxy.steady, early=b"echo\n")
    await client.answer()
    if vanishes:
        client.vanish()
    else:
        with contextlib.suppress(ConnectionResetError):
            await client.to_end()


SHAPES = {
    round_trips: 30, bulk_down: 8, bulk_up: 8, bulk_both: 6, requests: 25, pipeline: 5, request_closing: 10,
    request_dying: 8, upload: 8, upgrade: 3, origin_faults: 2, refused: 4, sometimes: 3, impatient: 2, wrong_login: 3,
    stranger: 2, slow_head: 2, idle: 1,
}
