"""Reads and writes BERT's vocabulary files: vocab.txt, tokenizer.json and tokenizer_config.json."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken
from tokenizers import Tokenizer as Engine

from jclip.errors import JclipError, unreadable
from jclip.io.json_files import read_bytes, read_object
from jclip.tokenizers._complete import keeps_case

CASE, ACCENTS, CHINESE = "do_lower_case", "strip_accents", "tokenize_chinese_chars"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_VOCABULARY, _SETTINGS, _ADDED = "vocab.txt", "tokenizer_config.json", "added_tokens_decoder"
# Names of the settings in tokenizer.json.
_NORMALIZER = {"lowercase": CASE, "strip_accents": ACCENTS, "handle_chinese_chars": CHINESE}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class BertPieces:
    """Contents of a BERT vocabulary, for BERT's rules or cn_clip's.

    Attributes:
      lines: tokens in the order of their ids, one for each line of vocab.txt.
      added: tokens that are matched before the text is split; those not in `lines` get the ids that follow.
      settings: case, accents and Chinese characters, from tokenizer_config.json or else tokenizer.json.
      name: file name, for messages.
    """

    lines: Sequence[str]
    added: tuple[AddedToken, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = "the vocabulary"

    def __post_init__(self) -> None:
        ids = self.ids()
        for token in SPECIAL:
            if token not in ids:
                raise JclipError(f"{self.name} has no {token}, so it is not BERT's: fetch it again, or give BERT's own")
        for setting, value in self.settings.items():
            if not isinstance(value, bool) and not (setting == ACCENTS and value is None):
                raise JclipError(f"{self.name}: {setting} is {value!r}, but must be true or false: correct it")

    @property
    def tokens(self) -> list[str]:
        """Every token, by its id."""
        known = set(self.lines)
        return [*self.lines, *(token.content for token in self.added if token.content not in known)]

    def ids(self) -> dict[str, int]:
        """Returns {token: id}; a token on several lines has the id of the last."""
        return {token: number for number, token in enumerate(self.tokens)}

    @classmethod
    def read(cls, file: Path) -> "BertPieces":
        """Reads vocab.txt or tokenizer.json, and the tokenizer_config.json beside it.

        Raises JclipError if either is damaged, or another model's.
        """
        settings, added = _beside(file.with_name(_SETTINGS))
        if file.suffix != ".json":
            pieces = cls(_lines(file), tuple(added.values()), settings, str(file))
            ids = pieces.ids()
            wrong = [token.content for number, token in added.items() if ids[token.content] != number]
            if wrong:
                settings_file = file.with_name(_SETTINGS)
                raise JclipError(f"{settings_file} gives {wrong[0]} another id than {file.name}: correct it")
            return pieces
        try:
            data = read_object(file, "as a WordPiece vocabulary")
            lines, inside = _lines_in_order(data), _settings_inside(data)
            added = _added((token["id"], token) for token in data.get("added_tokens") or [])
        except JclipError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise unreadable(file, error, "as a WordPiece vocabulary") from None
        return cls(lines, tuple(added.values()), inside | settings, str(file))

    def save(self, folder: Path) -> None:
        """Writes vocab.txt, and tokenizer_config.json if there are settings or added tokens."""
        (folder / _VOCABULARY).write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8", newline="\n")
        record, ids = dict(self.settings), self.ids()
        if self.added:
            record[_ADDED] = {
                ids[token.content]: {"content": token.content, **{flag: getattr(token, flag) for flag in _FLAGS}}
                for token in self.added
            }
        if record:
            text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
            (folder / _SETTINGS).write_text(text, encoding="utf-8")


class BertVocabulary:
    """Base class of the rules for a BERT vocabulary. A subclass makes the engine, and encodes with it."""

    _engine: Engine

    def __init__(self, pieces: BertPieces):
        self.pieces = pieces

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads vocab.txt or tokenizer.json, and the tokenizer_config.json beside it."""
        return cls(BertPieces.read(file))

    @cached_property
    def tokens(self) -> list[str]:
        """Every token, by its id."""
        return self.pieces.tokens

    def engine_json(self) -> str:
        """Returns the engine as a tokenizer.json."""
        return self._engine.to_str()

    def save(self, folder: Path) -> None:
        """Writes vocab.txt, and tokenizer_config.json if there are settings or added tokens."""
        self.pieces.save(folder)


def _lines(file: Path) -> list[str]:
    try:
        # Not splitlines(): one entry of the Chinese vocabulary is itself a line separator.
        lines = read_bytes(file).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise unreadable(file, error) from None
    return lines[:-1] if lines[-1] == "" else lines


def _lines_in_order(data: Any) -> list[str]:
    """Returns the tokens of tokenizer.json by id. Together with the added tokens, ids must be consecutive from 0."""
    own = data["model"]["vocab"]
    if not isinstance(own, dict):
        raise ValueError("its vocab is not an object of tokens with their ids")
    ids = own | {token["content"]: token["id"] for token in data.get("added_tokens") or []}
    lines = sorted(ids, key=ids.__getitem__)
    if [ids[line] for line in lines] != list(range(len(lines))):
        raise ValueError(f"its {len(lines)} ids are not 0 to {len(lines) - 1}")
    return lines[: max(own.values()) + 1]


def _settings_inside(data: Any) -> dict[str, Any]:
    """Returns the settings of tokenizer.json's normalizer, under the names of tokenizer_config.json."""
    normalizer = data.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    cased = keeps_case(steps)
    if cased is not None:
        return {CASE: not cased}
    found: dict[str, Any] = {}
    for step in steps:
        if step["type"] == "BertNormalizer":
            found = {ours: step[theirs] for theirs, ours in _NORMALIZER.items() if theirs in step}
        elif step["type"] != "Replace":  # earlier versions of jclip replace curly quotes
            raise ValueError(f"it normalises text by {step['type']}, which BERT's does not")
    return found


def _beside(file: Path) -> tuple[dict[str, Any], dict[int, AddedToken]]:
    """Returns settings and added tokens of tokenizer_config.json, if it exists."""
    if not file.is_file():
        return {}, {}
    try:
        record = read_object(file)
        added = _added((_id(number), token) for number, token in (record.get(_ADDED) or {}).items())
        return {name: record[name] for name in _NORMALIZER.values() if name in record}, added
    except JclipError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise unreadable(file, error) from None


def _id(number: str) -> int:
    if not number.isdecimal():
        raise ValueError(f"{number!r} is not an id")
    return int(number)


def _added(tokens: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[int, AddedToken]:
    """Returns {id: token} in the order of the ids."""
    ordered = sorted(tokens, key=lambda pair: pair[0])
    return {n: AddedToken(token["content"], **{f: token[f] for f in _FLAGS if f in token}) for n, token in ordered}
