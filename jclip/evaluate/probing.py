"""Linear probes of a data set: its splits in, findings out, for all training pictures or a few of each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import Benchmark, get_benchmark
from jclip.evaluate.datasets.class_sets import ClassSet, class_names, read_classes, splits_in
from jclip.evaluate.datasets.same import count_shared
from jclip.evaluate.findings import Finding
from jclip.evaluate.metrics import classification, probe
from jclip.evaluate.metrics.bootstrap import RESAMPLES

Shots = int | None
"""Pictures of each class; None for all there are."""


@dataclass(frozen=True)
class ProbeSets:
    """The splits of a data set.

    Attributes:
      splits: "train", "test", and "valid" where there is one.
      benchmark: what is known of the set; None for one of somebody's own.
      names: of the classes, for people: in English where the data come with such names.
      shared: number of test pictures that are in another split too.
    """

    splits: Mapping[str, ClassSet]
    benchmark: Benchmark | None
    names: Sequence[str]
    shared: int = 0

    @property
    def note(self) -> str:
        """Test pictures that are learnt from, and what is left out of each split; empty where there is neither."""
        said = [f"Split {name}: {one.note}" for name, one in self.splits.items() if one.note]
        if self.shared:
            said.insert(
                0,
                f"{self.shared:,} of {len(self.splits['test'].pictures):,} test pictures are in split train or valid "
                "too, so that the figures are too high: take them out of one.",
            )
        return " ".join(said)


def read_splits(data: Path, dataset: str = "") -> ProbeSets:
    """The splits train, test and, where it is there, valid.

    Args:
      data: a folder of three folders, or a data folder.
      dataset: a name of `benchmarks.BENCHMARKS`, "" for none.

    Raises:
      JclipError: as `class_sets.read_classes`; splits of different classes, pictures of several classes, or a test
        split of another size than the data set's.
    """
    benchmark = get_benchmark(dataset) if dataset else None
    if not data.is_dir():
        raise JclipError(f"{data} is not there: name a folder with train and test")
    there = splits_in(data)
    if not {"train", "test"} <= set(there):
        found = ", ".join(there) or "none"
        raise JclipError(f"{data} must have the splits train and test, but has {found}: give it a folder of each")
    splits = {name: read_classes(data, name) for name in ("train", "test")}
    for name in {"valid", "val"} & set(there):
        splits["valid"] = read_classes(data, name)
    for one in splits.values():
        if one.keys != splits["train"].keys:
            raise JclipError(f"{one.name} has other classes than {splits['train'].name}: give both the same folders")
        if not one.single:
            raise JclipError(f"{one.name} has pictures of several classes, which a probe cannot learn: give one each")
    if benchmark:
        test = splits["test"]
        benchmark.check(test.name, len(test.keys), len(test.pictures))
    train = splits["train"]
    names = class_names(train, "en") if "en" in train.labels else train.keys
    learnt = [one.pictures for name, one in splits.items() if name != "test"]
    return ProbeSets(splits, benchmark, names, count_shared(splits["test"].pictures, *learnt))


def find(
    sets: ProbeSets,
    features: Mapping[str, npt.NDArray[np.float32]],
    shots: Shots,
    *,
    seeds: int = 3,
    resamples: int = RESAMPLES,
) -> tuple[Finding, npt.NDArray[np.float64]]:
    """The figures of a probe on the test split, means over several draws where few pictures are drawn.

    Args:
      sets: the splits.
      features: of the pictures of each.
      shots: pictures of each class; a few have no validation split beside them, and hold out some of their own.
      seeds: so many draws.
      resamples: of the bootstrap, where all pictures are learnt from; 0 for no intervals.

    Returns:
      The figures, and the (n, c) logits of the first draw.

    Raises:
      JclipError: a class with fewer pictures, or as `probe.fit`.
    """
    train, test = sets.splits["train"], sets.splits["test"]
    valid = (features["valid"], sets.splits["valid"].classes_n) if "valid" in sets.splits else None
    found, logits = [], []
    for seed in range(1 if shots is None else seeds):
        rows = np.arange(len(train.pictures)) if shots is None else probe.shots(train.classes_n, shots, seed)
        some = (features["train"][rows], train.classes_n[rows])
        learnt = probe.learn(some, valid if shots is None else None, len(train.keys))
        logits.append(learnt.scores(features["test"]))
        found.append(
            classification.find(
                test,
                logits[-1],
                classification.softmax(logits[-1]),
                names=sets.names,
                benchmark=sets.benchmark,
                kind="probe",
                resamples=resamples if shots is None else 0,
            )
        )
    name = "all" if shots is None else f"{shots} a class"
    figures = {one: float(np.mean([each.figures[one] for each in found])) for one in found[0].figures}
    shown = found[0]
    if len(found) > 1:
        shown = replace(shown, confusion=(), scores=None)  # of one draw they would not be those of the figures
        figures["accuracy_std"] = float(np.std([each.figures["accuracy"] for each in found], ddof=1))
    counts = {**found[0].counts, "draws": len(found)}
    left_out = sum(len(one.left_out) for one in sets.splits.values())
    counts |= {name: count for name, count in (("left_out", left_out), ("shared", sets.shared)) if count}
    return replace(shown, variant=name, figures=figures, counts=counts, note=sets.note), logits[0]
