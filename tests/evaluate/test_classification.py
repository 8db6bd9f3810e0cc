"""The classifier by hand, and `jclip eval classify` beside cn_clip's program on the same weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jclip.cli import main
from jclip.conversion import CheckpointOptions, convert
from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import Benchmark, submission
from jclip.evaluate.datasets.classes import ClassSet
from jclip.evaluate.metrics.zero_shot import classifier, cosines, probabilities
from jclip.evaluate.tasks.classification import score
from tests.conversion.real_models import CN_CLIP_VOCABULARY
from tests.evaluate import small_cn_clip
from tests.evaluate.cn_clip_data import ROOT, png

# Three classes: along x, along y, and between; the last image is of the second class and looks like the first.
PICTURES = np.array([[1.0, 0.1], [0.1, 1], [1, 1], [2, 0]])
TRUTH = np.eye(3, dtype=bool)[[0, 1, 2, 1]]
DATA = ClassSet("toy", [Path(f"{n}.png") for n in range(4)], TRUTH, ("a", "b", "c"))


def test_a_class_is_the_mean_of_its_sentences():
    vectors = {"a x": [2.0, 0.0], "x a": [0.0, 0.5], "b x": [1, 0], "x b": [1, 0]}
    found = classifier(lambda texts: np.array([vectors[text] for text in texts]), ["a", "b"], ["{} x", "x {}"])
    np.testing.assert_allclose(found, [[np.sqrt(0.5), np.sqrt(0.5)], [1, 0]], rtol=1e-6)
    with pytest.raises(JclipError, match="0 classes and 1 prompts"):
        classifier(lambda texts: np.zeros((0, 2)), [], ["{}"])


def test_figures_by_hand():
    classes = np.array([[1.0, 0], [0, 1], [1, 1]])
    scores, chances = cosines(PICTURES, classes), probabilities(PICTURES, classes)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-6)
    odds = np.exp(100 * (scores[2, 0] - scores[2, 2]))
    assert chances[2, 0] / chances[2, 2] == pytest.approx(odds, rel=1e-3)
    found = score(DATA, scores, chances, names=["a", "b", "c"], benchmark=Benchmark("Toy", 3, 4, "mean_per_class"))
    assert found.figures == pytest.approx({"accuracy": 0.75, "mean_per_class": 2.5 / 3, "chance_accuracy": 1 / 3})
    assert (found.main, found.dataset) == ("mean_per_class", "Toy")
    assert found.confusion == ((1, 0, 0), (1, 1, 0), (0, 0, 1))
    assert found.scores is not None
    assert {name: sum(shares) for name, shares in found.scores.shares.items()} == pytest.approx(
        {"right": 1, "wrong": 1}
    )
    assert found.scores.edges[0] == pytest.approx(scores.max(axis=1).min())
    low, high = found.intervals["accuracy"]
    assert 0 <= low < 0.75 < high <= 1
    assert found.intervals.keys() == {"accuracy", "mean_per_class"}
    broken = np.array([[np.nan, 0, 0]] + [[0, 0, 0]] * 3)
    with pytest.raises(JclipError, match="1 of 4 images have scores that are not finite"):
        score(DATA, broken, chances, names=["a", "b", "c"])


def test_figures_of_two_classes_and_of_several_classes_per_image():
    two = ClassSet("two", DATA.pictures, np.eye(2, dtype=bool)[[0, 1, 1, 0]], ("no", "yes"))
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]])
    assert score(two, chances, chances, names=["no", "yes"]).figures["roc_auc"] == 0.75
    several = ClassSet("s", DATA.pictures, np.array([[1, 1], [0, 1], [1, 0], [1, 0]], bool), ("a", "b"))
    figures = score(several, chances, chances, names=["a", "b"], resamples=0).figures
    # a: ranks 1, 2, 3 of 3 right; b: right at ranks 1 and 4.
    assert figures["map11"] == pytest.approx((1 + (6 * 1 + 5 * 0.5) / 11) / 2)
    assert "mean_per_class" not in figures


def test_a_submission_is_rounded_and_in_order():
    made = submission(np.array([[0.1234567, 0.8765433], [1, 0]]), model="m", dataset="d", parameters=5,
                      image_parameters=2, order=[1, 0])  # fmt: skip
    assert made["predictions"] == [[[1.0, 0.0], [0.123457, 0.876543]]]
    assert (made["num_params"], made["num_visual_params"], made["num_backbone_params"], made["n_shot"]) == (5, 2, 5, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cn_clip")
    state = {f"module.{name}": value for name, value in small_cn_clip.model().state_dict().items()}
    torch.save({"epoch": 1, "step": 0, "name": "small", "state_dict": state}, folder / "clip_cn.pt")
    (folder / "vocab.txt").write_bytes(CN_CLIP_VOCABULARY.read_bytes())
    convert(str(folder / "clip_cn.pt"), folder / "bundle", CheckpointOptions(), report=lambda word: None)
    for number in range(4):
        (folder / "data" / str(number)).mkdir(parents=True)
        for one in range(3):
            (folder / "data" / str(number) / f"{one}.png").write_bytes(png(10 * number + one, side=40))
    (folder / "label_cn.txt").write_text("中国\n德国\n“日本”\nIceland 冰岛\n", encoding="utf-8")
    return folder


def test_the_submission_that_cn_clip_writes(place, tmp_path, capsys):
    dataset = "country211"  # the shortest of its prompts
    arguments = [
        *("--resume", place / "clip_cn.pt", "--datapath", place / "data", "--label-file", place / "label_cn.txt"),
        *("--dataset", dataset, "--save-dir", tmp_path, "--num-workers", "0", "--img-batch-size", "5"),
    ]
    command = [sys.executable, "-m", "tests.evaluate.small_cn_clip", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = json.loads((tmp_path / f"{dataset}.json").read_text())

    from jclip.evaluate.datasets import benchmarks

    sizes = benchmarks.BENCHMARKS[dataset]
    small = Benchmark(sizes.title, 4, 12, sizes.metric, sizes.kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "BENCHMARKS", {dataset: small})
        code = main(
            [
                *("eval", "classify", str(place / "bundle"), str(place / "data"), "--prompts", "cn_clip"),
                *("--classes", str(place / "label_cn.txt"), "--dataset", dataset, "--output", str(tmp_path / "out")),
                *("--submission", "--model-name", "CN-CLIP-ViT-B-16", "--json"),
            ]
        )
    assert code == 0
    found = json.loads(capsys.readouterr().out)["tests"][0]
    assert f"zeroshot-top1: {found['accuracy']}" in done.stdout
    ours = json.loads((tmp_path / "out" / f"{dataset}.json").read_text())
    one, other = (np.array(made.pop("predictions")) for made in (ours, theirs))
    assert one.shape == other.shape == (1, 12, 4)
    assert other.std() > 0.01  # not all equal
    np.testing.assert_allclose(one, other, atol=2e-5)
    assert ours == theirs


def test_languages_side_by_side_and_what_cannot_be(place, tmp_path, capsys):
    for language, names in (("en", "China\nGermany\nJapan\nIceland\n"), ("zh", "中国\n德国\n日本\n冰岛\n")):
        (place / "data" / f"classes.{language}.txt").write_text(names, encoding="utf-8")
    asked = ["eval", "classify", str(place / "bundle"), str(place / "data")]
    out = tmp_path / "out"
    assert main([*asked, "--prompts", "en,zh", "--output", str(out), "--json"]) == 0
    tests = json.loads(capsys.readouterr().out)["tests"]
    assert [test["language"] for test in tests] == ["en", "zh"]
    page = (out / "report.html").read_text()
    assert "中文" in page and 'class="matrix"' in page and "Germany taken for" in page

    both = tmp_path / "both"
    assert main([*asked, "--prompts", "zh,cn_clip:normal", "--output", str(both), "--json"]) == 0
    tests = json.loads(capsys.readouterr().out)["tests"]
    assert [(test["language"], test.get("variant")) for test in tests] == [("zh", None), ("zh", "cn_clip-normal")]
    assert "中文 (zh), cn_clip-normal" in (both / "report.html").read_text()
    assert main(["eval", "compare", str(out), str(both), "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["tests"]  # both with our own Chinese prompts
    assert pair["figures"]["accuracy"] == [tests[0]["accuracy"]] * 2

    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    for more, message in (
        (["--classes", str(tmp_path / "three.txt")], "three.txt has 3 names, but"),
        (["--classes", "open_clip"], "open_clip's 1000 class names are ImageNet's"),
        (["--dataset", "cifar-10"], "has 4 classes, but the test split of CIFAR-10 has 10"),
        (["--prompts", "xx"], "there are no prompts 'xx'"),
        (["--submission"], "--submission needs --output and --dataset"),
        (["--context-length", "53"], "reads texts of 52 tokens, so --context-length 53 is not possible"),
    ):
        assert main([*asked, *more]) == 1
        assert message in capsys.readouterr().err
