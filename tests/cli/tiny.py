"""Tiny models for the command-line tests: a golden model with a tokenizer."""
import json
import pathlib
import re
import shutil
import subprocess


def tokenizer():
    """A byte-level tokenizer of one token a printable ASCII character: as many as the tiny models have embeddings."""
    vocab = {"Ġ": 0, "Ċ": 1} | {chr(c): c - 31 for c in range(33, 127)}
    return {"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}}


def make(golden: pathlib.Path, family: str, folder: pathlib.Path) -> pathlib.Path:
    shutil.copytree(golden / family, folder, ignore=shutil.ignore_patterns("expected*"))
    for file in folder.iterdir():
        file.chmod(0o644)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    return folder


def as_gguf_has_gemma3(folder: pathlib.Path):
    """GGUF does not say by what queries are divided: it is the size of a head in all models but one."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"query_pre_attn_scalar": config["head_dim"]}))


def max_threads(awq) -> int:
    """How many threads the program allows here: what it says when it is given none."""
    message = subprocess.run([awq, "generate", "m", "-p", "x", "--threads", "0"], capture_output=True, text=True).stderr
    return int(re.search(r"give 1 to (\d+)", message)[1])
