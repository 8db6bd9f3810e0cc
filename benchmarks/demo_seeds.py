"""Prints the demo's figures over several seeds as Markdown, for the tables of RESULTS.md.

    for seed in 0 1 2; do jclip demo --seed $seed; done
    python benchmarks/demo_seeds.py runs/demo/results.json runs/demo/seed-1/results.json runs/demo/seed-2/results.json

Each figure is the mean over the seeds ± the sample standard deviation, in per cent. A row "mean" averages the languages
of a stage except English, then the seeds.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

KS = (1, 5, 10)
COLUMNS = [f"{way}_r{k}" for way in ("t2i", "i2t") for k in KS]


def main(files: Sequence[str]) -> None:
    """Prints a table for each question."""
    if len(files) < 2:
        sys.exit("usage: python benchmarks/demo_seeds.py RESULTS.json RESULTS.json …: two seeds at least")
    runs = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    for question in dict.fromkeys(row["question"] for row in runs[0]["rows"]):
        print(f"\n### {question}: {runs[0]['candidates'][question]} candidates, {len(runs)} seeds\n")
        print(f"| | {' | '.join(COLUMNS)} |")
        print(f"|---|{'---:|' * len(COLUMNS)}")
        print("\n".join(_lines(runs, question)))
    minutes = [run["seconds"] / 60 for run in runs]
    print(f"\nminutes a run: {', '.join(f'{each:.1f}' for each in minutes)}")


def _lines(runs: list[dict[str, Any]], question: str) -> Iterator[str]:
    tables = [
        {
            (row["run"], row["stage"], row["language"]): row["figures"]
            for row in run["rows"]
            if row["question"] == question
        }
        for run in runs
    ]
    for table in tables:
        for run, stage in list(dict.fromkeys(key[:2] for key in table)):
            others = [figures for key, figures in table.items() if key[:2] == (run, stage) and key[2] != "en"]
            if len(others) > 1:
                table[run, stage, "mean"] = {name: statistics.mean(each[name] for each in others) for name in others[0]}
    for run, stage, language in tables[0]:
        moment = f"after {runs[0]['stages'][run][stage - 1]}" if stage else f"{run} before"
        cells = [_cell([table[run, stage, language][name] for table in tables]) for name in COLUMNS]
        yield f"| {moment} · {language} | {' | '.join(cells)} |"
    for language in dict.fromkeys(key[2] for key in tables[0]):
        figures = next(figures for key, figures in tables[0].items() if key[2] == language)
        for label, kind in (("chance", "chance"), ("nearest in pixels", "pixels")):
            cells = [_reference(figures, name.replace("_", f"_{kind}_")) for name in COLUMNS]
            yield f"| {label} · {language}, {figures['queries']:.0f} asked | {' | '.join(cells)} |"


def _cell(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def _reference(figures: dict[str, float], name: str) -> str:
    return f"{100 * figures[name]:.1f}" if name in figures else "–"


if __name__ == "__main__":
    main(sys.argv[1:])
