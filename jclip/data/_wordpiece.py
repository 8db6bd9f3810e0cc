"""BERT's WordPiece as cn_clip applies it (Yang et al. 2022): lower case, no accents, every CJK character a word.

It differs from `transformers.BertTokenizer`: only categories Cc and Cf are dropped, words have up to 200 characters,
"[MASK]" in a text is punctuation and a word, and curly double quotes, which the vocabulary lacks, become straight ones.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer as Engine
from tokenizers.models import WordPiece as Model

from jclip.data.text import Kind
from jclip.errors import JclipError

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LONGEST_WORD = 200

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
    """The vocabulary; `source` is vocab.txt or its lines."""

    kind: Kind = "wordpiece"

    def __init__(self, source: Path | Sequence[str]):
        name = str(source) if isinstance(source, Path) else "the vocabulary"
        self._lines = _read(source) if isinstance(source, Path) else list(source)
        ids = {line.strip(): number for number, line in enumerate(self._lines)}
        for token in _SPECIAL:
            if token not in ids:
                raise JclipError(f"{name} has no {token}: it is not BERT's")
        self.size = len(self._lines)
        self.pad, _, self.begin, self.end = (ids[token] for token in _SPECIAL)
        # No token is declared special to the engine, so that none is recognised inside a text.
        self._engine = Engine(Model(ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without [CLS] and [SEP]."""
        words = [list(_words(text)) for text in texts]
        return [each.ids for each in self._engine.encode_batch(words, is_pretokenized=True, add_special_tokens=False)]

    def save(self, folder: Path) -> None:
        """Writes vocab.txt."""
        (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8", newline="\n")


def _read(file: Path) -> list[str]:
    try:
        # Not splitlines(): one entry of the Chinese vocabulary is itself a line separator.
        lines = file.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise JclipError(f"{file} cannot be read: {error}") from None
    return lines[:-1] if lines[-1] == "" else lines


def _words(text: str) -> Iterator[str]:
    text = text.lower().replace("“", '"').replace("”", '"')
    for word in "".join(map(_spaced, text)).split():
        # Lower case again, word by word: a capital sigma's small form depends on what stands around it.
        bare = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        yield from "".join(f" {c} " if _is_punctuation(c) else c for c in bare).split()


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
