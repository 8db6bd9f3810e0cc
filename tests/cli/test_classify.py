"""`jclip classify`: files to a table, CSV and JSON; probabilities by hand; files and options that are wrong."""

import csv
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

import jclip
from jclip.cli import main
from jclip.evaluate.prompts import load_prompts
from tests.cli.small_bundle import write_bundle
from tests.poison import UTF8, assert_harmless


@pytest.fixture(scope="module")
def bundle(made_once):
    return made_once("classify-bundle", lambda folder: write_bundle(folder / "bundle")) / "bundle"


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    for each in ("inner", "@eaDir"):
        (folder / each).mkdir(parents=True)
    for place, colour in (
        ("a.png", "red"),
        ("inner/b.jpg", "green"),
        (".hidden.png", "blue"),
        ("@eaDir/c.jpg", "blue"),
    ):
        Image.new("RGB", (40, 30), colour).save(folder / place)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(capsys, *words, code=0):
    capsys.readouterr()
    assert main(["classify", *map(str, words)]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def test_scores_are_those_of_the_model(bundle, images, capsys):
    out, err = run(capsys, bundle, "images", "--labels", "猫,狗，红色", "--prompts", "none", "--json")
    assert err == ""
    found = json.loads(out)
    assert found["labels"] == ["猫", "狗", "红色"] and found["prompts"] == "none" and found["unreadable"] == []
    assert [one["image"] for one in found["images"]] == ["images/a.png", "images/inner/b.jpg"]
    model = jclip.load(bundle)
    cosines_nc = model.encode_image([images / "a.png", images / "inner/b.jpg"]) @ model.encode_text(found["labels"]).T
    for one, cosines_c in zip(found["images"], cosines_nc.astype(np.float64), strict=True):
        powers = [math.exp(model.similarity_scale * cosine) for cosine in cosines_c]
        order = sorted(range(3), key=lambda c: -cosines_c[c])
        assert [each["label"] for each in one["labels"]] == [found["labels"][c] for c in order]
        for each, c in zip(one["labels"], order, strict=True):
            assert each["cosine"] == pytest.approx(cosines_c[c], abs=1e-5)
            assert each["probability"] == pytest.approx(powers[c] / sum(powers), abs=1e-4)


def test_prompts_follow_the_labels_language(bundle, images, tmp_path, capsys):
    file = tmp_path / "prompts.json"
    file.write_text('{"language": "zh", "general": ["红{}", "{}猫"]}', encoding="utf-8")
    (tmp_path / "labels.txt").write_text("猫\n狗\n", encoding="utf-8")
    table, told = run(capsys, bundle, "images/a.png", "--labels-from", "labels.txt")
    assert "prompts: 中文 (zh), the language of the labels" in told and "a.png" in table and "%" in table
    chosen = [bundle, "images/a.png", "--labels", "猫,狗", "--json"]
    automatic = json.loads(run(capsys, *chosen)[0])
    assert json.loads(run(capsys, *chosen, "--language", "zh")[0]) == automatic and automatic["prompts"] == "zh"
    own = json.loads(run(capsys, *chosen, "--prompts", file)[0])["images"][0]["labels"]
    model = jclip.load(bundle)
    vectors_pd = model.encode_text(["红猫", "猫猫"])
    mean_d = vectors_pd.mean(axis=0)
    cosine = (model.encode_image([images / "a.png"]) @ mean_d)[0] / np.linalg.norm(mean_d)
    assert next(each for each in own if each["label"] == "猫")["cosine"] == pytest.approx(cosine, abs=1e-5)


def test_prompts_that_are_too_long_for_the_model_are_left_out(bundle, images, tmp_path, capsys):
    """The small tokenizer has a token for each Han character, and one before and after."""
    folder = tmp_path / "short"
    jclip.save(jclip.load(bundle).changed(context_length=8), folder)
    short = [template for template in load_prompts("zh").templates if len(template.replace("{}", "")) <= 4]
    assert 0 < len(short) < 7
    words = (folder, "images/a.png", "--labels", "老虎、狗", "--json")
    _, told = run(capsys, *words[:-1])
    assert f"the language of the labels, {len(short)} of 7 that fit this model;" in told
    (tmp_path / "short.json").write_text(json.dumps({"language": "zh", "general": short}), encoding="utf-8")
    automatic = json.loads(run(capsys, *words)[0])
    same = json.loads(run(capsys, *words, "--prompts", tmp_path / "short.json")[0])
    assert automatic["images"] == same["images"] and automatic["labels"] == ["老虎", "狗"]
    _, err = run(capsys, *words, "--language", "zh", code=1)
    assert "is longer than the model's 8 tokens: shorten the label, or give shorter prompts" in err
    (tmp_path / "labels.txt").write_text("老虎老虎\n狗\n", encoding="utf-8")
    alone = (folder, "images/a.png", "--labels-from", "labels.txt", "--json")
    automatic = json.loads(run(capsys, *alone)[0])
    assert automatic["prompts"] == "none" and automatic == json.loads(run(capsys, *alone, "--prompts", "none")[0])


def test_csv_has_k_rows_for_each_image(bundle, images, capsys):
    out, _ = run(
        capsys, bundle, "images/i*/**/*.jpg", "images/a.png", "images", "--labels", "猫,狗,红", "--csv", "--k", "2"
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["image"], row["rank"]) for row in rows] == [
        (file, rank) for file in ("images/inner/b.jpg", "images/a.png") for rank in "12"
    ]
    assert all(0 < float(row["probability"]) < 1 and -1 <= float(row["cosine"]) <= 1 for row in rows)


