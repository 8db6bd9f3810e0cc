"""What the tasks of `jclip eval` share: opening a bundle, and putting out what was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax

from jclip.bundle import load_bundle
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate.findings import Findings, as_dict, write_findings
from jclip.evaluate.report import page
from jclip.evaluate.report.report import Section, terminal
from jclip.images.preprocess import Orientation
from jclip.inference import Model
from jclip.io.files import check_writable, whole_folder
from jclip.parallel.mesh import make_mesh
from jclip.plain import print_json


@contextmanager
def all_devices() -> Iterator[None]:
    """The block runs on a mesh of all devices; on a single one there is none, which computes the same."""
    if jax.device_count() == 1:
        yield
        return
    with jax.set_mesh(make_mesh()):
        yield


def open_model(
    folder: Path, batch_size: int, context_length: int | None, orientation: Orientation | None = None
) -> Model:
    """A bundle's model.

    Args:
      folder: the bundle.
      batch_size: pictures or texts encoded at once.
      context_length: tokens read of a text, the bundle's own number when None.
      orientation: of the camera, as in `Preprocessing`, the bundle's own when None.

    Raises:
      JclipError: no bundle, a batch of nothing, or a context that is longer than the bundle's.
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
    """Checks, before long work, that the folder can be written; raises JclipError if not, or if it is there already."""
    if output is not None:
        check_writable(output)


def words(text: str) -> list[str]:
    """What stands between commas, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def check_resamples(count: int) -> None:
    """Raises JclipError for a number of resamples that cannot be."""
    if count < 0:
        raise JclipError(f"--resamples {count} is not possible: give 0 for no intervals, or 1000")


def put_out(
    findings: Findings,
    output: Path | None,
    *,
    as_json: bool,
    more: Callable[[Path], None] | None = None,
    sections: Callable[[], list[Section]] | None = None,
) -> None:
    """Prints the findings, and writes the folder if one is wanted.

    Args:
      findings: what was found.
      output: a folder that is not there yet; None for none.
      as_json: print JSON instead of tables.
      more: writes further files into the folder.
      sections: of the page, after the figures.
    """
    if as_json:
        print_json(as_dict(findings), indent=2)
    else:
        console = Console()
        for table in page.tables(findings):
            console.print(terminal(table))
    if output is None:
        return
    with whole_folder(output, replace=False) as folder:
        write_findings(findings, folder / "results.json")
        page.write_pages(findings, folder, sections() if sections else [])
        if more:
            more(folder)
    Console(stderr=True).tell(f"written: {output / 'report.html'}")
