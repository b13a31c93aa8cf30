#!/usr/bin/env python3
"""Encodes texts with the `tokenizers` library (pip install tokenizers) and writes ids and decoded texts as JSON.

usage: make_tokenizer_vectors.py OUT.json TOKENIZER.json ... [FILE.txt|FILE.jsonl ...]
           real tokenizers on edge cases, random Unicode and the lines (.jsonl: the "prompt" or "text") of the files
       make_tokenizer_vectors.py OUT.json
           tiny tokenizers of every supported shape, trained here on a few sentences, with their own files inside.
           This made tests/text/golden/tokenizers.json.
"""
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

EDGES = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r\n\r\n a", "\t", " a", "a ", "  a  ", "\ta\n", "a\n\n\nb", "Hello, world!", "hello  world",
    "1", "12", "123", "1234", "12345 6789", "3.14", "x1y22", "don't we'll I'M 'S 'sx", "don’t", "a_b-c/d", "ALLCAPS camelCase", "...", "?!?!", "( [ {",
    "\u00a0", "a\u00a0b", "\u3000", "é", "e\u0301", "\u1e9b\u0323", "中文字", "日本語テキスト", "한국어", "\u1100\u1161\u11a8", "Привет мир", "שלום", "नमस्ते",
    "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈!", "a😀b", "½ ² Ⅷ ٣", "ſ 'ſ", "\u200b", "\u200d", "\ufffd", "\x00", "a\x00b", "\x1c\x85", "\U0010ffff",
    "▁", "▁▁ a", " ▁ ", "<0x41>", "<0x0A>\n", "Ġ Ċ", "a" * 40, " " * 33, "ab" * 20, "İstanbul",
]
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<|endoftext|>", "<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<mask>", "<tool>", "word"]


def with_special(tokens):
    for t in tokens:
        yield from (t, f"a{t}b", f" {t} ", f"{t}{t}", f"x {t}\n{t} y", t[:-1], t.upper())


def random_texts(count, seed):
    r = random.Random(seed)
    alphabet = " \n\t\r'sStTreveLL0123456789.,!?-_aáe\u0301\u200d\u00a0\u3000中한\u1100\u1161\u11a8\ufe0f▁<>"
    for _ in range(count):
        kind, out = r.random(), []
        for _ in range(r.randint(1, 30)):
            if kind < 0.5:
                c = ord(r.choice(alphabet))
            elif kind < 0.75:
                c = r.choice([r.randint(0, 0x2FF), r.randint(0x20, 0x7E)])
            else:
                c = r.choice([r.randint(0, 0xFFFF), r.randint(0, 0x10FFFF), r.randint(0x20, 0x7E), 32])
            out.append("A" if 0xD800 <= c < 0xE000 else chr(c))
        yield "".join(out)


def lines_of(path):
    for line in pathlib.Path(path).read_bytes().decode("utf-8").split("\n"):
        if path.endswith(".jsonl") and line:
            record = json.loads(line)
            yield record.get("prompt", record.get("text", ""))
        elif line:
            yield line


def encode(tokenizer, text, add_special, parse_special):
    tokenizer.encode_special_tokens = not parse_special
    ids = tokenizer.encode(text, add_special_tokens=add_special).ids
    return {"text": text, "add_special": add_special, "parse_special": parse_special, "ids": ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False), "spoken": tokenizer.decode(ids, skip_special_tokens=True)}


def vectors(tokenizer, texts, special):
    for text in texts:
        yield encode(tokenizer, text, True, True)
    for text in special:
        yield encode(tokenizer, text, False, False)


# --- tiny tokenizers

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the other fox does not.", "Zwölf Boxkämpfer jagen Viktor quer über den großen Deich.",
    "Le cœur déçu mais l'âme plutôt naïve.", "def add(a, b):\n    return a + b  # 1 + 2 = 3\n", "In 2024 there were 365 + 1 days; 12:30 is half past twelve.",
    "我们今天去公园。他们明天去学校。", "これはペンです。それは本です。", "Мама мыла раму, а папа читал газету.", "don't can't we'll they're I'm you've she'd it's",
    "the then there these they them this that", "Hello hello HELLO world World", "{\"key\": [1, 2, 3], \"other\": null}", "😀 😃 😀",
]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")


