"""The import keeps images that training can use, reports why it skips others, and stores them upright on request."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.inspecting.statistics import inspect
from jclip.data.sources.folders import PairFolder
from jclip.data.sources.kinds import KeepRules
from jclip.errors import JclipError
from jclip.images.checking import Checked, PictureRules, check_picture, stored_form
from jclip.images.opening import open_header, orientation_of
from jclip.images.preprocess import Preprocessing, open_picture, to_array
from tests.data.importing.sources import cn_clip
from tests.data.pictures import encoded, files, picture
from tests.images.test_opening import EPS, ORIENTATIONS, corners_of, image_with_orientation, png

GOOD = encoded(picture(20, 20))


def imported(tmp_path, pictures, rules=PictureRules(), name="folder"):  # noqa: B008 (frozen)
    source = cn_clip(
        tmp_path / f"{name} source", [f"text {n}" for n in range(len(pictures))], pictures=pictures.__getitem__
    )
    plan = Plan("cn-clip", rules=KeepRules(pictures=rules), limit=Limit(share=0.9))
    report = import_data(open_source("cn-clip", source, Reading())[1], tmp_path / name, plan)
    return report, [pair.pictures[0] for pair in PairFolder(str(tmp_path / name)).open()]


def test_the_report_says_why_each_picture_was_skipped(tmp_path):
    floats = Image.fromarray(np.array([[0, np.nan]], np.float32))
    pictures = [GOOD, png(3000, 1000), png(1000, 2500), EPS, GOOD[:-60], b"junk", encoded(floats, "TIFF")]
    report, kept = imported(tmp_path, pictures, PictureRules(megapixels=2))
    assert kept == [GOOD]
    skipped = report.as_json()["splits"]["train"]["skipped"]
    assert {reason: found["count"] for reason, found in skipped.items()} == {
        "the image is too large": 2,
        "the image's format is not read": 1,
        "the image does not decode": 2,
        "the image cannot be converted": 1,
    }
    places = [place for found in skipped.values() for place in found["first"]]
    for line, why in (
        (2, "3 megapixels, more than the limit of 2"),
        (3, "2.5 megapixels, more than the limit of 2"),
        (4, "EPS starts another program and is not read"),
        (6, "no known image format"),
        (7, "it holds values that are not finite"),
    ):
        assert f"train_imgs.tsv, line {line} ({why})" in places
    assert any(place.startswith("train_imgs.tsv, line 5 (") and "truncated" in place for place in places)


def test_images_that_become_one_colour_are_kept_and_reported(tmp_path):
    ten_bits = Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32))
    hidden = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    hidden.putalpha(picture(32, 32, 1))  # a drawing in its alpha only
    pictures = [GOOD, encoded(ten_bits), encoded(hidden), encoded(Image.new("RGB", (9, 9), (1, 200, 3)))]
    report, kept = imported(tmp_path, pictures)
    assert kept == pictures
    found = report.as_json()["splits"]["train"]
    assert found["skipped"] == {}
    assert found["remarks"] == {
        "the image is nearly one colour after conversion": {
            "count": 3,
            "first": [
                "train_imgs.tsv, line 2 (#020202; its mode is L)",
                "train_imgs.tsv, line 3 (#000000; its mode is RGBA)",
                "train_imgs.tsv, line 4 (#01c803; its mode is RGB)",
            ],
        }
    }


def test_an_image_that_training_would_not_read_by_default_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_MAX_MEGAPIXELS", "2")
    picture = encoded(Image.effect_noise((2000, 1250), 50), "PNG")
    report, kept = imported(tmp_path, [GOOD, picture], PictureRules(megapixels=3))
    assert kept == [GOOD, picture]
    split = report.as_json()["splits"]["train"]
    assert split["skipped"] == {}
    assert split["remarks"]["the image is larger than training and encoding read by default"] == {
        "count": 1,
        "first": ["train_imgs.tsv, line 2 (2.5 megapixels; set JCLIP_MAX_MEGAPIXELS=3 to read it)"],
    }
    with pytest.raises(JclipError, match="2.5 megapixels, more than the limit of 2"):
        to_array(Preprocessing(), picture)
    monkeypatch.setenv("JCLIP_MAX_MEGAPIXELS", "3")
    assert to_array(Preprocessing(), picture).shape == (224, 224, 3)
    assert check_picture(picture, PictureRules(megapixels=3)) == Checked()


def test_the_check_takes_what_training_takes():
    for size in ((30, 50), (1, 40)):
        for kind, data in files(*size):
            assert not check_picture(data, PictureRules()).trouble, kind
            assert to_array(Preprocessing(size=8), data).shape == (8, 8, 3)


def test_orientation_is_applied_on_request(tmp_path):
    pictures = [image_with_orientation(n, form) for form in ("JPEG", "PNG", "WEBP") for n in range(1, 9)]
    _, ignored = imported(tmp_path, pictures, name="ignored")
    assert ignored == pictures
    report, applied = imported(tmp_path, pictures, PictureRules(orientation="apply"), name="applied")
    assert len(applied) == 24 and report.splits["train"].skipped.units == 0
    for number, (before, after) in enumerate(zip(pictures, applied, strict=True)):
        expected = open_picture(before, "", "apply")
        for orientation in ("ignore", "apply"):  # without an orientation
            found = open_picture(after, "", orientation)
            assert corners_of(np.asarray(found)) == ORIENTATIONS[number % 8 + 1]
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        assert (after == before) == (number % 8 == 0)
    assert [inspect(tmp_path / name, "train").turned for name in ("ignored", "applied")] == [21, 0]
    assert inspect(tmp_path / "ignored", "train").as_json()["pictures"]["turned"] == 21


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_storing_an_image_upright_is_lossless(mode):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 34, 4), np.uint8).squeeze(), "CMYK")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise.convert(mode), "JPEG", exif=exif, icc_profile=b"colours")
    stored = stored_form(data, PictureRules(orientation="apply"))
    expected = Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270)
    found = Image.open(io.BytesIO(stored))
    assert (found.mode, found.size, found.info["icc_profile"]) == (mode, (21, 34), b"colours")
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert orientation_of(open_header(stored, ""), stored) == 1


def test_unreadable_images_are_stored_unchanged():
    rules = PictureRules(orientation="apply")
    half = image_with_orientation(6, "JPEG")[:-300]
    for data in (b"junk", EPS, half):
        assert stored_form(data, rules) == data
    assert check_picture(half, rules).trouble == "the image does not decode"


def test_the_command_takes_the_orientation_and_the_limit(tmp_path, capsys):
    from jclip.cli import main

    source = cn_clip(
        tmp_path / "source", ["a", "b", "c"], pictures=[image_with_orientation(6), GOOD, png(3000, 1000)].__getitem__
    )
    target = tmp_path / "folder"
    words = ["data", "import", "cn-clip", str(source), str(target), "--workers", "1", "--max-skipped", "1", "--json"]
    assert main([*words, "--orientation", "apply", "--max-megapixels", "2.5"]) == 0
    found = json.loads(capsys.readouterr().out)["splits"]["train"]
    assert found["pairs"] == 2
    assert found["skipped"]["the image is too large"]["first"] == [
        "train_imgs.tsv, line 3 (3 megapixels, more than the limit of 2.5)"
    ]
    assert main([*words, "--max-megapixels", "0"]) == 1
    assert "--max-megapixels 0 is not possible: give more than 0" in capsys.readouterr().err
    assert main(["data", "inspect", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["pictures"]["turned"] == 0
