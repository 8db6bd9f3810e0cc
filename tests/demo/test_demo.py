"""The demo end to end, with two steps a stage: it trains, scores, writes its page, and does nothing the second time."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from jclip.cli import main
from jclip.cli.options import read
from jclip.cli.serve import ServeOptions
from jclip.configs.demo import common, quickstart
from jclip.demo.emoji.protocol import ASKED, LANGUAGES
from jclip.demo.progress import Schedule
from jclip.demo.scores import QUESTIONS
from jclip.images.on_device import Augmentation
from jclip.optimizer import Optimizer
from jclip.train.checks import check
from tests.toys import TOY

FEW = ("en", "zh", "de")


@pytest.fixture
def home(tmp_path, emoji_folder):
    (tmp_path / "data").symlink_to(emoji_folder)
    return tmp_path


@pytest.fixture
def few(monkeypatch):
    """The first two runs, three languages, two steps a stage of 32 examples, and toys, which compile fastest."""
    for towers, longest, pad_id in (
        ("ENGLISH_CLIP", common.ENGLISH_CONTEXT, 0),
        ("ALTCLIP", common.CONTEXT, 1),
        ("CHINESE_CLIP", common.CHINESE_CONTEXT, 0),
    ):
        vocab_size = getattr(common, towers).text.vocab_size
        text = replace(TOY.text, vocab_size=vocab_size, longest=longest, pad_id=pad_id)
        monkeypatch.setattr(common, towers, replace(TOY, text=text))
    monkeypatch.setattr(common, "AUGMENTATION", Augmentation())
    monkeypatch.setattr(common, "MUON", Optimizer())

    def build(build_run):
        def small(place):
            run = build_run(place)
            return replace(run, stages=tuple(replace(stage, batch_size=32) for stage in run.stages))

        return small

    runs = [
        (key, title, tuple(each for each in languages if each in FEW), build(build_run), seconds)
        for key, title, languages, build_run, seconds in quickstart.RUNS[:2]
    ]
    monkeypatch.setattr(quickstart, "RUNS", runs)
    monkeypatch.setitem(quickstart.LENGTHS, "quick", 0.001)
    return FEW


@pytest.fixture
def every(monkeypatch):
    monkeypatch.setitem(quickstart.LENGTHS, "quick", 0.001)
    return ASKED


@pytest.mark.parametrize("size", ["few", pytest.param("every", marks=pytest.mark.slow)])
def test_demo(home, size, request, capsys):
    languages = request.getfixturevalue(size)
    stages = {key: len(seconds) for key, _, _, _, seconds in quickstart.RUNS}
    arguments = ["demo", "--quick", "--workdir", str(home), "--json"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert f"run 1 of {len(stages)}, English CLIP; stage 1 of 1" in said.err
    assert f"run 2 of {len(stages)}, AltCLIP; stage 2 of 2" in said.err
    assert size == "few" or "run 4 of 4, Chinese-CLIP control" in said.err
    assert "min left" in said.err or "a minute left" in said.err
    assert results["candidates"] == {"known": 634, "heldout": 788, "newnames": 634}
    scored = {(row["run"], row["stage"]) for row in results["rows"]}
    assert scored == {(key, stage) for key, count in stages.items() for stage in range(count + 1)}
    assert {row["question"] for row in results["rows"]} == set(QUESTIONS)
    assert {row["language"] for row in results["rows"] if row["run"] == "altclip"} == set(languages)
    # Two steps teach nothing: a recall far above chance would mean that answers leak into the queries.
    known = [row["figures"] for row in results["rows"] if row["question"] == "known"]
    assert all(figures["t2i_r10"] < 0.06 for figures in known)
    assert all(figures["i2t_pixels_r1"] > 0.1 for figures in known)
    # The nearest image shows a known concept, so it never names a held-out one.
    heldout = [row["figures"] for row in results["rows"] if row["question"] == "heldout"]
    assert all(figures["i2t_pixels_r1"] == 0.0 and figures["queries"] == 154 for figures in heldout)

    page = (home / "quick" / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("中文", "العربية", "nearest in pixels", "CC-BY-SA-4.0", "data:image/png"))
    assert 'src="http' not in page
    # Beside the losses of each run: its recalls, chance, and the beginnings of its stages.
    assert page.count("R@1 from text to image</figcaption>") == page.count(">chance</text>") == len(stages)
    assert page.count("stroke-opacity: 0.5") == sum(stages.values())
    assert "mean of the other languages" in page

    # The second time nothing is trained: checkpoints and bundles are those of the first time.
    def written():
        files = [*(home / "quick").glob("*/*/config.json"), *(home / "quick").glob("*/checkpoints/*")]
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    assert len([path for path in before if path.name == "config.json"]) == sum(stages.values())
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == results["rows"]
    assert written() == before

    # The queries are there as files, and `jclip eval` gives about the figures of the demo.
    bundle = home / "quick" / "altclip" / "2-contrastive"
    assert main(["eval", "retrieval", str(bundle), str(home / "quick" / "pictures" / "zh.tsv"), "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["tests"]

    # The last line is a command that exists, on files that exist.
    last = said.err.splitlines()[-1].partition("To search its images in a browser: ")[2]
    program, command, *words = shlex.split(last)
    options = read(ServeOptions, words, "jclip serve")
    assert (program, command, options.bundle) == ("jclip", "serve", str(bundle))
    assert options.embed == (str(home / "quick" / "pictures"),) and options.index == home / "quick" / "index"
    assert len(list(Path(options.embed[0]).glob("*.png"))) == 634

    # Training data and queries.
    place = common.Place(str(home), str(home))
    examination = quickstart.examination(place)
    pairs = common.pairs(place, *LANGUAGES).open(common.PREPROCESSING)
    trained = {name for i in range(len(pairs)) for name in pairs[i].captions}
    heldout = examination.emoji.rows("heldout")
    assert not trained & {examination.emoji.names[language][row] for language in ("en", "zh") for row in heldout}
    for language in ASKED:
        task = examination.task("newnames", language)
        assert (task is None) == (language == "en")
        if task is not None:
            assert not trained & {task.captions[i] for i in task.queries}
    asked = examination.task("known", "zh")
    assert asked is not None
    assert all(asked.captions[i] in trained for i in asked.queries)
    assert again["captions"] == len({asked.captions[i] for i in asked.queries})


@pytest.mark.parametrize("build_run", [each[3] for each in quickstart.RUNS], ids=[each[0] for each in quickstart.RUNS])
def test_every_run_fits_its_towers(build_run):
    check(build_run(common.Place()))


def test_quick_and_long_exclude_each_other(home, capsys):
    assert main(["demo", "--quick", "--long", "--workdir", str(home)]) == 1
    assert "exclude each other" in capsys.readouterr().err


def test_a_seed_below_zero_is_refused(home, capsys):
    assert main(["demo", "--seed", "-1", "--workdir", str(home)]) == 1
    assert "seed is -1" in capsys.readouterr().err


def test_the_time_left_follows_the_speed_so_far():
    schedule = Schedule({("a", 0): 60.0, ("b", 0): 30.0, ("b", 1): 10.0})
    assert schedule.begin(("a", 0), now=5.0) == 100
    assert schedule.begin(("b", 0), now=125.0) == 80  # 120 s for the planned 60: half as fast
    assert schedule.begin(("b", 1), now=140.0) == 10 * 135 / 90


def test_a_resumed_demo_counts_the_stages_that_are_left():
    assert Schedule({("a", 0): 60.0, ("b", 0): 30.0}).begin(("b", 0), now=0.0) == 30
