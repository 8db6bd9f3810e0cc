"""`jclip finetune` from an image folder and a spreadsheet to evaluation and search by a sentence."""

import csv
import json
import re
import shlex
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import jclip
from jclip import running
from jclip.checkpoint import Position
from jclip.cli import finetune, main
from jclip.configs.loading import load_config
from jclip.demo import practice
from jclip.evaluate.results import read_results
from jclip.finetune import finetuning
from jclip.train.logging.sinks import read_journal
from jclip.train.outcome import Outcome
from jclip.train.stage_loop import StageLoop
from tests.cli.small_bundle import write_bundle


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def start(place):
    return write_bundle(place / "start")


@pytest.fixture(scope="module")
def few(place):
    """Spreadsheet of forty drawings."""
    return practice.shapes(place / "few", pictures=40, seed=1)


def asked(*words):
    return main(["finetune", *map(str, words)])


def times(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}


def test_the_whole_path(place, start, capsys):
    pictures, out = place / "my-pictures", place / "mine"
    assert main(["data", "example", str(pictures), "--drawn", "--pictures", "300"]) == 0
    assert "Next: jclip finetune" in capsys.readouterr().err
    words = [start, pictures / "pictures.csv", out, "--epochs", "16"]
    assert asked(*words) == 0
    said = capsys.readouterr()
    assert "written to" in said.err and "Better on the validation split" in said.err
    assert "B − A" in said.out  # the table of both

    # The figures are those of `jclip eval`, far above chance, and far above the start's.
    before, after = (read_results(out / name).tests[0] for name in ("start.json", "trained.json"))
    assert after.counts["pictures"] >= 15
    assert before.figures["t2i_r1"] < 0.15 and before.figures["t2i_chance_r1"] < 0.07
    assert after.figures["t2i_r1"] > 0.25
    assert main(["eval", "retrieval", str(out / "best"), str(out / "data"), "--split", "valid", "--json"]) == 0
    (test,) = json.loads(capsys.readouterr().out)["tests"]
    assert test["t2i_r1"] == pytest.approx(after.figures["t2i_r1"])

    # Found by a sentence, with three lines of Python.
    files = sorted(pictures.glob("*/*.png"))
    model = jclip.load(out / "best")
    scores = model.encode_text(["红色的圆形"]) @ model.encode_image(files).T
    best = [files[i].name for i in np.argsort(-scores[0])[:10]]
    assert sum(name.startswith("红色") for name in best) >= 5  # 16 epochs teach colours: a tenth of the 300 are red

    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("before", "after", "Recall on the validation split", "Settings and reasons"))
    assert page.count("data:image/png") == 2 * 6 * 6 and 'src="http' not in page

    # The second time nothing is done, and the result is the same.
    written = times(out)
    assert asked(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert times(out) == written
    assert found["kept"] == "trained" and found["trained"]["t2i_r1"] == after.figures["t2i_r1"]
    assert found["bundle"] == str(out / "best")

    # The file is a configuration like any other, and gives reasons.
    run = load_config(str(out / "finetune.py"))
    assert run.stages[0].budget.epochs == 16 and run.best == "valid/mean_recall"
    assert main(["plan", str(out / "finetune.py"), "--no-compile", "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["stages"]
    assert planned["batch_size"] == 64 and planned["steps"] == run_steps(out)
    assert re.search(r"batch_size=64,  # the largest with 4 steps", (out / "finetune.py").read_text(encoding="utf-8"))


def run_steps(out):
    """Returns the number of steps in the comments of the written file."""
    text = (out / "finetune.py").read_text(encoding="utf-8")
    return int(re.search(r"# (\d+) steps", text)[1])


def test_it_resumes_and_a_changed_file_is_another_run(place, start, few, monkeypatch, capsys):
    """The printed command runs the changed file, also if paths contain spaces and brackets."""
    out = place / "odd [1] dir's"
    words = [start, few, out, "--epochs", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "train", partial(running.run, stop_after=3))
        assert asked(*words) == 130
    assert "stopped after 3 steps and saved" in capsys.readouterr().err
    assert not (out / "best").exists()
    assert asked(*words) == 0
    records = read_journal(out / "run" / "metrics.jsonl")
    totals = [record["total"] for record in records if record["kind"] == "evaluation"]
    assert totals == sorted(set(totals)) and totals[0] == 0 and totals[-1] > 3
    assert (out / "best" / "config.json").is_file()
    last = capsys.readouterr().err.strip().splitlines()[-1]
    program, *command = shlex.split(last)
    assert program == "jclip" and main([*command, "--json"]) == 0
    capsys.readouterr()
    file = out / "finetune.py"
    file.write_text(file.read_text(encoding="utf-8").replace("seed=0", "seed=1"), encoding="utf-8")
    assert asked(*words) == 1
    said = capsys.readouterr().err
    assert "was changed after its run began" in said and f"jclip train {shlex.quote(str(file))} --workdir" in said


def test_options_that_messages_name_are_known(place, start, monkeypatch, capsys):
    """If images are not beside the table, or only their names are captions, the option in the error message helps."""
    monkeypatch.setattr(finetune, "run", lambda *arguments: finetuning.Stopped(0, None))  # only the data matter
    shapes = practice.shapes(place / "elsewhere", pictures=40, seed=2)
    table = place / "tables" / "t.csv"
    table.parent.mkdir()
    table.write_bytes(shapes.read_bytes())
    assert asked(start, table, place / "moved") == 1
    assert "the image's file is missing" in capsys.readouterr().err
    assert asked(start, table, place / "moved", "--root", shapes.parent, "--epochs", "1") == 130
    names = place / "names"
    names.mkdir()
    for picture in shapes.parent.glob("*/*.png"):
        (names / picture.name).write_bytes(picture.read_bytes())
    assert asked(start, names, place / "named") == 1
    assert "--captions-from names" in capsys.readouterr().err
    assert asked(start, names, place / "named", "--captions-from", "names", "--epochs", "1") == 130


def test_too_little_memory_is_said_in_a_line(place, start, few, monkeypatch, capsys):
    def exhausted(*arguments, **more):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(StageLoop, "train", exhausted)
    assert asked(start, few, place / "large") == 1
    assert "too little memory (RESOURCE_EXHAUSTED: Out of memory): double micro_batches" in capsys.readouterr().err


def test_the_start_is_kept_if_training_makes_the_model_worse(place, start, few, capsys):
    """Training that makes the model worse: the start is kept."""
    out = place / "worse"
    good = place / "mine" / "best"  # of the first test: a start that has something to lose
    words = [good, few, out, "--epochs", "3"]

    def worse(run, workdir, **more):
        shutil.copytree(place / "mine" / "run", workdir, ignore=shutil.ignore_patterns("best", "[0-9]*"))
        return Outcome(True, Position(1, 0, 9), (write_bundle(workdir / "1-everything"),))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "train", worse)
        assert asked(*words) == 0
    said = capsys.readouterr().err
    assert "No checkpoint of the run was better than the start" in said
    before, trained = (read_results(out / name).tests[0].figures for name in ("start.json", "trained.json"))
    assert trained["mean_recall"] < before["mean_recall"]
    assert (out / "best" / "parameters.safetensors").read_bytes() == (good / "parameters.safetensors").read_bytes()
    assert "the starting model, which was kept" in (out / "report.html").read_text(encoding="utf-8")
    assert asked(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept"] == "start"


def test_impossible_requests_are_refused(place, start, few, tmp_path, capsys):
    with few.open(encoding="utf-8-sig") as table:
        items = [
            practice.Sample(path, text, (few.parent / path).read_bytes()) for path, text in list(csv.reader(table))[1:]
        ]
    one = practice.write_practice(tmp_path / "one", items[:1])
    equal = practice.write_practice(tmp_path / "equal", [item._replace(caption="猫") for item in items])
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    for words, message in (
        ((tmp_path / "none", few, tmp_path / "a"), "none"),
        ((start, tmp_path / "none.csv", tmp_path / "a"), "none.csv does not exist"),
        ((start, one, tmp_path / "a"), "needs two different images"),
        ((start, equal, tmp_path / "b"), "all captions to train on are equal"),
        ((start, few, taken), "holds other files"),
        ((start, few, tmp_path / "c", "--validation", "all"), "--validation 'all' is not possible"),
        ((start, few, tmp_path / "c", "--validation", "1"), "one caption|1 image"),
        ((start, few, tmp_path / "d", "--epochs", "0"), "--epochs 0 is not possible"),
        ((start, few, tmp_path / "e", "--seed", "-1"), "--seed -1"),
        ((start, few, place / "odd [1] dir's", "--epochs", "5"), "is a fine-tuning with another epochs"),
    ):
        assert asked(*words) == 1
        said = capsys.readouterr().err
        assert re.search(message, said) and "Traceback" not in said
    assert (taken / "thesis.txt").read_text() == "mine" and len(list(taken.iterdir())) == 1
    # A request that failed may be repeated with other options.
    assert not any((tmp_path / name / "finetune.py").exists() for name in "abcde")


def test_both_readmes_give_the_same_commands():
    root = Path(__file__).parents[2]
    blocks = []
    for name, title in (("README.md", "## Fine-tune on your own images"), ("README_zh.md", "## 在自己的图片上微调")):
        section = (root / name).read_text(encoding="utf-8").split(title)[1].split("\n## ")[0]
        commands = "".join(re.findall(r"```\n(.*?)```", section, re.DOTALL))
        blocks.append([line.partition("  #")[0].strip() for line in commands.splitlines()])
    assert blocks[0] == blocks[1] and len(blocks[0]) == 7
