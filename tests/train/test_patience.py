"""Early stopping: a stage ends after some evaluations without improvement, also in a resumed run."""

from dataclasses import replace

import pytest

from jclip.errors import JclipError
from jclip.evaluators import Retrieval
from jclip.train.checks import check
from jclip.train.evaluating import is_spent
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from tests.train.toy import toy


def journal(*values, stage="one", begin=0):
    return [
        {"kind": "evaluation", "stage": stage, "total": begin + 2 * i, "toy/f": value} for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "spent"),
    [
        ((0.1,), False),
        ((0.1, 0.3, 0.2), False),  # one evaluation without improvement
        ((0.1, 0.3, 0.2, 0.3), True),  # two; an equal value is not an improvement
        ((0.1, 0.3, 0.2, 0.4), False),
        ((0.5, 0.3, 0.4), True),  # two since the start
        ((float("nan"), 0.1, 0.05), False),
        ((0.1, float("nan"), float("nan")), True),
    ],
)
def test_is_spent(values, spent):
    records = journal(*values)
    assert is_spent(2, "toy/f", "one", records[-1]["total"], records) == spent
    assert not is_spent(0, "toy/f", "one", records[-1]["total"], records)


def test_only_right_after_an_evaluation_of_this_stage():
    records = journal(0.5, 0.4, 0.3)
    assert is_spent(2, "toy/f", "one", 4, records)
    assert not is_spent(2, "toy/f", "one", 5, records)
    assert not is_spent(2, "toy/f", "two", 4, records)
    # The stage before does not count.
    assert not is_spent(2, "toy/f", "two", 8, records + journal(0.2, 0.1, stage="two", begin=6))


def test_a_stage_ends_early_and_the_next_begins(toy_run, tmp_path):
    run = toy(toy_run, steps=6)
    run = replace(run, evaluate_every=1, best="toy/f", patience=2, evaluations=())
    figures = iter([0.1, 0.3, 0.2, 0.25, *[0.4, 0.5, 0.6, 0.7, 0.8, 0.9]])
    evaluators = {"toy": lambda _: {"f": next(figures)}}
    stopped = train(run, tmp_path / "run", evaluators=evaluators, stop_after=3)  # where its patience is spent
    assert not stopped.finished and stopped.position.step == 3
    outcome = train(run, tmp_path / "run", evaluators=evaluators)
    assert outcome.finished and outcome.position.total == 3 + 6
    assert all(folder.is_dir() for folder in (*outcome.bundles, tmp_path / "run" / "best"))
    records = [r for r in read_journal(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "evaluation"]
    assert [(r["stage"], r["total"]) for r in records] == [
        *[(run.stages[0].name, total) for total in range(4)],
        *[(run.stages[1].name, total) for total in range(4, 10)],
    ]


def test_patience_needs_something_to_compare(chinese_clip):
    watched = replace(chinese_clip, evaluations=(Retrieval("toy", "data"),), best="toy/f", evaluate_every=5)
    check(replace(watched, patience=2))
    for run in (replace(watched, evaluate_every=0), replace(watched, best="")):
        with pytest.raises(JclipError, match="patience is 2, but nothing is compared"):
            check(replace(run, patience=2))
    with pytest.raises(JclipError, match="patience is -1, but must be 0 or more"):
        check(replace(watched, patience=-1))
