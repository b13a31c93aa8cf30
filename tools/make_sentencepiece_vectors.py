#!/usr/bin/env python3
"""Trains tiny SentencePiece models and makes a tiktoken rank file, encodes texts with the `sentencepiece` and `tiktoken`
libraries and writes models, ids and decoded texts as JSON.

usage: make_sentencepiece_vectors.py OUT.json

Needs sentencepiece and tiktoken (pip install sentencepiece tiktoken). This made tests/text/golden/sentencepiece.json.
"""
import base64
import io
import json
import pathlib
import sys
import tempfile

import sentencepiece
import tiktoken

import make_tokenizer_vectors as common

INVALID = [b"a\xc3z", b"\xf0\x9f", b"\xf0\x9f\x98 x", b"\xed\xa0\x80", b"\xff\xfe", b"\xe2\x96"]
SPACES = ["a  b   c", "   a", "a   ", " \u3000 a", "x\u2581y", "\u2581", "<ud> a<ud>b  <ud>", "<ud>", " <ud> ", "uda <udd>", "ﬁne ① Å ｱｲ", "</s><s><unk> <0x41>"]

# A table of its own: the libraries' compiled ones take a quarter of a megabyte each.
RULES = {"ﬁ": "fi", "①": "1", "\u212b": "\u00c5", "\ufffd": " ", "ｱ": "ア", "ｱｲ": "アイ", "\u3000": " ", "\u00a0": " ", "\u200b": "", "½": "1⁄2", "…": "...", "\t": " ", "\n": " ", "A": "a", "😀": "😃"}

MODELS = {
    "bpe": {"model_type": "bpe", "vocab_size": 180, "rules": True},
    "bpe of Llama": {"model_type": "bpe", "vocab_size": 420, "byte_fallback": True, "normalization_rule_name": "identity",
                     "remove_extra_whitespaces": False, "split_digits": True, "character_coverage": 0.98},
    "bpe of Gemma": {"model_type": "bpe", "vocab_size": 430, "byte_fallback": True, "normalization_rule_name": "identity", "add_dummy_prefix": False,
                     "remove_extra_whitespaces": False, "user_defined_symbols": ["<ud>", "  ", "   ", "\n"], "character_coverage": 0.98},
    "unigram": {"model_type": "unigram", "vocab_size": 150, "rules": True},
    "unigram with bytes": {"model_type": "unigram", "vocab_size": 400, "byte_fallback": True, "user_defined_symbols": ["<ud>", "don"], "rules": True, "character_coverage": 0.98},
    "unigram without a space": {"model_type": "unigram", "vocab_size": 140, "add_dummy_prefix": False, "rules": True},
    "spaces behind": {"model_type": "bpe", "vocab_size": 180, "treat_whitespace_as_suffix": True, "rules": True},
    "unigram, identity": {"model_type": "unigram", "vocab_size": 160, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "unk_surface": "?"},
}


def trained(options):
    out = io.BytesIO()
    options = dict(options)
    if options.pop("rules", False):
        points = {k: "\t".join(" ".join(f"{ord(c):X}" for c in side) for side in (k, v)) for k, v in RULES.items()}
        table = tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False)
        table.write("\n".join(points.values()) + "\n")
        table.close()
        options["normalization_rule_tsv"] = table.name
    sentences = [line for s in common.SENTENCES for line in s.split("\n") if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 3), model_writer=out, hard_vocab_limit=False, num_threads=1, minloglevel=2, **options)
    return out.getvalue()


def of_text(text):
    return {"text": text} if isinstance(text, str) else {"bytes": base64.b64encode(text).decode()}


def sentencepiece_cases(model):
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    texts = common.EDGES + common.SENTENCES[:9] + SPACES + list(common.random_texts(20, 3)) + INVALID
    for text in texts:
        ids = sp.encode(text)
        yield {**of_text(text), "ids": ids, "decoded": sp.decode(ids)}
    for start in range(0, 60, 3):  # ids in an order that no text has
        ids = [(start * 7 + k * 13) % sp.get_piece_size() for k in range(12)]
        yield {"ids": ids, "decoded": sp.decode(ids)}


def ranks():
    """{bytes: rank} of a byte-level encoding, as tiktoken has it: all bytes, then what merges make."""
    tokens, _ = common.trained(common.pre_tokenizers.ByteLevel(add_prefix_space=False), 330, common.pre_tokenizers.ByteLevel.alphabet())
    alphabet = {c: b for b, c in common_alphabet().items()}
    return {bytes(alphabet[c] for c in token): rank for rank, token in enumerate(tokens)}


def common_alphabet():
    """{byte: character}"""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {b: chr(b) for b in kept}
    for b in range(256):
        table.setdefault(b, chr(0x100 + len(table) - len(kept)))
    return table


def tiktoken_cases(table, pattern):
    encoding = tiktoken.Encoding("tiny", pat_str=pattern, mergeable_ranks=table, special_tokens={})
    for text in common.EDGES + common.SENTENCES[:9] + list(common.random_texts(20, 3)):
        ids = encoding.encode(text, disallowed_special=())
        yield {"text": text, "ids": ids, "decoded": encoding.decode(ids)}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    made = []
    for name, options in MODELS.items():
        model = trained(options)
        made.append({"name": name, "sentencepiece": base64.b64encode(model).decode(), "cases": list(sentencepiece_cases(model))})
    table = ranks()
    file = "".join(f"{base64.b64encode(t).decode()} {rank}\n" for t, rank in table.items())
    made.append({"name": "tiktoken", "tiktoken": file, "splitting": "llama3", "cases": list(tiktoken_cases(table, common.LLAMA3))})
    text = ",\n".join(json.dumps(m, separators=(",", ":"), ensure_ascii=False) for m in made)
    pathlib.Path(sys.argv[1]).write_text(f'{{"models":[\n{text}\n]}}\n', encoding="utf-8")
    print(f"{len(made)} models, {sum(len(m['cases']) for m in made)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main()
