#!/usr/bin/env python3
"""awq serve gives a real model's first token soon after its start. The aim is 2 s on a quiet machine (tools/serving/first_token.py);
the bound here is for one that does other things.

usage: serve_start_test.py AWQ

The model's path comes in AWQ_SMOLLM2_GGUF (tools/fetch_model.py smollm2-135m); without it the test is skipped.
"""
import os
import pathlib
import subprocess
import sys

AWQ, TOOL = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(__file__).resolve().parents[2] / "tools" / "serving" / "first_token.py"
MODEL = os.environ.get("AWQ_SMOLLM2_GGUF", "")

if not MODEL:
    print("skipped: AWQ_SMOLLM2_GGUF is not set")
    sys.exit(77)
sys.exit(subprocess.run([sys.executable, "-B", TOOL, AWQ, MODEL, "--runs", "3", "--at-most", "10"]).returncode)
