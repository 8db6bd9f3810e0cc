"""Base class of a run's evaluations. Those of jclip are in `jclip.evaluators`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

Figures = Iterable[tuple[str, Mapping[str, float]]]
"""Figures by language, prompts or number of shots; a single key does not appear in their names."""


class EvaluationConfig(ABC):
    """Evaluation of a run. Other packages can add kinds.

    A kind is a frozen dataclass that inherits this class and is decorated with `@kind_of(EvaluationConfig)`.

    Attributes:
      name: prefix of its figures.
      command: command of `jclip eval` that has its fields as options, and `data` as the folder; "" for none.
    """

    command: ClassVar[str] = ""
    name: str

    @abstractmethod
    def open(self) -> Callable[[Any], Figures]:
        """Opens the data, and returns the function from a model to its figures.

        The model has `encode_image` and `encode_text`, like that of `jclip.load`. Every process calls it. Raises
        JclipError if the data cannot be used.
        """
