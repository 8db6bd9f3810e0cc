"""Image folders: captions beside images, names as captions, tables in the folder, and folders with none of these."""

import json
import unicodedata

import pytest

from jclip.data.importing import formats
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.errors import JclipError
from tests.data.importing.sources import class_folders, imported, pairs, picture


def made(folder, *files):
    """Writes files: images numbered in order, and texts that contain their own name."""
    for number, name in enumerate(files):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            place.write_text(json.dumps({"caption": f"json {name}", "other": ["a", "b"]}))
        elif name.endswith((".txt", ".csv")):
            place.write_text(f"text {name}\n")
        else:
            place.write_bytes(picture(number))
    return folder


def test_captions_beside_pictures(tmp_path):
    files = ["a.png", "a.txt", "a.json", "a.v2.png", "a.v2.txt", "b/IMG.1.JPG", "b/IMG.1.json", "c.png", "c.png.txt"]
    source = made(tmp_path / "s", *files)
    report = imported(None, source, tmp_path / "folder")
    found = {pair.captions[0]: pair.pictures[0] for pair in pairs(tmp_path / "folder")}
    assert found == {
        "text a.txt": picture(0),
        "text a.v2.txt": picture(3),
        "json b/IMG.1.json": picture(5),
        "text c.png.txt": picture(7),
    }
    assert report.format == "" and report.read_as == ("captions from the files beside the images",)


def test_everything_is_counted(tmp_path):
    source = made(tmp_path / "s", "a.png", "a.txt", "alone.png", "other.v2.txt", "notes.pdf", "empty.png", "empty.txt")
    (source / "empty.txt").write_text(" \n")
    made(source, ".DS_Store", "._a.png", "@eaDir/a.png/thumb.png", "Thumbs.db", ".hidden/x.png")
    report = imported("picture-folder", source, tmp_path / "folder", Limit(count=4))
    assert report.splits["train"].skipped.counts == {
        "image without a caption": 1,
        "text without an image": 1,
        "the caption file holds no caption": 1,
    }
    assert report.splits["train"].units == 1
    assert report.splits["train"].beside.counts == {
        "hidden file, or one of the system (such as .DS_Store)": 5,
        "neither an image nor a text": 1,
    }
    assert report.splits["train"].found == 12


def test_captions_are_paired_as_in_tars(tmp_path):
    source = made(tmp_path / "s", "a.png", "a.caption.txt", "b.jpg", "b.caption", "c.png", "c.txt", "c.v2.png", "c.cls")
    (source / "b.caption").write_text("text b.caption")
    (source / "d.png").symlink_to("nowhere")
    made(source, "d.txt", "e/LICENCE")
    report = imported("picture-folder", source, tmp_path / "folder", Limit(count=2))
    assert [pair.captions[0] for pair in pairs(tmp_path / "folder")] == [
        "text a.caption.txt",
        "text b.caption",
        "text c.txt",
    ]
    split = report.splits["train"]
    assert split.skipped.counts == {"second image of a pair": 1, "the file is a broken link": 1}
    assert split.beside.counts == {"file of a pair that is not read": 1, "neither an image nor a text": 1}
    assert split.found == 6 + 1 + 2 + 2


def test_a_requested_field_is_preferred_to_a_text_file(tmp_path):
    source = made(tmp_path / "s", "a.png", "a.txt", "a.json")
    imported("picture-folder", source, tmp_path / "folder", caption="other")
    assert [pair.captions for pair in pairs(tmp_path / "folder")] == [["a", "b"]]


def test_fields_and_encodings_of_captions(tmp_path):
    source = made(tmp_path / "s", "a.png", "a.json", "b.png", "b.json", "c.png", "c.txt", "d.png", "d.txt")
    (source / "b.json").write_text("[")
    (source / "c.txt").write_bytes("一只红色的猫".encode("gb18030"))
    (source / "d.txt").write_bytes("Mädchen".encode("latin-1"))
    report = imported("picture-folder", source, tmp_path / "folder", Limit(count=2), caption="other")
    assert [pair.captions for pair in pairs(tmp_path / "folder")] == [["a", "b"], ["一只红色的猫"]]
    assert report.splits["train"].skipped.counts == {
        "the caption file holds no caption": 1,
        "the caption file cannot be decoded as text": 1,
    }


def test_names_as_captions(tmp_path):
    nfd = unicodedata.normalize("NFD", "café")
    names = ["猫.jpg", "猫 (2).jpg", "猫（3）.jpg", "猫_01.png", "黑猫 - 副本.png", "red_car-2.png", "F16.png"]
    names += [f"{nfd}.png", "b/狗.png"]
    source = made(tmp_path / "s", *names, "IMG_0001.jpg", "20240101.png", "mmexport1699.jpg")
    report = imported(None, source, tmp_path / "folder", Limit(count=3), captions_from="names")
    held = {pair.pictures[0]: list(pair.captions) for pair in pairs(tmp_path / "folder")}
    said = ["猫", "猫", "猫", "猫", "黑猫", "red car", "F16", "café", "狗"]
    assert held == {picture(number): [caption] for number, caption in enumerate(said)}
    assert report.splits["train"].skipped.counts == {"the image's name is not a caption": 3}
    assert report.read_as == ("captions from the images' names",)


def test_a_folder_with_one_table(tmp_path):
    source = made(tmp_path / "s", "pics/猫.png", "pics/狗.png")
    (source / "说明.csv").write_bytes("图片,描述\r\npics/猫.png,一只猫\r\npics\\狗.png,一只狗\r\n".encode("gb18030"))
    imported(None, source, tmp_path / "folder")
    assert [pair.captions for pair in pairs(tmp_path / "folder")] == [["一只猫"], ["一只狗"]]


def test_images_without_captions_are_refused_with_the_options(tmp_path):
    source = made(tmp_path / "s", "猫.png", "狗.png")
    with pytest.raises(JclipError, match=r"it has 2 images and no captions beside them .*--captions-from names"):
        open_source(None, source, Reading())
    with pytest.raises(JclipError, match="--captions-from names"):
        open_source("picture-folder", source, Reading())
    classes = class_folders(tmp_path / "classes", ("a", "b"))
    with pytest.raises(JclipError, match="in 2 folders .*takes the folders as classes; format picture-folder"):
        open_source(None, classes, Reading())
    (tmp_path / "empty").mkdir()
    with pytest.raises(JclipError, match="has no format that can be detected"):
        open_source(None, tmp_path / "empty", Reading())
    with pytest.raises(JclipError, match="has no images: name a folder that has some"):
        open_source("picture-folder", tmp_path / "empty", Reading())
    with pytest.raises(JclipError, match="is not a folder"):
        open_source("picture-folder", source / "猫.png", Reading())


def test_hidden_files_do_not_affect_format_detection(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_LOOKED_AT", 2)
    source = made(tmp_path / "s", *(f".git/{n}.png" for n in range(4)), "a.png", "a.txt")
    assert open_source(None, source, Reading())[0] == "picture-folder"


def test_links_to_folders_are_followed_once(tmp_path):
    source = made(tmp_path / "s", "a.png", "a.txt")
    made(tmp_path / "other", "b.png", "b.txt")
    (source / "more").symlink_to(tmp_path / "other")
    (source / "loop").symlink_to(source)
    imported(None, source, tmp_path / "folder")
    assert [pair.captions[0] for pair in pairs(tmp_path / "folder")] == ["text a.txt", "text b.txt"]
