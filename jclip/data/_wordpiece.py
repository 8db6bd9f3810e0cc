"""BERT's WordPiece as cn_clip applies it (Yang et al. 2022): lower case, no accents, every CJK character a word.

It differs from `transformers.BertTokenizer`: only categories Cc and Cf are dropped, words have up to 200 characters,
"[MASK]" in a text is punctuation and a word, and curly double quotes, which the vocabulary lacks, become straight ones.
Of the 12,000 strings of tests/data its ids differ on 8.1 % (transformers 5.24), and on 0.11 % of those without quotes.

A cased vocabulary keeps case, accents and quotes; that, too, is cn_clip's code.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers.models import WordPiece as Model

from jclip.data.text import Kind
from jclip.errors import JclipError

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LONGEST_WORD = 200
_FILE, _SETTINGS = "vocab.txt", "tokenizer_config.json"
_CASE, _ACCENTS, _CHINESE = "do_lower_case", "strip_accents", "tokenize_chinese_chars"
# What tokenizer.json calls the same.
_NORMALIZER = {"lowercase": _CASE, "strip_accents": _ACCENTS, "handle_chinese_chars": _CHINESE}

# The blocks that BERT's authors called Chinese, end included: no kana, no hangul.
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
# ASCII that counts as punctuation although Unicode calls some of it symbols: $ + < = > ^ ` | ~
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class WordPiece:
    """The vocabulary, from its lines; `cased` keeps case and accents."""

    kind: Kind = "wordpiece"

    def __init__(self, lines: Sequence[str], name: str = "the vocabulary", cased: bool = False):
        self.tokens, self._cased = list(lines), cased
        ids = {line.strip(): number for number, line in enumerate(lines)}
        for token in _SPECIAL:
            if token not in ids:
                raise JclipError(f"{name} has no {token}: it is not BERT's")
        self.pad, _, self.begin, self.end = (ids[token] for token in _SPECIAL)
        # No token is declared special to the engine, so that none is recognised inside a text.
        self._engine = Engine(Model(ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD))

    @classmethod
    def read(cls, file: Path) -> "WordPiece":
        """From vocab.txt or tokenizer.json; the tokenizer_config.json beside it says whether case is kept."""
        settings = _settings(file.with_name(_SETTINGS))
        if file.suffix != ".json":
            return cls(_lines(file), str(file), _is_cased(settings, str(file.with_name(_SETTINGS))))
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            lines, own = _lines_in_order(data), _settings_inside(data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise JclipError(f"{file} cannot be read as a WordPiece vocabulary: {error}") from None
        return cls(lines, str(file), _is_cased(own | settings, str(file)))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without [CLS] and [SEP]."""
        words = [list(_words(text, self._cased)) for text in texts]
        return [each.ids for each in self._engine.encode_batch(words, is_pretokenized=True, add_special_tokens=False)]

    def engine_json(self) -> str:
        """The engine as a tokenizer.json."""
        return self._engine.to_str()

    def save(self, folder: Path) -> None:
        """Writes vocab.txt, and tokenizer_config.json for a cased vocabulary."""
        (folder / _FILE).write_text("".join(f"{line}\n" for line in self.tokens), encoding="utf-8", newline="\n")
        if self._cased:
            (folder / _SETTINGS).write_text(json.dumps({_CASE: False}) + "\n", encoding="utf-8")


def _lines(file: Path) -> list[str]:
    try:
        # Not splitlines(): one entry of the Chinese vocabulary is itself a line separator.
        lines = file.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise JclipError(f"{file} cannot be read: {error}") from None
    return lines[:-1] if lines[-1] == "" else lines


def _lines_in_order(data: Any) -> list[str]:
    """The vocabulary of tokenizer.json, whose ids must be those of lines in a file."""
    ids = dict(data["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in data.get("added_tokens") or []}
    lines = sorted(ids, key=ids.__getitem__)
    if [ids[line] for line in lines] != list(range(len(lines))):
        raise ValueError(f"its {len(lines)} ids are not 0 to {len(lines) - 1}")
    return lines


def _settings_inside(data: Any) -> dict[str, Any]:
    """What tokenizer.json says in its BertNormalizer, under the names of tokenizer_config.json."""
    normalizer = data.get("normalizer") or {}
    found: dict[str, Any] = {}
    for step in normalizer.get("normalizers", [normalizer] if normalizer else []):
        if step["type"] == "BertNormalizer":
            found = {ours: step[theirs] for theirs, ours in _NORMALIZER.items() if theirs in step}
        elif step["type"] != "Replace":  # of quotes, where jclip itself wrote the file
            raise ValueError(f"it normalises text by {step['type']}, which BERT's does not")
    return found


def _settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return {name: settings[name] for name in _NORMALIZER.values() if name in settings}
    except (OSError, ValueError, TypeError) as error:
        raise JclipError(f"{file} cannot be read: {error}") from None


def _is_cased(settings: dict[str, Any], name: str) -> bool:
    lower = settings.get(_CASE, True)
    if settings.get(_ACCENTS) not in (None, lower) or not settings.get(_CHINESE, True):
        raise JclipError(
            f"{name} wants {_CASE} {lower}, {_ACCENTS} {settings.get(_ACCENTS)}, {_CHINESE} "
            f"{settings.get(_CHINESE, True)}: jclip strips accents where it lower-cases and splits Chinese"
        )
    return not lower


def _words(text: str, cased: bool) -> Iterator[str]:
    if not cased:
        text = text.lower().replace("“", '"').replace("”", '"')
    for word in "".join(map(_spaced, text)).split():
        if not cased:
            # Lower case again, word by word: a capital sigma's small form depends on what stands around it.
            word = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        yield from "".join(f" {c} " if _is_punctuation(c) else c for c in word).split()


@lru_cache(maxsize=1 << 16)
def _spaced(character: str) -> str:
    point = ord(character)
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if point in (0, 0xFFFD) or unicodedata.category(character) in ("Cc", "Cf"):
        return ""
    return f" {character} " if any(first <= point <= last for first, last in _CJK) else character


@lru_cache(maxsize=1 << 16)
def _is_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")
