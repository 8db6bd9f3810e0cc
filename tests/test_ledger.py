"""Every recipe builds a valid run. The ledger's tables are those of `figures`; its commands and names exist."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from docs import ledger
from docs.tables import rewritten
from jclip.cli import COMMANDS as KNOWN
from jclip.cli import convert, data_import, plan, train
from jclip.cli.configs import parse
from jclip.cli.eval import TASKS, classify, retrieval
from jclip.cli.options import read
from jclip.config import from_json, to_json
from jclip.configs import catalogue
from jclip.configs.chinese_clip import finetune
from jclip.configs.chinese_clip.recipe import SETS, SIZES, TUNINGS
from jclip.configs.figures import published
from jclip.configs.loading import load_config
from jclip.data.importing.formats import FORMATS
from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import BENCHMARKS
from jclip.evaluate.datasets.protocols import PROTOCOLS
from jclip.train.checks import check
from jclip.train.configuration import Run

ROOT = Path(__file__).parents[1]
RECIPES = {name: file for name, file in catalogue.recipes().items() if not name.startswith("demo/")}
FINETUNE = "chinese_clip/finetune"
TUNED = [
    *({"size": size, "dataset": dataset} for size in SIZES for dataset in SETS),
    *({"dataset": dataset, "variant": variant} for variant, dataset in finetune.SCRIPTS),
]
"""The arguments of every run of the fine-tuning recipe."""
RUNS = [*((name, {}) for name in RECIPES if name != FINETUNE), *((FINETUNE, choices) for choices in TUNED)]
_checked = set()
LEDGER = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")


def described(run):
    return " ".join((run[0], *run[1].values()))


@pytest.mark.parametrize("recipe", RUNS, ids=described)
def test_every_recipe_is_a_run(recipe):
    name, choices = recipe
    run = load_config(name, **choices)
    rules = (run.model, tuple(stage.trains for stage in run.stages))
    if rules not in _checked:  # it builds the model's shapes: once for each size is enough
        check(run)
        _checked.add(rules)
    assert from_json(Run, to_json(run)) == run
    assert f"jclip train {name}" in RECIPES[name].read_text(encoding="utf-8")  # its docstring gives the command


def test_names_of_runs_differ_and_rows_with_figures_are_runs():
    names = [load_config(name, **choices).name for name, choices in RUNS]
    assert len(set(names)) == len(names)
    assert published().keys() <= set(names)
    unpublished = {"altclip-m18", "chinese-clip-from-scratch", "chinese-clip-one-stage", "muge-vit-b-16-flip"}
    assert set(names) - published().keys() == unpublished | {
        f"{dataset}-vit-b-16-8-gpus" for dataset in ("muge", "flickr30k-cn", "coco-cn")
    }
    assert published()["chinese-clip-vit-b-16-muge"] == ("MUGE validation split, text to image R@1/5/10 58.4/83.6/90.0")


def test_table_9_is_complete():
    assert {(size, dataset) for size, row in TUNINGS.items() for dataset in row} == {
        (size, dataset) for size in SIZES for dataset in SETS
    }


def test_fine_tuning_by_hand():
    (stage,) = load_config(FINETUNE, size="rn50", dataset="coco_cn").stages
    assert (stage.budget.steps, stage.batch_size, stage.optimizer.warmup_steps) == (40, 24_576, 6)  # a batch an epoch
    run = load_config(FINETUNE, variant="1-gpu")
    assert run.stages[0].budget.steps == run.evaluate_every == 5215  # as the notebook's log says
    assert run.best == "muge/mean_recall"
    assert load_config(FINETUNE, variant="flip").stages[0].objective.patch_dropout == 0.5


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"size": "vit_b_61"}, "size is 'vit_b_61'; expected one of rn50, vit_b_16"),
        ({"dataset": "coco"}, "dataset is 'coco'; expected one of muge, flickr30k_cn, coco_cn"),
        ({"variant": "2-gpus"}, "variant is '2-gpus'; expected one of paper, 8-gpus, 1-gpu, flip"),
        ({"variant": "flip", "dataset": "coco_cn"}, "variant flip is for size vit_b_16 and dataset muge; not for"),
        ({"variant": "8-gpus", "size": "rn50"}, "is for size vit_b_16 and dataset muge, flickr30k_cn, coco_cn; not"),
    ],
)
def test_unknown_choices_for_fine_tuning_are_refused(choices, told):
    with pytest.raises(JclipError, match=told):
        finetune.config(**choices)


def test_pre_training_by_hand():
    run = load_config("chinese_clip/rn50")
    assert [stage.budget.examples for stage in run.stages] == [20 * 200_000_000, 44 * 200_000_000]
    assert [stage.batch_size for stage in run.stages] == [32_768, 16_384]
    assert [stage.optimizer.learning_rate for stage in run.stages] == [1e-4, 2e-5]
    assert (run.stages[1].optimizer.beta2, run.stages[1].optimizer.eps) == (0.999, 1e-8)


COMMANDS = [
    shlex.split(command, comments=True)
    for command in (*re.findall(r"^jclip .*", LEDGER, re.MULTILINE), *re.findall(r"`(jclip [^`]*)`", LEDGER))
]
"""Every command of the document, as words; those in tables and in its text too."""
DOCSTRINGS = "\n".join(file.read_text(encoding="utf-8").split('"""')[1] for file in RECIPES.values())
TOLD = [shlex.split(each, comments=True) for each in re.findall(r"^ +(jclip .*)", DOCSTRINGS.replace("\\\n", ""), re.M)]
"""Every command in the recipes' docstrings."""


