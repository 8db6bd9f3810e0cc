"""Interface of the vocabularies behind `Tokenizer`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer as Engine

from jclip.names import TokenizerKind


class Vocabulary(Protocol):
    """Tokens and rules of one kind of tokenizer.

    Attributes:
      kind: name of the rules.
      begin, end: ids of the special tokens around a text.
      pad: id of padding.
    """

    kind: TokenizerKind
    begin: int
    end: int
    pad: int

    @property
    def tokens(self) -> Sequence[str]:
        """Every token, by its id."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without the special tokens around it."""

    def engine_json(self) -> str:
        """Returns the engine of the `tokenizers` library as a tokenizer.json, see `Tokenizer.engine_json`."""

    def complete(self) -> Engine:
        """Returns a new engine that turns any text into ids, special tokens included, see `Tokenizer.complete_json`."""

    def save(self, folder: Path) -> None:
        """Writes the vocabulary's files into an existing folder."""
