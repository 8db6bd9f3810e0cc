"""Configuration files on the command line, and names that it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from jclip.cli import main
from jclip.cli.configs import parse
from jclip.cli.plan import PlanOptions
from jclip.cli.train_words import command
from jclip.configs import catalogue
from jclip.configs.loading import load_config
from jclip.errors import JclipError
from jclip.evaluators import Classification, Retrieval
from tests.train.cluster import ROOT

CHINESE_CLIP = "configs/chinese_clip/vit_b_16.py"


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)


def fails(capsys, *arguments):
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys\nsys.exit(0)\n", "ends the program (SystemExit: 0): remove that call"),
        ("def config():\n    raise SystemExit\n", "ends the program (SystemExit: None)"),
        ("raise BaseException('a\\nb')\n", "cannot be read: BaseException: a b"),
        ("class Stop(BaseException): pass\ndef config():\n    raise Stop\n", "cannot be read: Stop"),
    ],
)
def test_a_config_that_exits_is_an_error(code, told, tmp_path, capsys):
    (tmp_path / "ends.py").write_text(code)
    assert told in fails(capsys, "train", "ends.py")


def test_what_a_config_prints_is_not_a_commands_output(tmp_path, capsys):
    (tmp_path / "chatty.py").write_text("print('hello')\nfrom jclip.configs.demo.chinese_clip import config\n")
    assert load_config("chatty.py").name == "chinese-clip"
    told = capsys.readouterr()
    assert told.out == "" and told.err == "hello\n"


@pytest.mark.parametrize("name", ["../../x", "/x", "", ".", "..", ".hidden", "a/b", "a\\b", "a\n", " a", "a" * 151])
def test_names_that_are_paths_are_refused(name, capsys):
    told = fails(capsys, "train", "configs/demo/chinese_clip.py", "--reduced", "--name", name)
    assert f"name is {name[:60]!r}, which " in told and ": give 1 to 150 bytes of printable characters" in told
    told = fails(capsys, "plan", CHINESE_CLIP, "--stages.1.name", name)
    assert f"stages.1.name is {name[:60]!r}, which " in told


def test_the_command_that_uses_a_bundle():
    run = load_config(CHINESE_CLIP)
    assert command(run, Path("runs/a b/best")) == "jclip eval retrieval 'runs/a b/best' DATA"
    asked = Retrieval("T1", "data/muge", protocol="muge", languages=("zh", "en"))
    assert command(replace(run, evaluations=(asked,)), Path("b")) == (
        "jclip eval retrieval b data/muge --protocol muge --languages zh,en"
    )
    asked = Classification("pets", "data/pets[1]", prompts=("zh", "cn_clip"))
    assert command(replace(run, evaluations=(asked,)), Path("b")) == (
        "jclip eval classify b 'data/pets[1]' --prompts zh,cn_clip"
    )


def test_configs_lists_the_recipes(capsys):
    assert main(["configs"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^chinese_clip/vit_b_16 +Chinese-CLIP ViT-B/16, both pre-training stages", shown, re.MULTILINE)
    assert "recipe" not in shown.split() and len(shown.splitlines()) == len(catalogue.recipes())
    assert main(["configs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(Path(row["file"]).is_file() and row["title"] for row in rows)


def test_a_file_wins_over_a_recipe(tmp_path):
    (tmp_path / "chinese_clip").mkdir()
    (tmp_path / "chinese_clip" / "vit_b_16").write_text("nothing to read")
    with pytest.raises(JclipError, match="chinese_clip/vit_b_16 is not a Python file"):
        load_config("chinese_clip/vit_b_16")


def test_parameters_of_a_config_are_options(tmp_path, capsys):
    begin = "from dataclasses import replace\nfrom jclip.configs.demo.english import config as english\n"
    (tmp_path / "mine.py").write_text(
        f"{begin}def config(width: int, deep: bool = False):\n"
        "    return replace(english(), name=f'{width}-{deep}')\n"
    )
    _, run = parse(PlanOptions, ["--width", "7", "mine.py", "--deep", "--seed", "3"], "plan")
    assert (run.name, run.seed) == ("7-True", 3)
    (tmp_path / "taken.py").write_text(f"{begin}def config(seed: int = 0):\n    return english()\n")
    assert "taken.py: config() has a parameter seed, which is a field of Run" in fails(capsys, "plan", "taken.py")
