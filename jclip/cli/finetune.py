"""`jclip finetune BUNDLE DATA OUT`."""

import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from jclip.accelerators.targets import GPU_SHARE
from jclip.cli.options import BundleArgument, read
from jclip.cli.platforms import take_of_gpus
from jclip.console import Console
from jclip.data.importing.encodings import check_encoding
from jclip.data.importing.parts import Reading
from jclip.evaluate.report import from_results
from jclip.evaluate.report.terminal import TerminalTable
from jclip.finetune import outcome as results
from jclip.finetune.choices import Wishes
from jclip.finetune.finetuning import Planned, Request, Stopped, plan, run
from jclip.finetune.writing import VALID
from jclip.plain import print_json


@dataclass(frozen=True)
class FinetuneOptions:
    """Fine-tunes BUNDLE on images with captions; called again, it resumes where it stopped.

    DATA is a table with an image and a caption in each row (CSV or TSV), a folder of images with captions beside
    them, or a folder that `jclip data import` wrote. The command chooses batch size, learning rate, epochs and the
    other settings from the data, the model and the machine. It prints them and writes them to OUT/finetune.py, which
    you can change. OUT/best is BUNDLE or the best checkpoint of the run: the one with the higher mean recall on the
    validation split.

    Exit codes: 0 finished; 75 saved after SIGTERM, or SIGHUP of a lost terminal: start it again; 130 saved after
    Ctrl-C.

    Attributes:
      bundle: starting model: a bundle's folder; or a file, a folder or hf://ORG/NAME that `jclip convert` reads.
      data: images with captions.
      out: a new folder for finetune.py, run/, the bundle best/ and report.html; data/ if DATA is imported.
      validation: images held out if DATA has no split "valid": a share, such as 10%, or a number, such as 30.
      language: language of the captions, such as zh.
      root: folder of the image paths in a table; the table's own by default.
      picture: column of a table with the path of the image; found automatically by default.
      caption: column of a table with the caption; found automatically by default.
      encoding: encoding of a table or of captions, such as gb18030; found automatically by default.
      captions_from: source of the captions of a folder of images: files beside the images, or the images' file names.
      max_skipped: maximum number, or share, of skipped records; more stop the import. 10% by default.
      epochs: passes over the data; chosen automatically by default.
      minutes: approximate maximum duration; the estimate is printed.
      batch_size: pairs per step; chosen automatically by default.
      seed: seed of the data order, the augmentation and dropout.
      json: print the outcome as JSON, without progress.
    """

    bundle: BundleArgument
    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    validation: str = "10%"
    language: str | None = None
    root: str | None = None
    picture: str | None = None
    caption: str | None = None
    encoding: str | None = None
    captions_from: Literal["files", "names"] | None = None
    max_skipped: str | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int | None = None
    seed: int = 0
    json: bool = False

    @property
    def request(self) -> Request:
        """The options as a request."""
        return Request(
            self.bundle,
            self.data,
            self.out,
            self.validation,
            Reading(
                language=self.language,
                root=self.root,
                picture=self.picture,
                caption=self.caption,
                encoding=None if self.encoding is None else check_encoding(self.encoding),
                captions_from=self.captions_from,
            ),
            self.max_skipped,
            Wishes(self.epochs, self.minutes, self.batch_size),
            self.seed,
        )


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    take_of_gpus(GPU_SHARE)
    options = read(FinetuneOptions, arguments, "jclip finetune")
    console = Console(stderr=True, quiet=options.json)
    planned = plan(options.request, console)
    _show(planned, console)
    ended = run(planned, console)
    if isinstance(ended, Stopped):
        console.tell(f"stopped after {ended.steps} steps and saved: the same command resumes")
        return 128 + signal.SIGINT if ended.signal in (None, signal.SIGINT) else os.EX_TEMPFAIL
    if options.json:
        _print(planned, ended)
    else:
        _tell(planned, ended, console)
    return 0


def _show(planned: Planned, console: Console) -> None:
    shown = Table(title="settings", title_justify="left")
    for name in ("", "value", "reason"):
        shown.add_column(name, overflow="fold")
    for choice in planned.table:
        shown.add_row(choice.name, choice.value, choice.why)
    console.print(shown)
    console.tell(
        f"written to {planned.file}; for other settings, edit a copy of it and run: {planned.command('COPY.py')}"
    )


def _print(planned: Planned, found: results.FinetuneOutcome) -> None:
    out = planned.request.out
    print_json(
        {
            "bundle": str(out / results.BEST),
            "kept": "trained" if found.improved else "start",
            "start": found.before.tests[found.main].figures,
            "trained": found.trained.tests[found.main].figures,
            "configuration": str(planned.file),
            "report": str(out / results.PAGE),
        },
        indent=2,
    )


def _tell(planned: Planned, found: results.FinetuneOutcome, console: Console) -> None:
    for table in from_results.tables(found.trained, found.before):
        Console().print(TerminalTable(table))
    best = planned.request.out / results.BEST
    (recall, after), (first, then) = found.figure("mean_recall"), found.figure("t2i_r1")
    figures = f"mean recall {recall:.1%} -> {after:.1%}, R@1 from text to image {first:.1%} -> {then:.1%}"
    said = f"Better on the validation split: {figures}." if found.improved else f"{results.NOT_BETTER} ({figures})"
    for line in (
        said,
        f"Retrieved images and the learning curve: {planned.request.out / results.PAGE}",
        f"The {'trained' if found.improved else 'starting'} model is {best}. To use it:",
        "  " + shlex.join(["jclip", "eval", "retrieval", str(best), str(planned.data), "--split", VALID]),
    ):
        console.tell(line)
