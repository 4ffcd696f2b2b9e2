"""Compares our token ids with those of the Python originals on random difficult strings.

    python scripts/text_fuzz.py TOKENIZER_FOLDER [--seed 1] [--count 20000] [--show 5]

Builds and runs `examples/tokenize.rs`. Exits with 1 if the ids of any string differ.
"""

import argparse
import html.entities
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import ftfy.bad_codecs  # noqa: F401  registers the sloppy encodings
from ftfy.badness import MOJIBAKE_CATEGORIES
from ftfy.chardata import CHARMAP_ENCODINGS, UTF8_CLUES
from text_reference import FLAVOURS, ROOT, Reference

WORDS = """a photo of person riding bike in Paris with red hat eating pizza next to the dog, 3 cats 4k don't I'll we've he's
they'RE isn't o'clock rock'n'roll 8k 1990s high_quality -- ultra-realistic (masterpiece:1.2) [blurry] as an astronaut on
Saturn! drinking coffee; "quoted" 'single' #art @home 100% $5 C++ e-mail www.example.com/?a=1&b=2 x<y AT&T R&D""".split()
LANGUAGES = """café crème brûlée à la mode|naïve façade|Übergröße Straße|El Niño mañana ¿qué? ¡sí!|smörgåsbord på ö
Zażółć gęślą jaźń|Příliš žluťoučký kůň|Привет мир, это мост|Ελληνικός ΟΔΥΣΣΕΥΣ ΣΟΦΟΣ|日本語のテキスト|中文 测试|한국어 텍스트
مرحبا بالعالم|שלום עולם|हिन्दी भाषा|ไทย ภาษา|İstanbul ığdır ŞİŞLİ|“curly” ‘quotes’ — dash … ellipsis|it’s 20°C ± 5 ½ cup
€100 £50 ¥20 ™ ® ©|😀👍🏽👨‍👩‍👧‍👦🏳️‍🌈🇫🇷|ﬁne ﬂuﬃest ﬆop ĳs ŉ ǅ|ＦＵＬＬ　ｗｉｄｔｈ　１２３|ﾊﾝｶｸ ｶﾞ|ąčęėįšųūž āčēģīķļņšūž
Tiếng Việt ở đây|x² + y³ ≤ ∞ √2 ∑|№5 «елки» „низ“|Ã la mode Â£5|schön Çelik œuvre Œ""".replace("\n", "|").split("|")
ODD = ["'s", "'S", "’s", "'ll", "'RE", "'ſ", "_", "__a_b", "ΑΣ", "ΑΣ.", "ΑΣΑ", "Σ", "ΣΣ", "\x1b[31m", "\x1b[0m", "\x1b[1;2X"]
ODD += ["<b>", "<", "&lt;b&gt;", "&amp;lt;", "٣٤٥", "१२", "Ⅷ", "①", "½", "²", "𝟘", "\u212a", "\u212b", "\u0345"]
ODD += ["&", "&&", "&;", "&#;", "&#x;", "&#xg;", "[cls]", "[", "]", "x" * 101, "ab" * 60]
SPACES = list(" \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff\u180e\u2060")
SPACES += ["\r\n", "  ", "\x1c", "\x1f"]
CONTROLS = [chr(c) for c in [*range(32), *range(0x7F, 0xA0)]] + list("\u200c\u200d\u200e\u202a\u202e\u206a\ufff9\ufffc\ufffd\xad")
MOJIBAKE = sorted(set("".join(MOJIBAKE_CATEGORIES.values()) + "".join(UTF8_CLUES.values())))
BLOCKS = [0, 0x80, 0x100, 0x300, 0x370, 0x400, 0x590, 0x600, 0x900, 0xE00, 0x1100, 0x1E00, 0x1F00, 0x2000, 0x2100, 0x2500]
BLOCKS += [0x3000, 0x3040, 0x4E00, 0xAC00, 0xF900, 0xFB00, 0xFE00, 0xFF00, 0x10000, 0x10400, 0x1D400, 0x1E900, 0x1F300]
BLOCKS += [0x1F900, 0x20000, 0xE0000]


