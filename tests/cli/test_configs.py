"""Configuration files and names that cannot be, as the command line meets them."""

from dataclasses import replace
from pathlib import Path

import pytest

from jclip.cli import main
from jclip.cli.configs import load_config
from jclip.cli.train_words import command
from jclip.train.evaluations import Classification, Retrieval
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
        ("import sys\nsys.exit(0)\n", "ends the program (SystemExit: 0): a configuration only builds a run"),
        ("def config():\n    raise SystemExit\n", "ends the program (SystemExit: None)"),
        ("raise BaseException('a\\nb')\n", "cannot be read: BaseException: a b"),
        ("class Stop(BaseException): pass\ndef config():\n    raise Stop\n", "cannot be read: Stop"),
    ],
)
def test_a_config_that_ends_is_an_error(code, told, tmp_path, capsys):
    (tmp_path / "ends.py").write_text(code)
    assert told in fails(capsys, "train", "ends.py")


def test_what_a_config_prints_is_not_a_commands_output(tmp_path, capsys):
    (tmp_path / "chatty.py").write_text("print('hello')\nfrom jclip.configs.demo.chinese_clip import config\n")
    assert load_config("chatty.py").name == "chinese-clip"
    told = capsys.readouterr()
    assert told.out == "" and told.err == "hello\n"


@pytest.mark.parametrize("name", ["../../x", "/x", "", ".", "..", ".hidden", "a/b", "a\\b", "a\n", " a", "a" * 151])
def test_names_that_lead_elsewhere_are_refused(name, capsys):
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
        "jclip eval classify b 'data/pets[1]' --prompts zh,cn_clip --split test"
    )
