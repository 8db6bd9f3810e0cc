"""Shapes of batches: they are compiled and measured before the service is warm.

A larger batch is not always faster. On a CPU a batch of images soon is as slow as its images one by one, and a padded
batch is slower than a smaller one that is full. So the sizes are measured, and a batch takes the number of items that
is encoded fastest.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from jclip.bundle import Bundle
from jclip.encoding import padded_length

_GAIN = 1.05
"""A size is faster than another if it encodes 1.05 times as many items in the same time; less is noise."""
_ENOUGH, _RUNS = 0.1, 3
"""A batch is measured until this number of seconds or runs."""


class Encodes(Protocol):
    """Model as the service uses it: `jclip.inference.Model`, or an ONNX export."""

    bundle: Bundle
    similarity_scale: float

    def encode_image(self, pictures: Any) -> np.ndarray:
        """Returns (n, d) float32, L2-normalised, of uint8 (n, size, size, 3)."""

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Returns (n, d) float32, L2-normalised."""


class Form(NamedTuple):
    """Kind and padded length of items; items of equal form are encoded in one batch.

    Attributes:
      text: True for texts, False for images.
      length: number of tokens to which a text is padded; 0 for images.
    """

    text: bool
    length: int = 0


def form_of_texts(bundle: Bundle, texts: Sequence[str]) -> list[Form]:
    """Returns the form of each text. Raises JclipError if one cannot be tokenised."""
    longest = bundle.context_length
    return [Form(True, padded_length(len(ids), longest)) for ids in bundle.tokenizer.encode(texts, longest)]


def encoded(model: Encodes, form: Form, inputs: Sequence[Any]) -> np.ndarray:
    """Returns (n, d) float32, L2-normalised, of texts or images of a form."""
    return model.encode_text(inputs) if form.text else model.encode_image(np.stack(inputs))


class Speeds:
    """Measured seconds of batches of one form, by their size."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._useless = 0

    def note(self, size: int, seconds: float) -> None:
        """Notes a measurement. Sizes are noted in ascending order."""
        fastest = max((each / self._seconds[each] for each in self._seconds), default=0.0)
        self._seconds[size] = max(seconds, 1e-9)
        self._useless = 0 if size / self._seconds[size] >= _GAIN * fastest else self._useless + 1

    def __bool__(self) -> bool:
        """Returns True if a size was measured."""
        return bool(self._seconds)

    @property
    def grows(self) -> bool:
        """True if a larger size may be faster: that is, not if each of the last two was no gain."""
        return self._useless < 2

    def best(self, waiting: int) -> int:
        """Returns the number of items to take of those that wait: the one that is encoded fastest.

        >>> speeds = Speeds()
        >>> for size, seconds in ((1, 1.0), (2, 1.5), (4, 2.5), (8, 6.0)):
        ...     speeds.note(size, seconds)
        >>> [speeds.best(waiting) for waiting in (1, 2, 3, 4, 5, 8, 100)]
        [1, 2, 2, 4, 4, 4, 4]
        """

        def rate(size: int) -> tuple[float, int]:
            return min(size, waiting) / self._seconds[size], size

        return min(max(self._seconds, key=rate), waiting)


def shapes(largest: int) -> list[int]:
    """Returns the sizes of compiled batches.

    >>> shapes(8), shapes(6)
    ([1, 2, 4, 8], [1, 2, 4, 6])
    """
    return [*(1 << power for power in range((largest - 1).bit_length())), largest]


def examples(bundle: Bundle) -> dict[Form, Any]:
    """Returns an input of each form."""
    found: dict[Form, Any] = {}
    if bundle.preprocessing is not None:
        size = bundle.preprocessing.size
        found[Form(False)] = np.zeros((size, size, 3), np.uint8)
    texts = ["a " * words for words in range(1, bundle.context_length + 1)]
    for form, text in zip(form_of_texts(bundle, texts), texts, strict=True):
        found.setdefault(form, text)
    return found


def warm_up(model: Encodes, largest: int, speeds: dict[Form, Speeds], clock: Callable[[], float]) -> Iterator[None]:
    """Compiles and measures the shapes of batches of at most `largest` items, and yields after each.

    `speeds` gets the measurements. All forms of the smallest size are first, so that every request can be answered
    soon.
    """
    inputs = examples(model.bundle)
    for size in shapes(largest):
        for form, example in inputs.items():
            known = speeds.setdefault(form, Speeds())
            if known.grows:
                known.note(size, _measured(partial(encoded, model, form, [example] * size), clock))
                yield


def _measured(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Returns the shortest time of a few runs, without the first, which compiles."""
    run()
    times: list[float] = []
    while len(times) < _RUNS and sum(times) < _ENOUGH:
        started = clock()
        run()
        times.append(clock() - started)
    return min(times)
