"""Awkward strings for tokenizers: a fixed sequence for one version of Python, whose Unicode it knows."""

import random
import unicodedata

SPACES = [" ", "  ", "\t", "\n", "\r", "\r\n", "\n\n", "\v", "\f", "\x1c", "\x85", "\u00a0", "\u1680", "\u180e", "\u2003",
          "\u2028", "\u2029", "\u202f", "\u205f", "\u200b", "\u2060", "\u3000", "\ufeff", "   \n", " \r\n  ", "\t\t\t", " " * 40]
WORDS = ("a red Apple on the TABLE, don't you'll WE'VE I'M they'd He's can't L'été Straße naïve coöperate ﬁn ǅ ϐeta ИЗБА "
         "cafe\u0301 A\u030a \u212b \u1e9b\u0323 \u0958 가 \u1100\u1161 각 \u1112\u1161\u11ab 漢字 仮名 ひらがな カタカナ ｶﾞ 中文字符 "
         "ไทย नमस्ते வணக்கம் العربية עברית ქართული አማርኛ ខ្មែរ မြန်မာ བོད་ ᠮᠣᠩᠭᠣᠯ ᏣᎳᎩ ⵜⴰⵎⴰⵣⵉⵖⵜ 𐌀𐌁 𝒜𝓫 𝟘𝟙 Ⅷ ½ ² ٣ ४ 1234567890 3.14e-10 "
         "0x1F 1,000,000 10:30 50% $5 €9 #tag @me https://a.b/c?d=e&f=g#h foo_bar camelCaseWord SHOUTingCase iPhone eBay x86_64 "
         "<html> </p> &amp; {\"k\": [1, null]} `code` **bold** --flag=value C++ C# .NET a/b\\c ... !!! ??? ?! -- — “quote” «» ¿¡ … "
         "👍 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ ☺ 1️⃣ 🧑🏿‍🚀 \U0001fae0 'S 'LL 'Re '\u017f '\u212a 'tis o'clock rock'n'roll ’s ’t").split()
PROMPTS = ["a photo of a cat", "A fox in the snow, golden hour, 85mm, f/1.4 -- highly detailed!", "ein roter Apfel auf dem Tisch",
           "一只可爱的猫坐在窗台上，阳光明媚", "猫が窓辺に座っている。", "고양이가 창가에 앉아 있다", "Кошка сидит на подоконнике",
           "قطة تجلس على حافة النافذة", "une affiche où il est écrit « L'été à la plage »", "sign that says \"HELLO WORLD\"",
           "{\"scene\": \"forest\", \"camera\": {\"lens\": \"35mm\"}, \"colors\": [\"#ff0000\", \"#00FF00\"]}",
           "Line one\nLine two\r\nLine three\n\n\n  indented", "  leading and trailing  ", "\n", " ", "", "\t", "a", "'", "'s", "\n\n\n ", "   x"]


def letters_of_all_scripts():
    """A few characters of every block of 128, whatever is assigned there (not surrogates)."""
    out = []
    for start in range(0, 0x20000, 128):
        block = [chr(c) for c in range(start, start + 128) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"]
        if block:
            out.append(block)
    return out


def strings(special, count=5000, seed=1):
    r = random.Random(seed)
    blocks = letters_of_all_scripts()
    out = list(PROMPTS) + ["x" * 5000, "é" * 3000, "漢" * 3000, " " * 3000, "ab" * 4000, "\n" * 2000, "9" * 3000, "!" * 3000, "👍" * 1000,
                           "\u0301" * 500, "a\u0301" * 500, "A" * 3000, "aA" * 1500, "\r\n" * 700, " \n" * 700]
    out += list(special) + [f"a{t}b" for t in special] + [f" {t} " for t in special] + [f"{t}{t}\n{t}" for t in special]
    out += [t[:-1] for t in special] + [t[1:] for t in special] + [t.upper() for t in special]
    while len(out) < count:
        kind, n = r.randrange(10), r.randrange(1, 12)
        if kind < 3:
            parts = [r.choice(WORDS) + (r.choice(SPACES) if r.random() < 0.5 else " ") for _ in range(n)]
        elif kind < 5:
            block = r.choice(blocks)
            parts = [r.choice(block) if r.random() < 0.85 else r.choice(SPACES) for _ in range(2 * n)]
        elif kind == 5:
            parts = [r.choice(r.choice(blocks)) for _ in range(2 * n)]
        elif kind == 6:
            parts = [r.choice(SPACES) if r.random() < 0.6 else r.choice(WORDS) for _ in range(2 * n)]
        elif kind == 7:
            parts = [chr(r.choice([r.randrange(0, 128), r.randrange(128, 0x800)])) for _ in range(3 * n)]
        elif kind == 8:
            parts = [r.choice(list(special) + WORDS + SPACES) for _ in range(n)] if special else [r.choice(WORDS)]
        else:
            parts = [r.choice("aAbBzZ019'\"-_. \n\u0301\u0327é中한👍") for _ in range(3 * n)]
        text = "".join(parts)
        if kind == 9 and r.random() < 0.5:
            text = unicodedata.normalize(r.choice(["NFC", "NFD"]), text)
        out.append(text)
    return out
