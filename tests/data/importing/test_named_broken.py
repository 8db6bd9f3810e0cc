"""Errors about missing and damaged archives of the named sets."""

import zipfile

import pytest

from jclip.errors import JclipError
from tests.data.importing.test_named import coco, coco_cn, elevater_set, imported, karpathy, packed, xtd

COCO = "coco-cn-version1805v1.1"
XTD = "Cross-lingual-Test-Dataset-XTD10"
TAR = "flickr30k-images.tar.gz"


def text(file, words):
    return lambda down: (down / file).write_text(words)


def flip(file):
    """Flips one bit of an image in an archive."""
    with zipfile.ZipFile(file) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(".png"))
    data = bytearray(file.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 1
    file.write_bytes(data)


BROKEN = {
    "missing": ("flickr30k", lambda down: (down / TAR).unlink(), "has no flickr30k-images, nor"),
    "half": (
        "flickr30k",
        lambda down: (down / TAR).write_bytes((down / TAR).read_bytes()[:99]),
        f"{TAR} is damaged or incomplete",
    ),
    "half a zip": (
        "elevater/dtd",
        lambda down: (down / "dtd.zip").write_bytes((down / "dtd.zip").read_bytes()[:-30]),
        "dtd.zip is damaged or incomplete",
    ),
    "a byte": (
        "elevater/dtd",
        lambda down: flip(down / "dtd.zip"),
        "dtd.zip is damaged or incomplete",
    ),
    "loading": (
        "flickr30k",
        lambda down: (down / TAR).rename(down / f"{TAR}.part"),
        f"({TAR}.part is an unfinished download)",
    ),
    "list": ("flickr30k", text("dataset_flickr30k.json", '{"images": [{}]}'), "has no 'split'"),
    "split": ("coco-cn", text(f"{COCO}/coco-cn_val.txt", ""), "'valid' holds no"),
    "caption": (
        "coco-cn",
        text(f"{COCO}/coco-cn_val.txt", f"COCO_val2014_{9:012d}\n"),
        "coco-cn_val.txt, line 1: COCO_val2014_000000000009.jpg has no caption",
    ),
    "name": (
        "coco-cn",
        text(f"{COCO}/coco-cn_val.txt", "cat\n"),
        "line 1: 'cat' is not a name in COCO",
    ),
    "picture": (
        "coco-cn",
        lambda down: (down / "val2014" / f"COCO_val2014_{4:012d}.jpg").unlink(),
        "coco-cn_test.txt, line 1: its image",
    ),
    "lines": (
        "xtd",
        text(f"{XTD}/MIC/test_1kcaptions_de.txt", "de\n"),
        "test_1kcaptions_de.txt has 1 captions, test_image_names.txt 2 images",
    ),
    "labels": ("elevater/mnist", text("mnist/label_cn.txt", "a\n"), "has 1 labels, but mnist"),
    "order": (
        "elevater/mnist",
        lambda down: (down / "mnist" / "index.json").write_bytes(b"\xff"),
        "index.json cannot be read as the order of the images (it is not UTF-8 text)",
    ),
    "class": (
        "elevater/mnist",
        lambda down: (down / "mnist" / "test" / "3").rename(down / "mnist" / "test" / "11"),
        "11: no line of label_cn.txt belongs to it",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive_is_named_and_nothing_is_left(tmp_path, case):
    down = tmp_path / "down"
    karpathy(down)
    coco(down)
    coco_cn(down)
    xtd(down)
    elevater_set(down)
    name, spoil, words = BROKEN[case]
    if "dtd" in name:
        elevater_set(down, "dtd")
        packed(down / "dtd")
    spoil(down)
    with pytest.raises(JclipError) as caught:
        imported(name, down, tmp_path / "folder")
    assert words in str(caught.value)
    assert str(caught.value).count("\n") < 2
    assert [path.name for path in tmp_path.iterdir()] == ["down"]
