"""Strings that tokenizers disagree about: 40 scripts, symbols, accents, emoji, controls, long words, empty strings."""

import random
from functools import cache
from unicodedata import ucd_3_2_0

FIXED = (
    "",
    " ",
    "\n\t ",
    "a",
    "A photo of a cat sitting on the windowsill.",
    "一只可爱的橘猫，坐在窗台上。",
    "一隻可愛的橘貓坐在窗臺上",
    "“引号” ‘单’ … — ·《书》",
    "Äpfel für Ähnlichkeit, naïve café, Ångström ĲSSEL ŉ ſharp",
    "Il n'est pas là; they're, I'll, we'd, I'M HE'S it’s “so” said",
    "¿Dónde está el niño? Ação não é coração. Zażółć gęślą jaźń. Příliš žluťoučký kůň.",
    "Người đàn ông đang cưỡi ngựa trên bãi biển",
    "日本語のテキストとカタカナ、ひらがな ﾊﾝｶｸ ｶﾞ",
    "한국어 텍스트 문장입니다",
    "Ελληνικά ΣΊΣΥΦΟΣ Σ ΑΣ",
    "İstanbul ILGAZ ığdır",
    "русский текст ёж Й, український їжак, сръбски њ",
    "هذا نص عربي مُشَكَّل، وفارسی می‌خواهم ۱۲۳ اردو میں",
    "חָתוּל יוֹשֵׁב עַל הַחַלּוֹן",
    "खिड़की पर बैठी बिल्ली, क्षत्रिय १२३",
    "জানালায় একটি বিড়াল বসে আছে",
    "ஜன்னலில் ஒரு பூனை அமர்ந்திருக்கிறது",
    "కిటికీ మీద పిల్లి కూర్చుంది",
    "ಕಿಟಕಿಯ ಮೇಲೆ ಬೆಕ್ಕು ജനാലയിൽ പൂച്ച",
    "แมวนั่งอยู่บนขอบหน้าต่าง",
    "ແມວນັ່ງຢູ່ເທິງປ່ອງຢ້ຽມ",
    "ឆ្មាមួយអង្គុយលើបង្អួច",
    "ကြောင်တစ်ကောင် ပြတင်းပေါက်မှာ ထိုင်နေတယ်",
    "კატა ფანჯარაზე ზის ᲥᲐᲠᲗᲣᲚᲘ",
    "Կատուն նստած է պատուհանին և",
    "ድመት በመስኮት ላይ ተቀምጣለች።",
    "ཞི་མི་ཞིག་སྒེའུ་ཁུང་ལ་བསྡད་འདུག",
    "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ᠌ муур",
    "ජනේලය මත බළලෙක්",
    "🐕‍🦺 👩🏽‍🚀 🇨🇳 #️⃣ ☃️ 👨‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️‍🔥 🏳️‍🌈",
    "tab\tnewline\nreturn\rnull\x00bell\x07nbsp\u00a0zwsp\u200bline\u2028para\u2029bom\ufeff",
    "[MASK] [CLS] ##ing [UNK] [PAD] [SEP]",
    "<s> </s> <mask> <unk> a<pad>b  <mask>c ▁ a▁b ▁▁",
    "<|startoftext|> <|endoftext|> a <START_OF_TEXT> cat<end_of_text>!<end_of_text>",
    "&amp;amp; &lt;b&gt; &quot;x&quot; schÃ¶n",
    "１２３ ＦＵＬＬ ｗｉｄｔｈ ㈱ ﬁ ½ ² Ⅷ",
    "x" * 199,
    "x" * 200,
    "x" * 201,
    "x" * 3000,
    "long " * 200,
    "猫" * 700,
    "แมว" * 150,
    "𠀀𪜀豈 ideographs outside the first plane",
    "replacement � soft\u00adhyphen combining e\u0301\u0323 Zalgo z̷̢͇a̶͙̐l̵͖̈́g̴̟̈́o̸̧͝",
    "snake_case kebab-case a.b.c $5 + 3 = 8 < 9 ^ ` | ~",
    "1234567890 3.14 2026-11-24 https://example.org/?q=1&r=2#3",
)

