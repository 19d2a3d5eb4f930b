"""Faults for the quiet moment of a round, each with the checks that must find it."""
import asyncio
import contextlib
import random

import limits
from clients import Client, Expected


async def tunnel_of(soak, order):
    client = Client(soak, random.Random(0), soak.address(random.Random(0)))
    await client.connect(soak.proxy.port)
    client.expect(200, {"done", "client_reset", "idle_timeout"})
    await client.request_connect(limits.ORIGINS[0], soak.proxy.steady, early=order)
    await client.answer()
    return client


@contextlib.asynccontextmanager
async def a_busy_tunnel(soak):
    """A session and two descriptors that do not go, and a loop that does not sleep."""
    client = await tunnel_of(soak, b"echo\n")

    async def play():
        while True:
            await client.send(b"x")
            await client.exactly(1)

    playing = asyncio.ensure_future(play())
    yield
    playing.cancel()
    client.reset()
    await asyncio.sleep(0.3)  # its line


@contextlib.asynccontextmanager
async def slow_readers(soak):
    """Memory that does not come back."""
    soak.proxy.idle_s = 900
    await soak.proxy.reload(0)
    clients = [await tunnel_of(soak, b"flood\n") for _ in range(400)]
    yield
    for client in clients:
        client.reset()
    await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def an_unannounced_client(soak):
    """A line that nobody expects."""
    client = await tunnel_of(soak, b"echo\n")
    del soak.expected[client.key]
    client.reset()
    yield


@contextlib.asynccontextmanager
async def a_lost_line(soak):
    soak.expected["127.64.0.1", 1].append(Expected(200, "done"))
    yield


@contextlib.asynccontextmanager
async def another_end(soak):
    """A client that was to end in order, and is reset."""
    client = await tunnel_of(soak, b"echo\n")
    soak.expected[client.key][-1].ends = {"done"}
    client.reset()
    yield


@contextlib.asynccontextmanager
async def a_wrong_byte(soak):
    async def shape(client, rng):
        client.expect(200, "done")
        await client.request_connect(limits.ORIGINS[0], soak.proxy.steady, early=b"spoil 3 100000\n")
        await client.answer()
        try:
            await client.take_pattern(3, 1 << 40)
        finally:
            client.shut()
            await client.to_end()

    await soak.client(shape, random.Random(0))
    yield


@contextlib.asynccontextmanager
async def a_broken_configuration(soak):
    """A complaint that nobody has provoked."""
    await soak.proxy.reload(broken=True)
    soak.proxy.refused_reloads -= 1
    yield


FOUND_BY = {
    a_busy_tunnel: {"sessions", "descriptors", "idle"}, slow_readers: {"memory", "sessions"},
    an_unannounced_client: {"lines"}, a_lost_line: {"lines"}, another_end: {"lines"}, a_wrong_byte: {"content"},
    a_broken_configuration: {"log"},
}
