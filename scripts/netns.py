"""What scripts/names-netns.py and scripts/faults.py have in common: a nameserver, the proxy in a namespace, and scenes."""
import asyncio
import ipaddress
import re
import struct
import subprocess
import sys
import tempfile
import time

A, SOA, AAAA = 1, 6, 28


class Failed(Exception):
    """Something is not as promised; the text says what."""


class NotRun(Exception):
    """This machine does not let us test it; the text says why."""


def require(holds, text):
    if not holds:
        raise Failed(text)


def eventually(seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    return None


def figure(text):
    print(f"   {text}", flush=True)


class Nameserver(asyncio.DatagramProtocol):
    """Knows every name below one of the zones by the zone's addresses, in this order. Counts what it is asked; says nothing
    at all while `silent`."""

    def __init__(self, zones, ttl_s=300):
        self.zones, self.ttl_s = zones, ttl_s
        self.silent, self.asked = False, 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, peer):
        self.asked += 1
        if not self.silent:
            self.transport.sendto(self.answer(query), peer)

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        qtype = struct.unpack_from("!H", query, at + 1)[0]
        known = self.zones.get(".".join(labels)) or self.zones.get(".".join(labels[1:]))
        found = [ipaddress.ip_address(text).packed for text in known or []]
        found = [packed for packed in found if len(packed) == {A: 4, AAAA: 16}.get(qtype)]
        rcode, negative = 0x8180 if known else 0x8183, int(not found)
        head = query[:2] + struct.pack("!5H", rcode, 1, len(found), negative, 0)
        # RFC 2308: what is not there may be remembered for as long as the SOA says.
        soa = b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, self.ttl_s)
        records = [(qtype, packed) for packed in found] or [(SOA, soa)]
        written = (struct.pack("!HHHIH", 0xC00C, rtype, 1, self.ttl_s, len(data)) + data for rtype, data in records)
        return head + query[12:at + 5] + b"".join(written)


class Helper:
    """A process of ours, in the namespace if one is named, that takes orders line by line and answers each with a line."""

    def __init__(self, *command, namespace=None):
        command = [sys.executable, *command]
        if namespace:
            command = ["ip", "netns", "exec", namespace, *command]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        require(self.process.stdout.readline() == "ready\n", f"does not start: {' '.join(command)}")

    def order(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def stop(self):
        self.process.kill()
        self.process.wait()


class Proxy:
    """The binary, in the namespace if one is named, by way of another command if there is one."""
    adit = ""

    def __init__(self, *options, listen, namespace=None, by=(), adit=None):
        self.log = tempfile.NamedTemporaryFile("r", prefix="adit-", suffix=".log")
        command = [*by, adit or self.adit, *(f"--listen={address}" for address in listen), "--hosts=/dev/null", *options]
        if namespace:
            # `ip` gives way to it, so that the child's id is the proxy's.
            command = ["ip", "netns", "exec", namespace, *command]
        with open(self.log.name, "w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        if not eventually(5, self.listening) or self.process.poll() is not None:
            self.stop()
            raise Failed(f"the proxy does not start: {self.said().strip()}")
        self.address = self.listening()

    def said(self):
        with open(self.log.name) as log:
            return log.read()

    def listening(self):
        found = re.search(r"listening on (\S+)", self.said())
        return found and found[1]

    def stop(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def run(scenes, *arguments):
    """Calls functions, whose documentation says what they show, with these arguments; how many failed."""
    failed = not_run = 0
    for scene in scenes:
        print(f"-- {scene.__doc__}", flush=True)
        try:
            scene(*arguments)
            figure("ok")
        except NotRun as why:
            not_run += 1
            figure(f"NOT RUN: {why}")
        except (Failed, OSError, EOFError) as why:
            failed += 1
            figure(f"FAILED: {why!r}" if not isinstance(why, Failed) else f"FAILED: {why}")
    print(f"{len(scenes) - failed - not_run} passed, {failed} failed, {not_run} not run")
    return failed


def chosen(scenes, names):
    """Those of these names, all when none is named."""
    for name in names:
        if name not in scenes:
            sys.exit(f"no scene {name}, scenes: {' '.join(scenes)}")
    return [scenes[name] for name in names or scenes]
