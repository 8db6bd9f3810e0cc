"""Poisoned names through every command: shown escaped, without effect on a terminal, and harmless on every page."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jclip import conversion
from jclip.bundle import Bundle, save_bundle
from jclip.cli import COMMANDS, main
from jclip.cli.eval import TASKS
from jclip.console import Console
from jclip.data.sources.synthetic import write_tokenizer
from jclip.images.preprocess import Preprocessing
from jclip.models.build import init_variables
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.vit import VitConfig
from jclip.train.logging.progress import ProgressWatcher
from jclip.train.logging.sinks import MetricsFile, TensorBoard, read_journal
from tests.conversion import layouts
from tests.data.importing.sources import cn_clip, picture
from tests.poison import FOLDER, TEXT, UTF8, assert_harmless, assert_harmless_page

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs" / "chinese_clip" / "vit_b_16.py")
SMALL = str(ROOT / "configs" / "demo" / "english.py")
NAME = '[b][red]:cat:<script>alert(1)<script>"><img src=x onerror=alert(1)>|`$x$` 猫'  # of what a run may be called
CLASS = "[b]<i>\x1b[7m\u202e\"'|`猫"  # of what a folder's name may hold and a list of one a line too


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "2000")  # in narrower tables, names are broken into lines


def run(capsys, *words, code=0, names=()):
    capsys.readouterr()
    try:
        found = main([str(word) for word in words])
    except SystemExit as stop:
        found = stop.code
    out, err = capsys.readouterr()
    assert found == code, err
    if "--json" in words:
        json.loads(out)
    assert_harmless(out + err, *names)
    return out + err


ERRORS = [
    [TEXT],
    ["data", TEXT],
    ["eval", TEXT],
    ["demo", f"--{TEXT}"],
    ["demo", "--workdir", f"file/{TEXT}"],
    ["doctor", f"--{TEXT}"],
    ["configs", f"--{TEXT}"],
    ["doctor", "--workdir", f"file/{TEXT}"],
    ["train", f"{TEXT}.py"],
    ["train", CONFIG, f"--{TEXT}"],
    ["train", CONFIG, "--seed", TEXT],
    ["train", CONFIG, "--stages.0.name", TEXT, "--stages.1.name", TEXT],
    ["plan", f"{TEXT}.py"],
    ["plan", CONFIG, "--stages.0.trains", TEXT, "True", ".*", "False"],
    ["train", CONFIG, "--name", TEXT],
    ["finetune", TEXT, TEXT, "new"],
    ["data", "split", TEXT],
    ["data", "split", "a", "--validation", TEXT],
    ["data", "example", f"file/{TEXT}", "--drawn"],
    ["convert", TEXT, "new"],
    ["convert", TEXT, "new", "--to", "hf"],
    ["convert", "a", f"file/{TEXT}"],
    ["verify", TEXT, TEXT],
    ["classify", "bundle", TEXT, "--labels", "a,b"],
    ["classify", TEXT, "file", "--labels", "a,b", "--json"],
    ["classify", "bundle", "file", "--labels", "a,b", "--language", TEXT],
    ["embed", TEXT, "new", "--model", "a"],
    ["search", TEXT, "a"],
    ["index", TEXT],
    ["serve", TEXT, "--port", "0"],
    ["serve", "a", "--host", TEXT],
    ["export", TEXT, "new"],
    ["export", "a", "new", "--format", TEXT],
    ["export", "a", "new", "--int8", "--gate", TEXT],
    ["data", "import", TEXT, "new"],
    ["data", "import", TEXT, TEXT, "new"],
    ["data", "import", "csv", "a", "b", "--splits", TEXT],
    ["data", "inspect", TEXT],
    ["data", "inspect", TEXT, "--sheet", f"file/{TEXT}.html"],
    ["eval", "retrieval", TEXT, TEXT],
    ["eval", "retrieval", "a", "b", "--protocol", TEXT],
    ["eval", "classify", TEXT, TEXT],
    ["eval", "classify", "a", "b", "--dataset", TEXT],
    ["eval", "probe", TEXT, TEXT],
    ["eval", "probe", "a", "b", "--shots", TEXT],
    ["eval", "compare", TEXT, TEXT],
    ["eval", "predictions", TEXT, TEXT],
    ["eval", "benchmark", TEXT],
    ["cache", TEXT],
    ["cache", "clear", TEXT],
]


def test_no_command_is_left_out():
    assert {words[0] for words in ERRORS} >= COMMANDS.keys()
    assert {words[1] for words in ERRORS if words[0] == "eval"} >= TASKS.keys()


@pytest.mark.parametrize("words", ERRORS, ids=lambda words: ascii(" ".join(words))[:60])
def test_errors(words, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        sys.exit(main(words))
    assert stop.value.code in (1, 2)
    out, err = capsys.readouterr()
    assert_harmless(out + err)
    assert len(err.splitlines()) <= (2 if words[0] == "convert" else 1)  # convert also prints what it reads
    assert "[/b][red]:cat:" in out + err


# Data in.


@pytest.fixture
def folder(tmp_path, capsys):
    """Data folder with one image, whose source, name, captions and language are poisoned."""
    source = cn_clip(Path(FOLDER), [f"{n} {TEXT}" for n in range(3)], pictures=lambda n: b"" if n == 2 else picture(n))
    more = ("--language", TEXT, "--workers", 1, "--max-skipped", 1)
    run(capsys, "data", "import", source, UTF8 + ".in", *more, names=[UTF8 + ".in", TEXT])
    return Path(UTF8 + ".in")


def test_import_and_inspect(folder, tmp_path, capsys):
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["splits"]["train"]["languages"] == {TEXT: 2}
    assert_harmless((folder / "report.json").read_text(encoding="utf-8"))
    run(capsys, "data", "inspect", folder, names=[folder, TEXT])
    run(capsys, "data", "inspect", folder, "--json")
    sheet = Path(FOLDER + ".html")
    run(capsys, "data", "inspect", folder, "--sheet", sheet, names=[sheet])
    page = sheet.read_text(encoding="utf-8")
    assert_harmless_page(page)
    assert "[/b][red]:cat:" in page
    run(capsys, "data", "inspect", folder, "--sheet", sheet.with_suffix(".png"))
    # Names that array_record cannot open are refused in one line.
    run(capsys, "data", "import", Path(FOLDER), FOLDER + ".in", code=1, names=[FOLDER + ".in"])
    folder.rename(FOLDER + ".in")
    run(capsys, "data", "inspect", FOLDER + ".in", code=1, names=[FOLDER + ".in"])


# Evaluation.


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tokenizer = write_tokenizer("clip_bpe", place / "words")
    text = ClipTextConfig(vocab_size=tokenizer.vocab_size, context_length=12, width=16, layers=1, heads=2)
    config = DualEncoderConfig(VitConfig(16, 8, 16, 1, 2), text, embed_dim=8)
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    save_bundle(Bundle(config, params, tokenizer, Preprocessing(16), 12), place / FOLDER)
    return place / FOLDER


def pages(output):
    """Checks the results and pages of `--output`, and returns them as one text."""
    html, markdown = ((output / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert_harmless_page(html)
    assert_harmless(markdown)
    assert not re.search(r"(?<!\\)<", markdown)
    for table in re.findall(r"(?:^\|.*\n)+", markdown, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    for file in output.glob("*.json"):
        assert_harmless(file.read_text(encoding="utf-8"))
        json.loads(file.read_text(encoding="utf-8"))
    return html + markdown


def test_retrieval_and_compare(bundle, tmp_path, capsys):
    data = cn_clip(Path(FOLDER), [f"{n} {TEXT}" for n in range(3)], "test")
    more = ("--languages", TEXT.replace(",", ""), "--resamples", 5)
    for out in (FOLDER + ".a", FOLDER + ".b"):
        run(capsys, "eval", "retrieval", bundle, data, *more, "--output", out, names=[bundle, data, out])
        assert "[/b]" in pages(Path(out))
    run(capsys, "eval", "retrieval", bundle, data, *more, "--json")
    both = (FOLDER + ".a", FOLDER + ".b")
    run(capsys, "eval", "compare", *both, "--output", FOLDER + ".c", names=[bundle, FOLDER + ".c"])
    pages(Path(FOLDER + ".c"))
    run(capsys, "eval", "compare", *both, "--json")


def test_predictions(capsys):
    place = Path(FOLDER)
    place.mkdir(parents=True)
    (place / "a").write_text('{"text_id": 1, "image_ids": [10]}\n', encoding="utf-8")
    run(capsys, "eval", "predictions", place / "a", place / "a", names=[place / "a"])
    run(capsys, "eval", "predictions", place / "a", place / "a", "--json")


def test_classify_and_probe(bundle, tmp_path, capsys):
    classes = [CLASS, f"2 {CLASS}"]
    for split in ("train", "test"):
        for number, name in enumerate(classes):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for each in range(2):
                (tmp_path / "data" / split / name / f"{each}{CLASS}.png").write_bytes(picture(5 * number + each))
    out = FOLDER + ".out"
    run(capsys, "eval", "classify", bundle, "data", "--output", out, "--resamples", 5, names=[bundle, out])
    assert "[b]" in pages(Path(out))
    run(capsys, "eval", "classify", bundle, "data", "--json")
    run(capsys, "eval", "probe", bundle, "data", "--resamples", 0, "--output", out + "2", names=[bundle])
    pages(Path(out + "2"))
    run(capsys, "data", "import", "class-folders", "data", "set", "--workers", 1)
    run(capsys, "data", "inspect", "set", names=[CLASS])


# Weights.


def test_convert_and_verify(tmp_path, capsys, monkeypatch):
    source, options, _ = layouts.chinese_clip_hf(Path(FOLDER))
    out = Path(FOLDER + ".bundle")
    more = () if options.tokenizer is None else ("--tokenizer", options.tokenizer)
    run(capsys, "convert", source, out, *more, names=[source, out])
    checks, really = [], conversion.verify  # the comparison takes seconds, so it is done once and printed twice
    monkeypatch.setattr(conversion, "verify", lambda *words: checks or checks.extend(really(*words)) or checks)
    run(capsys, "verify", out, source, *more, names=[out])
    run(capsys, "verify", out, source, *more, "--json")
    run(capsys, "convert", out, FOLDER + ".hf", "--to", "hf", names=[FOLDER + ".hf"])
    run(capsys, "convert", out, FOLDER + ".hf2", "--to", "hf", "--json")


# Runs.


def test_plan(capsys):
    named = ("--name", NAME, "--stages.0.name", NAME)
    run(capsys, "plan", SMALL, "--no-compile", *named, names=[NAME])
    run(capsys, "plan", SMALL, "--no-compile", "--json", *named)


def test_help_shows_a_configuration(tmp_path, capsys):
    (tmp_path / "poisoned.py").write_text(
        "from dataclasses import replace\nfrom jclip.configs.chinese_clip import vit_b_16\n"
        f"def config():\n    return replace(vit_b_16.config(), name={NAME!r})\n",
        encoding="utf-8",
    )
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    assert "[red]:cat:" in run(capsys, "train", "poisoned.py", "--help")


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_run_says(terminal, tmp_path, monkeypatch, capsys):
    if terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    console = Console(stderr=True, color_system=None)
    with ProgressWatcher(console, TEXT) as watcher:
        watcher.stage_begins(TEXT, 0, 2)
        watcher.logged({"kind": "warning", "total": 1, "message": TEXT})
        watcher.logged({"kind": "unreadable", "total": 1, "pictures": [TEXT]})
        watcher.logged({"kind": "train", "total": 1, "step": 1, "loss": 2.0})
        watcher.stepped(2)
    printed = re.sub(r"\x1b\[(\?25[lh]|\d*[AK])|\r", "", capsys.readouterr().err)
    assert_harmless(printed, TEXT)
    assert printed.count("[/b][red]:cat:") >= 4


def test_what_a_run_writes(tmp_path):
    name = TEXT + "\udcff"
    for sink in (MetricsFile(tmp_path / "metrics.jsonl"), TensorBoard(tmp_path / "board", 0)):
        sink.write({"kind": "evaluation", "total": 1, f"{name}/accuracy": 0.5, "name": name})
        sink.close()
    assert_harmless((tmp_path / "metrics.jsonl").read_text(encoding="utf-8"))
    assert read_journal(tmp_path / "metrics.jsonl")[0]["name"] == name
    (events,) = (tmp_path / "board").iterdir()
    assert b"\\udcff/accuracy" in events.read_bytes() and b"\x1b]0" not in events.read_bytes()


def test_doctor(capsys):
    Path(FOLDER).mkdir(parents=True)
    run(capsys, "doctor", "--workdir", FOLDER, names=[FOLDER])
    run(capsys, "doctor", "--workdir", FOLDER, "--json")


# Streams.


def shell(command, **more):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "JCLIP": f"{sys.executable} -m jclip.cli", **more}
    environment.pop("PYTHONIOENCODING", None)
    return subprocess.run(["bash", "-c", command], env=environment, cwd=ROOT, capture_output=True, check=False)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "--help", "data import --formats", "doctor --help", "eval --help"])
def test_a_full_disk_is_one_line(command, unbuffered):
    done = shell(f"$JCLIP {command} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert re.fullmatch(rb"jclip[ a-z]*: standard output: No space left on device\n", done.stderr)


def test_full_closed_and_broken_streams():
    assert shell("$JCLIP --version > /dev/full 2>&1").returncode == 1
    closed = shell("$JCLIP --version >&-")
    assert (closed.returncode, closed.stderr) == (0, b"")
    gone = shell("set -o pipefail; (sleep 1; $JCLIP data import --formats) | true")
    assert (gone.returncode, gone.stderr) == (0, b"")


def test_a_locale_without_utf8(tmp_path):
    (tmp_path / "图片").mkdir()
    (tmp_path / "图片" / "a").write_text('{"text_id": 1, "image_ids": [10]}\n', encoding="utf-8")
    command = f"$JCLIP eval predictions {tmp_path}/图片/a {tmp_path}/图片/a"
    done = shell(command)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"100.00" in done.stdout and done.stdout.isascii()
    failed = shell(f"$JCLIP eval predictions {tmp_path}/图片/b {tmp_path}/图片/a")
    assert failed.returncode == 1 and failed.stderr.isascii() and failed.stderr.count(b"\n") == 1
