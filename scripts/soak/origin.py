"""The other side: an origin, and a nameserver that knows *.test."""
import asyncio
import socket
import struct

import limits
from wire import Short, Wire, WrongBytes, pattern


class Nameserver(asyncio.DatagramProtocol):
    """Knows *.test, but nothing that begins with none, and says nothing about silent*."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, peer):
        end = query.index(b"\0", 12)
        name, (qtype,) = query[13:end].lower(), struct.unpack_from("!H", query, end + 1)
        if name.startswith(b"silent"):
            return
        known = name.endswith(b"\x04test") and not name.startswith(b"none")
        answers = limits.ORIGINS[name[0] % len(limits.ORIGINS):][:1 + name[0] % 2] if known and qtype == 1 else []
        head = query[:2] + struct.pack("!5H", 0x8180 if known else 0x8183, 1, len(answers), 0, 0)
        records = (struct.pack("!HHHIH", 0xC00C, 1, 1, 2, 4) + socket.inet_aton(each) for each in answers)
        self.transport.sendto(head + query[12:end + 5] + b"".join(records), peer)


class Origin:
    """In a tunnel, the first line is the order. Else it is HTTP."""

    async def serve(self, wire):
        try:
            line = await wire.until(b"\n")
            while line:
                words = line.split()
                if line.endswith(b"\r\n"):
                    line = await self.http(wire, words)
                else:
                    await getattr(self, "do_" + words[0].decode())(wire, *map(int, words[1:]))
                    break
        except (OSError, Short, WrongBytes):
            wire.reset()
        finally:
            wire.close()

    async def do_echo(self, wire):
        while data := await wire.some():
            await wire.send(data)
        wire.shut()

    async def do_send(self, wire, tag, count):
        await wire.send_pattern(tag, count)
        wire.shut()
        await wire.to_end()

    async def do_spoil(self, wire, tag, count):
        await wire.send_pattern(tag, count - 1)
        await wire.send(b"?" if pattern(tag, count - 1, 1) != b"?" else b"!")
        wire.shut()
        await wire.to_end()

    async def do_take(self, wire, tag):
        await wire.send(b"ok %d\n" % await wire.take_pattern(tag, 1 << 40))
        wire.shut()

    async def do_hold(self, wire):
        """Never ends its own direction in time."""
        await wire.send(b"held\n")
        await wire.to_end()
        await asyncio.sleep(2 * limits.HALF_OPEN_S)

    async def do_flood(self, wire):
        await wire.send_pattern(0, 1 << 40)

    async def do_reset(self, wire, tag, count):
        await wire.send_pattern(tag, count)
        wire.reset()

    async def http(self, wire, words):
        head = (await wire.until(b"\r\n\r\n")).lower()
        _, kind, tag, count = words[1].split(b"/")
        tag, count = int(tag), int(count)
        ok = b"HTTP/1.1 200 OK\r\n"
        if kind == b"take":
            if b"chunked" in head:
                took = await wire.chunks(tag)
            else:
                took = await wire.take_pattern(tag, count)
                if took != count:
                    raise Short("in a body")
            answer = b"ok %d\n" % took
            await wire.send(ok + b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer))
        elif kind == b"bytes":
            if count <= 1 << 16:
                await wire.send(ok + b"Content-Length: %d\r\n\r\n%s" % (count, pattern(tag, 0, count)))
            else:
                await wire.send(ok + b"Content-Length: %d\r\n\r\n" % count)
                await wire.send_pattern(tag, count)
        elif kind == b"chunked":
            await wire.send(ok + b"Transfer-Encoding: chunked\r\n\r\n")
            await wire.send_chunks(tag, count)
        elif kind == b"until-close":
            await wire.send(ok + b"Connection: close\r\n\r\n")
            await wire.send_pattern(tag, count)
            wire.shut()
            return None
        elif kind == b"cut":
            await wire.send(ok + b"Content-Length: %d\r\n\r\n" % count)
            await wire.send_pattern(tag, count // 2)
            wire.shut()
            return None
        elif kind == b"silent":
            await wire.to_end()
            return None
        elif kind == b"upgrade":
            await wire.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: soak\r\n\r\n")
            await self.do_echo(wire)
            return None
        try:
            return await wire.until(b"\n")
        except Short:
            return None


def listener(address, port, backlog=4096):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


async def origin(port, dns_port):
    origin, loop, tasks = Origin(), asyncio.get_running_loop(), set()

    async def accept(sock):
        while True:
            connection, _ = await loop.sock_accept(sock)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(origin.serve(Wire(connection)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    sockets = [listener(address, port) for address in limits.ORIGINS]
    if dns_port:
        await loop.create_datagram_endpoint(Nameserver, local_addr=("127.0.0.1", dns_port))
    print("ready", flush=True)
    await asyncio.gather(*map(accept, sockets))
