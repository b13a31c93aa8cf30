#!/usr/bin/env python3
"""Does `awq tokenize` give what the tokenizers and sentencepiece libraries give? Started by run.sh.

usage: text.py --awq AWQ [--lines N] [--tokenizers FOLDER]

Encodes and decodes generated lines (text_lines.py) with each tokenizer.json of the folder, with and without special
tokens in encoding and in decoding, and with SentencePiece models: trained here, and made again from tokenizer.json files that were converted from
one. Ids and decoded texts must be equal. Then the speed of both on one thread. The last line reads "N passed, N failed".
"""
import argparse
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

import text_lines

SHOWN = 5  # differences of each kind


def ours(awq, tokenizer, texts, *flags):
    done = subprocess.run([awq, "tokenize", "--tokenizer", tokenizer, "--lines", "--json", *flags], input=b"".join(t + b"\n" for t in texts), capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(name, texts, got, want):
    wrong = [(t, g, w) for t, g, w in zip(texts, got, want, strict=True) if (g["ids"], g["decoded"]) != w]
    for text, g, w in wrong[:SHOWN]:
        print(f"  {text!r}:\n    awq {g['ids']} {g['decoded']!r}\n    not {w[0]} {w[1]!r}")
    print(f"{name}: {len(texts) - len(wrong)} of {len(texts)} lines equal")
    return not wrong


def theirs(tokenizer, texts, special, skip_special=False):
    tokenizer.encode_special_tokens = not special
    decoded_texts = [t.decode("utf-8", "replace") for t in texts]
    encoded = [e.ids for e in tokenizer.encode_batch(decoded_texts, add_special_tokens=special)]
    return list(zip(encoded, tokenizer.decode_batch(encoded, skip_special_tokens=skip_special)))


def check_tokenizer(awq, path, count):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    special = [t.content for t in tokenizer.get_added_tokens_decoder().values()][:40]
    texts = text_lines.lines(count, special)
    name = path.parent.name if path.name == "tokenizer.json" else path.name
    yield differences(f"{name}, special tokens", texts, ours(awq, path, texts, "--special"), theirs(tokenizer, texts, True))
    yield differences(f"{name}, special tokens skipped", texts, ours(awq, path, texts, "--special", "--skip-special"), theirs(tokenizer, texts, True, skip_special=True))
    yield differences(f"{name}, plain", texts, ours(awq, path, texts, "--plain"), theirs(tokenizer, texts, False))


def made_again(path):
    """The SentencePiece model that a tokenizer.json was converted from, its scores the order of the merges."""
    tokenizer = json.loads(path.read_text())
    vocab = sorted(tokenizer["model"]["vocab"].items(), key=lambda entry: entry[1])
    ranks = {}
    for rank, merge in enumerate(tokenizer["model"]["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = sentencepiece_model_pb2.TrainerSpec.BPE, True
    model.normalizer_spec.remove_extra_whitespaces = False
    special = {t["content"] for t in tokenizer["added_tokens"]}
    for text, _ in vocab:
        kind = sentencepiece_model_pb2.ModelProto.SentencePiece
        type_ = (kind.UNKNOWN if text == "<unk>" else kind.CONTROL if text in special else
                 kind.BYTE if len(text) == 6 and text.startswith("<0x") else kind.NORMAL)
        model.pieces.add(piece=text, score=-float(ranks.get(text, len(ranks))), type=type_)
    return model.SerializeToString()


def trained(texts, **options):
    out = io.BytesIO()
    valid = [t.decode("utf-8", "ignore").replace("\0", "") for t in texts]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(valid), model_writer=out, hard_vocab_limit=False, minloglevel=2, num_threads=2, **options)
    return out.getvalue()


def check_model(awq, name, model, texts):
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    with tempfile.TemporaryDirectory() as work:
        path = pathlib.Path(work) / "tokenizer.model"
        path.write_bytes(model)
        got = ours(awq, path, texts)
    encoded = [sp.encode(t) for t in texts]
    return differences(f"SentencePiece, {name}", texts, got, [(ids, sp.decode(ids)) for ids in encoded])


def speed(awq, path, text):
    """MB/s of both on one thread, the best of five, loading apart: the time of ten copies less that of one, over nine."""
    def seconds(copies):
        begin = time.perf_counter()
        subprocess.run([awq, "tokenize", "--tokenizer", path, "--ids"], input=text * copies, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begin
    awq_rate = 9 * len(text) / 1e6 / (min(seconds(10) for _ in range(5)) - min(seconds(1) for _ in range(5)))
    tokenizer, decoded = tokenizers.Tokenizer.from_file(str(path)), text.decode()
    rates = []
    for _ in range(5):
        begin = time.perf_counter()
        tokenizer.encode(decoded)
        rates.append(len(text) / 1e6 / (time.perf_counter() - begin))
    print(f"{path.parent.name}: awq {awq_rate:.1f} MB/s, tokenizers {max(rates):.1f} MB/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--lines", type=int, default=10000)
    parser.add_argument("--tokenizers", type=pathlib.Path, help="a folder with tokenizer.json files at any depth")
    parser.add_argument("--speed", type=pathlib.Path, help="a text to measure the speed on")
    o = parser.parse_args()
    results = []
    found = sorted(o.tokenizers.rglob("*tokenizer.json")) if o.tokenizers else []
    for path in found:
        results += check_tokenizer(o.awq, path, o.lines)
    texts = text_lines.lines(o.lines)
    for path in found:
        if path.name in ("llama2.tokenizer.json", "mistral01.tokenizer.json"):
            results.append(check_model(o.awq, f"made again from {path.name}", made_again(path), texts))
    kinds = {"bpe": {"model_type": "bpe"}, "unigram": {"model_type": "unigram"}, "unigram with bytes": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "nmt_nfkc_cf"}}
    for name, options in kinds.items():
        model = trained(texts[:3000], vocab_size=6000, character_coverage=0.99, **options)
        results.append(check_model(o.awq, f"trained, {name}", model, texts))
    if o.speed:
        for path in found:
            if path.parent.name in ("llama3_1", "qwen3"):
                speed(o.awq, path, o.speed.read_bytes())
    if not found:
        print("skipped: no tokenizer.json files; --tokenizers names their folder")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
