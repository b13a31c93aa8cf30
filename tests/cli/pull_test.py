#!/usr/bin/env python3
"""`awq pull` against a hub of its own on the loopback interface, which misbehaves in every way a test asks for.

usage: pull_test.py AWQ GOLDEN_MODELS
"""
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BIG = bytes(i * 7 % 251 for i in range(300_000))


class Hub(http.server.ThreadingHTTPServer):
    """files: name -> bytes. `act(request, name)` may answer itself and return True."""

    daemon_threads = True

    def __init__(self, files, act=None):
        super().__init__(("127.0.0.1", 0), Request)
        self.files, self.act = files, act or (lambda request, name: False)
        self.listing = {"sha": COMMIT, "siblings": [self.sibling(n, b) for n, b in files.items()]}
        self.requests, self.lock = [], threading.Lock()  # (name, Range, Authorization)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # clients that end early

    def sibling(self, name, data):
        return {"rfilename": name, "size": len(data), "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def of(self, name):
        return [r for r in self.requests if r[0] == name]


class Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def half(self, body):
        """Promises all of it and ends in the middle."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:len(body) // 2])
        self.close_connection = True

    def send(self, body):
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if begin:
            self.answer(206, body[begin:], Content_Range=f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            self.answer(200, body)

    def do_GET(self):
        hub, path = self.server, self.path.split("?")[0]
        name = path.removeprefix(f"/me/model/resolve/{COMMIT}/") if "/resolve/" in path else "LIST"
        with hub.lock:
            hub.requests.append((name, self.headers.get("Range"), self.headers.get("Authorization")))
        try:
            if hub.act(self, name):
                return
            if name == "LIST":
                found = path == "/api/models/me/model/revision/main"
                self.answer(200, json.dumps(hub.listing).encode()) if found else self.answer(404)
            else:
                self.send(hub.files[name]) if name in hub.files else self.answer(404)
        except (BrokenPipeError, ConnectionResetError):
            pass


class PullTest(unittest.TestCase):
    def setUp(self):
        self.cache = pathlib.Path(tempfile.mkdtemp(prefix="awq-pull-"))
        self.folder = self.cache / "awq" / "hub" / "me--model"
        self.addCleanup(shutil.rmtree, self.cache)

    def hub(self, files=None, act=None):
        hub = Hub(files if files is not None else {"config.json": b"{}", "model.safetensors": BIG}, act)
        self.addCleanup(hub.server_close)
        self.addCleanup(hub.shutdown)
        return hub

    def run_awq(self, hub, *args, token=None):
        environment = os.environ | {"XDG_CACHE_HOME": str(self.cache), "HF_ENDPOINT": hub.address}
        environment.pop("HF_TOKEN", None)
        if token:
            environment["HF_TOKEN"] = token
        return subprocess.run([AWQ, *args], capture_output=True, text=True, env=environment, timeout=60)

    def pull(self, hub, *args, **kw):
        return self.run_awq(hub, "pull", "me/model", *args, **kw)

    def good(self, hub, *args, **kw):
        done = self.pull(hub, *args, **kw)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in os.listdir(self.folder):
            if name != ".complete":
                self.assertEqual((self.folder / name).read_bytes(), hub.files[name], name)
        return done

    def bad(self, hub, *says, **kw):
        done = self.pull(hub, **kw)
        self.assertEqual(done.returncode, 1, done.stderr)
        for text in says:
            self.assertIn(text, done.stderr)
        self.assertFalse((self.folder / ".complete").exists())
        return done

    def test_a_model_is_fetched_once_and_known_by_its_name(self):
        model = tiny.make(GOLDEN, "llama", self.cache / "source")
        files = {p.name: p.read_bytes() for p in model.iterdir() if p.is_file()}
        extra = {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"x", "a/config.json": b"{}", ".hidden": b"x",
                 "../evil.json": b"x", "/evil.json": b"x", "LICENSE": b"free"}
        hub = self.hub(files | extra)
        self.assertEqual(self.good(hub).stdout, f"{self.folder}\n")
        self.assertEqual(set(os.listdir(self.folder)), set(files) | {"LICENSE", ".complete"})
        self.assertFalse((self.folder.parent / "evil.json").exists())
        before = len(hub.requests)
        again = json.loads(self.good(hub, "--json").stdout)
        self.assertEqual(again["commit"], COMMIT)
        self.assertEqual([r[0] for r in hub.requests[before:]], ["LIST"])
        self.assertIn("LlamaForCausalLM", self.run_awq(hub, "inspect", "me/model").stdout)

    def test_several_files_at_once(self):
        together = threading.Barrier(3, timeout=20)

        def act(request, name):
            if name != "LIST":
                together.wait()
            return False
        self.good(self.hub({f"model-{i}.safetensors": BIG for i in range(3)}, act))

    def test_a_connection_that_ends_is_made_again_for_the_rest(self):
        def act(request, name):
            if name == "model.safetensors" and not request.headers.get("Range"):
                request.half(BIG)
                return True
            return False
        hub = self.hub(act=act)
        self.good(hub)
        self.assertEqual([r[1] for r in hub.of("model.safetensors")], [None, f"bytes={len(BIG) // 2}-"])

    def test_a_part_of_an_earlier_run_is_kept(self):
        self.folder.mkdir(parents=True)
        (self.folder / "model.safetensors.part").write_bytes(BIG[:1000])
        hub = self.hub()
        self.good(hub)
        self.assertEqual([r[1] for r in hub.of("model.safetensors")], ["bytes=1000-"])

    def test_a_part_of_another_file_is_not(self):
        self.folder.mkdir(parents=True)
        (self.folder / "model.safetensors.part").write_bytes(b"other")
        hub = self.hub()
        self.good(hub)
        self.assertEqual([r[1] for r in hub.of("model.safetensors")], ["bytes=5-", None])

    def test_a_file_that_was_changed_on_the_disk_is_fetched_again(self):
        hub = self.hub()
        self.good(hub)
        (self.folder / "model.safetensors").write_bytes(BIG[:-1] + b"x")
        self.good(hub)

    def test_a_hub_that_ignores_ranges(self):
        def act(request, name):
            if name == "model.safetensors":
                request.answer(200, BIG)
                return True
            return False
        self.folder.mkdir(parents=True)
        (self.folder / "model.safetensors.part").write_bytes(BIG[:1000])
        self.good(self.hub(act=act))

    def test_a_hub_that_knows_no_such_range(self):
        def act(request, name):
            if request.headers.get("Range"):
                request.answer(416)
                return True
            return False
        self.folder.mkdir(parents=True)
        (self.folder / "model.safetensors.part").write_bytes(BIG[:1000])
        self.good(self.hub(act=act))

    def test_wrong_hashes(self):
        def act(request, name):
            if name == "model.safetensors":
                request.answer(200, BIG[:-1] + b"x")
                return True
            return False
        hub = self.hub(act=act)
        self.bad(hub, "its SHA-256 is not " + hashlib.sha256(BIG).hexdigest(), "twice")
        self.assertEqual(len(hub.of("model.safetensors")), 2)
        self.assertFalse((self.folder / "model.safetensors").exists())

    def test_more_bytes_than_the_list_says(self):
        def act(request, name):
            if name == "model.safetensors":
                request.answer(200, BIG + BIG)
                return True
            return False
        self.bad(self.hub(act=act), "model.safetensors")

    def test_statuses_that_are_final(self):
        for status, says in [(401, "set HF_TOKEN"), (403, "ask for access"), (404, "no such model, revision or file")]:
            for where in ["LIST", "model.safetensors"]:
                def act(request, name):
                    if name == where:
                        request.answer(status, b"<html>")
                        return True
                    return False
                hub = self.hub(act=act)
                self.bad(hub, f"HTTP status {status}", says, where.replace("LIST", "/api/models/me/model"))
                self.assertEqual(len(hub.of(where)), 1)

    def test_statuses_that_pass(self):
        for status, headers, least in [(429, {"Retry_After": "2"}, 2), (503, {}, 1)]:
            left = [1]

            def act(request, name):
                if name == "model.safetensors" and left:
                    left.pop()
                    request.answer(status, **headers)
                    return True
                return False
            begin = time.monotonic()
            self.good(self.hub(act=act))
            self.assertGreaterEqual(time.monotonic() - begin, least)
            shutil.rmtree(self.folder)

    def test_a_wait_that_is_too_long_is_said(self):
        def act(request, name):
            request.answer(429, Retry_After="4000")
            return True
        self.bad(self.hub(act=act), "HTTP status 429", "too many requests")

    def test_the_token_stays_with_the_hub(self):
        store = self.hub({})

        def give(request, name):
            request.answer(200, BIG)
            return True
        store.act = give

        def act(request, name):
            if name == "model.safetensors":
                request.answer(302, Location=store.address + "/blob")
                return True
            return False
        hub = self.hub(act=act)
        self.good(hub, token="secret")
        self.assertEqual({r[2] for r in hub.requests}, {"Bearer secret"})
        self.assertEqual([r[2] for r in store.requests], [None])

    def test_redirects_lead_to_the_web_only_and_end(self):
        for target, says in [("file:///etc/hostname", "rotocol"), ("/me/model/resolve/" + COMMIT + "/model.safetensors", "redirects")]:
            def act(request, name):
                if name == "model.safetensors":
                    request.answer(302, Location=target)
                    return True
                return False
            self.bad(self.hub(act=act), says)

    def test_slow_is_not_silent(self):
        def act(request, name):
            if name != "model.safetensors":
                return False
            request.send_response(200)
            request.send_header("Content-Length", str(len(BIG)))
            request.end_headers()
            for i in range(0, len(BIG), len(BIG) // 6):
                request.wfile.write(BIG[i:i + len(BIG) // 6])
                request.wfile.flush()
                time.sleep(0.4)
            return True
        hub = self.hub(act=act)
        self.good(hub, "--silence", "2")
        self.assertEqual(len(hub.of("model.safetensors")), 1)

    def test_silence_ends_a_connection(self):
        def act(request, name):
            if name != "model.safetensors" or request.headers.get("Range"):
                return False
            request.send_response(200)
            request.send_header("Content-Length", str(len(BIG)))
            request.end_headers()
            request.wfile.write(BIG[:1000])
            request.wfile.flush()
            time.sleep(20)
            return True
        hub = self.hub(act=act)
        self.good(hub, "--silence", "1")
        self.assertEqual([r[1] for r in hub.of("model.safetensors")], [None, "bytes=1000-"])

    def test_listings_that_are_none(self):
        for listing, says in [("[]", "no list of a model's files"), ('{"sha": "x/../y", "siblings": []}', "no commit"),
                              ('{"sha": "x", "siblings": [{"rfilename": 7}]}', "no list"), ("{", "")]:
            def act(request, name):
                request.answer(200, listing.encode())
                return True
            self.bad(self.hub(act=act), says)

    def test_a_choice_between_files(self):
        ggufs = {"a.gguf": b"GGUF a", "b.gguf": b"GGUF b"}
        hub = self.hub(ggufs)
        self.bad(hub, "several GGUF files", "a.gguf", "b.gguf")
        self.assertEqual(self.good(hub, "--file", "b.gguf").stdout, f"{self.folder / 'b.gguf'}\n")
        self.assertFalse((self.folder / "a.gguf").exists())
        self.assertIn("no file \"c.gguf\"", self.pull(hub, "--file", "c.gguf").stderr)
        self.bad_nothing()

    def bad_nothing(self):
        self.assertIn("neither", self.pull(self.hub({"a.bin": b"x"})).stderr)

    def test_names(self):
        hub = self.hub()
        for name in ["../x", "a/b/c", "a//b", "/a", "a b", ".a/b"]:
            done = self.run_awq(hub, "pull", name)
            self.assertEqual(done.returncode, 1, name)
            self.assertIn("is no model's name", done.stderr)
        self.assertEqual(hub.requests, [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
