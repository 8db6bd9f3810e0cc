"""Evaluations of a run as lines of text, with the first and the best value of each figure."""

from collections.abc import Iterable, Mapping
from typing import Any

HEADLINES = ("mean_recall", "accuracy")
"""Figures that summarise an evaluation."""

_MOST = 4  # figures in a line without a headline


class Scores:
    """Evaluations so far. Figures are fractions, printed in per cent; higher is better.

    >>> scores = Scores("T1/t2i_r1")
    >>> scores.line({"total": 0, "T1/t2i_r1": 0.031, "T1/t2i_r5": 0.1})
    'step 0: T1/t2i_r1 3.1'
    >>> scores.line({"total": 200, "T1/t2i_r1": 0.412, "T1/t2i_r5": 0.7})
    'step 200: T1/t2i_r1 41.2 (start 3.1)'
    >>> scores.line({"total": 300, "T1/t2i_r1": 0.4, "T1/t2i_r5": 0.8})
    'step 300: T1/t2i_r1 40.0 (start 3.1, best 41.2 at 200)'

    `best` is the figure by which a run keeps its best model; "" for none. `earlier` are records of a resumed run.
    """

    def __init__(self, best: str = "", earlier: Iterable[Mapping[str, Any]] = ()):
        self._best = best
        self._seen: dict[int, Mapping[str, Any]] = {}
        for record in earlier:
            if record.get("kind") == "evaluation":
                self._seen[record["total"]] = record

    def line(self, record: Mapping[str, Any]) -> str:
        """Adds the record of an evaluation, and returns its line."""
        total = record["total"]
        before = [self._seen[step] for step in sorted(self._seen) if step < total]
        self._seen[total] = record
        shown = [self._figure(name, record[name], before) for name in self._chosen(record)]
        return f"step {total:,}: {'; '.join(shown) or 'no figures'}"

    def _chosen(self, record: Mapping[str, Any]) -> list[str]:
        figures = [name for name in record if "/" in name]
        chosen = [name for name in figures if name == self._best or name.rpartition("/")[2] in HEADLINES]
        return sorted(chosen or figures[:_MOST], key=lambda name: name != self._best)

    def _figure(self, name: str, value: float, before: list[Mapping[str, Any]]) -> str:
        known = [(one["total"], one[name]) for one in before if name in one]
        words = [f"start {_percent(number)}" for total, number in known if total == 0]
        step, most = max(known, key=lambda each: (each[1], -each[0]), default=(0, value))
        if step and most > value:
            words.append(f"best {_percent(most)} at {step:,}")
        beside = f" ({', '.join(words)})" if words else ""
        return f"{name} {_percent(value)}{beside}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
