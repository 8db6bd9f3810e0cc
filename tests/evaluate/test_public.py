"""Public names of jclip.evaluate, used in Python as in its docstring."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import jclip
import jclip.evaluate
from jclip.cli import main
from jclip.errors import JclipError
from jclip.evaluate.results import write_results
from tests.evaluate.cn_clip_data import many_to_many, png


@pytest.fixture(scope="module")
def model(small_bundle):
    return jclip.load(small_bundle)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    place = tmp_path_factory.mktemp("classes")
    for split in ("train", "test"):
        for number, name in enumerate(("red apple", "blue castle")):
            (place / split / name).mkdir(parents=True)
            for one in range(3):
                (place / split / name / f"{one}.png").write_bytes(png(10 * number + one + len(split)))
    return place


def by_command(capsys, task, bundle, data, *more):
    assert main(["eval", task, str(bundle), str(data), *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["tests"]


def same(figures, test):
    assert figures == pytest.approx({name: test[name] for name in figures})


def test_every_name_is_documented_and_imported_on_use():
    names = {line.split(":")[0] for line in jclip.evaluate.__doc__.partition("Names:")[2].splitlines() if ":" in line}
    assert {name.strip() for part in names for name in part.split(",")} == set(jclip.evaluate.__all__)
    for name in jclip.evaluate.__all__:
        assert getattr(jclip.evaluate, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'recal': it has LinearProbe"):
        jclip.evaluate.recal  # noqa: B018
    program = "import sys, jclip.evaluate; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_retrieval(model, small_bundle, tmp_path, capsys):
    many_to_many(tmp_path / "data")
    evaluation = jclip.evaluate.retrieval(model, tmp_path / "data", resamples=10)
    same(evaluation.results.tests[0].figures, by_command(capsys, "retrieval", small_bundle, tmp_path / "data")[0])
    evaluation.write(tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"results.json", "report.html", "report.md", "test_predictions.jsonl"} <= names
    assert jclip.evaluate.read_results(tmp_path / "out") == evaluation.results
    with pytest.raises(JclipError, match="exists already"):
        evaluation.write(tmp_path / "out")


def test_compare(model, tmp_path, capsys):
    many_to_many(tmp_path / "data")
    for name, resamples in (("a", 10), ("b", 0)):
        jclip.evaluate.retrieval(model, tmp_path / "data", resamples=resamples).write(tmp_path / name)
    found = jclip.evaluate.compare(tmp_path / "a", tmp_path / "b" / "results.json")
    assert main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.as_dict()
    before, after = found.as_dict()["tests"][0]["figures"]["mean_recall"]
    assert before == after and found.left_out == 0
    found.write(tmp_path / "compared")
    names = {file.name for file in (tmp_path / "compared").iterdir()}
    assert names == {"comparison.json", "report.html", "report.md"}
    other = replace(found.b, tests=tuple(replace(test, dataset="another") for test in found.b.tests))
    write_results(other, tmp_path / "other.json")
    with pytest.raises(JclipError, match="have no test in common: evaluate both on the same data"):
        jclip.evaluate.compare(tmp_path / "a", tmp_path / "other.json")


def test_classification_and_zero_shot(model, small_bundle, classes, capsys):
    evaluation = jclip.evaluate.classification(model, classes, prompts=["en"], resamples=0)
    (test,) = evaluation.results.tests
    same(test.figures, by_command(capsys, "classify", small_bundle, classes, "--prompts", "en")[0])
    pictures = sorted((classes / "test").rglob("*.png"))  # the castles first
    found_nc = jclip.evaluate.zero_shot(model, pictures, ["red apple", "blue castle"])
    assert np.mean(found_nc.argmax(axis=1) == [1, 1, 1, 0, 0, 0]) == test.figures["accuracy"]


def test_probe(model, small_bundle, classes, capsys):
    evaluation = jclip.evaluate.probe(model, classes, shots=[1, None], seeds=2, resamples=0)
    for result, test in zip(
        evaluation.results.tests,
        by_command(capsys, "probe", small_bundle, classes, "--shots", "1,all", "--seeds", "2"),
        strict=True,
    ):
        same(result.figures, test)
