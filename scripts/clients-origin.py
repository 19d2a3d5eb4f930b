"""The origin for what a usual web server does not do: python3 clients-origin.py PORT FILE

/echo        what has arrived, as JSON (any method, any body)
/trailers    FILE in chunks, its hash in the trailer
/until-close FILE without a length, as HTTP/1.0 did
/cut         half of FILE where the whole was promised
/cut-chunked half of FILE in chunks, without the last one
/refused     413 before a byte of the body was read
/hints       103 and then 200
/stream      a first chunk, and a second one only when somebody has asked for /go
"""

import hashlib
import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = open(sys.argv[2], "rb").read()
GO = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response leaves in few segments
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle_expect_100(self):
        if self.path == "/refused":
            return True  # the answer comes from do()
        answered = super().handle_expect_100()
        self.wfile.flush()
        return answered

    def chunked_body(self):
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            assert self.rfile.readline() == b"\r\n"
        while self.rfile.readline() != b"\r\n":
            pass

    def body(self):
        """How it was framed, and its bytes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return "chunked", b"".join(self.chunked_body())
        if "Content-Length" in self.headers:
            return "length", self.rfile.read(int(self.headers["Content-Length"]))
        return "none", b""

    def head(self, status, *fields):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, content):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def answer(self, content, kind):
        self.head(200, ("Content-Type", kind), ("Content-Length", str(len(content))))
        self.wfile.write(content)

    def do(self):
        getattr(self, "at_" + self.path.strip("/").replace("-", "_"), self.nothing)()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do

    def nothing(self):
        self.head(404, ("Content-Length", "0"))

    def at_echo(self):
        framing, content = self.body()
        seen = {
            "method": self.command,
            "target": self.path,
            "version": self.request_version,
            "fields": [[name.lower(), value] for name, value in self.headers.items()],
            "framing": framing,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        self.answer(json.dumps(seen, indent=1).encode() + b"\n", "application/json")

    def at_trailers(self):
        self.head(200, ("Transfer-Encoding", "chunked"), ("Trailer", "X-Hash"))
        for start in range(0, len(CONTENT), 10000):
            self.chunk(CONTENT[start : start + 10000])
        self.wfile.write(b"0\r\nX-Hash: %s\r\n\r\n" % hashlib.sha256(CONTENT).hexdigest().encode())

    def at_until_close(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n" + CONTENT)
        self.close_connection = True

    def at_cut(self):
        self.head(200, ("Content-Length", str(len(CONTENT))))
        self.wfile.write(CONTENT[: len(CONTENT) // 2])
        self.close_connection = True

    def at_cut_chunked(self):
        self.head(200, ("Transfer-Encoding", "chunked"))
        self.chunk(CONTENT[: len(CONTENT) // 2])
        self.close_connection = True

    def at_refused(self):
        self.head(413, ("Content-Length", "0"), ("Connection", "close"))
        self.wfile.flush()
        self.close_connection = True
        # What is still under way is taken, so that no reset overtakes the answer.
        self.connection.shutdown(socket.SHUT_WR)
        while self.connection.recv(65536):
            pass

    def at_hints(self):
        self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        self.answer(b"behind the hints\n", "text/plain")

    def at_stream(self):
        GO.clear()
        self.head(200, ("Transfer-Encoding", "chunked"))
        self.chunk(b"first")
        self.wfile.flush()
        self.chunk(b"second" if GO.wait(30) else b"nobody came")
        self.wfile.write(b"0\r\n\r\n")

    def at_go(self):
        GO.set()
        self.answer(b"going\n", "text/plain")


ThreadingHTTPServer.request_queue_size = 100
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
