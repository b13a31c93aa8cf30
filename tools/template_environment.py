"""The Jinja environment that transformers gives to chat templates, and what the vector scripts share."""
import copy
import datetime
import functools
import json

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 26, 13, 5, 9)  # what strftime_now formats; the C++ side is given the same


class Generation(Extension):
    """{% generation %} marks what the assistant wrote; rendering passes it through."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


@functools.lru_cache(maxsize=None)
def compiled(source):
    return environment().from_string(source)


def render(source, case):
    """{"output": text} or {"error": the exception's name}. `case` holds what ChatTemplate::Options holds."""
    case = copy.deepcopy(case)  # Jinja's own indent filter changes a list that it is given
    variables = dict(case.get("extra") or {})
    variables.update({k: case[k] for k in ("bos_token", "eos_token") if case.get(k)})
    try:
        text = compiled(source).render(
            messages=case.get("messages"), tools=case.get("tools"), documents=case.get("documents"),
            add_generation_prompt=case.get("add_generation_prompt", False), **variables)
        text.encode("utf-8")
        return {"output": text}
    except Exception as e:  # whatever a template raises counts as its refusal
        return {"error": type(e).__name__}