def trained(pre_tokenizer, size, alphabet=(), normalizer=None):
    """Tokens and merges of a byte pair encoding of SENTENCES."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer
    if normalizer:
        t.normalizer = normalizer
    t.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet), show_progress=False))
    model = json.loads(t.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def byte_level(split, normalizer=None, post=None, special=("<|endoftext|>",), size=290, **options):
    tokens, merges = trained(split, size, pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(tokens)}, merges=merges, **options))
    t.pre_tokenizer, t.decoder = split, decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    t.add_special_tokens([AddedToken(s, normalized=False) for s in special])
    t.post_processor = post(t) if post else processors.ByteLevel(trim_offsets=False)
    return t


def sentence_piece(normalizer=None, pre_tokenizer=None, decoder=None, size=170, byte_fallback=True, fuse_unk=True, skip_bytes=()):
    tokens, merges = trained(pre_tokenizers.Metaspace(), size)
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{b:02X}>" for b in range(256) if b not in skip_bytes] if byte_fallback else []
    kept = [s for s in tokens if s not in "abqxz" or s == "▁"]  # some letters are left to fallback
    merges = [m for m in merges if m[0] in kept and m[1] in kept and "".join(m) in kept]
    vocab = {s: i for i, s in enumerate(special + bytes_ + [s for s in kept])}
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=byte_fallback))
    if normalizer:
        t.normalizer = normalizer
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    if decoder:
        t.decoder = decoder
    t.add_special_tokens(special)
    t.post_processor = template("<s> $A")(t)
    return t


def template(single):
    def make(t):
        names = [s for s in single.split() if not s.startswith("$")]
        return processors.TemplateProcessing(single=single, special_tokens=[(s, t.token_to_id(s)) for s in names])
    return make


def with_added(t, tokens):
    t.add_tokens(tokens)
    return t


def tiny():
    space = decoders.Replace("▁", " ")
    llama_decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    no_regex = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    yield "gpt2", byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    yield "prefix space", byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    yield "llama3", byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), no_regex]), special=("<|begin_of_text|>", "<|im_end|>"),
        post=lambda t: processors.Sequence([processors.ByteLevel(trim_offsets=False), template("<|begin_of_text|> $A")(t)]), ignore_merges=True)
    yield "qwen", byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), no_regex]), normalizer=normalizers.NFC(),
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    yield "smollm2", byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        special=("<|im_start|>", "<|im_end|>"))
    yield "digits together", byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]))
    yield "llama2", sentence_piece(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, llama_decoder)
    yield "mistral", sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), llama_decoder)
    yield "gemma", sentence_piece(
        normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
        decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse()]))
    yield "metaspace", with_added(
        sentence_piece(None, pre_tokenizers.Metaspace(), decoders.Metaspace(), byte_fallback=False, fuse_unk=False),
        [AddedToken("word", single_word=True), AddedToken("<mask>", lstrip=True, rstrip=True), AddedToken("<tool>", normalized=False)])
    yield "fused unknowns", sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="never"), decoders.Metaspace(prepend_scheme="never"), byte_fallback=False)
    yield "bytes missing", sentence_piece(None, pre_tokenizers.Metaspace(), llama_decoder, skip_bytes=range(0xC0, 0x100))
    yield "lower case", with_added(
        sentence_piece(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " ")]),
                       pre_tokenizers.Metaspace(), decoders.Metaspace()),
        [AddedToken("WORD", normalized=True), AddedToken("<TOOL>", normalized=False, lstrip=True)])
    splits = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Split(Regex(r"[A-Z]"), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"[\w']+"), "isolated", invert=True), pre_tokenizers.Split(Regex(r"\p{P}"), "contiguous"),
        pre_tokenizers.Split(Regex(r"(?=[xy])"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t = byte_level(splits, special=("<bos>", "<eos>"), post=template("<bos> $A <eos>"))
    t.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip("a", 2, 0)])
    yield "splits", t
    t = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.NFD())
    t.decoder = None
    t.post_processor = template("$A <|endoftext|>")(t)
    yield "no decoder", t


def wordpiece(**options):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    t.normalizer = normalizers.BertNormalizer(**options)
    t.pre_tokenizer, t.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=220, special_tokens=special, show_progress=False))
    t.post_processor = processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))
    return t


def unigram(normalizer, pre_tokenizer, decoder, byte_fallback=False):
    t = Tokenizer(models.Unigram())
    t.normalizer, t.pre_tokenizer, t.decoder = normalizer, pre_tokenizer, decoder
    t.train_from_iterator(SENTENCES, trainers.UnigramTrainer(vocab_size=140, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
    model = json.loads(t.to_str())["model"]
    vocab = [tuple(v) for v in model["vocab"] if v[0] not in "bqxz"]
    if byte_fallback:
        vocab += [(f"<0x{b:02X}>", -20.0) for b in range(256)]
    t.model = models.Unigram(vocab, unk_id=2, byte_fallback=byte_fallback)
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return t


def end_of_word(pre_tokenizer, normalizer=None, **options):
    """As GPT and CLIP had it: the last character of a word is another token than the same one inside."""
    t = Tokenizer(models.BPE(unk_token="<unk>", **options))
    t.pre_tokenizer, t.decoder = pre_tokenizer, decoders.BPEDecoder(suffix="</w>")
    if normalizer:
        t.normalizer = normalizer
    t.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=260, special_tokens=["<unk>"], show_progress=False, **options))
    return t


def word_level(pre_tokenizer):
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizer
    t.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(vocab_size=120, special_tokens=["<unk>", "<pad>"], show_progress=False))
    return t


def compiled_rules():
    """A small table of SentencePiece, compiled by its own trainer."""
    import make_sentencepiece_vectors as sentencepiece
    return json_of_charsmap(sentencepiece.trained({"model_type": "unigram", "vocab_size": 150, "rules": True}))


def json_of_charsmap(model):
    from sentencepiece import sentencepiece_model_pb2
    return sentencepiece_model_pb2.ModelProto.FromString(model).normalizer_spec.precompiled_charsmap


def others():
    """Components of encoders and of older models."""
    yield "bert", wordpiece(lowercase=True)
    yield "bert, cased", wordpiece(lowercase=False, strip_accents=True, handle_chinese_chars=False)
    yield "bert, not cleaned", wordpiece(lowercase=False, clean_text=False)
    t5 = normalizers.Sequence([normalizers.Precompiled(compiled_rules()), normalizers.Replace(Regex(" {2,}"), " ")])
    yield "t5", unigram(t5, pre_tokenizers.Metaspace(), decoders.Metaspace())
    yield "nmt", unigram(normalizers.Sequence([normalizers.Nmt(), normalizers.Strip(), normalizers.NFKD(), normalizers.StripAccents()]),
                         pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]), decoders.Metaspace(), byte_fallback=True)
    yield "end of word", end_of_word(pre_tokenizers.Whitespace(), normalizers.Strip(left=True, right=False), end_of_word_suffix="</w>")
    yield "prefix of words", end_of_word(pre_tokenizers.Sequence([pre_tokenizers.CharDelimiterSplit(" "), pre_tokenizers.Punctuation("merged_with_next")]), continuing_subword_prefix="@@")
    falcon = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(individual_digits=False),
                                      pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    yield "falcon", byte_level(falcon)
    roberta = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), special=("<s>", "</s>"),
                         post=lambda t: processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>"))))
    yield "roberta", roberta
    yield "words", word_level(pre_tokenizers.Whitespace())
    yield "fixed length", word_level(pre_tokenizers.FixedLength(length=2))
    speech = word_level(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.FixedLength(length=1)]))
    speech.decoder = decoders.CTC(pad_token="<pad>", word_delimiter_token="e")
    yield "speech", speech
    bytes_first = byte_level(pre_tokenizers.Split(Regex("Ġ?[^Ġ]+"), "isolated"))
    bytes_first.normalizer = normalizers.ByteLevel()
    yield "bytes first", bytes_first


def tiny_vectors():
    special = list(with_special(SPECIAL))
    texts = EDGES + SENTENCES[:9] + special[::6] + list(random_texts(8, 7))
    for name, t in [*tiny(), *others()]:
        cases = list(vectors(t, texts, special[1::9] + EDGES[3:6]))
        yield {"name": name, "tokenizer": json.loads(t.to_str()), "cases": cases}


def real_vectors(path, lines):
    t = Tokenizer.from_file(path)
    special = list(with_special(SPECIAL + [a.content for a in list(t.get_added_tokens_decoder().values())[:40]]))
    texts = EDGES + special + list(random_texts(4000, 1)) + lines
    return {"tokenizer": path, "cases": list(vectors(t, texts, special + EDGES))}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    tokenizers = [path for path in sys.argv[2:] if path.endswith(".json")]
    lines = [line for path in sys.argv[2:] if not path.endswith(".json") for line in lines_of(path)]
    made = [real_vectors(path, lines) for path in tokenizers] if tokenizers else list(tiny_vectors())
    text = ",\n".join(json.dumps(m, separators=(",", ":"), ensure_ascii=False) for m in made)
    pathlib.Path(sys.argv[1]).write_text(f'{{"tokenizers":[\n{text}\n]}}\n', encoding="utf-8")
    print(f"{len(made)} tokenizers, {sum(len(m['cases']) for m in made)} cases")


if __name__ == "__main__":
    main()
