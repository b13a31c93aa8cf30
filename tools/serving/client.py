"""A client of servers with OpenAI's API, on asyncio and nothing else, and the processes of such servers."""
import asyncio
import contextlib
import json
import pathlib
import subprocess
import time


class Failed(Exception):
    pass


class Reply:
    """What a request came to: `times` of the parts of a stream that have text, seconds of time.perf_counter()."""

    def __init__(self):
        self.sent = time.perf_counter()
        self.status, self.times, self.text, self.usage, self.body, self.done = 0, [], "", None, b"", False

    def first_token(self):
        return self.times[0] - self.sent

    def gaps(self):
        return [b - a for a, b in zip(self.times, self.times[1:])]

    def tokens(self):
        """As the server counts them; where it does not, the parts that came."""
        return self.usage["completion_tokens"] if self.usage else len(self.times)


def head(path, body, key):
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join(lines + ([f"Authorization: Bearer {key}"] if key else []) + ["", ""]).encode()


async def read_head(reader):
    """Status and headers"""
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}


async def chunks(reader):
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readline()


async def events(reader):
    """Data of a text/event-stream in chunks of any size"""
    held = b""
    async for chunk in chunks(reader):
        held += chunk.replace(b"\r\n", b"\n")
        *whole, held = held.split(b"\n\n")
        for event in whole:
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    yield line[6:]


def take(reply, event):
    if event == b"[DONE]":
        reply.done = True
        return
    j = json.loads(event)
    if "error" in j:
        raise Failed(f"an error in the stream: {event.decode()}")
    reply.usage = j.get("usage") or reply.usage
    for choice in j.get("choices", ()):
        text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        if text:
            reply.times.append(time.perf_counter())
            reply.text += text


async def ask(port, path, body, key=None, leave_after=None):
    """A request on a connection of its own. `body`: bytes, or what becomes JSON. leave_after: parts after which the client is gone."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reply = Reply()
    try:
        writer.write(head(path, data, key) + data)
        await writer.drain()
        reply.status, headers = await read_head(reader)
        if "event-stream" not in headers.get("content-type", ""):
            reply.body = await reader.read()
            return reply
        async for event in events(reader):
            take(reply, event)
            if leave_after is not None and len(reply.times) >= leave_after:
                return reply
        return reply
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask_json(port, path, body):
    reply = await ask(port, path, body)
    if reply.status != 200:
        raise Failed(f"{path}: {reply.status} {reply.body[:300]}")
    return json.loads(reply.body)


def memory(pid, field="VmRSS"):
    """Bytes of a process and those that it has started"""
    total = 0
    for p in [pid, *children(pid)]:
        with contextlib.suppress(OSError, StopIteration):
            status = pathlib.Path(f"/proc/{p}/status").read_text().splitlines()
            total += 1024 * int(next(line for line in status if line.startswith(field)).split()[1])
    return total


def children(pid):
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *children(int(child))]
    return found


class Awq:
    """awq serve, from its start to its end. `ready`: seconds until it said that it listens."""

    def __init__(self, awq, model, *options):
        begin = time.perf_counter()
        command = [awq, "serve", model, "--port", 0, "--no-log", *options]
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        said = ""
        for line in self.process.stderr:
            said += line
            if "http://127.0.0.1:" in line:
                self.port = int(line.split("http://127.0.0.1:")[1].split(",")[0])
                break
        else:
            raise Failed(f"awq serve ended with {self.process.wait()}: {said}")
        self.ready = time.perf_counter() - begin
        self.pid = self.process.pid

    def stop(self):
        """Its exit status, and what it said"""
        self.process.terminate()
        said = self.process.stderr.read()
        self.process.stderr.close()
        return self.process.wait(60), said
