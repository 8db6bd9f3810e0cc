r"""Query language of `jclip search`: texts and images, with sums, differences and weights.

    狗                   a text, in any language
    狗 + 雪 - 人         more like the first two, less like the third
    2:红色 + 1.5:car     weights
    @beach.jpg - 人      an image: "@" and its path, or the path of an image file alone
    "a - b" + 2:"3:2"    in quotes, a text is as written; "" in it is a quote

An operator is "+" or "-" with white space on both sides; the end of the query counts as white space. A weight is a
decimal number with a colon directly before the text. Text that begins with a space or a digit has no weight. So these
are plain texts: "C++", "a-b", "3:2", "2001: A Space Odyssey". The full-width "＋", "－" and "：" count as well.

The vector of a query is the weighted sum of the L2-normalised vectors of its terms, L2-normalised again.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jclip.errors import JclipError
from jclip.images.preprocess import Orientation, Picture, is_picture_name
from jclip.names import TowerName
from jclip.plain import shown

_OPERATOR = re.compile(r"(?:^|(?<=\s))([+\-＋－])(?=\s|$)")
_WEIGHT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[:：](?=[^\s0-9])", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_SIGNS = {"+": 1.0, "＋": 1.0, "-": -1.0, "－": -1.0}
_LEAST = 1e-5
"""Length of a sum, relative to its weights, below which it is rounding: the terms cancel out."""


class Embedder(Protocol):
    """Part of a model that queries use, see `jclip.inference.Model`."""

    def encode_image(self, pictures: Sequence[Picture], /, *, orientation: Orientation | None = None) -> np.ndarray:
        """Encodes images as (n, d) float32, L2-normalised."""

    def encode_text(self, sentences: Sequence[str], /) -> np.ndarray:
        """Encodes texts as (n, d) float32, L2-normalised."""


@dataclass(frozen=True)
class Term:
    """Text or image of a query, with its weight.

    Attributes:
      content: the text, or the image.
      tower: the tower that encodes it.
      weight: factor of its vector; negative to move away from it.
    """

    content: Picture
    tower: TowerName = "text"
    weight: float = 1.0


@dataclass(frozen=True)
class Query:
    """Weighted terms.

    Attributes:
      terms: at least one.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise JclipError("the query is empty: give a text or an image")
        for term in self.terms:
            if not math.isfinite(term.weight):
                raise JclipError(f"query: a weight is {term.weight}, but must be a finite number")
        if not any(term.weight for term in self.terms):
            raise JclipError("query: all weights are 0: give one of another value")

    @property
    def towers(self) -> set[TowerName]:
        """Towers that the query needs."""
        return {term.tower for term in self.terms}

    def vector(self, model: Embedder, orientation: Orientation | None = None) -> np.ndarray:
        """Computes the query's vector, (d,) float32, L2-normalised.

        Args:
          model: model of the index.
          orientation: treatment of the EXIF orientation of images; None for the bundle's.

        Raises:
          JclipError: an image cannot be read, or the terms cancel out.
        """
        texts = [term for term in self.terms if term.tower == "text"]
        images = [term for term in self.terms if term.tower == "image"]
        parts = []
        if texts:
            parts.append(model.encode_text([str(term.content) for term in texts]))
        if images:
            parts.append(model.encode_image([term.content for term in images], orientation=orientation))
        weights = np.array([term.weight for term in (*texts, *images)], np.float64)
        weights /= np.abs(weights).max()  # so that no sum overflows
        summed_d = weights @ np.concatenate(parts).astype(np.float64)
        length = np.linalg.norm(summed_d)
        if length < _LEAST * np.abs(weights).sum():
            raise JclipError("query: its terms cancel out, so that nothing is left to search for: change a weight")
        return (summed_d / length).astype(np.float32)