# Blocks of Unicode, first and last code point. Only code points assigned in Unicode 3.2 are used, so that every version
# of Python makes the same strings, and every tokenizer's tables know their characters.
_BLOCKS = {
    "ASCII": "0020-007E",
    "Latin": "00A0-024F 1E00-1EFF",
    "IPA": "0250-02FF",
    "marks": "0300-036F",
    "Greek": "0370-03FF 1F00-1FFF",
    "Cyrillic": "0400-052F",
    "Armenian": "0531-058A",
    "Hebrew": "0591-05F4",
    "Arabic": "060C-06FF",
    "Arabic forms": "FB50-FDFB FE70-FEFC",
    "Syriac": "0700-074A",
    "Thaana": "0780-07B1",
    "Devanagari": "0901-0970",
    "Bengali": "0981-09FA",
    "Gurmukhi": "0A02-0A74",
    "Gujarati": "0A81-0AEF",
    "Oriya": "0B01-0B70",
    "Tamil": "0B82-0BF2",
    "Telugu": "0C01-0C6F",
    "Kannada": "0C82-0CEF",
    "Malayalam": "0D02-0D6F",
    "Sinhala": "0D82-0DF4",
    "Thai": "0E01-0E5B",
    "Lao": "0E81-0EDD",
    "Tibetan": "0F00-0FCF",
    "Burmese": "1000-1059",
    "Georgian": "10A0-10FB",
    "Jamo": "1100-11F9",
    "Hangul": "AC00-D7A3",
    "Ethiopic": "1200-137C",
    "Cherokee": "13A0-13F4",
    "Canadian": "1401-1676",
    "Ogham and runes": "1680-16F0",
    "Khmer": "1780-17E9",
    "Mongolian": "1800-18A9",
    "Kana": "3041-30FF 31F0-31FF",
    "Bopomofo": "3105-31B7",
    "Yi": "A000-A4C6",
    "Han": "4E00-9FA5",
    "rare Han": "3400-4DB5 F900-FA6A 20000-2A6D6",
    "CJK signs": "3000-303F 3200-33FE",
    "wide and narrow": "FF01-FFEE",
    "signs": "2010-2BFF",
    "mathematics": "1D400-1D7FF",
    "emoji": "2600-27BF",
}
_PICTURES = "🐕🍎⛰🏖🎣👍👩👨👧💻🚀🇫🇷🇨🇳❤☀🏳🌈🏽🏿"
_JOINERS = ("\u200d", "\ufe0f", "🏽", "\u20e3", "")
_CONTROLS = (
    "\t\n\r\x00\x07\x1f\x7f\x85\u00a0\u00ad\u2003\u200b\u200c\u200d\u200e\u2028\u2029\u202e\u2060\u3000\ufeff\ufffd"
)
_COMMON = (
    " abcdefghijklmnopqrstuvwxyz",
    "ABCDEFG 0123456789 .,!?'\"-_/()[]{}#$%&*+<=>@^`|~\\",
    "的一是不了人我在有他这为之大来以个中上们 猫狗苹果山水火车飞机，。！？“”‘’《》",
)


def varied(count: int, seed: int = 0) -> list[str]:
    """Returns the fixed strings, then random ones: words of one or several scripts, joined emoji, and controls."""
    draw = random.Random(seed)
    return [*FIXED, *(_string(draw) for _ in range(count))]


def _string(draw: random.Random) -> str:
    scripts = [_letters(draw.choice(list(_BLOCKS))) for _ in range(draw.choice((1, 1, 2, 5)))] + [draw.choice(_COMMON)]
    parts = []
    for _ in range(draw.randint(1, 7)):
        kind = draw.random()
        if kind < 0.9:
            parts.append("".join(draw.choices(draw.choice(scripts), k=draw.randint(1, 9))))
        elif kind < 0.95:
            parts.append("".join(draw.choice(_PICTURES) + draw.choice(_JOINERS) for _ in range(draw.randint(1, 5))))
        else:
            parts.append("".join(draw.choices(_CONTROLS, k=draw.randint(1, 3))))
    return draw.choice(("", " ", " ")).join(parts)


@cache
def _letters(block: str) -> str:
    spans = (span.split("-") for span in _BLOCKS[block].split())
    points = (point for first, last in spans for point in range(int(first, 16), int(last, 16) + 1))
    return "".join(chr(point) for point in points if ucd_3_2_0.category(chr(point)) != "Cn")
