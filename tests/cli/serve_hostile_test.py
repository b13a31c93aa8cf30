#!/usr/bin/env python3
"""Clients of awq serve that are slow, silent, broken or malicious: its memory stays bounded and others are answered.

usage: serve_hostile_test.py AWQ GOLDEN_MODELS
"""
import contextlib
import json
import pathlib
import resource
import shutil
import socket
import sys
import tempfile
import threading
import time
import unittest

import tiny
from server import Server

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
IDLE = 1000
MB = 1 << 20
ABORTED = 'vllm:request_success_total{model_name="m",engine="0",finished_reason="abort"}'


def memory(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
        work = pathlib.Path(tempfile.mkdtemp(prefix="awq-hostile-"))
        cls.addClassCleanup(shutil.rmtree, work)
        model = tiny.make(GOLDEN, "llama", work / "m")
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
        cls.server = Server(AWQ, model, "--sequences", 32, "--kv-memory", "64M")
        cls.addClassCleanup(cls.server.stop)
        cls.want = cls.complete()
        cls.before = memory(cls.server)

    @classmethod
    def complete(cls):
        status, reply = cls.server.ask("/v1/completions", {"prompt": "Once upon", "max_tokens": 20, "temperature": 0, "ignore_eos": True})
        assert status == 200, reply
        return reply["choices"][0]["text"]

    def connect(self, first=b"", receive_buffer=None):
        s = socket.socket()
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.settimeout(30)
        s.connect(("127.0.0.1", self.server.port))
        self.addCleanup(s.close)
        s.sendall(first)
        return s

    def post(self, body, path="/v1/completions", length=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return f"POST {path} HTTP/1.1\r\nContent-Length: {len(data) if length is None else length}\r\n\r\n".encode() + data

    def check(self, most):
        """Others are answered, and memory is within `most` bytes of what it was."""
        begin = time.monotonic()
        self.assertEqual(self.complete(), self.want)
        self.assertLess(time.monotonic() - begin, 20)
        grown = memory(self.server) - self.before
        print(f"{self.id().split('.')[-1]}: {grown / MB:+.1f} MB")
        self.assertLess(grown, most)

    def test_idle_connections(self):
        for _ in range(IDLE):
            self.connect()
        for _ in range(100):
            if self.server.metric("awq:connections") >= IDLE:
                break
            time.sleep(0.05)
        self.assertGreaterEqual(self.server.metric("awq:connections"), IDLE)
        self.check(32 * MB)

    def test_half_open(self):
        for first in (b"P", b"POST /v1/completions HTTP/1.1\r\nContent-Le", self.post(b'{"prompt": ', length=100)):
            for _ in range(50):
                self.connect(first)
        for _ in range(50):  # gone before the answer
            self.connect(self.post({"prompt": "x", "max_tokens": 50})).close()
        self.check(32 * MB)

    def test_slow_readers(self):
        aborted = self.server.metric(ABORTED)
        body = {"prompt": "x", "max_tokens": 4000, "n": 8, "stream": True, "ignore_eos": True, "logprobs": 20}
        for _ in range(2):
            self.connect(self.post(body), receive_buffer=4096)
        for _ in range(4):
            self.check(2 * 16 * MB + 32 * MB)
            time.sleep(0.2)
        for _ in range(1200):  # whoever is too far behind is cut off
            if self.server.metric("vllm:num_requests_running") + self.server.metric("vllm:num_requests_waiting") == 0:
                break
            time.sleep(0.05)
        self.assertGreaterEqual(self.server.metric(ABORTED) - aborted, 2)

    def test_large_bodies(self):
        def flood(chunked):
            head = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 104857600"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port), 30) as s:
                s.sendall(b"POST /v1/completions HTTP/1.1\r\n" + head + b"\r\n\r\n")
                for _ in range(100):
                    s.sendall((b"100000\r\n" if chunked else b"") + b" " * MB + (b"\r\n" if chunked else b""))
            done.append(chunked)
        done = []
        threads = [threading.Thread(target=flood, args=(i % 2 == 0,)) for i in range(16)]
        for t in threads:
            t.start()
        self.check(300 * MB)
        for t in threads:
            t.join(60)
        self.assertEqual(len(done), 16)
        for head in (b"Content-Length: 104857600", b"Transfer-Encoding: chunked"):
            s = self.connect(b"POST /v1/completions HTTP/1.1\r\n" + head + b"\r\n\r\n")
            with contextlib.suppress(OSError):
                for _ in range(18):
                    s.sendall((b"100000\r\n" if b"chunk" in head else b"") + b" " * MB + (b"\r\n" if b"chunk" in head else b""))
            with contextlib.suppress(ConnectionError):  # the reply may have been lost with what was not read
                self.assertEqual(s.recv(100)[:13], b"HTTP/1.1 413 ")

    def test_many_bodies_that_never_end(self):
        part = b"POST /v1/completions HTTP/1.1\r\nContent-Length: 16777216\r\n\r\n" + b" " * (15 * MB)
        refused, kept = 0, []
        for _ in range(24):
            s = self.connect()
            with contextlib.suppress(OSError):
                s.sendall(part)
            kept.append(s)
        self.check(256 * MB + 64 * MB)
        for s in kept:
            s.settimeout(0.2)
            with contextlib.suppress(OSError):
                refused += s.recv(100)[:13] == b"HTTP/1.1 503 "
        self.assertGreater(refused, 3)
        for s in kept:
            s.close()

    def test_deep_and_wide_json(self):
        for body in (b'{"prompt": "x", "temperature": ' + b"[" * 5 * MB + b"]" * 5 * MB + b"}", b'{"messages": ' + b'{"a":' * MB + b"1" + b"}" * MB + b"}",
                     b'{"prompt": [' + b"1," * 4 * MB + b"1]}", b'{"prompt": "' + b"x" * 15 * MB + b'"}', b'{"stop": [' + b"[]," * 4 * MB + b"[]]}"):
            self.assertEqual(self.server.ask("/v1/completions", body)[0], 400)
        self.check(64 * MB)

    def test_header_floods(self):
        for first in (b"GET /health HTTP/1.1\r\n" + b"X-A: 1\r\n" * 100000, b"GET /health HTTP/1.1\r\nX-A: " + b"a" * MB, b"GET /" + b"a" * MB):
            for _ in range(20):
                s = self.connect()
                with contextlib.suppress(OSError):
                    s.sendall(first)
                with contextlib.suppress(ConnectionError):
                    self.assertIn(s.recv(100)[:13], (b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
                s.close()
        self.check(32 * MB)

    def test_bad_chunks(self):
        for chunk in (b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"5\r\nabc", b"5;" + b"x" * MB, b"5\r\nabcdefghij\r\n0\r\n\r\n"):
            s = self.connect(b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
            if chunk == b"5\r\nabc":
                s.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                self.assertIn(s.recv(100)[:12], (b"HTTP/1.1 400", b"HTTP/1.1 413", b""), chunk[:50])
        for both in (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: -5", b"Content-Length: five"):
            s = self.connect(b"POST /v1/completions HTTP/1.1\r\n" + both + b"\r\n\r\nabcde")
            self.assertEqual(s.recv(100)[:12], b"HTTP/1.1 400", both)
        self.check(32 * MB)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
