"""One data set in every input form: the same images, captions and figures, and the same minimum of the loss.

A "door" is a function that writes the set in one form: through_* imports it, own_* is a user's data, raw_* a data set's
own files.
"""

import base64
import csv
import io
import json
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jclip.data.identity import plain_text
from jclip.data.importing.limits import Limit
from jclip.data.sources.folders import PairFolder
from jclip.evaluate.datasets.captions import open_captions
from jclip.evaluate.datasets.counting import Counted
from jclip.images.preprocess import Preprocessing
from jclip.losses.contrastive import contrastive_loss
from jclip.tokenizers.text import wordpiece
from tests.data.importing import test_named as archives
from tests.data.importing.sources import imported
from tests.data.importing.test_cn_clip import as_lmdb
from tests.data.loading import make_batches

NAMES = ["红苹果", "café noir", "dog", "m²", "m2"]
PICTURES = 16
ROWS = [*range(PICTURES), 0, 3, 6, 6]
"""The image of each row. The caption is the name of the image's class, in one of four forms."""
FORMS = [str, lambda name: unicodedata.normalize("NFD", name), "{} ".format, "\u3000{}\u3000".format]


def name(picture):
    return NAMES[picture % len(NAMES)]


CAPTIONS = [FORMS[row % 4](name(picture)) for row, picture in enumerate(ROWS)]


def png(picture):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (16 * picture, 100, 200)).save(file, "PNG")
    return file.getvalue()


