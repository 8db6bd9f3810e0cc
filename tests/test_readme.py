"""The READMEs: equal commands in both languages, options that exist, Python that compiles, public names that exist."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from jclip.cli import (
    COMMANDS,
    cache_clear,
    convert,
    data_example,
    data_import,
    data_inspect,
    data_split,
    embed,
    export,
    index,
    plan,
    search,
    serve,
    train,
    verify,
)
from jclip.cli import classify as classify_command
from jclip.cli import demo as demo_command
from jclip.cli import finetune as finetune_command
from jclip.cli.configs import parse
from jclip.cli.eval import TASKS, benchmark, classify, compare, probe, retrieval
from jclip.cli.options import read

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README_zh.md"))


def blocks(text):
    """Returns fenced blocks as lists of lines, without comments."""
    found = re.findall(r"^```(\w*)\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    return [(kind, [re.sub(r"\s+# .*", "", line) for line in block.splitlines()]) for kind, block in found]


COMMAND_LINES = [
    shlex.split(command, comments=True)[1:]
    for kind, lines in blocks(ENGLISH)
    if not kind
    for command in re.findall(r"\bjclip (?:[a-z].*?)(?=; done|$| &| \|)", "\n".join(lines), re.MULTILINE)
    for command in [command.replace("$seed", "0")]
]
OPTIONS = {
    ("demo",): demo_command.DemoOptions, ("finetune",): finetune_command.FinetuneOptions,
    ("convert",): convert.ConvertOptions, ("verify",): verify.VerifyOptions,
    ("data", "import"): data_import.ImportOptions, ("data", "example"): data_example.ExampleOptions,
    ("data", "split"): data_split.SplitOptions, ("data", "inspect"): data_inspect.InspectOptions,
    ("eval", "retrieval"): retrieval.RetrievalOptions, ("eval", "classify"): classify.ClassifyOptions,
    ("eval", "probe"): probe.ProbeOptions, ("eval", "compare"): compare.CompareOptions,
    ("classify",): classify_command.ClassifyOptions, ("embed",): embed.EmbedOptions,
    ("search",): search.SearchOptions, ("index",): index.IndexOptions, ("serve",): serve.ServeOptions,
    ("export",): export.ExportCommandOptions, ("cache", "clear"): cache_clear.ClearOptions,
}  # fmt: skip


def test_both_languages_give_the_same_commands_in_the_same_order():
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert len(re.findall(r"^## ", ENGLISH, re.MULTILINE)) == len(re.findall(r"^## ", CHINESE, re.MULTILINE))
    figures = [re.findall(r"^\|.*?\d\.\d.*\|$", text, re.MULTILINE) for text in (ENGLISH, CHINESE)]
    numbers = [[re.findall(r"\d+\.\d", row) for row in rows] for rows in figures]
    assert numbers[0] == numbers[1] and len(numbers[0]) > 5


def test_every_command_is_known():
    assert len(COMMAND_LINES) > 50
    assert {words[0] for words in COMMAND_LINES} == COMMANDS.keys()
    assert {words[1] for words in COMMAND_LINES if words[0] == "eval"} == TASKS.keys() - {"predictions"}


@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
def test_the_options_of_every_command_exist(command):
    found = [words[len(command) :] for words in COMMAND_LINES if tuple(words[: len(command)]) == command]
    assert found
    for words in found:
        read(OPTIONS[command], words, f"jclip {' '.join(command)}")  # ends the program for an unknown option


def test_the_commands_of_all_runs_can_be_parsed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = set()
    for name, *words in COMMAND_LINES:
        if name in ("train", "plan") and not words[0].endswith(".py") and words[0] != "--targets":
            options = {"train": train.TrainOptions, "plan": plan.PlanOptions}[name]
            parse(options, [word for word in words if word != "--reduced"], name)
            seen.add(words[0])
    assert {"altclip/vit_l_14", "chinese_clip/finetune", "demo/chinese_clip"} <= seen


def test_the_benchmark_exists():
    assert callable(benchmark.main)


def test_python_compiles():
    snippets = ["\n".join(lines) for kind, lines in blocks(ENGLISH) if kind == "python"]
    assert len(snippets) == 3
    for snippet in snippets:
        compile(snippet, "README.md", "exec")


def test_public_names_exist():
    rows = re.findall(r"^\| `(jclip[\w.]*)` \| (.*) \|$", ENGLISH, re.MULTILINE)
    assert len(rows) == 11
    for namespace, names in rows:
        module = import_module(namespace)
        for name in re.findall(r"`(\w+)`", names):
            assert getattr(module, name)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_recipes_and_examples_exist(text):
    programs = re.findall(r"`(\w+\.py)`", text)
    assert sorted(programs) == sorted(file.name for file in (ROOT / "examples").glob("*.py"))
    for recipe in re.findall(r"`((?:altclip|chinese_clip)/\w+)`", text):
        assert (ROOT / "configs" / f"{recipe}.py").exists()
