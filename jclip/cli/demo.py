"""`jclip demo`: both recipes on real images and real names, from nothing to a report."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jclip.cli.options import read
from jclip.configs.demo.quickstart import Length, demo
from jclip.console import Console
from jclip.demo.scores import FEW_COLUMNS, tables
from jclip.errors import JclipError
from jclip.evaluate.report.terminal import TerminalTable
from jclip.extras import EXTRAS, installing
from jclip.io.files import check_folder
from jclip.plain import print_json


@dataclass(frozen=True)
class DemoOptions:
    """Trains both recipes on emoji, a real multilingual set of images and names, and writes report.html.

    First it trains an English CLIP from scratch. Then AltCLIP: a multilingual student learns from the English text
    tower, and trains contrastively. Then Chinese-CLIP: a Chinese text tower trains with the image tower frozen, then
    both towers. All are scored on images by an artist that no training used. A second call resumes, or shows the
    finished report.

    Attributes:
      workdir: folder of the data, the runs and the report.
      seed: seed of every run.
      quick: train a tenth of the steps.
      long: train twelve times the steps, an hour or two on two cores.
      validate: train on Twemoji alone and score OpenMoji, for tuning; the test artist is not read.
      json: print the figures as JSON instead of tables.
    """

    workdir: Path = Path("runs/demo")
    seed: int = 0
    quick: bool = False
    long: bool = False
    validate: bool = False
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(DemoOptions, arguments, "jclip demo")
    if options.quick and options.long:
        raise JclipError("--quick and --long exclude each other: choose one")
    console = Console(stderr=options.json)
    check_folder(options.workdir)
    length: Length = "quick" if options.quick else "long" if options.long else "standard"
    outcome = demo(options.workdir, options.seed, length, options.validate, console)
    if outcome is None:
        console.tell("stopped and saved: the same command resumes")
        return 130
    if options.json:
        print_json(outcome.results, indent=2)
    else:
        console.print(TerminalTable(tables(outcome.results, FEW_COLUMNS)[0]))
    minutes = outcome.results["seconds"] / 60
    console.tell(f"{minutes:.1f} minutes of training and scoring. All figures, with images: {outcome.report}")
    program, bundle = _program(), str(outcome.bundle)
    console.tell(
        f"To score a model on the same images: {shlex.join([program, 'eval', 'retrieval', bundle, str(outcome.pairs)])}"
    )
    pictures = outcome.pairs.parent
    words = [program, "serve", bundle, "--index", str(pictures.with_name("index")), "--embed", str(pictures)]
    console.tell(f"To search its images in a browser: {_needing_serve()}{shlex.join(words)}")
    return 0


def _program() -> str:
    """Returns the name by which a shell finds this program: "jclip", or its path if its folder is not on PATH."""
    own, found = Path(sys.argv[0]), shutil.which("jclip")
    if own.name != "jclip" or (found is not None and own.exists() and own.samefile(found)):
        return "jclip"
    return os.path.relpath(own)


def _needing_serve() -> str:
    """Returns the command that installs what `jclip serve` needs, if it is not installed, and " && "."""
    missing = [module for module, extra in EXTRAS.items() if extra == "serve" and find_spec(module) is None]
    return f"{installing(missing[0])} && " if missing else ""
