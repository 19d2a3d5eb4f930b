"""A TCP connection, and bytes that tell where they belong."""
import asyncio
import contextlib
import random
import socket
import struct

# Any stretch of it tells where it belongs.
BLOCK = random.Random(0).randbytes((1 << 20) - 3)
DOUBLE = memoryview(BLOCK + BLOCK)


class WrongBytes(Exception):
    """What no fault excuses."""


class Short(Exception):
    """The connection ended too early."""


def pattern(tag, start, count):
    at = (tag * 7919 + start) % len(BLOCK)
    return DOUBLE[at:at + min(count, len(BLOCK))]


class Wire:
    """One end of a TCP connection."""

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock, self.rest = sock, b""
        self.loop = asyncio.get_running_loop()

    async def send(self, data):
        await self.loop.sock_sendall(self.sock, data)

    async def some(self, most=1 << 16):
        """Empty at the end."""
        if self.rest:
            data, self.rest = self.rest[:most], self.rest[most:]
            return data
        return await self.loop.sock_recv(self.sock, most)

    async def until(self, end):
        while end not in self.rest:
            data = await self.loop.sock_recv(self.sock, 1 << 16)
            if not data:
                raise Short(f"ended before {end!r}")
            self.rest += data
        data, self.rest = self.rest.split(end, 1)
        return data + end

    async def exactly(self, count):
        data = b""
        while len(data) < count:
            more = await self.some(count - len(data))
            if not more:
                raise Short(f"{len(data)} of {count} bytes")
            data += more
        return data

    async def to_end(self):
        data = b""
        while more := await self.some():
            data += more
        return data

    async def send_pattern(self, tag, count, start=0, piece=1 << 16):
        while start < count:
            part = pattern(tag, start, min(piece, count - start))
            await self.send(part)
            start += len(part)

    async def take_pattern(self, tag, count, start=0):
        """Reads up to `count` bytes, which must be the pattern's; how many came."""
        while start < count:
            data = await self.some(min(1 << 16, count - start))
            if not data:
                break
            if data != pattern(tag, start, len(data)):
                raise WrongBytes(f"wrong bytes between {start} and {start + len(data)}")
            start += len(data)
        return start

    async def chunks(self, tag):
        """A chunked body of pattern."""
        count = 0
        while size := int(await self.until(b"\r\n"), 16):
            if await self.take_pattern(tag, count + size, count) != count + size:
                raise Short("in a chunk")
            count += size
            if await self.exactly(2) != b"\r\n":
                raise WrongBytes("no line end behind a chunk")
        await self.until(b"\r\n")
        return count

    async def send_chunks(self, tag, count, piece=5000):
        start = 0
        while start < count:
            part = pattern(tag, start, min(piece, count - start))
            await self.send(b"%x\r\n%s\r\n" % (len(part), part))
            start += len(part)
        await self.send(b"0\r\n\r\n")

    def shut(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
