#!/usr/bin/env python3
"""awq serve over HTTP, with a tiny model.

usage: serve_test.py AWQ GOLDEN_MODELS
"""
import base64
import http.client
import json
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
TEMPLATE = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}\n{% endfor %}"
            "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}")


class Server:
    def __init__(self, model, *more):
        self.process = subprocess.Popen([AWQ, "serve", model, "--port", "0", *map(str, more)], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "http://" in line:
                self.port = int(line.split("http://127.0.0.1:")[1].split(",")[0])
                break
        else:
            raise RuntimeError(f"exit status {self.process.wait()}")
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        status = self.process.wait(20)
        self.reader.join(5)
        self.process.stderr.close()
        return status

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, path, body=None, method=None, headers=None):
        c = self.connection()
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
        c.request(method or ("GET" if body is None else "POST"), path, data, {"Content-Type": "application/json", **(headers or {})})
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        return r.status, json.loads(text) if r.getheader("Content-Type") == "application/json" and text else text

    def events(self, path, body):
        c = self.connection()
        c.request("POST", path, json.dumps({**body, "stream": True}))
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        assert r.getheader("Content-Type") == "text/event-stream", text
        parts = text.split("\n\n")
        assert parts[-1] == "" and all(p.startswith("data: ") for p in parts[:-1]), text
        assert parts[-2] == "data: [DONE]", text
        return [json.loads(p[6:]) for p in parts[:-2]]


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-serve-"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.model = tiny.make(GOLDEN, "llama", cls.work / "m")
        config = cls.model / "tokenizer_config.json"
        settings = json.loads(config.read_text()) if config.exists() else {}
        config.write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
        cls.server = Server(cls.model, "--sequences", 8, "--max-body", 100000)
        cls.addClassCleanup(cls.server.stop)

    def complete(self, **more):
        status, reply = self.server.ask("/v1/completions", {"prompt": "Once upon", "max_tokens": 8, "temperature": 0, **more})
        self.assertEqual(status, 200, reply)
        return reply

    def test_completion_is_what_generate_says(self):
        want = json.loads(subprocess.run([AWQ, "generate", self.model, "-p", "Once upon", "-n", "8", "--temperature", "0", "--json"], check=True,
                                         capture_output=True, text=True).stdout)
        reply = self.complete(ignore_eos=False)
        self.assertEqual(reply["choices"][0]["text"], want["text"])
        self.assertEqual(reply["object"], "text_completion")
        self.assertEqual(reply["model"], "m")
        ids = self.server.ask("/tokenize", {"prompt": "Once upon"})[1]["tokens"]
        self.assertEqual(reply["usage"]["prompt_tokens"], len(ids))
        self.assertEqual(self.complete(prompt=ids)["choices"], reply["choices"])
        both = self.complete(prompt=[ids, ids[:-1]])["choices"]
        self.assertEqual(both[0], reply["choices"][0])
        self.assertEqual(both[1]["index"], 1)
        self.assertEqual(self.server.ask("/detokenize", {"tokens": ids})[1]["prompt"].strip(), "Once upon")

    def test_streamed_text_is_the_same(self):
        for path, body in (("/v1/completions", {"prompt": "Once upon"}), ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})):
            body = {**body, "max_tokens": 12, "temperature": 1, "seed": 5, "n": 2, "ignore_eos": True, "logprobs": True if "chat" in path else 1}
            status, whole = self.server.ask(path, body)
            self.assertEqual(status, 200, whole)
            events = self.server.events(path, {**body, "stream_options": {"include_usage": True}})
            self.assertEqual(events[-1]["usage"], whole["usage"])
            self.assertEqual(events[-1]["choices"], [])
            self.assertNotIn("usage", events[0])
            for choice in whole["choices"]:
                mine = [e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == choice["index"]]
                if "chat" in path:
                    self.assertEqual("".join(c["delta"].get("content", "") for c in mine), choice["message"]["content"])
                    self.assertEqual([t for c in mine for t in c["logprobs"]["content"]], choice["logprobs"]["content"])
                    self.assertEqual(mine[0]["delta"]["role"], "assistant")
                else:
                    self.assertEqual("".join(c["text"] for c in mine), choice["text"])
                    self.assertEqual([v for c in mine for v in c["logprobs"]["token_logprobs"]], choice["logprobs"]["token_logprobs"])
                self.assertEqual([c["finish_reason"] for c in mine[:-1]], [None] * (len(mine) - 1))
                self.assertEqual(mine[-1]["finish_reason"], choice["finish_reason"])
                self.assertEqual(choice["finish_reason"], "length")

    def test_without_a_seed_answers_differ(self):
        body = {"temperature": 1, "max_tokens": 20, "ignore_eos": True}
        self.assertGreater(len({self.complete(**body)["choices"][0]["text"] for _ in range(4)}), 1)
        self.assertEqual(len({self.complete(**body, seed=7)["choices"][0]["text"] for _ in range(4)}), 1)

    def test_a_full_queue_is_said(self):
        server = Server(self.model, "--sequences", 1, "--queue", 2)
        self.addCleanup(server.stop)
        status, reply = server.ask("/v1/completions", {"prompt": "x", "max_tokens": 50, "n": 40, "ignore_eos": True})
        self.assertEqual((status, reply["error"]["code"]), (503, "overloaded"))
        status, reply = server.ask("/v1/embeddings", {"input": ["x"] * 100})
        self.assertEqual((status, reply["error"]["code"]), (503, "overloaded"))
        for _ in range(100):  # what had been accepted of them is for nobody
            if server.ask("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200:
                return
            time.sleep(0.02)
        self.fail("the queue stays full")

    def test_scored_prompt(self):
        ids = self.server.ask("/tokenize", {"prompt": "Once upon a time"})[1]["tokens"]
        l = self.complete(prompt=ids, max_tokens=1, echo=True, logprobs=1)["choices"][0]["logprobs"]
        self.assertEqual(len(l["token_logprobs"]), len(ids) + 1)
        self.assertIsNone(l["token_logprobs"][0])
        self.assertIsNone(l["top_logprobs"][0])
        for value, top in zip(l["token_logprobs"][1:], l["top_logprobs"][1:]):
            self.assertIn(value, top.values())
            self.assertLessEqual(value, max(top.values()))
        self.assertEqual(l["token_logprobs"][-1], max(l["top_logprobs"][-1].values()))  # greedy
        again = self.complete(prompt=ids[:4], max_tokens=1, echo=True, logprobs=1)["choices"][0]["logprobs"]
        self.assertEqual(again["token_logprobs"][1:4], l["token_logprobs"][1:4])

    def test_stop_strings_and_lengths(self):
        whole = self.complete(max_tokens=20, ignore_eos=True)["choices"][0]["text"]
        stop = whole[5:8]
        self.assertTrue(stop)
        cut = self.complete(max_tokens=20, ignore_eos=True, stop=stop)["choices"][0]
        self.assertEqual(cut["text"], whole[:whole.find(stop)])
        self.assertEqual(cut["finish_reason"], "stop")
        self.assertEqual(self.complete(max_tokens=3, ignore_eos=True)["usage"]["completion_tokens"], 3)

    def test_chat(self):
        body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}], "max_tokens": 5, "temperature": 0}
        status, reply = self.server.ask("/v1/chat/completions", body)
        self.assertEqual(status, 200, reply)
        self.assertEqual(reply["object"], "chat.completion")
        self.assertEqual(reply["choices"][0]["message"]["role"], "assistant")
        ids = self.server.ask("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]})[1]["tokens"]
        self.assertEqual(reply["usage"]["prompt_tokens"], len(ids))
        with_tools = self.server.ask("/tokenize", {"messages": body["messages"], "tools": [{"type": "function", "function": {"name": "f"}}]})[1]["tokens"]
        self.assertGreater(len(with_tools), len(ids))

    def test_embeddings(self):
        status, reply = self.server.ask("/v1/embeddings", {"input": ["one", "two"]})
        self.assertEqual(status, 200, reply)
        self.assertEqual([d["index"] for d in reply["data"]], [0, 1])
        self.assertEqual(len(reply["data"][0]["embedding"]), len(reply["data"][1]["embedding"]))
        self.assertNotEqual(reply["data"][0]["embedding"], reply["data"][1]["embedding"])
        bytes_of = self.server.ask("/v1/embeddings", {"input": "one", "encoding_format": "base64"})[1]["data"][0]["embedding"]
        decoded = struct.unpack(f"<{len(reply['data'][0]['embedding'])}f", base64.b64decode(bytes_of))
        self.assertEqual(list(decoded), reply["data"][0]["embedding"])
        self.assertEqual(self.server.ask("/v1/embeddings", {"input": "x" * 5000})[0], 400)  # longer than the context

    def test_errors(self):
        ok = {"prompt": "x", "max_tokens": 1}
        for path, body, status, param in [
                ("/v1/completions", b"{", 400, None), ("/v1/completions", [], 400, None), ("/v1/completions", {"max_tokens": 1}, 400, "prompt"),
                ("/v1/completions", {**ok, "temperature": "hot"}, 400, "temperature"), ("/v1/completions", {**ok, "n": 0}, 400, "n"),
                ("/v1/completions", {**ok, "model": "other"}, 404, "model"), ("/v1/completions", {**ok, "max_tokens": 10**6}, 400, "max_tokens"),
                ("/v1/completions", {**ok, "prompt": [10**6]}, 400, "prompt"), ("/v1/completions", {**ok, "stop": 3}, 400, "stop"),
                ("/v1/completions", {**ok, "logit_bias": {"x": 1}}, 400, "logit_bias"), ("/v1/completions", {**ok, "prompt": []}, 400, "prompt"),
                ("/v1/completions", {**ok, "stream_options": {"include_usage": 1}}, 400, "stream_options.include_usage"),
                ("/v1/chat/completions", {"messages": []}, 400, "messages"), ("/v1/chat/completions", {"messages": [{"content": "x"}]}, 400, "messages.role"),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.content"),
                ("/v1/nothing", ok, 404, None)]:
            got, reply = self.server.ask(path, body)
            self.assertEqual(got, status, (path, body, reply))
            self.assertEqual(reply["error"]["param"], param, (path, body, reply))
            self.assertTrue(reply["error"]["message"])
        self.assertEqual(self.server.ask("/v1/completions", method="GET")[0], 405)
        self.assertEqual(self.server.ask("/v1/completions", {**ok, "prompt": "x" * 200000})[0], 413)
        self.assertEqual(self.server.ask("/health", headers={"X": "y" * 20000})[0], 431)
        self.assertEqual(self.server.ask("/v1/completions", {**ok, "made_up": 1})[0], 200)

    def test_other_pages(self):
        self.assertEqual(self.server.ask("/health")[0], 200)
        models = self.server.ask("/v1/models")[1]
        self.assertEqual(models["data"][0]["id"], "m")
        self.complete()
        status, text = self.server.ask("/metrics")
        self.assertEqual(status, 200)
        for name in ("vllm:num_requests_running 0", "vllm:generation_tokens_total", 'vllm:request_success_total{finished_reason="length"}',
                     "vllm:time_to_first_token_seconds_bucket"):
            self.assertIn(name, text)

    def metric(self, name):
        return float(next(l for l in self.server.ask("/metrics")[1].splitlines() if l.startswith(name + " ")).split()[1])

    def test_who_goes_away_is_not_computed_on(self):
        c = self.server.connection()
        c.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 100, "n": 8, "stream": True, "ignore_eos": True}))
        c.getresponse().read(10)
        c.close()
        for _ in range(100):
            if self.metric("vllm:num_requests_running") == 0:
                break
            time.sleep(0.05)
        self.assertEqual(self.metric("vllm:num_requests_running"), 0)
        self.assertEqual(self.metric("vllm:num_requests_waiting"), 0)

    def test_many_at_once_get_what_each_gets_alone(self):
        bodies = [{"prompt": "Once upon " + "a time " * (i % 5), "max_tokens": 5 + i, "temperature": i % 2, "seed": i, "ignore_eos": True} for i in range(24)]
        want = [self.complete(**b)["choices"] for b in bodies]
        got = [None] * len(bodies)

        def run(i):
            got[i] = self.complete(**bodies[i])["choices"]
        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(bodies))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(got, want)

    def test_bad_clients_do_not_disturb(self):
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(300)]
        half = socket.create_connection(("127.0.0.1", self.server.port))
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")
        for garbage in (b"\x00\xff" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"):
            s = socket.create_connection(("127.0.0.1", self.server.port))
            s.settimeout(20)
            s.sendall(garbage)
            self.assertIn(s.recv(100)[:13], (b"HTTP/1.1 400 ", b"HTTP/1.1 413 "), garbage)
            s.close()
        self.complete()
        for s in idle + [half]:
            s.close()

    def test_key_drain_and_log(self):
        server = Server(self.model, "--api-key", "secret", "--name", "mine")
        self.assertEqual(server.ask("/v1/models")[0], 401)
        self.assertEqual(server.ask("/v1/models", headers={"Authorization": "Bearer secre"})[0], 401)
        key = {"Authorization": "Bearer secret"}
        self.assertEqual(server.ask("/v1/models", headers=key)[1]["data"][0]["id"], "mine")
        self.assertEqual(server.ask("/health")[0], 200)
        c = server.connection()
        c.request("POST", "/v1/completions", json.dumps({"prompt": "private text", "max_tokens": 100, "ignore_eos": True, "stream": True}), key)
        r = c.getresponse()
        r.read(1)
        server.process.send_signal(signal.SIGTERM)
        self.assertIn("[DONE]", r.read().decode())  # what is being answered is finished
        c.close()
        self.assertEqual(server.process.wait(20), 0)
        server.reader.join(5)
        server.process.stderr.close()
        lines = [json.loads(l) for l in server.log if l.startswith("{")]
        self.assertEqual([l["status"] for l in lines], [401, 401, 200, 200, 200])
        self.assertEqual(lines[-1]["tokens"], 100)
        self.assertNotIn("private", "".join(server.log))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
