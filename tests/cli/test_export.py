"""`jclip export` from a bundle to features, and all that it refuses."""

import errno
import json
import shutil

import numpy as np
import pytest

import jclip
from jclip.cli import main
from jclip.demo import practice
from jclip.evaluate.tasks.retrieval import retrieval
from jclip.export.formats import all_formats
from jclip.export.onnx.graph import Graph
from tests.cli.small_bundle import write_bundle


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("export")
    write_bundle(place / "bundle")
    practice.shapes(place / "shapes", pictures=12, seed=1)
    return place


def asked(*words):
    return main(["export", *map(str, words)])


def rows(out):
    return dict(tuple(cell.strip() for cell in line.strip("│").split("│")) for line in out.splitlines() if "│" in line)


def test_exported_and_used(place, capsys):
    assert asked(place / "bundle", place / "onnx") == 0
    said = rows(capsys.readouterr().out)
    assert said["towers image input name"] == "pixel_values"
    assert said["towers image input shape"] == "batch, 3, 32, 32"
    assert float(said["largest difference text"]) <= 1e-5
    model, exported = jclip.load(place / "bundle"), jclip.load(place / "onnx")
    np.testing.assert_allclose(exported.encode_text(["猫"]), model.encode_text(["猫"]), rtol=0, atol=1e-5)


def test_int8_behind_its_gate(place, capsys):
    """The figures in the record are those that `jclip eval retrieval` computes."""
    data = place / "shapes" / "pictures.csv"
    assert asked(place / "bundle", place / "int8", "--int8", "--gate", data, "--max-loss", "100", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    gate = said["onnx"]["int8"]["gate"]
    assert gate["data"].startswith(str(data)) and gate["max_loss"] == 100
    for when, folder in (("before", "bundle"), ("after", "int8")):
        (test,) = retrieval(jclip.load(place / folder), data, resamples=0).results.tests
        assert gate[when] == {name: pytest.approx(test.figures[name]) for name in ("t2i_r1", "i2t_r1")}
    assert json.loads((place / "int8" / "export.json").read_text())["onnx"] == said["onnx"]


def test_a_gate_that_fails_leaves_nothing(place, capsys, monkeypatch):
    figures = iter(({"t2i_r1": 0.9}, {"t2i_r1": 0.5}))
    monkeypatch.setattr("jclip.cli.export._Gate.__call__", lambda self, model: next(figures))
    before = sorted(place.iterdir())
    assert asked(place / "bundle", place / "out", "--int8", "--gate", place / "shapes" / "pictures.csv") == 1
    said = capsys.readouterr().err
    assert "int8 lowers t2i_r1 on" in said and "from 90.0% to 50.0%" in said and said.count("\n") == 1
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "--int8 can damage a model: give images and captions to measure it on, --gate DATA"),
        (["--ungated"], "--ungated is for --int8: give both, or neither"),
        (["--gate", "x"], "--gate is for --int8"),
        (["--int8", "--gate", "x", "--ungated"], "--gate and --ungated contradict each other"),
        (["--int8", "--gate", "x", "--max-loss", "-1"], "--max-loss is -1, but must be 0 to 100 percentage points"),
        (["--int8", "--gate", "nowhere.tsv"], "nowhere.tsv"),
        (["--format", "onx"], "onx is not a known format: did you mean onnx?"),
    ],
)
def test_options_that_are_refused(place, words, message, capsys):
    before = sorted(place.iterdir())
    assert asked(place / "bundle", place / "out", *words) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert sorted(place.iterdir()) == before


def test_a_format_from_outside(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "from jclip.export import Format, register_format\n"
        "def write(model, folder, options, say):\n"
        "    (folder / 'dim.txt').write_text(str(model.embed_dim))\n"
        "    return {'files': ['dim.txt']}\n"
        "register_format(Format('toy', 'one file', write))\n"
    )
    monkeypatch.setattr("jclip.export.formats._formats", all_formats())
    monkeypatch.setenv("JCLIP_KINDS", str(tmp_path / "mine.py"))
    assert asked(place / "bundle", tmp_path / "out", "--format", "toy") == 0
    assert rows(capsys.readouterr().out) == {"files": "dim.txt"}
    assert (tmp_path / "out" / "dim.txt").read_text() == str(jclip.load(place / "bundle").embed_dim)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["format"] == "toy" and record["toy"] == {"files": ["dim.txt"]}
    assert asked(place / "bundle", tmp_path / "no", "--format", "toy", "--with-preprocessing") == 1
    assert "--with-preprocessing does not go with --format toy" in capsys.readouterr().err
    assert asked(tmp_path / "out", tmp_path / "again") == 1
    assert "out is an export as toy, which jclip does not run" in capsys.readouterr().err


def test_places_that_are_refused(place, capsys, tmp_path, monkeypatch):
    assert asked(place / "shapes", tmp_path / "out") == 1
    assert "shapes is not a bundle" in capsys.readouterr().err
    (tmp_path / "taken").mkdir()
    assert asked(place / "bundle", tmp_path / "taken") == 1
    assert "taken exists already" in capsys.readouterr().err
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    really = Graph.save

    def full(self, file, *words, **more):
        really(self, file, *words, **more)
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(Graph, "save", full)
    assert asked(tmp_path / "bundle", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "out cannot be written (No space left on device): free some space" in said and said.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bundle", "taken"]


def test_an_export_is_not_exported_again(place, tmp_path, capsys):
    assert asked(place / "bundle", tmp_path / "onnx") == 0
    capsys.readouterr()
    assert asked(tmp_path / "onnx", tmp_path / "again") == 1
    said = capsys.readouterr().err
    assert "this model is an export already: export its bundle" in said and said.count("\n") == 1
    assert main(["convert", str(tmp_path / "onnx"), str(tmp_path / "again")]) == 1
    said = capsys.readouterr().err
    assert "onnx is an export: name the bundle that it was made from" in said
    assert [each.name for each in tmp_path.iterdir()] == ["onnx"]


def test_stablehlo(place, tmp_path, capsys):
    assert asked(place / "bundle", tmp_path / "jax", "--format", "stablehlo") == 0
    said = rows(capsys.readouterr().out)
    assert said["platforms"] == "cpu, cuda, tpu" and said["example texts"].startswith('"", a, ')


def test_evaluated_like_its_bundle(place, tmp_path, capsys):
    assert asked(place / "bundle", tmp_path / "onnx") == 0
    found = {}
    for folder in (place / "bundle", tmp_path / "onnx"):
        capsys.readouterr()
        words = [str(folder), str(place / "shapes" / "pictures.csv"), "--json", "--resamples", "0"]
        assert main(["eval", "retrieval", *words, "--context-length", "4", "--orientation", "apply"]) == 0
        (found[folder.name],) = json.loads(capsys.readouterr().out)["tests"]
    assert found["onnx"] == found["bundle"] and found["bundle"]["t2i_r10"] > 0
