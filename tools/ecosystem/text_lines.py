"""Lines of text in many scripts, the same ones each time: what tokenizers are compared on."""
import random

# (name, first and last code point of letters). All were assigned in Unicode 12, which every library compared knows.
SCRIPTS = [
    ("Latin", 0x61, 0x7A), ("Latin capitals", 0x41, 0x5A), ("Latin with marks", 0xC0, 0x17F), ("Vietnamese", 0x1EA0, 0x1EF9), ("Greek", 0x3B1, 0x3C9),
    ("Cyrillic", 0x410, 0x44F), ("Armenian", 0x561, 0x586), ("Hebrew", 0x5D0, 0x5EA), ("Arabic", 0x620, 0x64A), ("Syriac", 0x712, 0x72F),
    ("Thaana", 0x780, 0x7A5), ("Devanagari", 0x905, 0x939), ("Bengali", 0x993, 0x9A8), ("Gurmukhi", 0xA13, 0xA28), ("Gujarati", 0xA93, 0xAA8),
    ("Tamil", 0xBAE, 0xBB9), ("Telugu", 0xC12, 0xC28), ("Kannada", 0xC92, 0xCA8), ("Malayalam", 0xD12, 0xD3A), ("Sinhala", 0xD9A, 0xDB1),
    ("Thai", 0xE01, 0xE30), ("Lao", 0xE94, 0xEA3), ("Tibetan", 0xF40, 0xF47), ("Myanmar", 0x1000, 0x102A), ("Georgian", 0x10D0, 0x10F0),
    ("Hangul letters", 0x1100, 0x1112), ("Ethiopic", 0x1200, 0x1248), ("Cherokee", 0x13A0, 0x13F4), ("Khmer", 0x1780, 0x17A2), ("Mongolian", 0x1820, 0x1842),
    ("Hiragana", 0x3041, 0x3096), ("Katakana", 0x30A1, 0x30FA), ("Bopomofo", 0x3105, 0x312D), ("Han", 0x4E00, 0x9FEF), ("Hangul", 0xAC00, 0xD7A3),
    ("Gothic", 0x10330, 0x10340), ("Deseret", 0x10400, 0x1044F), ("mathematical", 0x1D400, 0x1D454), ("fullwidth", 0xFF21, 0xFF5A), ("Han, second plane", 0x20000, 0x20100),
]
MARKS = [0x300, 0x301, 0x308, 0x323, 0x64B, 0x651, 0x93E, 0x94D, 0xE31, 0x1161, 0x11A8, 0x3099, 0xFE0F, 0x200D, 0x200C]
DIGITS = ["0123456789", "٠١٢٣٤", "०१२३", "½⅓²Ⅷ①"]
SPACES = [" "] * 12 + ["  ", "   ", "\t", "\u00a0", "\u3000", "\u2009", "\r", "\x0b", "\x85", "    ", "\u2028"]
PUNCTUATION = list(".,;:!?-_'\"()[]{}<>/\\|@#$%^&*+=~`") + ["...", "’", "“", "”", "—", "。", "、", "؟", "।", "€", "™", "→", "∑", "'s", "'LL", "▁", "Ġ"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "1️⃣", "🧑🏿‍🚀", "\u200d", "\ufe0f"]
CODE = ["def f(x):", "    return x", "for (int i = 0; i < n; ++i) {", "a[i][j] += b->c;", "// TODO", "#include <vector>", "SELECT * FROM t;", "<div class=\"a\">", "0x1F", "1e-5", "==", "!==", "\\n", "${x}", "/usr/bin"]
CONTROL = [chr(c) for c in range(32) if c != 10] + ["\x7f", "\x80", "\x9f", "\ufeff", "\ufffd", "\ufffe", "\U0010ffff", "\u200b"]
INVALID = [b"\xff", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80", b"\xf5\x80"]


def word(r):
    _, first, last = r.choice(SCRIPTS)
    out = "".join(chr(r.randint(first, last)) for _ in range(r.randint(1, 9)))
    return out + chr(r.choice(MARKS)) * r.randint(1, 2) if r.random() < 0.15 else out


def part(r, special):
    kind = r.random()
    if kind < 0.62:
        return word(r)
    if kind < 0.70:
        return "".join(r.choice(r.choice(DIGITS)) for _ in range(r.randint(1, 8)))
    if kind < 0.82:
        return r.choice(PUNCTUATION) * r.randint(1, 3)
    if kind < 0.87:
        return r.choice(EMOJI)
    if kind < 0.93:
        return r.choice(CODE)
    if kind < 0.95:
        return r.choice(CONTROL)
    return r.choice(special) if special and kind < 0.97 else chr(r.randint(0x21, 0x2FFF))


def line(r, special):
    out = "".join(part(r, special) + (r.choice(SPACES) if r.random() < 0.7 else "") for _ in range(r.randint(0, 14)))
    out = out.replace("\n", " ").encode("utf-8")
    if r.random() < 0.05:
        at = r.randint(0, len(out))
        out = out[:at] + r.choice(INVALID) + out[at:]
    return out


def lines(count, special=()):
    """`count` byte strings without a newline, some of them not valid UTF-8; texts of `special` tokens are strewn in."""
    r = random.Random(20)
    return [line(r, list(special)) for _ in range(count)]