def cn_clip(folder, picture_id=str, text_id=str):
    """Writes cn_clip's files, with an image id and a text id of its own for every row."""
    folder.mkdir()
    for split in ("train", "test"):
        lines = [f"{picture_id(40 + row)}\t{base64.b64encode(png(n)).decode()}\n" for row, n in enumerate(ROWS)]
        (folder / f"{split}_imgs.tsv").write_text("".join(lines))
        texts = [
            {"text_id": text_id(7 * row), "text": text, "image_ids": [picture_id(40 + row)]}
            for row, text in enumerate(CAPTIONS)
        ]
        (folder / f"{split}_texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return folder


def padded(number):
    return f"{number:05d}"


def files(folder):
    folder.mkdir()
    for row, picture in enumerate(ROWS):
        (folder / f"{row}.png").write_bytes(png(picture))
    return folder


def through_cn_clip(home):
    imported("cn-clip", cn_clip(home / "raw", padded, padded), home / "folder", Limit(count=9))


def through_lmdb(home):
    source = as_lmdb(cn_clip(home / "raw", padded, padded), "train,test")
    imported("cn-clip-lmdb", source, home / "folder", Limit(count=9))


def through_csv(home):
    with (files(home / "raw") / "pairs.tsv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["filepath", "title"])
        rows.writerows([f"{row}.png", text] for row, text in enumerate(CAPTIONS))
    imported("csv", home / "raw" / "pairs.tsv", home / "folder", Limit(count=9))


def spreadsheet(folder):
    """Writes a table like a Chinese spreadsheet's: other columns, GB18030, semicolons, and paths with backslashes."""
    rows = ["编号;描述;图片", *(f"{row};{text};照片\\{row}.png" for row, text in enumerate(CAPTIONS)), ";;", ""]
    folder.mkdir()
    files(folder / "照片")
    (folder / "表.csv").write_bytes("\r\n".join(rows).encode("gb18030"))
    return folder / "表.csv"


def through_a_spreadsheet(home):
    imported("csv", spreadsheet(home / "raw"), home / "folder", Limit(count=9))


def own_spreadsheet(home):
    spreadsheet(home / "raw")


def captioned(folder):
    files(folder)
    for row, text in enumerate(CAPTIONS):
        if row % 2:
            (folder / f"{row}.txt").write_text(text, encoding=["utf-8", "utf-8-sig"][row % 3 > 0])
        else:
            (folder / f"{row}.json").write_text(json.dumps({"caption": text}))
    return folder


def through_a_picture_folder(home):
    imported("picture-folder", captioned(home / "raw"), home / "folder", Limit(count=9))


def own_picture_folder(home):
    captioned(home / "raw")


def own_lmdb(home):
    as_lmdb(cn_clip(home / "raw", int, int), "train,test")


def own_tars(home):
    through_tars(home)


def own_parquet(home):
    through_parquet(home)


def through_parquet(home):
    import pyarrow
    import pyarrow.parquet

    columns = pyarrow.table({"image": [png(n) for n in ROWS], "caption": CAPTIONS})
    pyarrow.parquet.write_table(columns, home / "raw.parquet", row_group_size=6)
    imported("parquet", home / "raw.parquet", home / "folder", Limit(count=9))


def through_tars(home):
    (home / "raw").mkdir()
    for number in range(2):
        with tarfile.open(home / "raw" / f"{number}.tar", "w") as tar:
            for row in range(number, len(ROWS), 2):
                for end, data in (("png", png(ROWS[row])), ("txt", CAPTIONS[row].encode())):
                    info = tarfile.TarInfo(f"{row}.{end}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    imported("webdataset", home / "raw", home / "folder", Limit(count=9))


def through_json_of_a_benchmark(home):
    files(home / "flickr30k-images")
    images = [
        {"filename": f"{row}.png", "split": split, "imgid": row, "sentences": [{"raw": text, "sentid": 9 * row}]}
        for split in ("train", "test")
        for row, text in enumerate(CAPTIONS)
    ]
    (home / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    archives.imported("flickr30k", home, home / "folder", ("train", "test"))


def raw_cn_clip(home):
    cn_clip(home / "folder", padded, padded)


def raw_pairs(home):
    lines = [f"{row}.png\t{text}\n" for row, text in enumerate(CAPTIONS)]
    (files(home / "folder") / "pairs.tsv").write_text("".join(lines), encoding="utf-8")


DOORS = {
    # what evaluation opens, its split, and whether the source has ids
    through_cn_clip: ("folder", "test", True),
    through_lmdb: ("folder", "test", True),
    through_csv: ("folder", "train", False),
    through_parquet: ("folder", "train", False),
    through_tars: ("folder", "train", False),
    through_json_of_a_benchmark: ("folder", "test", True),
    through_a_spreadsheet: ("folder", "train", False),
    through_a_picture_folder: ("folder", "train", False),
    own_spreadsheet: ("raw/表.csv", "test", False),
    own_picture_folder: ("raw", "test", False),
    own_tars: ("raw", "test", False),
    own_parquet: ("raw.parquet", "test", False),
    own_lmdb: ("raw/lmdb", "test", True),
    raw_cn_clip: ("folder", "test", True),
    raw_pairs: ("folder/pairs.tsv", "test", False),
}
FOLDERS = [door for door in DOORS if door.__name__.startswith("through")]


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    found = {}
    for door in DOORS:
        found[door] = tmp_path_factory.mktemp(door.__name__)
        door(found[door])
    return found


def number_of(picture):
    data = picture.read_bytes() if isinstance(picture, Path) else picture
    return next(number for number in range(PICTURES) if png(number) == data)


def scored(task, of_picture, of_text):
    """Returns the task's figures for features computed from each image and each text."""
    images = np.stack([of_picture(number_of(picture)) for picture in task.pictures])
    return task.score(images, np.stack([of_text(plain_text(text)) for text in task.captions]))


def random_picture(number):
    return np.random.default_rng(number).normal(size=4)


def random_text(text):
    return np.random.default_rng([100 + NAMES.index(text)]).normal(size=4)


def test_one_set_of_figures_from_one_set_of_features(homes):
    found = {}
    for door, (place, split, numbered) in DOORS.items():
        task = open_captions(homes[door] / place, split).task("")
        assert {number_of(picture) for picture in task.pictures} == set(range(PICTURES))
        assert len(task.pictures) == PICTURES
        assert sorted(plain_text(text) for text in task.captions) == sorted(NAMES)
        assert (task.image_ids is not None, task.text_ids is not None) == (numbered, numbered)
        found[door.__name__] = scored(task, random_picture, random_text)
    assert 0 < found["raw_pairs"]["t2i_r1"] < 1
    for figures in found.values():
        assert figures == pytest.approx(found["raw_pairs"])


def test_how_many_were_joined(homes):
    for door in (raw_cn_clip, raw_pairs, own_picture_folder, through_json_of_a_benchmark):
        task = open_captions(homes[door] / DOORS[door][0], DOORS[door][1]).task("")
        assert task.counted == Counted("joined", len(ROWS) - PICTURES, len(ROWS) - len(NAMES))


def test_as_published_every_line_counts(homes):
    figures = []
    for door in (raw_cn_clip, raw_pairs, through_json_of_a_benchmark):
        task = open_captions(homes[door] / DOORS[door][0], DOORS[door][1], "published").task("")
        assert (len(task.pictures), list(task.captions)) == (len(ROWS), CAPTIONS if door != raw_pairs else STRIPPED)
        assert task.counted == Counted("published", 0, 0)
        figures.append(scored(task, random_picture, random_text))
    assert figures[0] == pytest.approx(figures[1])
    assert figures[0] == pytest.approx(figures[2])
    # By hand: a perfect model finds the 4 or more images of a class, of which one is right, in random order.
    perfect = scored(task, class_of_picture, class_of_text)
    shares = [sum(name(other) == name(picture) for other in ROWS) for picture in ROWS]
    assert perfect["t2i_r1"] == pytest.approx(np.mean([1 / share for share in shares]))


STRIPPED = [text.strip() for text in CAPTIONS]


def test_numbers_of_the_source_are_kept_as_whole_numbers(homes):
    for door, image, text in ((raw_cn_clip, 40, 7), (through_cn_clip, 40, 7), (through_json_of_a_benchmark, 0, 9)):
        task = open_captions(homes[door] / DOORS[door][0], DOORS[door][1]).task("")
        assert list(task.image_ids) == [image + row for row in range(PICTURES)]
        assert sorted(task.text_ids) == [text * row for row in range(len(NAMES))]  # the first row of each name


def class_of_picture(number):
    return np.eye(len(NAMES))[number % len(NAMES)]


def class_of_text(text):
    return np.eye(len(NAMES))[NAMES.index(text)]


@pytest.mark.parametrize("door", DOORS)
def test_a_perfect_model_finds_all(homes, door):
    place, split, _ = DOORS[door]
    figures = scored(open_captions(homes[door] / place, split).task(""), class_of_picture, class_of_text)
    assert figures["t2i_r1"] == figures["i2t_r1"] == figures["mean_recall"] == 1


@pytest.mark.parametrize("door", FOLDERS)
def test_a_perfect_model_reaches_the_floor_of_the_loss(homes, door):
    tokenizer = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"红苹果", "cafe", "noir", "dog", "m²", "m2"])
    words = tokenizer(NAMES, 8)
    assert len(np.unique(words, axis=0)) == len(NAMES)
    source = PairFolder(str(homes[door] / "folder"), "train")
    options = {"seed": 0, "tokenizer": tokenizer, "context_length": 8}
    batches = make_batches(source, batch_size=64, preprocessing=Preprocessing(size=4), **options)
    assert batches.examples_per_epoch >= PICTURES
    for batch in map(batches.__getitem__, range(3)):
        drawn = batch["image"][:, 0, 0, 0].astype(int) // 16  # the colour of the image
        images = np.stack([class_of_picture(number) for number in drawn])
        texts = (batch["text"][:, None] == words[None]).all(axis=2).astype(np.float32)
        assert (images == texts).all()
        ids = {"image_ids_b": batch["image_id"], "text_ids_b": batch["text_id"]}
        loss, recalls = contrastive_loss(images.astype(np.float32), texts, np.log(100.0), **ids)
        assert float(loss) == pytest.approx(0, abs=1e-6)
        assert {name: float(value) for name, value in recalls.items()} == dict.fromkeys(recalls, 1.0)
