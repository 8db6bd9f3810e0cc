"""Parts that the tasks of `jclip eval` share: opening a bundle, and showing results."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax

from jclip.bundle import load_bundle
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate.report import from_results
from jclip.evaluate.report.terminal import TerminalTable
from jclip.evaluate.results import as_dict
from jclip.evaluate.tasks.evaluation import Evaluation
from jclip.images.preprocess import Orientation
from jclip.inference import Model
from jclip.io.files import check_writable
from jclip.parallel.mesh import make_mesh
from jclip.plain import print_json


@contextmanager
def all_devices() -> Iterator[None]:
    """Sets a mesh of all devices for the block; none on a single device, where it changes nothing."""
    if jax.device_count() == 1:
        yield
        return
    with jax.set_mesh(make_mesh()):
        yield


def open_model(
    folder: Path, batch_size: int, context_length: int | None, orientation: Orientation | None = None
) -> Model:
    """Loads a bundle's model.

    Args:
      folder: the bundle.
      batch_size: pictures or texts encoded at once.
      context_length: maximum number of tokens of a text; the bundle's own when None.
      orientation: of the camera, as in `Preprocessing`; the bundle's own when None.

    Raises:
      JclipError: the folder is not a bundle, the batch size is below 1, or the context is longer than the bundle's.
    """
    if batch_size < 1:
        raise JclipError(f"--batch-size {batch_size} is not possible: give 1 or more")
    bundle = load_bundle(folder)
    if context_length is not None:
        if not 3 <= context_length <= bundle.context_length:
            raise JclipError(
                f"{folder} reads texts of {bundle.context_length} tokens, so --context-length {context_length} is not "
                f"possible: give 3 to {bundle.context_length}, or train it further with more (stages.N.context_length)"
            )
        bundle = replace(bundle, context_length=context_length)
    if orientation is not None and bundle.preprocessing is not None:
        bundle = replace(bundle, preprocessing=replace(bundle.preprocessing, orientation=orientation))
    return Model(bundle, batch_size)


def check_output(output: Path | None) -> None:
    """Raises JclipError, before long work, if the folder exists already or cannot be written."""
    if output is not None:
        check_writable(output)


def words(text: str) -> list[str]:
    """Splits a text at commas and removes duplicates."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def check_resamples(count: int) -> None:
    """Raises JclipError for a negative number of resamples."""
    if count < 0:
        raise JclipError(f"--resamples {count} is not possible: give 0 for no intervals, or 1000")


def show(evaluation: Evaluation, output: Path | None, *, as_json: bool) -> None:
    """Prints the results as tables or JSON, and writes the folder if one is given."""
    if as_json:
        print_json(as_dict(evaluation.results), indent=2)
    else:
        console = Console()
        for table in from_results.tables(evaluation.results):
            console.print(TerminalTable(table))
    if output is not None:
        evaluation.write(output)
        Console(stderr=True).tell(f"written: {output / 'report.html'}")
