"""Every configuration can be loaded and is a run that can be; the document names only files and commands that exist."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from jclip.cli import COMMANDS as KNOWN
from jclip.cli import convert, data_import, plan, train
from jclip.cli.configs import load_config, parse
from jclip.cli.eval import TASKS, classify, retrieval
from jclip.cli.options import read
from jclip.config import from_json, to_json
from jclip.configs.chinese_clip.recipe import SETS
from jclip.data.importing.formats import FORMATS
from jclip.evaluate.datasets.benchmarks import BENCHMARKS
from jclip.evaluate.datasets.protocols import PROTOCOLS
from jclip.train.checks import check
from jclip.train.configuration import Run

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "configs").rglob("*.py")
    if path.name not in ("__init__.py", "recipe.py") and path.parts[-2] != "demo"
)
_checked = set()
LEDGER = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_configuration_is_a_run(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = load_config(str(path))
    rules = (run.model, tuple(stage.trains for stage in run.stages))
    if rules not in _checked:  # it builds the model's shapes: a second for each size is enough
        check(run)
        _checked.add(rules)
    assert from_json(Run, to_json(run)) == run
    assert str(path) in (ROOT / path).read_text(encoding="utf-8")  # how it is started stands in it


def test_their_names_differ(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = [load_config(str(path)).name for path in CONFIGS]
    assert len(set(names)) == len(names)


def test_table_9_has_a_file_for_each_cell():
    from jclip.configs.chinese_clip.recipe import SIZES, TUNINGS

    cells = [f"{dataset}_{size}.py" for size, row in TUNINGS.items() for dataset in row]
    assert len(cells) == 3 * len(SIZES) == 15
    assert all((ROOT / "configs" / "chinese_clip" / "finetune" / cell).is_file() for cell in cells)


def test_fine_tuning_by_hand(monkeypatch):
    monkeypatch.chdir(ROOT)
    files = {path.stem: str(path) for path in CONFIGS}
    (stage,) = load_config(files["coco_cn_rn50"]).stages
    assert (stage.budget.steps, stage.batch_size, stage.optimizer.warmup_steps) == (40, 24_576, 6)  # a batch an epoch
    run = load_config(files["muge_vit_b_16_1_gpu"])
    assert run.stages[0].budget.steps == run.evaluate_every == 5215  # as the notebook's log says
    assert run.best == "muge/mean_recall"


def test_pre_training_by_hand(monkeypatch):
    monkeypatch.chdir(ROOT)
    (run,) = [load_config(str(path)) for path in CONFIGS if path.stem == "rn50"]
    assert [stage.budget.examples for stage in run.stages] == [20 * 200_000_000, 44 * 200_000_000]
    assert [stage.batch_size for stage in run.stages] == [32_768, 16_384]
    assert [stage.optimizer.learning_rate for stage in run.stages] == [1e-4, 2e-5]
    assert (run.stages[1].optimizer.beta2, run.stages[1].optimizer.eps) == (0.999, 1e-8)


COMMANDS = [
    shlex.split(command, comments=True)
    for command in (*re.findall(r"^jclip .*", LEDGER, re.MULTILINE), *re.findall(r"`(jclip [^`]*)`", LEDGER))
]
"""Every command of the document, as words; those in tables and in its text too."""
DOCSTRINGS = "\n".join((ROOT / path).read_text(encoding="utf-8").split('"""')[1] for path in CONFIGS)
FIRST = [
    shlex.split(each) for each in re.findall(r"^ +(jclip (?:convert|data) .*)", DOCSTRINGS.replace("\\\n", ""), re.M)
]
"""Of the configurations, the commands that fetch what they begin with."""


def said(name: str, commands: Sequence[list[str]] = COMMANDS) -> list[list[str]]:
    """What stands after "jclip NAME" in the commands that have more than their name."""
    words = ["jclip", *name.split()]
    return [each[len(words) :] for each in commands if each[: len(words)] == words and len(each) > len(words)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eval retrieval", retrieval.Options),
        ("eval classify", classify.Options),
        ("data import", data_import.Options),
        ("convert", convert.Options),
    ],
)
def test_the_commands_can_be_read(name, options):
    commands = said(name, COMMANDS + FIRST)
    assert len(commands) > 1
    for words in commands:
        read(options, words, f"jclip {name}")  # a word that is no option ends the program


@pytest.mark.parametrize(("name", "options"), [("train", train.Options), ("plan", plan.Options)])
def test_the_runs_can_be_read(name, options, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = [words for words in said(name) if words[0] != "CONFIG"]
    assert commands
    for words in commands:
        assert parse(options, words, name)[1].stages
    assert {words[1] for words in COMMANDS} <= set(KNOWN)


def test_what_the_ledger_evaluates_was_imported_and_converted(monkeypatch):
    monkeypatch.chdir(ROOT)
    imported = {words[2]: words[0] for words in said("data import") if len(words) == 3}
    assert set(imported.values()) - {"elevater/NAME"} <= set(FORMATS)
    assert {f"elevater/{name}" for name in BENCHMARKS if name != "imagenet"} <= set(FORMATS)
    asked = {words[1]: words[words.index("--protocol") + 1] for words in said("eval retrieval")}
    assert {folder: imported[folder] for folder in asked} == asked  # one name for the data and for the test
    assert {words[1] for words in said("eval classify")} <= {*imported, "data/imagenet-val"}
    assert {chosen.folder for chosen in SETS.values()} <= set(imported)
    assert {(name, folder) for name, _, folder in said("data import", FIRST)} <= {
        (name, folder) for folder, name in imported.items()
    }

    bundles = {words[1] if words[0] != "--image" else words[-1] for words in said("convert")}
    named = {f"bundles/{name}" for name in re.findall(r"^\| ((?:chinese-|alt)?clip[\w-]*) \|", LEDGER, re.MULTILINE)}
    named |= {words[0] for words in (*said("eval retrieval"), *said("eval classify"))}
    made = {folder for folder in named if folder.startswith("runs/")}
    assert len(named - made) > 8
    assert named - made - {"bundles/MODEL"} <= bundles
    runs = {load_config(str(path)).name for path in CONFIGS}
    for folder in made:
        name = Path(folder).parent.name.replace("MODEL", "chinese-clip-vit-b-16")
        assert name in runs


def test_the_ledger_names_what_exists():
    named = set(re.findall(r"configs/[\w/]+\.py", LEDGER))
    assert named and all((ROOT / name).is_file() for name in named)
    assert {str(path) for path in CONFIGS} <= named
    assert set(re.findall(r"jclip eval (\w+)", LEDGER)) <= set(TASKS)
    assert set(re.findall(r"--protocol ([\w-]+)", LEDGER)) == set(PROTOCOLS)
    assert set(re.findall(r"--dataset ([\w-]+)", LEDGER)) - {"NAME"} <= set(BENCHMARKS)
    assert all(f"`{name}`" in LEDGER for name in BENCHMARKS)
