#!/usr/bin/env python3
"""Runs a proxy once: a GET and a CONNECT through it, 64 KiB each way, then SIGTERM.

    scripts/tiny-run.py COMMAND...      # such as: qemu-mipsel target/tiny/adit
"""
import os
import re
import signal
import socket
import subprocess
import sys
import threading

TIMEOUT_S = 30  # An emulated proxy is slow to start.
BODY = os.urandom(64 * 1024)


def read_all(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise SystemExit(f"ended after {len(data)} of {count} bytes")
        data += piece
    return data


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_all(stream, 1)
    return head.decode("latin-1")


def serve(listener):
    """Answers a GET with BODY, and sends back what follows anything else."""
    while True:
        stream, _ = listener.accept()
        stream.settimeout(TIMEOUT_S)
        first = stream.recv(65536, socket.MSG_PEEK)
        if first.startswith(b"GET "):
            read_head(stream)
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        else:
            while piece := stream.recv(65536):
                stream.sendall(piece)
        stream.close()


def ask(proxy, head):
    stream = socket.create_connection(proxy, TIMEOUT_S)
    stream.sendall(head.encode())
    answer = read_head(stream)
    if not answer.startswith("HTTP/1.1 200 "):
        raise SystemExit(f"answered {answer!r}")
    return stream


def expect(what, found):
    if found != BODY:
        raise SystemExit(f"{what}: other bytes than were sent")


def go_through(proxy, origin):
    stream = ask(proxy, f"GET http://{origin}/ HTTP/1.1\r\nHost: {origin}\r\n\r\n")
    expect("GET", read_all(stream, len(BODY)))
    stream.close()
    stream = ask(proxy, f"CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n")
    writer = threading.Thread(target=stream.sendall, args=(BODY,))
    writer.start()
    expect("CONNECT", read_all(stream, len(BODY)))
    writer.join()
    stream.close()


def main(command):
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S)
    if version.returncode or not version.stdout.startswith("adit "):
        raise SystemExit(f"--version: {version.returncode}: {version.stdout}{version.stderr}")
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    origin = "127.0.0.1:%d" % listener.getsockname()[1]
    options = ["--listen", "127.0.0.1:0", "--loops", "2", "--allow", origin, "--access-log", "off"]
    proxy = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    guard = threading.Timer(TIMEOUT_S, proxy.kill)
    guard.start()
    try:
        said = ""
        while not (found := re.search(r"listening on 127\.0\.0\.1:(\d+)", said)):
            line = proxy.stderr.readline()
            if not line:
                raise SystemExit(f"did not start: {said}")
            said += line
        go_through(("127.0.0.1", int(found[1])), origin)
        proxy.send_signal(signal.SIGTERM)
        if code := proxy.wait(TIMEOUT_S):
            raise SystemExit(f"ended with {code}: {said}{proxy.stderr.read()}")
    finally:
        guard.cancel()
        proxy.kill()
    print("ran: --version, GET, CONNECT, SIGTERM")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(sys.argv[1:])