def test_the_orientation_of_the_camera_is_applied(bundle, images, capsys):
    draw = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(draw).save("plain.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180°
    Image.fromarray(draw[::-1, ::-1]).save("turned.png", exif=exif)
    words = (bundle, "plain.png", "turned.png", "--labels", "猫,狗", "--prompts", "none", "--json")
    upright = [one["labels"] for one in json.loads(run(capsys, *words)[0])["images"]]
    as_stored = [one["labels"] for one in json.loads(run(capsys, *words, "--orientation", "ignore")[0])["images"]]
    assert upright[0] == upright[1] and as_stored[0] != as_stored[1]


def test_unreadable_images_are_listed_and_the_exit_code_is_1(bundle, images, capsys):
    (images / "cut.png").write_bytes((images / "a.png").read_bytes()[:60])
    (images / "empty.jpg").touch()
    out, err = run(capsys, bundle, "images", "images/notes.txt", "--labels", "猫,狗", "--json", code=1)
    found = json.loads(out)
    assert [one["image"] for one in found["images"]] == ["images/a.png", "images/inner/b.jpg"]
    reasons = {one["image"]: one["reason"] for one in found["unreadable"]}
    assert reasons["images/empty.jpg"] == "it is empty" and reasons["images/notes.txt"] == "no known image format"
    assert reasons.keys() == {"images/cut.png", "images/empty.jpg", "images/notes.txt"}
    assert "not read: images/empty.jpg: it is empty" in err
    assert err.endswith("jclip classify: 3 of 5 images cannot be read: replace them, or omit them\n")
    out, _ = run(capsys, bundle, "images/empty.jpg", "--labels", "猫,狗", code=1)
    assert out == ""


def test_more_images_than_are_read_at_once(bundle, images, capsys):
    for number in range(70):
        Image.new("RGB", (8, 8), (3 * number, 0, 0)).save(images / f"many{number:02}.png")
    (images / "many30.png").write_bytes(b"")
    words = ("--labels", "猫,狗", "--prompts", "none", "--json")
    found = json.loads(run(capsys, bundle, "images/many*.png", *words, code=1)[0])["images"]
    assert len(found) == 69
    (last,) = json.loads(run(capsys, bundle, "images/many69.png", *words)[0])["images"]
    assert last["labels"][0]["cosine"] == pytest.approx(found[-1]["labels"][0]["cosine"], abs=1e-6)


def test_names_cannot_harm_the_terminal(bundle, images, capsys):
    name = UTF8.rpartition("/")[2]
    Image.new("RGB", (8, 8)).save(images / name, "png")
    for form in ([], ["--csv"], ["--json"]):
        out, err = run(capsys, bundle, images / name, "--labels", "猫,\x1b[2J狗", *form)
        assert_harmless(out.replace("\\\\", "\\") + err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["images"], "give either --labels 猫,狗 or --labels-from FILE"),
        (["images", "--labels", "猫,狗", "--labels-from", "x"], "give either --labels 猫,狗 or --labels-from FILE"),
        (["images", "--labels", "猫"], "1 labels: give at least two"),
        (["images", "--labels", "猫,狗,猫"], "label '猫' is given twice"),
        (["images", "--labels-from", "none.txt"], "none.txt"),
        (["images", "--labels", f"{'猫' * 40},狗", "--prompts", "none"], "is longer than the model's 16 tokens"),
        (["images", "--labels", "猫,狗", "--k", "0"], "--k 0 is not possible: give 1 or more"),
        (["images", "--labels", "猫,狗", "--language", "xx"], "there are no prompts in 'xx': give one of ar, de"),
        (["images", "--labels", "猫,狗", "--prompts", "xx"], "there are no prompts 'xx'"),
        (["images", "--labels", "猫,狗", "--prompts", "zh", "--language", "zh"], "--language and --prompts exclude"),
        (["images", "--labels", "猫,狗", "--csv", "--json"], "--csv and --json exclude each other"),
        (["--labels", "猫,狗"], "no IMAGES are given: give files, or folders that hold some"),
        (["images", "--labels", "，"], "0 labels: give at least two"),
        (["gone.png", "--labels", "猫,狗"], "there is no file gone.png"),
        (["*.gif", "--labels", "猫,狗"], "*.gif matches no file: correct the pattern"),
        (["empty", "--labels", "猫,狗"], "'empty': no images: give files, or folders that hold some"),
    ],
)
def test_what_is_not_possible_is_one_line(words, said, bundle, images, capsys):
    (images.parent / "empty").mkdir()
    out, err = run(capsys, bundle, *words, code=1)
    assert out == "" and len([line for line in err.splitlines() if not line.startswith("prompts:")]) == 1
    assert said in err
