"""Trains the demo's runs one after another, scores them, and writes the report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.console import Console
from jclip.demo.page import write_page
from jclip.demo.pictures import write_pairs
from jclip.demo.progress import DemoWatcher, Schedule
from jclip.demo.runs import DemoRun
from jclip.demo.scores import Examination, summarise
from jclip.plain import as_json
from jclip.running import run
from jclip.train.logging.sinks import read_journal

RESULTS, PAGE, PICTURES = "results.json", "report.html", "pictures"
"""Names in the demo's folder: all figures, the report, the test artist's images with their names."""


@dataclass(frozen=True)
class DemoOutcome:
    """A finished demo.

    Attributes:
      results: all figures, see `scores.summarise`, and "seconds", summed over all calls.
      report: file of the page.
      pairs: table of the test images and their Chinese names.
      bundle: the last model of the second run, AltCLIP.
    """

    results: dict[str, Any]
    report: Path
    pairs: Path
    bundle: Path


def run_demo(runs: Sequence[DemoRun], examination: Examination, home: Path, console: Console) -> DemoOutcome | None:
    """Trains and scores all runs, in order, then writes figures and report into `home`; a second call resumes.

    Returns None when a signal stopped it; everything up to that step is saved. Raises JclipError as `run` does.
    """
    started = time.perf_counter()
    schedule = Schedule({(each.key, stage): s for each in runs for stage, s in enumerate(each.seconds)})
    try:
        for number, each in enumerate(runs):
            with DemoWatcher(console, runs, number, schedule) as watcher:
                questions = examination.evaluators(each.run, each.languages)
                if not run(each.run, each.workdir, watcher=watcher, more=questions).finished:
                    return None
    finally:
        seconds = _total_seconds(home, time.perf_counter() - started)
    journals = {each.key: read_journal(each.workdir / "metrics.jsonl") for each in runs}
    results = {**summarise(runs, journals, examination), "seconds": seconds}
    (home / RESULTS).write_text(as_json(results, indent=2) + "\n", encoding="utf-8")
    page = write_page(home / PAGE, runs, journals, results, examination)
    return DemoOutcome(results, page, write_pairs(home / PICTURES, examination), runs[1].bundle())


def _total_seconds(home: Path, seconds: float) -> float:
    """Adds a call's seconds to those of earlier calls, until the demo is finished; returns the sum."""
    file = home / "seconds.txt"
    before = float(file.read_text(encoding="utf-8")) if file.is_file() else 0.0
    if (home / RESULTS).is_file():
        return before
    home.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{before + seconds:.1f}\n", encoding="utf-8")
    return before + seconds
