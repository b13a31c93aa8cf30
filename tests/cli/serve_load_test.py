#!/usr/bin/env python3
"""A minute of tools/serving/load.py on a tiny model, whose context is long enough for prompts of 4,000 tokens.

usage: serve_load_test.py AWQ GOLDEN_MODELS
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
LOAD = pathlib.Path(__file__).resolve().parents[2] / "tools" / "serving" / "load.py"

with tempfile.TemporaryDirectory(prefix="awq-load-") as work:
    model = tiny.make(GOLDEN, "llama", pathlib.Path(work) / "m")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    # Keys and values of 64,000 tokens are half of the process's memory: were they not given back, 2 % would soon be exceeded.
    sys.exit(subprocess.run([sys.executable, "-B", LOAD, AWQ, model, "--minutes", "1", "--kv-memory", "32M", "--untimed"]).returncode)
