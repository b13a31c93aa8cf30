#!/usr/bin/env python3
"""awq serve over HTTP, with a tiny model.

usage: serve_test.py AWQ GOLDEN_MODELS
"""
import base64
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
from server import TEMPLATE, Server

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-serve-"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.model = tiny.make(GOLDEN, "llama", cls.work / "m")
        config = cls.model / "tokenizer_config.json"
        settings = json.loads(config.read_text()) if config.exists() else {}
        config.write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
        cls.server = Server(AWQ, cls.model, "--sequences", 8, "--max-body", 100000)
        cls.addClassCleanup(cls.server.stop)

    def complete(self, **more):
        status, reply = self.server.ask("/v1/completions", {"prompt": "Once upon", "max_tokens": 8, "temperature": 0, **more})
        self.assertEqual(status, 200, reply)
        return reply

    def wait_until_idle(self, server):
        for _ in range(200):
            if server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") == 0:
                return
            time.sleep(0.05)
        self.fail("requests are still at work")

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
        server = Server(AWQ, self.model, "--sequences", 1, "--queue", 2)
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
        self.wait_until_idle(self.server)
        status, text = self.server.ask("/metrics")
        self.assertEqual(status, 200)
        for name in ("num_requests_running{%s} 0", "generation_tokens_total{%s}", 'request_success_total{%s,finished_reason="length"}',
                     'time_to_first_token_seconds_bucket{%s,le="+Inf"}', "request_queue_time_seconds_count{%s}", "request_prompt_tokens_sum{%s}"):
            self.assertIn("vllm:" + name % 'model_name="m",engine="0"', text)
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) [a-z0-9:_]+ .+|[a-z0-9:_]+(\{([a-z_]+="[^"]*",?)+\})? [-+.e0-9]+)$')

    def test_who_goes_away_is_not_computed_on(self):
        server = Server(AWQ, self.long_model(), "--context", "4000")
        self.addCleanup(server.stop)
        c = server.connection()
        c.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 3900, "n": 8, "stream": True, "ignore_eos": True}))
        c.getresponse().read(10)
        c.close()
        self.wait_until_idle(server)
        self.assertEqual(server.metric('vllm:request_success_total{model_name="m",engine="0",finished_reason="abort"}'), 1)
        self.assertLess(server.metric("vllm:generation_tokens_total"), 8 * 3900)

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

    def test_messages(self):
        body = {"messages": [{"role": "user", "content": "Hi"}], "system": "Be", "max_tokens": 6, "temperature": 0, "ignore_eos": True}
        status, reply = self.server.ask("/v1/messages", body)
        self.assertEqual(status, 200, reply)
        chat = {**body, "messages": [{"role": "system", "content": "Be"}, *body["messages"]]}
        same = self.server.ask("/v1/chat/completions", {**chat, "system": None})[1]
        self.assertEqual(reply["content"], [{"type": "text", "text": same["choices"][0]["message"]["content"]}])
        self.assertEqual((reply["type"], reply["stop_reason"], reply["usage"]["output_tokens"]), ("message", "max_tokens", 6))
        self.assertEqual(self.server.ask("/v1/messages/count_tokens", body)[1], {"input_tokens": reply["usage"]["input_tokens"]})
        c = self.server.connection()
        c.request("POST", "/v1/messages", json.dumps({**body, "stream": True}))
        events = [e.split("\n") for e in c.getresponse().read().decode().split("\n\n")[:-1]]
        c.close()
        data = [json.loads(d.removeprefix("data: ")) for _, d in events]
        self.assertEqual([e.removeprefix("event: ") for e, _ in events], [d["type"] for d in data])
        self.assertEqual([d["type"] for d in data if d["type"] != "content_block_delta"],
                         ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"])
        self.assertEqual("".join(d["delta"]["text"] for d in data if d["type"] == "content_block_delta"), reply["content"][0]["text"])
        status, error = self.server.ask("/v1/messages", {**body, "messages": []})
        self.assertEqual((status, error["type"], error["error"]["type"]), (400, "error", "invalid_request_error"))

    def test_a_call_that_is_required(self):
        tools = [{"type": "function", "function": {"name": n, "parameters": {"type": "object"}}} for n in ("f", "g")]
        body = {"messages": [{"role": "user", "content": "Hi"}], "tools": tools, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        named = {**body, "tool_choice": {"type": "function", "function": {"name": "g"}}}
        choice = self.server.ask("/v1/chat/completions", named)[1]["choices"][0]
        self.assertEqual([c["function"]["name"] for c in choice["message"]["tool_calls"]], ["g"])
        events = self.server.events("/v1/chat/completions", named)
        self.assertEqual(events[-1]["choices"][0]["delta"]["tool_calls"][0]["function"], choice["message"]["tool_calls"][0]["function"])
        self.assertEqual(self.server.ask("/v1/chat/completions", {**body, "tool_choice": {"type": "function", "function": {"name": "h"}}})[0], 400)

    def test_other_origins(self):
        def headers(server, method, path):
            c = server.connection()
            c.request(method, path, headers={"Origin": "https://example.org", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-a"})
            r = c.getresponse()
            r.read()
            c.close()
            return r.status, {k.lower(): v for k, v in r.getheaders() if k.lower().startswith("access-control")}
        self.assertEqual(headers(self.server, "GET", "/v1/models"), (200, {}))
        self.assertEqual(headers(self.server, "OPTIONS", "/v1/models"), (405, {}))
        server = Server(AWQ, self.model, "--cors", "https://example.org", "--api-key", "k")
        self.addCleanup(server.stop)
        allowed = {"access-control-allow-origin": "https://example.org"}
        self.assertEqual(headers(server, "GET", "/v1/models"), (401, allowed))
        status, preflight = headers(server, "OPTIONS", "/v1/chat/completions")
        self.assertEqual((status, preflight["access-control-allow-headers"]), (204, "authorization, x-a"))
        c = server.connection()
        c.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 2, "stream": True}), {"Authorization": "Bearer k"})
        r = c.getresponse()
        self.assertEqual(r.getheader("Access-Control-Allow-Origin"), "https://example.org")
        self.assertIn(b"[DONE]", r.read())
        c.close()

    def test_limits_of_context_and_time(self):
        server = Server(AWQ, self.long_model(), "--context", "4000", "--max-seconds", "1")
        self.addCleanup(server.stop)
        self.assertEqual(server.ask("/v1/models")[1]["data"][0]["max_model_len"], 4000)
        self.assertEqual(server.ask("/v1/completions", {"prompt": "x", "max_tokens": 4000})[1]["error"]["code"], "context_length_exceeded")
        slow = {"prompt": "x", "max_tokens": 3900, "n": 64, "ignore_eos": True, "logprobs": 1}
        status, reply = server.ask("/v1/completions", slow)
        self.assertEqual((status, reply["error"]["type"]), (504, "server_error"))
        c = server.connection()
        c.request("POST", "/v1/completions", json.dumps({**slow, "stream": True}))
        self.assertIn("the most that a request may take", c.getresponse().read().decode().split("\n\n")[-2])
        c.close()
        self.wait_until_idle(server)
        failed = subprocess.run([AWQ, "serve", self.model, "--port", "0", "--context", "100000"], capture_output=True, text=True)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("--context 100000: the model was made for 256", failed.stderr)

    def long_model(self):
        """as served models are: of a context that takes seconds to fill"""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.work)) / "m"
        shutil.copytree(self.model, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
        return folder

    def test_key_drain_and_log(self):
        server = Server(AWQ, self.model, "--api-key", "secret", "--name", "mine")
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
