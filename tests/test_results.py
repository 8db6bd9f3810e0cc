"""benchmarks/RESULTS.md: its commands exist, tables are those of commands and of the README, paragraphs are short."""

import re
from importlib.util import find_spec
from pathlib import Path

from benchmarks import tpu_account

ROOT = Path(__file__).parents[1]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
LONGEST = 800  # characters of a paragraph


def test_every_command_exists():
    modules = set(re.findall(r"python -m (benchmarks\.\w+)", RESULTS))
    assert len(modules) > 10 and all(find_spec(module) for module in modules)


def test_the_headers_are_those_that_the_command_prints():
    assert f"| {' | '.join(tpu_account.COLUMNS)} |" in RESULTS


def test_the_demos_rows_are_those_of_the_readme():
    rows = re.findall(r"^\|.*±.*\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    figures = [row.split(" | ", 2)[2] for row in rows]
    assert len(figures) > 5 and all(row in RESULTS for row in figures)


def test_paragraphs_are_short():
    assert [line for line in RESULTS.splitlines() if len(line) > LONGEST] == []
