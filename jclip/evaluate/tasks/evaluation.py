"""Evaluation of one model on one data set, and the folder that holds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from jclip.evaluate.report.elements import Section
from jclip.evaluate.report.from_results import write_pages
from jclip.evaluate.results import Results, write_results
from jclip.images.preprocess import Picture
from jclip.io.files import whole_folder

Progress = Callable[[str], object]
"""Callback that receives a description of the current step."""


class Encodes(Protocol):
    """Model with both towers, such as `jclip.load` returns. Both methods return (n, d) float32 unit vectors."""

    def encode_image(self, pictures: Sequence[Picture] | np.ndarray, /) -> np.ndarray: ...  # noqa: D102

    def encode_text(self, sentences: Sequence[str], /) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True)
class Evaluation:
    """Results of a task, and the further contents of its report and its folder.

    Attributes:
      results: the figures.
      sections: function that returns the sections of the page after the figures.
      more_files: function that writes further files into a folder.
    """

    results: Results
    sections: Callable[[], list[Section]] = list
    more_files: Callable[[Path], object] = lambda folder: None

    def write(self, folder: str | Path) -> None:
        """Writes a new folder with results.json, report.html, report.md and the task's own files.

        Raises JclipError if the folder exists already, or the disk is full.
        """
        with whole_folder(Path(folder), replace=False) as partial:
            write_results(self.results, partial / "results.json")
            write_pages(self.results, partial, self.sections())
            self.more_files(partial)
