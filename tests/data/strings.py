"""Strings that tokenizers disagree about: scripts, accents, emoji, controls, long words, nothing at all."""

import random

FIXED = (
    "",
    " ",
    "a",
    "一只可爱的橘猫，坐在窗台上。",
    "“引号” ‘单’ … — ·《书》",
    "Äpfel für Ähnlichkeit, naïve café, Ångström ĲSSEL ŉ ſharp",
    "Il n'est pas là; they're, I'll, we'd, I'M HE'S",
    "日本語のテキストとカタカナ、ひらがな",
    "한국어 텍스트 문장입니다",
    "Ελληνικά ΣΊΣΥΦΟΣ Σ ΑΣ",
    "İstanbul ILGAZ ığdır",
    "русский текст ёж Й",
    "هذا نص عربي مُشَكَّل، وفارسی می‌خواهم",
    "🐕‍🦺 👩🏽‍🚀 🇨🇳 #️⃣ ☃️",
    "tab\tnewline\nreturn\rnull\x00bell\x07nbsp\u00a0zwsp\u200bline\u2028para\u2029bom\ufeff",
    "[MASK] [CLS] ##ing <s> </s> <mask> <unk>",
    "&amp;amp; &lt;b&gt; &quot;x&quot; schÃ¶n",
    "１２３ ＦＵＬＬ ｗｉｄｔｈ ㈱ ﬁ ½ ² Ⅷ",
    "x" * 199,
    "x" * 200,
    "x" * 201,
    "long " * 200,
    "𠀀𪜀豈 ideographs outside the first plane",
    "replacement � soft\u00adhyphen combining e\u0301\u0323",
    "snake_case kebab-case a.b.c $5 + 3 = 8 < 9 ^ ` | ~",
    "1234567890 3.14 2026-11-24",
)

_POOLS = (
    "abcdefghijklmnopqrstuvwxyz ABCDEFG 0123456789 .,!?'\"-_/()[]{}#$%&*+<=>@^`|~\\ ",
    "的一是不了人我在有他这为之大来以个中上们 猫狗苹果山水火车飞机，。！？“”《》",
    "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿžščřłőűąęğış ÀÉÎÕÜ ",
    "あいうえおカキクケコがぎぐパピプー 가나다라마바사 한국 ",
    "абвгдежзийклмнопрстуфхцчшщъыьэюяЁЙ αβγδεζηθικλμνξοπρσςτυφχψω ΑΣ ",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهويپچژگ َُِّ ",
    "🐕🍎⛰️🏖️🎣👍🏽👩‍💻🇫🇷❤️☀ ",
    "\t\n\r\u00a0\u200b\u200d\u2003\u3000\u00ad\ufeff\x1f\x7f",
)


def varied(count: int, seed: int = 0) -> list[str]:
    """The fixed strings, then random ones that mix scripts."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 6)):
            pool = draw.choice(_POOLS[:-1] if draw.random() < 0.95 else _POOLS)
            parts.append("".join(draw.choices(pool, k=draw.randint(1, 12))))
        made.append(draw.choice(("", " ")).join(parts))
    return [*FIXED, *made]
