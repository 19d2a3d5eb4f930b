#!/usr/bin/env python3
"""Runs a program under the system-call filters of a systemd unit, without systemd: what the unit forbids kills it.

    confined.py UNIT PROGRAM [ARGUMENT...]
    confined.py --self-test UNIT

SystemCallFilter, RestrictAddressFamilies and MemoryDenyWriteExecute, that is; the sets of calls are those of the installed
systemd (`systemd-analyze syscall-filter`). Needs libseccomp's Python package and no right.
"""
import mmap
import os
import re
import signal
import socket
import subprocess
import sys

import seccomp

PROT_WRITE, PROT_EXEC = 2, 4


def settings(unit, name):
    with open(unit) as file:
        return [line.split("=", 1)[1].split() for line in file if line.startswith(name + "=")]


def calls(names):
    """The system calls of these names and sets."""
    found = set()
    for name in names:
        if name.startswith("@"):
            said = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
            found |= calls(re.findall(r"^ +([@a-z_0-9-]+)$", said.stdout, re.MULTILINE))
        else:
            found.add(name)
    return found


def allowed(unit):
    """As systemd.exec(5) says: the first line makes it a list of what is allowed, the others add and take away."""
    default = calls(["@default"])
    found = set(default)
    for words in settings(unit, "SystemCallFilter"):
        if words[0].startswith("~"):
            found -= calls([words[0][1:], *words[1:]]) - default
        else:
            found |= calls(words)
    return found


def confine(unit):
    filters = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    families = [getattr(socket, family) for words in settings(unit, "RestrictAddressFamilies") for family in words]
    denies_write_execute = settings(unit, "MemoryDenyWriteExecute") == [["yes"]]
    for name in sorted(allowed(unit)):
        try:
            number = seccomp.resolve_syscall(seccomp.Arch(), name)
        except (ValueError, RuntimeError):
            continue
        if number < 0:  # not on this machine
            continue
        if name == "socket" and families:
            for family in families:
                filters.add_rule(seccomp.ALLOW, name, seccomp.Arg(0, seccomp.EQ, family))
        elif name == "mmap" and denies_write_execute:
            for bits in (0, PROT_EXEC, PROT_WRITE):
                filters.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC | PROT_WRITE, bits))
        elif name in ("mprotect", "pkey_mprotect") and denies_write_execute:
            filters.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
        else:
            filters.add_rule(seccomp.ALLOW, number)
    filters.load()


def self_test(unit):
    """What is forbidden ends the process; the rest does not."""
    def ending(act):
        child = os.fork()
        if child == 0:
            confine(unit)
            act()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    forbidden = {
        "a call of a set that is taken away": os.sync,
        "a call of no set": lambda: os.chroot("/"),
        "another address family": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "memory that is written and executed": lambda: mmap.mmap(-1, 4096, prot=PROT_EXEC | PROT_WRITE),
    }
    for name, act in forbidden.items():
        if (code := ending(act)) != -signal.SIGSYS:
            sys.exit(f"{name} is not fatal: {code}")
    if code := ending(lambda: (socket.socket().close(), mmap.mmap(-1, 4096).close(), os.pipe2(0))):
        sys.exit(f"what is allowed ended with {code}")
    print(f"{len(allowed(unit))} names of system calls are allowed, and others are fatal")


if __name__ == "__main__":
    if sys.argv[1] == "--self-test":
        self_test(sys.argv[2])
    else:
        confine(sys.argv[1])
        os.execv(sys.argv[2], sys.argv[2:])
