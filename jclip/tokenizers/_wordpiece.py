"""WordPiece by cn_clip's rules (Yang et al. 2022): lower case, no accents, every CJK character a word.

Differences from `transformers.BertTokenizer`: only Unicode categories Cc and Cf are dropped, and words have up to 200
characters. "[MASK]" in a text is not special, but punctuation and a word. Curly double quotes, which the vocabulary
lacks, become straight ones. Of the 12,000 strings in tests/tokenizers, 8.1 % get other ids (transformers 5.24); of
those without quotes, 0.11 %.

A cased vocabulary keeps case, accents and quotes, as in cn_clip's code.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, processors
from tokenizers.models import WordPiece as Model

from jclip.errors import JclipError
from jclip.names import TokenizerKind
from jclip.tokenizers._bert_files import ACCENTS, CASE, CHINESE, SPECIAL, BertPieces, BertVocabulary
from jclip.tokenizers._complete import cn_clip_normalizer, cn_clip_splitter

_LONGEST_WORD = 200

# Blocks that BERT's code treats as Chinese, both ends included; kana and hangul are not among them.
_CJK = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
# ASCII that counts as punctuation although Unicode calls some of it symbols: $ + < = > ^ ` | ~
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class WordPiece(BertVocabulary):
    """BERT vocabulary with cn_clip's rules. Raises JclipError if cn_clip does not support the vocabulary's settings."""

    kind: TokenizerKind = "wordpiece"

    def __init__(self, pieces: BertPieces):
        super().__init__(pieces)
        self._cased = _is_cased(pieces)
        ids = {token.strip(): number for number, token in enumerate(pieces.tokens)}
        self.pad, _, self.begin, self.end = (ids[token] for token in SPECIAL)
        # No token is declared special to the engine, so that none is recognised inside a text.
        self._engine = Engine(Model(ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without [CLS] and [SEP] around it."""
        words = [list(_words(text, self._cased)) for text in texts]
        return [each.ids for each in self._engine.encode_batch(words, is_pretokenized=True, add_special_tokens=False)]

    def complete(self) -> Engine:
        """Returns an engine with cn_clip's rules as its steps."""
        engine = Engine.from_str(self._engine.to_str())
        engine.normalizer = cn_clip_normalizer(self._cased)
        engine.pre_tokenizer = cn_clip_splitter(_CJK, _is_punctuation)
        engine.decoder = decoders.WordPiece(prefix="##")
        engine.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", self.begin), ("[SEP]", self.end)]
        )
        return engine


def _is_cased(pieces: BertPieces) -> bool:
    settings = pieces.settings
    lower, accents, chinese = settings.get(CASE, True), settings.get(ACCENTS), settings.get(CHINESE, True)
    if accents not in (None, lower) or not chinese:
        raise JclipError(
            f"{pieces.name} sets {CASE} {lower}, {ACCENTS} {accents}, {CHINESE} {chinese}, but Chinese-CLIP strips "
            "accents exactly where it lower-cases, and splits Chinese: give a vocabulary with these settings"
        )
    return not lower


def _words(text: str, cased: bool) -> Iterator[str]:
    if not cased:
        text = text.lower().replace("“", '"').replace("”", '"')
    for word in "".join(map(_spaced, text)).split():
        if not cased:
            # Lower case again, word by word: the lower case of sigma depends on its neighbours.
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