def words_after(name: str, commands: Sequence[list[str]] = COMMANDS) -> list[list[str]]:
    """Returns the words after "jclip NAME" of each such command that has any."""
    words = ["jclip", *name.split()]
    return [each[len(words) :] for each in commands if each[: len(words)] == words and len(each) > len(words)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eval retrieval", retrieval.RetrievalOptions),
        ("eval classify", classify.ClassifyOptions),
        ("data import", data_import.ImportOptions),
        ("convert", convert.ConvertOptions),
    ],
)
def test_the_options_of_all_commands_exist(name, options):
    commands = words_after(name, COMMANDS + TOLD)
    assert len(commands) > 1
    for words in commands:
        read(options, words, f"jclip {name}")  # a word that is no option ends the program


@pytest.mark.parametrize(("name", "options"), [("train", train.TrainOptions), ("plan", plan.PlanOptions)])
def test_the_commands_of_all_runs_can_be_parsed(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [words for words in words_after(name, COMMANDS + TOLD) if "--reduced" not in words]
    assert len(commands) > 3
    for words in commands:
        assert parse(options, words, name)[1].stages
    assert {words[1] for words in COMMANDS} <= set(KNOWN)


def test_what_the_ledger_evaluates_was_imported_and_converted():
    imported = {words[2]: words[0] for words in words_after("data import") if len(words) == 3}
    assert set(imported.values()) - {"elevater/NAME"} <= set(FORMATS)
    assert {f"elevater/{name}" for name in BENCHMARKS if name != "imagenet"} <= set(FORMATS)
    asked = {words[1]: words[words.index("--protocol") + 1] for words in words_after("eval retrieval")}
    assert {folder: imported[folder] for folder in asked} == asked  # one name for the data and for the test
    read = {words[1] for words in words_after("eval classify")}
    assert read <= {*imported, "data/imagenet-val", *(f"data/elevater/{name}" for name in BENCHMARKS)}
    assert {chosen.folder for chosen in SETS.values()} <= set(imported)
    assert {(name, folder) for name, _, folder in words_after("data import", TOLD)} <= {
        (name, folder) for folder, name in imported.items()
    }

    bundles = {words[1] if words[0] != "--image" else words[-1] for words in words_after("convert")}
    named = {f"bundles/{name}" for name in re.findall(r"^\| ((?:chinese-|alt)?clip[\w-]*) \|", LEDGER, re.MULTILINE)}
    named |= {words[0] for words in (*words_after("eval retrieval"), *words_after("eval classify"))}
    made = {folder for folder in named if folder.startswith("runs/")}
    assert len(named - made) > 8
    assert named - made - {"bundles/MODEL"} <= bundles
    runs = {load_config(name, **choices).name for name, choices in RUNS}
    for folder in made:
        name = Path(folder).parent.name.replace("MODEL", "chinese-clip-vit-b-16")
        assert name in runs


def test_the_ledger_names_what_exists():
    files = set(re.findall(r"configs/[\w/]+\.py", LEDGER))
    assert files and all((ROOT / name).is_file() for name in files)
    assert set(RECIPES) <= set(re.findall(r"\b(?:altclip|chinese_clip)/[\w/]+", LEDGER))
    assert set(re.findall(r"jclip eval (\w+)", LEDGER)) <= set(TASKS)
    assert set(re.findall(r"--protocol ([\w-]+)", LEDGER)) == set(PROTOCOLS)
    assert set(re.findall(r"--dataset ([\w-]+)", LEDGER)) - {"NAME", *SETS} <= set(BENCHMARKS)
    assert all(f"`{name}`" in LEDGER for name in BENCHMARKS)


def test_the_tables_are_those_of_figures():
    assert rewritten(LEDGER, ledger.generated()) == LEDGER, "run: python -m docs.ledger"
    assert set(re.findall(r"<!-- ([\w-]+) -->", LEDGER)) == {*ledger.TABLES, "end"}
    assert ledger.generated()["muge"].count("| chinese-clip-") == len(SIZES)
