"""awq serve as a process, for tests."""
import http.client
import json
import signal
import subprocess
import threading

TEMPLATE = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}\n{% endfor %}"
            "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}")


class Server:
    def __init__(self, awq, model, *more):
        self.process = subprocess.Popen([awq, "serve", model, "--port", "0", *map(str, more)], stderr=subprocess.PIPE, text=True)
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
        if status:
            raise RuntimeError(f"exit status {status}:\n{''.join(self.log)}")

    def metric(self, name):
        """0 where nothing has been counted"""
        lines = (l.rpartition(" ") for l in self.ask("/metrics")[1].splitlines() if not l.startswith("#"))
        return sum(float(value) for key, _, value in lines if key.partition("{")[0] == name or key == name)

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
