"""Languages by their BCP 47 codes, and what they call themselves."""

LANGUAGE_NAMES = {
    "ar": "العربية", "bn": "বাংলা", "cs": "čeština", "da": "dansk", "de": "Deutsch", "el": "Ελληνικά", "en": "English",
    "es": "español", "fa": "فارسی", "fi": "suomi", "fil": "Filipino", "fr": "français", "he": "עברית", "hi": "हिन्दी",
    "hr": "hrvatski", "hu": "magyar", "id": "Indonesia", "it": "italiano", "ja": "日本語", "ko": "한국어",
    "mi": "Māori", "nl": "Nederlands", "no": "norsk", "pl": "polski", "pt": "português", "quz": "runasimi",
    "ro": "română", "ru": "русский", "sv": "svenska", "sw": "Kiswahili", "te": "తెలుగు", "th": "ไทย", "tr": "Türkçe",
    "uk": "українська", "vi": "Tiếng Việt", "zh": "中文",
}  # fmt: skip
"""Those of Crossmodal-3600 and of AltCLIP-m18."""


def name_of(language: str) -> str:
    """For tables: the language's own name and its code, or the code alone."""
    name = LANGUAGE_NAMES.get(language)
    return f"{name} ({language})" if name else language
