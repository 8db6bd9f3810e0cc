"""Languages by BCP 47 code, with their own names."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

LANGUAGE_NAMES = {
    "ar": "العربية", "bn": "বাংলা", "cs": "čeština", "da": "dansk", "de": "Deutsch", "el": "Ελληνικά", "en": "English",
    "es": "español", "fa": "فارسی", "fi": "suomi", "fil": "Filipino", "fr": "français", "he": "עברית", "hi": "हिन्दी",
    "hr": "hrvatski", "hu": "magyar", "id": "Indonesia", "it": "italiano", "ja": "日本語", "ko": "한국어",
    "mi": "Māori", "nl": "Nederlands", "no": "norsk", "pl": "polski", "pt": "português", "quz": "runasimi",
    "ro": "română", "ru": "русский", "sv": "svenska", "sw": "Kiswahili", "te": "తెలుగు", "th": "ไทย", "tr": "Türkçe",
    "uk": "українська", "vi": "Tiếng Việt", "zh": "中文",
}  # fmt: skip
"""Names of the languages of Crossmodal-3600 and AltCLIP-m18, by code."""


_SCRIPTS = {"CJK": "zh", "HANGUL": "ko", "CYRILLIC": "ru", "ARABIC": "ar", "THAI": "th", "DEVANAGARI": "hi"}
"""Most common language of a script, by the first word of the Unicode names of its letters."""


def language_of(names: Iterable[str]) -> str:
    """Returns the likely language of names: the most common language of the script of most letters; English for Latin.

    >>> language_of(["猫", "狗"]), language_of(["りんご", "林檎"]), language_of(["cat", "dog"])
    ('zh', 'ja', 'en')
    """
    letters = [unicodedata.name(letter, "").partition(" ")[0] for name in names for letter in name if letter.isalpha()]
    counts = Counter(letters)
    if counts["HIRAGANA"] + counts["KATAKANA"]:  # Chinese has none, and Japanese has both these and Han characters
        counts["CJK"] += counts["HIRAGANA"] + counts["KATAKANA"]
        script = max(counts, key=counts.__getitem__)
        return "ja" if script == "CJK" else _SCRIPTS.get(script, "en")
    return _SCRIPTS.get(max(counts, key=counts.__getitem__), "en") if letters else "en"


def name_of(language: str) -> str:
    """Returns the language's own name and its code, or the code alone."""
    name = LANGUAGE_NAMES.get(language)
    return f"{name} ({language})" if name else language
