"""Parts that the tasks of `jclip eval` share: options, opening a bundle, and showing results."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from jclip.cli.options import BundleArgument
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate.report import from_results
from jclip.evaluate.report.terminal import TerminalTable
from jclip.evaluate.results import as_dict
from jclip.evaluate.tasks.evaluation import Evaluation
from jclip.images.preprocess import Orientation
from jclip.inference import Model
from jclip.io.files import check_writable
from jclip.loading import load
from jclip.parallel.mesh import make_mesh
from jclip.plain import print_json


@dataclass(frozen=True)
class BundleOptions:
    """Options of every task that evaluates a bundle on data.

    Attributes:
      bundle: folder of a model; or a file, a folder or hf://ORG/NAME that `jclip convert` reads.
      data: folder of the images.
      orientation: apply rotates images by their EXIF orientation, ignore does not; by default the bundle's setting,
        which is ignore for CLIP and Chinese-CLIP.
      batch_size: images or texts encoded at once.
      resamples: number of bootstrap resamples for the 95 % intervals; 0 for no intervals.
      output: new folder for results.json, report.html and report.md.
      json: print JSON.
    """

    bundle: BundleArgument
    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    orientation: Orientation | None = None
    batch_size: int = 256
    resamples: int = 1000
    output: Path | None = None
    json: bool = False

    def check(self) -> None:
        """Raises JclipError for impossible numbers, or if the output folder cannot be written. Call it first."""
        if self.output is not None:
            check_writable(self.output)
        if self.resamples < 0:
            raise JclipError(f"--resamples {self.resamples} is not possible: give 0 for no intervals, or 1000")

    def settings(self, **more: str) -> dict[str, str]:
        """Returns the settings for the report: `more`, and the orientation if it is given."""
        return more | ({"orientation": self.orientation} if self.orientation else {})

    def console(self) -> Console:
        """Returns the console for progress."""
        return Console(stderr=True, quiet=self.json)

    def model(self, context_length: int | None = None) -> Model:
        """Loads the bundle's model. `context_length`, in tokens, and the orientation replace the bundle's own if given.

        Raises JclipError if the source cannot be loaded, the batch size is below 1, or the context is longer than the
        bundle's.
        """
        if self.batch_size < 1:
            raise JclipError(f"--batch-size {self.batch_size} is not possible: give 1 or more")
        model = load(self.bundle, batch_size=self.batch_size)
        longest = model.bundle.context_length
        if context_length is not None and not 3 <= context_length <= longest:
            raise JclipError(
                f"{self.bundle} reads texts of {longest} tokens, so --context-length {context_length} is not "
                f"possible: give 3 to {longest}, or train it further with more (stages.N.context_length)"
            )
        return model.changed(context_length=context_length, orientation=self.orientation)

    def show(self, evaluation: Evaluation) -> None:
        """Prints the results as tables or JSON, and writes the folder if one is given."""
        if self.json:
            print_json(as_dict(evaluation.results), indent=2)
        else:
            console = Console()
            for table in from_results.tables(evaluation.results):
                console.print(TerminalTable(table))
        if self.output is not None:
            evaluation.write(self.output)
            Console(stderr=True).tell(f"written: {self.output / 'report.html'}")


@contextmanager
def all_devices() -> Iterator[None]:
    """Sets a mesh of all devices for the block; does nothing on a single device."""
    if jax.device_count() == 1:
        yield
        return
    with jax.set_mesh(make_mesh()):
        yield


def words(text: str) -> list[str]:
    """Splits a text at commas and removes duplicates."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
