"""Evaluations during training give the figures of `jclip eval`, on any number of processes."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest

import jclip.evaluate
from jclip.bundle import Bundle
from jclip.config import from_json, to_json
from jclip.errors import JclipError
from jclip.evaluators import Classification, Probe, Retrieval, evaluators
from jclip.inference import Model
from jclip.models.build import init_variables
from jclip.parallel.mesh import make_mesh
from jclip.tokenizers.text import load_tokenizer
from jclip.train.checks import check
from jclip.train.configuration import Run
from jclip.train.identity import check_same, identity
from jclip.train.logging.sinks import read_journal
from jclip.train.planning.reduced import reduce
from tests.evaluate.cn_clip_data import many_to_many, png, write_texts
from tests.train import toy
from tests.train.cluster import Job, run_all


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluations")
    reduced = reduce(toy.config(), place / "inputs")
    stage = replace(reduced.stages[1], batch_size=8)
    many_to_many(place / "pairs")
    for language in ("en", "zh"):
        write_texts(
            place / "pairs" / f"test_texts.{language}.jsonl", [(n, f"{language} {n}", [100 + 7 * n]) for n in range(12)]
        )
    for number, name in enumerate(("red apple", "blue castle", "black dragon")):
        for split, count in (("classes", 5), ("probe/train", 3), ("probe/test", 4)):
            (place / split / name).mkdir(parents=True)
            for one in range(count):
                (place / split / name / f"{one}.png").write_bytes(png(100 * number + len(split) + one))
    evaluations = (
        Retrieval("pairs", str(place / "pairs"), languages=("en", "zh")),
        Classification("things", str(place / "classes"), prompts=("en",)),
        Probe("probe", str(place / "probe"), shots=(1,), seeds=1),
    )
    return replace(reduced, stages=(stage,), evaluations=evaluations, evaluate_every=1)


def found(workdir):
    """Returns {total steps: figures} of a run's evaluations."""
    lines = [line for line in read_journal(workdir / "metrics.jsonl") if line["kind"] == "evaluation"]
    return {line["total"]: {name: value for name, value in line.items() if "/" in name} for line in lines}


def test_the_figures_of_the_bundle(run, tmp_path):
    variables = init_variables(run.model, jax.random.key(run.seed))
    tokenizer, context = load_tokenizer(Path(run.tokenizer)), run.stages[0].context_length
    bundle = Bundle(run.model, jax.device_get(variables["params"]), tokenizer, run.preprocessing, context)
    pairs, things, probe = (one.data for one in run.evaluations)
    with jax.set_mesh(make_mesh()):
        figures = {
            f"{name}/{figure}": value
            for name, evaluate in evaluators(run).items()
            for figure, value in evaluate(variables).items()
        }
        model = Model(bundle)
        evaluations = (
            jclip.evaluate.retrieval(model, pairs, languages=["en", "zh"], resamples=0),
            jclip.evaluate.classification(model, things, prompts=["en"], resamples=0),
            jclip.evaluate.probe(model, probe, shots=[1], seeds=1, resamples=0),
        )
    of_retrieval, (of_things,), (of_probe,) = (one.results.tests for one in evaluations)
    for test in of_retrieval:
        for name in ("t2i_r1", "i2t_r10", "mean_recall"):
            assert figures[f"pairs/{test.language}/{name}"] == pytest.approx(test.figures[name])
    for name in ("accuracy", "mean_per_class"):
        assert figures[f"things/{name}"] == pytest.approx(of_things.figures[name])
    assert figures["probe/accuracy"] == pytest.approx(of_probe.figures["accuracy"], abs=0.1)  # one image of twelve

    # The loop calls them before the first step, on all processes.
    few = replace(run, evaluations=run.evaluations[:1])
    two = run_all(Job(few, tmp_path / "two", stop_after=0), processes=2, devices=2)
    assert [code for code, _ in two] == [0, 0], two
    pairs = {name: value for name, value in figures.items() if name.startswith("pairs/")}
    assert found(tmp_path / "two")[0] == pytest.approx(pairs)


def test_wrong_evaluations_are_refused_before_training(run, tmp_path):
    broken = replace(run, evaluations=(Retrieval("muge", run.evaluations[0].data, protocol="muge"),))
    with pytest.raises(JclipError, match="evaluation 'muge': .* has no split 'valid': it has test"):
        evaluators(broken)
    twice = replace(run, evaluations=run.evaluations[:1] * 2)
    with pytest.raises(JclipError, match="two evaluations named 'pairs'"):
        check(twice)
    with pytest.raises(JclipError, match="best is 'pears/t2i_r1', but the evaluations are pairs, things, probe"):
        check(replace(run, best="pears/t2i_r1"))
    assert evaluators(replace(run, evaluations=())) == {}


def test_evaluations_may_change_when_a_run_resumes(run, tmp_path):
    assert from_json(Run, to_json(run)) == run
    before, now = (identity(one, load_tokenizer(Path(run.tokenizer))) for one in (run, replace(run, evaluations=())))
    check_same(before, now, tmp_path)
    check_same(now, before, tmp_path)
