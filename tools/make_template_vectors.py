#!/usr/bin/env python3
"""Renders chat templates with Jinja2 as transformers does and writes what comes out as JSON.

usage: make_template_vectors.py OUT.json FOLDER     every *.jinja of the folder with every conversation below
       make_template_vectors.py OUT.json            the project's own snippets (template_cases.py), with their sources

Needs jinja2 (pip install jinja2). The second form made tests/text/golden/templates.json.
"""
import json
import pathlib
import sys

import template_cases
import template_environment


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "  You are a terse assistant.\nAnswer in one line. "}
TURNS = [user("What is 2 + 2?"), assistant("4"), user(" And <b>\"3\" & 'é'</b> 😀?\n")]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Current weather of a city", "parameters": {
        "type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Name, e.g. \"Zürich\""},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "exact": {"type": ["boolean", "null"]}}}}}
NOW = {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}
SIMPLE = {"type": "function", "function": {
    "name": "add", "description": "Adds two numbers", "parameters": {
        "type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "number", "description": "One"}, "b": {"type": "integer"},
            "names": {"type": "array", "items": {"type": "string"}}, "flag": {"type": "boolean"}}}}}
ARGUMENTS = {"city": "Zürich", "days": [1, 2.5], "exact": None, "deep": {"a": True}}


def called(arguments, **more):
    function = {"name": "get_weather", "arguments": arguments}
    return [SYSTEM, user("Weather in Zürich?"),
            assistant(None, tool_calls=[{"id": "abcdef123", "type": "function", "function": function}], **more),
            {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "{\"sky\": \"<blue>\"}"},
            assistant("Blue."), user("Thanks")]


CONVERSATIONS = {
    "user": {"messages": [user("Hello")]},
    "system and user": {"messages": [SYSTEM, user("Hello")]},
    "turns": {"messages": TURNS},
    "system and turns": {"messages": [SYSTEM] + TURNS},
    "ends with assistant": {"messages": TURNS + [assistant(" Seven. ")]},
    "thinking": {"messages": [user("Hm?"), assistant("<think>\nWell.\n</think>\n\nYes."), user("Sure?")]},
    "reasoning": {"messages": [user("Hm?"), assistant("Yes.", reasoning_content="Well."), user("Sure?"),
                               assistant("Sure.", reasoning_content="Quite.", reasoning="Quite.")]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": " Two"}]}]},
    "empty": {"messages": [user("")]},
    "no messages": {"messages": []},
    "two users": {"messages": [user("a"), user("b")]},
    "late system": {"messages": [user("a"), assistant("b"), SYSTEM]},
    "developer": {"messages": [{"role": "developer", "content": "Be kind."}, user("Hi")]},
    "tools": {"messages": [user("Weather?")], "tools": [WEATHER, NOW]},
    "tools and system": {"messages": [SYSTEM, user("Weather?")], "tools": [WEATHER]},
    "simple tools": {"messages": [user("1 + 2?")], "tools": [SIMPLE, SIMPLE]},
    "simple tools and system": {"messages": [SYSTEM] + TURNS, "tools": [SIMPLE], "extra": {"tools_in_user_message": True}},
    "tool call": {"messages": called(ARGUMENTS), "tools": [WEATHER]},
    "tool call as text": {"messages": called(json.dumps(ARGUMENTS)), "tools": [WEATHER]},
    "tool call with text": {"messages": called(ARGUMENTS, content="Let me see.", reasoning_content="Look it up."), "tools": [WEATHER]},
    "tool call, then result": {"messages": called(ARGUMENTS)[:4], "tools": [WEATHER]},
    "tool call without tools": {"messages": called(ARGUMENTS)},
    "no thinking": {"messages": TURNS, "extra": {"enable_thinking": False, "thinking": False, "reasoning_effort": "low"}},
    "think": {"messages": TURNS, "extra": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}},
    "date": {"messages": [SYSTEM, user("Hi")], "extra": {"date_string": "01 Feb 2025", "tools_in_user_message": False}, "tools": [WEATHER]},
    "documents": {"messages": [user("Who?")], "documents": [{"title": "A", "text": "Ann did."}, {"title": "B", "text": "Bob."}]},
}


def of_folder(folder):
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        for name, conversation in CONVERSATIONS.items():
            for prompt in (False, True):
                case = {"bos_token": "<s>", "eos_token": "</s>", **conversation, "add_generation_prompt": prompt}
                yield {"template": path.name, "conversation": name, "variables": case, **template_environment.render(source, case)}


def of_snippets():
    for source in template_cases.TEMPLATES:
        yield {"source": source, **template_environment.render(source, template_cases.VARIABLES)}


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = sys.argv[2] if len(sys.argv) == 3 else None
    cases = list(of_folder(folder) if folder else of_snippets())
    head = {"folder": folder} if folder else {"variables": template_cases.VARIABLES}
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    text = json.dumps(head, ensure_ascii=False)[:-1] + f', "cases": [\n{lines}\n]}}\n'
    pathlib.Path(sys.argv[1]).write_text(text, encoding="utf-8")
    print(f"{len(cases)} cases, {sum('error' in c for c in cases)} of them errors")


if __name__ == "__main__":
    main()
