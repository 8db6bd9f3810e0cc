"""Outputs that cannot be written are errors before any work, and what libraries log is one line each."""

import json
import logging
import os
from pathlib import Path

import pytest

from jclip.cli import main
from jclip.cli.logs import plain_logs
from jclip.errors import JclipError
from jclip.evaluate.datasets.opening import open_retrieval
from jclip.io.files import check_folder, check_writable

COMMANDS = [
    ["eval", "retrieval", "bundle", "data", "--output"],
    ["eval", "classify", "bundle", "data", "--output"],
    ["eval", "probe", "bundle", "data", "--output"],
    ["eval", "compare", "a", "b", "--output"],
    ["convert", "weights"],
    ["convert", "--image", "a", "--text", "b"],
    ["convert", "--to", "hf", "bundle"],
    ["data", "inspect", "folder", "--sheet"],
    ["data", "import", "--language", "zh", "parallel-tsv", "texts.tsv"],
    ["search", "index", "dog", "--html"],
    ["demo", "--workdir"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("place", ["file/out.html", "file/deep/out.html", "/proc/nowhere/out.html"])
def test_impossible_outputs_are_refused(command, place, tmp_path, monkeypatch, capsys):
    """No input exists, because the destination is checked first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "texts.tsv").write_text("red\t红\n", encoding="utf-8")
    monkeypatch.setattr("jclip.cli.demo.demo", lambda *words: pytest.fail("it began"))
    assert main([*command, place]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{place} cannot be made (No" in told and "choose another place" in told
    assert sorted(os.listdir(tmp_path)) == ["file", "texts.tsv"]


@pytest.mark.parametrize("command", [each for each in COMMANDS if each[0] != "demo"], ids=" ".join)
def test_existing_outputs_are_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.html").mkdir()
    (tmp_path / "texts.tsv").write_text("red\t红\n", encoding="utf-8")
    assert main([*command, "out.html"]) == 1
    assert "out.html exists already: move it away, or choose another name" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["out.html", "texts.tsv"]


def test_checking_an_output_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b" / "out")
    assert not list(tmp_path.iterdir())
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    check_folder(tmp_path / "a")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    with pytest.raises(JclipError, match="cannot be made"):
        check_folder(tmp_path / ("x" * 300))


def test_a_workdir_that_cannot_be_written_is_found_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jclip.running.evaluators", None)  # which may take long
    (tmp_path / "file").touch()
    config = str(Path(__file__).parents[2] / "configs/demo/chinese_clip.py")
    assert main(["train", config, "--workdir", str(tmp_path / "file" / "run")]) == 1
    message = f"jclip train: {tmp_path}/file/run cannot be made (Not a directory): choose another place"
    assert capsys.readouterr().err.strip() == message


def test_captions_without_a_language_take_one_given_language(tmp_path):
    (tmp_path / "cat.png").touch()
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("cat.png\ta cat\n", encoding="utf-8")
    (one,) = open_retrieval(pairs, languages=["zh"]).tasks
    assert one.language == "zh"
    with pytest.raises(JclipError, match="does not say in which languages its captions are, .* not xx, yy: give"):
        open_retrieval(pairs, languages=["xx", "yy"])
    with pytest.raises(JclipError, match="does not say in which languages"):
        open_retrieval(pairs, protocol="xtd", languages=["en", "zh"])


def test_what_libraries_log_is_one_line_each(capsys):
    from absl import logging as absl

    with plain_logs("jclip train"):
        absl.warning("a shard is\n  slow: %s", "\x1b[2J")
        absl.info("nobody needs to know")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            absl.exception("a write failed")
        logging.getLogger("orbax").error("lost")
        mistaken = logging.makeLogRecord({"name": "jax", "levelno": 40, "levelname": "ERROR"})
        mistaken.msg, mistaken.args = "%d devices", ("no",)
        logging.getLogger().handlers[-1].emit(mistaken)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        r"jclip train: warning of absl: a shard is slow: \x1b[2J",
        "jclip train: error of absl: a write failed (OSError: [Errno 28] No space left on device)",
        "jclip train: error of orbax: lost",
        "jclip train: error of jax: %d devices ('no',)",
    ]
    assert not any("Lines" in type(handler).__name__ for handler in logging.getLogger().handlers)


def test_a_function_in_a_configuration_is_named_not_quoted(tmp_path, monkeypatch, capsys):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    begin = "from dataclasses import replace\nfrom jclip.configs.chinese_clip import vit_b_16\ndef config():\n"
    for value, said in (
        ("'a'.upper", "name is the function str.upper itself, but must be a value: call it"),
        ("config", "name is the function config itself, but must be a value: call it"),
        ("dict", "name is the class dict itself, but must be a value: call it"),
        ("vit_b_16.config().stages[0].budget.__init__", "name is the method Budget.__init__ itself"),
        ("object()", "name cannot hold a value of type object"),
    ):
        (tmp_path / "c.py").write_text(
            f"{begin}    return replace(vit_b_16.config(), name={value})\n", encoding="utf-8"
        )
        assert main(["plan", "c.py"]) == 1
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1, told
        assert not any(word in told for word in ("<", "0x", "bound"))


def test_doctor_prints_json_when_a_check_fails(capsys):
    assert main(["doctor", "--workdir", "/proc/nowhere", "--json"]) == 1
    assert [each["well"] for each in json.loads(capsys.readouterr().out)][-1] is False