class Fuzz:
    """A seeded source of strings."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def cesu8(self, text: str) -> bytes:
        def encode(char: str) -> bytes:
            code = ord(char) - 0x10000
            if code < 0:
                return char.encode()
            return b"".join(chr(half).encode("utf-8", "surrogatepass") for half in (0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)))

        return b"".join(map(encode, text))

    def garble(self, text: str) -> str:
        rng = self.random
        encoding = rng.choice(CHARMAP_ENCODINGS).removeprefix("sloppy-" if rng.random() < 0.3 else "none")
        data = self.cesu8(text) if rng.random() < 0.15 else text.encode()
        text = data.decode(encoding, "replace")
        if rng.random() < 0.3:
            text = text.replace("\xa0", " ")
        if rng.random() < 0.15:
            mark = rng.choice("\ufffd\ufffd?")
            text = "".join(mark if 0x80 <= ord(c) < 0xA0 else c for c in text)
        return text

    def entity(self) -> str:
        rng = self.random
        if rng.random() < 0.5:
            code = rng.choice([300, 0x11000, 0x120000, 10 ** rng.randint(3, 30)])
            code = rng.choice([rng.randrange(code), rng.randrange(0xD700, 0xE010)])
            return rng.choice(["&#%d;", "&#%d", "&#x%x;", "&#X%X;", "&#x%x", "&amp;#%d;"]) % code
        name = "&" + rng.choice(list(html.entities.html5))
        change = rng.randrange(8)
        if change == 0:
            return name.upper()
        if change == 1:
            return name.rstrip(";") + rng.choice(["", "x", "=1", " "])
        return name.replace("&", "&amp;" * (1, 1, 2, 3)[change - 2], 1) if change < 6 else name

    def random_char(self) -> str:
        code = self.random.randrange(1, 0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)

    def piece(self) -> str:
        rng = self.random
        language = lambda: rng.choice(LANGUAGES)
        kinds = [
            *[lambda: " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6)))] * 4,
            language,
            lambda: self.garble(language()),
            lambda: self.garble(self.garble(language())),
            self.entity,
            self.entity,
            lambda: "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4))),
            lambda: rng.choice(CONTROLS),
            lambda: "".join(rng.choice(MOJIBAKE) for _ in range(rng.randint(1, 6))),
            lambda: "".join(chr(block + rng.randrange(0x100)) for block in [rng.choice(BLOCKS)] * rng.randint(1, 4)),
            lambda: rng.choice("aeoucnsAEOİIß") + "".join(chr(rng.randrange(0x300, 0x370)) for _ in range(rng.randint(1, 3))),
            lambda: unicodedata.normalize(rng.choice(["NFD", "NFKD", "NFC"]), language()),
            lambda: rng.choice(ODD),
            self.random_char,
            lambda: language().upper() if rng.random() < 0.5 else language().title(),
        ]
        return rng.choice(kinds)()

    def string(self) -> str:
        rng = self.random
        return "".join(self.piece() + rng.choice(["", " ", " "]) for _ in range(rng.choice([1, 1, 2, 3, 4, 6, 10])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a CLIP tokenizer in the Hugging Face layout")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--show", type=int, default=5, help="differences printed per flavour")
    args = parser.parse_args()

    fuzz, reference = Fuzz(args.seed), Reference(args.folder)
    strings = [fuzz.string() for _ in range(args.count)]
    failed = False
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("\n".join(map(json.dumps, strings)))
        file.flush()
        for flavour in FLAVOURS:
            command = ["cargo", "run", "--quiet", "--example", "tokenize", flavour, file.name]
            lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
            assert len(lines) == len(strings)
            context = 35 if flavour == "bert" else 77
            differences = []
            for string, line in zip(strings, lines, strict=True):
                ours, theirs = json.loads(line), reference.text(flavour, string)
                cut = theirs if len(theirs) <= context else [*theirs[: context - 1], theirs[-1]]
                if ours != {"ids": cut, "count": len(theirs)}:
                    differences.append((string, theirs, ours))
            failed |= bool(differences)
            print(f"{flavour}: {len(differences)} of {len(strings)} differ")
            for string, theirs, ours in differences[: args.show]:
                print("  ", ascii(string), "\n      original", theirs, "\n      ours    ", ours["ids"], ours["count"])
    sys.exit(failed)


if __name__ == "__main__":
    main()
