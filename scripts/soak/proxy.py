"""The process, its files, and what the kernel has in its books about it."""
import asyncio
import base64
import collections
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import time

import limits

Books = collections.namedtuple("Books", "descriptors pipes sockets rss_kib heap_kib")


def free_port(address):
    with socket.socket() as sock:
        sock.bind((address, 0))
        return sock.getsockname()[1]


async def until(what, condition, seconds):
    """What it said last that was true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        await asyncio.sleep(0.02)
    return found


class Proxy:
    """The process, its files, and what the kernel has in its books about it."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.port, self.second_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.steady, self.flaky, self.closed = (free_port(limits.ORIGINS[0]) for _ in range(3))
        self.dns_port = free_port("127.0.0.1")
        self.version = self.reloads = self.refused_reloads = self.rotations = self.said_read = 0
        self.idle_s = limits.IDLE_S
        self.process = None

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        """As README.md advises: it is never half there."""
        with open(self.path(name + ".new"), "w") as file:
            file.write(text)
        os.rename(self.path(name + ".new"), self.path(name))

    def configure(self, version, broken=False):
        """Every version has something that another has not."""
        rng = random.Random(version)
        sha = base64.b64encode(hashlib.sha1(limits.USERS["alice"].encode()).digest()).decode()
        guest = base64.b64encode(rng.randbytes(20)).decode()
        users = f"alice:{{SHA}}{sha}\ncarol:$apr1$soaksalt$CM2xPMu4GTUG0Ynvsejks/\nguest{version}:{{SHA}}{guest}\n"
        self.write("users", users)
        self.write("hosts", f"{limits.ORIGINS[0]} hosts.test more{version}.test\n")
        self.write("list", "".join(f"{rng.randrange(1 << 32):x}.listed.test\n" for _ in range(200 + version % 300)))
        lines = [
            f"listen 127.0.0.1:{self.port}", "client 127.64.0.0/10", "deny .denied.test", f"deny-file {self.path('list')}",
            *(f"allow 127.0.0.0/29:{port}" for port in (self.steady, self.flaky, self.closed)),
            f"nameserver 127.0.0.1:{self.dns_port}", f"hosts {self.path('hosts')}", f"users {self.path('users')}",
            f"head-timeout {limits.HEAD_S}", f"resolve-timeout {limits.RESOLVE_S}", f"dial-timeout {limits.DIAL_S}",
            f"response-timeout {limits.RESPONSE_S}", f"keepalive-timeout {limits.KEEPALIVE_S}", f"idle-timeout {self.idle_s}",
            f"half-open-timeout {limits.HALF_OPEN_S}", f"grace {limits.GRACE_S}", f"max-sessions {limits.MAX_SESSIONS}", f"loops {limits.LOOPS}",
            f"access-log {self.path('access.log')}", "log-format json",
        ]
        if version % 2:
            lines += [f"listen 127.0.0.1:{self.second_port}", "deny sometimes.test", "forwarded"]
        if broken:
            lines.append("deny not/a/destination")
        self.write("adit.conf", "\n".join(lines) + "\n")

    async def start(self):
        self.configure(0)
        with open(self.path("said"), "wb") as said:
            command = [self.binary, "--config", self.path("adit.conf")]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        await self.saying(" loops, at most ", 1)

    def said(self):
        with open(self.path("said"), errors="replace") as file:
            return file.read()

    async def saying(self, what, times):
        def check():
            if self.process.poll() is not None:
                raise RuntimeError(f"the proxy ended with {self.process.returncode}: {self.said()[-2000:]}")
            return self.said().count(what) >= times
        await until(f"the proxy's log says {what!r}", check, 20)

    async def reload(self, version=None, broken=False):
        if version is None:
            self.version += 1
            version = self.version
        self.configure(version, broken)
        os.kill(self.process.pid, signal.SIGHUP)
        if broken:
            self.refused_reloads += 1
            await self.saying("not reloaded, nothing has changed", self.refused_reloads)
        else:
            self.reloads += 1
            await self.saying(" reloaded: ", self.reloads)

    async def rotate(self):
        self.rotations += 1
        os.rename(self.path("access.log"), self.path(f"access.log.{self.rotations:06}"))
        os.kill(self.process.pid, signal.SIGUSR1)
        # By all loops: what one writes into a file that has been read and removed meanwhile would be lost.
        await until("the access log is opened anew", lambda: all(name == self.path("access.log") for name in self.logs()), 20)

    def logs(self):
        """The files that the loops have for their access lines."""
        for number in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                name = os.readlink(f"/proc/{self.process.pid}/fd/{number}")
                if name.startswith(self.path("access.log")):
                    yield name

    def complaints(self):
        """Warnings and errors since the last call, but for what was provoked."""
        lines = self.said().splitlines()
        new, self.said_read = lines[self.said_read:], len(lines)
        provoked = "ERROR not reloaded, nothing has changed: "
        refused = sum(provoked in line for line in lines)
        found = [line for line in new if not any(f" {level} " in line for level in ("INFO", "DEBUG")) and provoked not in line]
        if refused != self.refused_reloads:
            found.append(f"{refused} refused reloads instead of {self.refused_reloads}")
        return found

    def rotated_lines(self):
        """Those of the rotated files, which are then gone."""
        for name in sorted(name for name in os.listdir(self.directory) if name.startswith("access.log.")):
            with open(self.path(name)) as file:
                yield from map(json.loads, file)
            os.unlink(self.path(name))

    def books(self):
        pid = self.process.pid
        descriptors = pipes = 0
        inodes = set()
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"/proc/{pid}/fd/{number}")
                if target.startswith("pipe:"):
                    pipes += 1
                else:
                    descriptors += 1
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
        sockets = 0
        for name in ("tcp", "tcp6"):
            with open(f"/proc/{pid}/net/{name}") as file:
                # State 0A is a listener; the tenth word is the inode.
                sockets += sum(words[3] != "0A" and words[9] in inodes for words in map(str.split, list(file)[1:]))
        with open(f"/proc/{pid}/smaps_rollup") as file:
            kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.rstrip().endswith("kB")}
        return Books(descriptors, pipes, sockets, kib["Rss"], kib["Anonymous"])

    def cpu(self):
        """Milliseconds and wake-ups so far."""
        ns = wakeups = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{self.process.pid}/task/{task}/schedstat") as file:
                on_cpu, _, times = map(int, file.read().split())
                ns, wakeups = ns + on_cpu, wakeups + times
        return ns / 1e6, wakeups