def parse_query(text: str | Sequence[str], *, files: bool = False) -> Query:
    r"""Returns the query that a text describes.

        >>> [(term.content, term.weight) for term in parse_query("狗 + 2:雪 - 人").terms]
        [('狗', 1.0), ('雪', 2.0), ('人', -1.0)]
        >>> parse_query("C++ 3:2").terms
        (Term(content='C++ 3:2', tower='text', weight=1.0),)

    Args:
      text: the query, or its words as a shell gives them. A word that is the path of an image file is one term, even
        with spaces.
      files: True to accept image files as terms. Otherwise "@path" is a text, as suits queries from elsewhere.

    Raises:
      JclipError: the query or a term is empty, a quote is not closed, or an image does not exist.
    """
    if not isinstance(text, str):
        text = " ".join(_one_term(word) if files else word for word in text)
    return Query(tuple(_term(words, sign, files) for sign, words in _signed(text, files)))


def quoted(text: str) -> str:
    """Returns a text in quotes, for a query that searches for it as written.

    >>> quoted('a "b" - c')
    '"a ""b"" - c"'
    """
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _signed(text: str, files: bool) -> Iterator[tuple[float, str]]:
    """Yields (sign, words) of each term: splits at the operators that are not in quotes."""
    if not text.strip():
        raise JclipError("the query is empty: give a text or an image")
    sign, name, at = 1.0, "", 0
    while True:
        start = at + len(text[at:]) - len(text[at:].lstrip())
        end = _end_of_quotes(text, start, files)
        operator = _OPERATOR.search(text, end)
        words = text[start : operator.start() if operator else len(text)].rstrip()
        if words:
            yield sign, words
        elif at or operator is None:  # only the first operator may have nothing before it
            where = f"after {name!r}" if operator is None else f"between {name!r} and {operator[1]!r}"
            raise JclipError(f'query: nothing {where}; to search for the sign itself, put it in quotes: "{name}"')
        if operator is None:
            return
        sign, name, at = _SIGNS[operator[1]], operator[1], operator.end()


def _end_of_quotes(text: str, start: int, files: bool) -> int:
    """Returns the end of the quoted part of the term at `start`; `start` if it has none."""
    head = _WEIGHT.match(text, start)
    begin = head.end() if head else start
    begin += files and text.startswith("@", begin)
    quotes = _QUOTED.match(text, begin)
    return quotes.end() if quotes else start


def _term(words: str, sign: float, files: bool) -> Term:
    head = _WEIGHT.match(words)
    weight = sign * float(head[1]) if head else sign
    body = words[head.end() :] if head else words
    is_image = files and body.startswith("@")
    if is_image:
        body = body[1:]
    if quotes := body.startswith('"'):
        body = _unquoted(body)
    if is_image:
        return _image(body, weight)
    if files and not quotes and _is_image_file(body):
        return Term(body, "image", weight)
    if not body.strip():
        raise JclipError("query: a text is empty: write something between its quotes")
    return Term(body, "text", weight)


def _unquoted(body: str) -> str:
    found = _QUOTED.match(body)
    if found is None:
        raise JclipError(f'query: {shown(body, 60)} has no closing quote: add one ("" in quotes is a quote)')
    if rest := body[found.end() :].strip():
        raise JclipError(
            f"query: {shown(rest, 60)} follows a closing quote: put a + or - between them, or quote all of the text"
        )
    return found[1].replace('""', '"')


def _image(path: str, weight: float) -> Term:
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        hint = quoted(f"@{shown(path, 60)}")
        raise JclipError(
            f"query: image {shown(path) or repr(path)} {what}; to search for the text, put it in quotes: {hint}"
        )
    return Term(path, "image", weight)


def _is_image_file(word: str) -> bool:
    return is_picture_name(word) and os.path.isfile(word)


def _one_term(word: str) -> str:
    """Returns a shell's word as it is; quoted, if it is the path of an image file."""
    path = word.removeprefix("@")
    return f"@{quoted(path)}" if _is_image_file(path) else word
