#!/usr/bin/env python3
"""Chats for `awq compare --text`, from lines of {"prompt": "...### Instruction: ...", "response": "..."}.

    tools/dolly_messages.py chat_dolly.jsonl > dolly.jsonl

The instruction becomes the user's message and the response the answer, so that a model's own template can render them.
"""
import json
import sys


def messages(line):
    chat = json.loads(line)
    instruction = chat["prompt"].split("### Instruction:\n")[1].split("\n\n### Response:")[0]
    return [{"role": "user", "content": instruction.strip()}, {"role": "assistant", "content": chat["response"].strip()}]


with open(sys.argv[1], encoding="utf-8") as lines:
    for line in lines:
        print(json.dumps({"messages": messages(line)}))
