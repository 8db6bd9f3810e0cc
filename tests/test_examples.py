"""Every program in examples/ runs: on drawn shapes, one after the other, as their first lines say."""

import ast
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import jclip
from jclip.conversion import export
from jclip.demo.practice import shapes

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def table(folder):
    return shapes(folder / "pictures", 20, seed=0)


def run(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.fixture(scope="module")
def bundle(folder, table):
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "training_loop", table, folder / "bundle", 3)
    return folder / "bundle"


def test_training_loop(bundle):
    assert jclip.load(bundle).encode_text(["红色的圆形"]).shape == (1, 64)
    assert len((EXAMPLES / "training_loop.py").read_text(encoding="utf-8").splitlines()) < 60


def test_finetune_folder(bundle, table, folder, monkeypatch, capsys):
    run(monkeypatch, "finetune_folder", bundle, table, folder / "tuned", "--epochs", 1, "--batch-size", 8)
    assert re.search(r"before: mean recall [\d.]+%\nafter: mean recall [\d.]+%\n$", capsys.readouterr().out)
    assert jclip.load(folder / "tuned" / "run" / "best").encode_text(["红"]).shape == (1, 64)


def test_zero_shot(bundle, table, monkeypatch, capsys):
    pictures = sorted(table.parent.rglob("*.png"))[:2]
    run(monkeypatch, "zero_shot", bundle, "圆形,星形", *pictures, "--prompts", "zh")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(re.fullmatch(r".*\.png: (圆形|星形) \(\d+%\)", line) for line in lines)


def test_image_search_finds_the_picture_itself_first(bundle, table, monkeypatch, capsys):
    query = sorted(table.parent.rglob("*.png"))[3]
    run(monkeypatch, "image_search", bundle, table.parent, query, "--k", 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"1.000  {query}" and len(lines) == 3


def test_convert_checkpoint(bundle, folder, monkeypatch, capsys):
    checkpoint = folder / "checkpoint"
    export(bundle, checkpoint, "hf")
    run(monkeypatch, "convert_checkpoint", checkpoint, folder / "converted", "红色的圆形", "星形")
    shown = capsys.readouterr().out
    assert "ok  " in shown and "WRONG" not in shown and "not checked" not in shown
    texts = ["红色的圆形", "星形"]
    np.testing.assert_allclose(
        jclip.load(folder / "converted").encode_text(texts), jclip.load(bundle).encode_text(texts), atol=1e-6
    )


def test_none_is_left_out_and_all_use_public_names():
    programs = {file.stem: ast.parse(file.read_text(encoding="utf-8")) for file in EXAMPLES.glob("*.py")}
    run_here = set(re.findall(r'run\(\w+, "(\w+)"', Path(__file__).read_text(encoding="utf-8")))
    assert programs.keys() == run_here
    for program in programs.values():
        modules = {node.module for node in ast.walk(program) if isinstance(node, ast.ImportFrom)}
        assert not {module for module in modules if module and module.startswith("jclip.")}
