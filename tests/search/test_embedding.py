"""Embedding into a new index: sources, skipped images, and what the index then holds."""

import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jclip.errors import JclipError
from jclip.images.opening import FOREIGN, MISSING, NO_FILE, TOO_LARGE, UNDECODABLE
from jclip.search.embedding import embed
from jclip.search.filters import Filter, parse_time
from jclip.search.index import Index
from jclip.search.originals import read_original
from jclip.search.sources.given import LIST, Source, given_sources
from tests.search.embedders import Cells, encoded, expected_vector


def embedded(sources, folder, **more):
    """Returns the report and the index of embedding without worker processes."""
    report = embed(more.pop("model", Cells()), sources, folder, workers=0, **more)
    return report, Index.open(folder)


def fill(folder: Path, files: dict) -> Path:
    for name, data in files.items():
        place = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def paths_of(index, base) -> list[bytes]:
    return [os.path.relpath(os.fsencode(entry.path), os.fsencode(base)) for entry in index.all_entries()]


def reasons_of(report, base) -> dict:
    return {os.path.relpath(skipped.path, base): skipped.reason for skipped in report.skipped}


def test_a_folder(tmp_path):
    images = {f"{name}.png": encoded(n) for n, name in enumerate(("b", "a", "sub/c", "sub/deep/d"))}
    photos = fill(tmp_path / "photos", images | {"copy.png": encoded(0), "notes.txt": b"x", "sub/film.mp4": b"x"})
    model = Cells()
    report, index = embedded(photos, tmp_path / "index", model=model, batch_size=3)
    assert paths_of(index, photos) == [b"a.png", b"b.png", b"copy.png", b"sub/c.png", b"sub/deep/d.png"]
    assert model.calls == [3, 1]  # the copy is not encoded
    assert (report.entries, report.embedded, report.new, report.copied, report.others) == (5, 4, 4, 1, 2)
    assert (index.vectors, report.skipped, index.facts.orientation) == (4, (), "apply")
    for entry in index.all_entries():
        data = entry.path.read_bytes()
        np.testing.assert_array_equal(index.vector(entry.vector), expected_vector(data))
        assert (entry.width, entry.height, entry.size, entry.text) == (12, 10, len(data), None)
        assert (entry.mtime_ns, entry.date) == (entry.path.stat().st_mtime_ns, int(entry.path.stat().st_mtime))
        assert (entry.meta, read_original(entry)) == ({"format": "PNG"}, data)
    assert [entry.vector for entry in index.all_entries()] == [0, 1, 1, 2, 3]
    assert sorted(os.listdir(tmp_path)) == ["index", "photos"]  # nothing unfinished is left


def test_the_format_is_read_with_numpy_and_sqlite_alone(tmp_path):
    """As docs/index-format.md shows, in a process without jclip."""
    photos = fill(tmp_path / "photos", {f"{n}.png": encoded(n) for n in range(5)})
    embedded(photos, tmp_path / "index")
    guide = (Path(__file__).parents[2] / "docs/index-format.md").read_text(encoding="utf-8")
    program = guide.split("```python\n")[1].split("```")[0].replace("photos.index", "index")
    program += "\nimport sys, json\nassert not [name for name in sys.modules if name.startswith('jclip')]\n"
    program += "print(json.dumps({os.fsdecode(path): vectors[number].tolist() for path, number in rows}))\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == {str(photos / f"{n}.png"): expected_vector(encoded(n)).tolist() for n in range(5)}


def test_odd_names_survive(tmp_path):
    names = [
        b"\xff\xfe.png",
        b" space .png",
        b"line\nbreak.png",
        "猫🐈.png".encode(),
        b"-rf.png",
        b"a::b.png",
        b"%41.png",
    ]
    photos = fill(tmp_path / "photos", {name: encoded(n) for n, name in enumerate(names)})
    report, index = embedded(photos, tmp_path / os.fsdecode(b"ind\xffex?mode=memory#"))
    assert sorted(paths_of(index, photos)) == sorted(names)
    assert all(read_original(entry) for entry in index.all_entries())
    assert not embed(Cells(), [], report.folder, update=True, workers=0).new


def test_images_that_cannot_be_read_are_skipped_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_MAX_MEGAPIXELS", "0.01")
    jpeg = encoded(1, "JPEG", (60, 50))
    photos = fill(
        tmp_path / "photos",
        {
            "good.jpg": jpeg,
            "truncated.jpg": jpeg[: len(jpeg) // 2],
            "empty.png": b"",
            "text.jpg": b"not an image",
            "large.png": encoded(2, size=(200, 60)),
            "drawing.svg": b"<svg/>",
            "raw.CR2": b"II*\0",
            "page.eps": b"%!PS-Adobe-3.0",
        },
    )
    (photos / "dangling.png").symlink_to("nothing")
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "a.jpg").mkdir()
    os.mkfifo(photos / "fifo.png")  # never opened: the test would hang
    report, index = embedded(photos, tmp_path / "index")
    assert paths_of(index, photos) == [b"good.jpg"]
    expected = {
        "truncated.jpg": UNDECODABLE,
        "empty.png": UNDECODABLE,
        "text.jpg": UNDECODABLE,
        "large.png": TOO_LARGE,
        "drawing.svg": FOREIGN,
        "raw.CR2": FOREIGN,
        "page.eps": FOREIGN,
        "dangling.png": MISSING,
        "loop.png": MISSING,
    }
    assert reasons_of(report, photos) == expected
    details = {skipped.path.name: skipped.detail for skipped in report.skipped}
    assert (details["empty.png"], details["raw.CR2"]) == ("it is empty", ".cr2 files are not read")
    assert "limit of 0.01" in details["large.png"]
    assert [(os.fsdecode(path), reason) for path, reason, _ in index.skipped()] == [
        (str(photos / name), reason) for name, reason in sorted(expected.items())
    ]


def test_hidden_files_are_left_out_and_links_are_followed_once(tmp_path):
    hidden = (".hidden.png", "._a.png", "@eaDir/a.png", ".git/a.png", "__MACOSX/a.png", "sub/.thumbs/a.png")
    photos = fill(tmp_path / "photos", {name: encoded(n) for n, name in enumerate((*hidden, "a.png", "sub/b.png"))})
    fill(tmp_path / "elsewhere", {"c.png": encoded(9)})
    (photos / "sub/up").symlink_to(photos)
    (photos / "again").symlink_to("sub")
    (photos / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (photos / "link.png").symlink_to("a.png")
    _, index = embedded(photos, tmp_path / "index")
    assert paths_of(index, photos) == [b"a.png", b"link.png", b"sub/b.png", b"elsewhere/c.png"]
    # A hidden folder that the user names is not left out.
    _, index = embedded(photos / ".git", tmp_path / "other")
    assert len(index) == 1


def test_a_folder_that_cannot_be_listed_is_skipped(tmp_path, monkeypatch):
    photos = fill(tmp_path / "photos", {"a.png": encoded(0), "secret/b.png": encoded(1)})
    scandir = os.scandir

    def refusing(place):
        if isinstance(place, bytes) and place.endswith(b"secret"):
            raise PermissionError(13, "Permission denied")  # root may list anything
        return scandir(place)

    monkeypatch.setattr("os.scandir", refusing)
    report, index = embedded(photos, tmp_path / "index")
    assert reasons_of(report, photos) == {"secret": "the folder cannot be listed"}
    assert len(index) == 1


@pytest.mark.parametrize("orientation", ["apply", "ignore"])
def test_the_orientation_is_applied_and_remembered(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0110] = "Camera\0"
    exif.get_ifd(0x8769)[0x9003] = "2021:02:03 04:05:06"
    exif.get_ifd(0x8769)[0x9011] = "+00:00"
    data = encoded(3, "JPEG", (20, 10), exif=exif)
    photos = fill(tmp_path / "photos", {"a.jpg": data})
    _, index = embedded(photos, tmp_path / "index", orientation=orientation)
    (entry,) = index.all_entries()
    assert index.facts.orientation == orientation
    assert (entry.width, entry.height) == ((10, 20) if orientation == "apply" else (20, 10))
    assert (entry.date, entry.meta) == (1612325106, {"format": "JPEG", "camera": "Camera"})
    np.testing.assert_array_equal(index.vector(0), expected_vector(data, orientation))
    assert list(expected_vector(data, "apply")) != list(expected_vector(data, "ignore"))
    other = {"apply": "ignore", "ignore": "apply"}[orientation]
    with pytest.raises(JclipError, match=f"made with orientation '{orientation}', not '{other}'"):
        embedded([], tmp_path / "index", update=True, orientation=other)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({0x9003: "2024:05:01 20:00:00"}, 1714564800),  # 12:00 UTC
        ({0x9003: "2024:05:01 20:00:00", 0x9011: "-03:30"}, 1714606200),  # 23:30 UTC
        ({0x9003: "2024:05:01 20:00:00", 0x9011: "   :  "}, 1714564800),
        ({0x9003: "0000:00:00 00:00:00", 0x0132: "2024:05:01 20:00:00", 0x9010: "+00:00"}, 1714593600),
        ({0x9003: "1970:01:01 08:00:00", 0x0132: "2024:05:01 20:00:00"}, 0),
        ({0x9003: "2016:12:31 23:59:60", 0x9011: "+00:00"}, 1483228799),
        ({0x9003: "0001:01:01 00:00:00"}, 10**9),  # of the file
    ],
)
def test_a_camera_s_time_is_local_unless_it_names_its_zone(tmp_path, monkeypatch, tags, expected):
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        exif = Image.Exif()
        for tag, value in tags.items():
            (exif if tag == 0x0132 else exif.get_ifd(0x8769))[tag] = value
        photos = fill(tmp_path / "photos", {"a.jpg": encoded(3, "JPEG", exif=exif)})
        os.utime(photos / "a.jpg", (10**9, 10**9))
        _, index = embedded(photos, tmp_path / "index")
        (entry,) = index.all_entries()
        assert entry.date == expected
        day = Filter(since=parse_time("2024-05-01"), before=parse_time("2024-05-01", end=True))
        assert len(index.select(day)) == (expected == 1714564800)
    finally:
        monkeypatch.undo()
        time.tzset()


def write_tar(place: Path, members: dict, mode="w") -> Path:
    with tarfile.open(place, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 10**9
            tar.addfile(info, io.BytesIO(data))
    return place


MEMBERS = {
    "./x/0001.jpg": encoded(1, "JPEG"),
    "./x/0001.txt": "一只猫".encode(),
    "./x/0001.json": json.dumps({"url": "u", "width": 3, "bad": {}, "nan": float("nan")}).encode(),
    "x/0002.json": b'{"n": 1}',
    "x/0002.png": encoded(2),
    "x/0003.png": encoded(3)[:-40],
    "x/.hidden.png": encoded(4),
    "x/0005.svg": b"<svg/>",
    "readme.md": b"#",
    "x/0006.png": encoded(2),
}


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("A.TAR.XZ", "w:xz")]
)
def test_a_tar(tmp_path, name, mode):
    place = write_tar(tmp_path / name, MEMBERS, mode)
    report, index = embedded(place, tmp_path / "index")
    entries = {os.fsdecode(os.path.relpath(entry.path, tmp_path)): entry for entry in index.all_entries()}
    assert list(entries) == [f"{name}::./x/0001.jpg", f"{name}::x/0002.png", f"{name}::x/0006.png"]
    first, second, third = entries.values()
    assert (first.text, first.meta) == ("一只猫", {"format": "JPEG", "url": "u", "width": 3})
    assert (second.text, second.meta, second.vector) == (None, {"format": "PNG", "n": 1}, third.vector)
    assert (first.origin, first.container, first.date) == ("tar", place, 10**9)
    assert [read_original(entry) for entry in entries.values()] == [MEMBERS[each] for each in (
        "./x/0001.jpg", "x/0002.png", "x/0006.png")]  # fmt: skip
    assert reasons_of(report, tmp_path) == {f"{name}::x/0003.png": UNDECODABLE, f"{name}::x/0005.svg": FOREIGN}
    assert sorted(os.listdir(tmp_path)) == sorted([name, "index"])
    place.write_bytes(b"")
    with pytest.raises(JclipError, match="ends within|damaged|changed"):
        read_original(first)


def test_tars_in_folders_and_damaged_ones(tmp_path):
    photos = fill(tmp_path / "photos", {"0.png": encoded(0)})
    write_tar(photos / "good.tar", {"1.png": encoded(1), "a": b""})
    cut = write_tar(photos / "cut.tar", {"2.png": encoded(2), "3.png": encoded(3)})
    cut.write_bytes(cut.read_bytes()[:1600])  # within the second image's header
    (photos / "junk.tar").write_bytes(b"junk" * 1000)
    report, index = embedded(photos, tmp_path / "index")
    assert paths_of(index, photos) == [b"0.png", b"cut.tar::2.png", b"good.tar::1.png"]
    assert reasons_of(report, photos) == {"cut.tar": UNDECODABLE, "junk.tar": UNDECODABLE}


def test_members_of_a_tar_with_odd_names_and_links(tmp_path):
    place = tmp_path / "a.tar"
    with tarfile.open(place, "w") as tar:
        for n, name in enumerate(("same.png", "same.png", os.fsdecode(b"\xff.png"), "line\nbreak.png", "../up.png")):
            info = tarfile.TarInfo(name)
            info.size = len(encoded(n))
            tar.addfile(info, io.BytesIO(encoded(n)))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    report, index = embedded(place, tmp_path / "index")
    base = os.fsencode(place) + b"::"
    names = [os.fsencode(entry.path).removeprefix(base) for entry in index.all_entries()]
    position = index.entry(2).position
    assert names == [b"same.png", b"same.png#%d" % position, b"\xff.png", b"line\nbreak.png"]
    assert [read_original(entry) for entry in index.all_entries()] == [encoded(n) for n in range(4)]
    assert reasons_of(report, tmp_path) == {"a.tar::link.png": NO_FILE}


def test_a_text_file(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_bytes("一只猫\r\n\n  a dog  \n一只猫\n".encode("utf-8-sig"))
    model = Cells()
    report, index = embedded(file, tmp_path / "index", model=model)
    entries = list(index.all_entries())
    assert [(entry.text, entry.position, entry.vector, entry.kind) for entry in entries] == [
        ("一只猫", 1, 0, "text"), ("a dog", 3, 1, "text"), ("一只猫", 4, 0, "text"),
    ]  # fmt: skip
    assert [str(entry.path) for entry in entries] == [f"{file}::{n}" for n in (1, 3, 4)]
    assert (report.new, report.copied, model.calls) == (2, 1, [2])
    np.testing.assert_array_equal(index.vectors_at([0, 1]), np.float16(Cells().encode_text(["一只猫", "a dog"])))
    with pytest.raises(JclipError, match="is a text, not an image"):
        read_original(entries[0])
    # In a folder a text file is another file; a caption of an image, perhaps.
    with pytest.raises(JclipError, match="has no images, only 1 other files"):
        embed(Cells(), tmp_path / "none", tmp_path / "other") if fill(tmp_path / "none", {"a.txt": b"x"}) else None


def test_a_list_on_standard_input_and_patterns(tmp_path, monkeypatch):
    photos = fill(tmp_path / "photos", {name: encoded(n) for n, name in enumerate((b"a\nb.png", "c.png", "s/d.png"))})
    write_tar(photos / "t.tar", {"e.png": encoded(7)})
    monkeypatch.chdir(tmp_path)

    def standard_input(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    standard_input(b"photos/a\nb.png\0photos/gone.png\0photos/t.tar\0\0")
    report, index = embedded("-", tmp_path / "index")
    assert paths_of(index, photos) == [b"a\nb.png", b"t.tar::e.png"]
    assert reasons_of(report, photos) == {"gone.png": MISSING}
    standard_input(b"photos/c.png\r\nphotos/s\n")
    assert paths_of(embedded("-", tmp_path / "lines")[1], photos) == [b"c.png", b"s/d.png"]
    assert paths_of(embedded("photos/**/*.png", tmp_path / "two")[1], photos) == [b"a\nb.png", b"c.png", b"s/d.png"]
    (photos / "[c].png").write_bytes(encoded(8))
    assert paths_of(embedded("photos/[c].png", tmp_path / "three")[1], photos) == [b"[c].png"]  # not a pattern
    assert given_sources(["-", "photos", "photos/"]) == [Source(LIST, b"-"), Source("place", os.fsencode(photos))]


def test_data_folders(tmp_path):
    from jclip.data.sources.kinds import StoredPair
    from jclip.data.sources.records import Translation
    from jclip.data.sources.writing import write_pairs, write_parallel

    pairs = [StoredPair(encoded(n), (f"猫{n}", f"cat {n}")[: n + 1], ("zh", "en")[: n + 1]) for n in range(3)]
    write_pairs(tmp_path / "data/pairs", [*pairs, StoredPair(b"junk", ("x",))])
    write_parallel(tmp_path / "data/text", [Translation("a cat", "一只猫", "zh"), Translation("a dog", "", "zh")])
    report, index = embedded(tmp_path / "data", tmp_path / "index")
    entries = list(index.all_entries())
    assert [os.path.relpath(entry.path, tmp_path / "data") for entry in entries] == [
        "pairs::train/0", "pairs::train/1", "pairs::train/2", "text::train/0/english", "text::train/0/other",
        "text::train/1/english",
    ]  # fmt: skip
    assert (entries[0].text, entries[0].meta) == ("猫0", {"format": "PNG", "split": "train"})
    assert entries[1].meta == {"captions": ["猫1", "cat 1"], "format": "PNG", "split": "train"}
    assert [read_original(entry) for entry in entries[:3]] == [encoded(n) for n in range(3)]
    assert (entries[4].text, entries[4].kind, entries[4].meta["language"]) == ("一只猫", "text", "zh")
    np.testing.assert_array_equal(index.vector(entries[1].vector), expected_vector(encoded(1)))
    assert reasons_of(report, tmp_path / "data") == {"pairs::train/3": UNDECODABLE}


def test_nothing_to_embed(tmp_path):
    fill(tmp_path / "empty", {"a.doc": b""})
    fill(tmp_path / "broken", {"a.png": b"", "b.png": b"x"})
    for sources, message in (
        ([], "there is no source"),
        ([tmp_path / "absent"], "absent cannot be read"),
        (["*.png"], "no file matches"),
        ([tmp_path / "empty"], "has no images, only 1 other files"),
        ([tmp_path / "broken"], r"none of 2 images can be read; the first is .*a.png: .*\(it is empty\)"),
        ([os.devnull], "is neither a folder nor a regular file"),
        (["a\0b"], "not a valid path"),
        ([""], "not a valid path"),
    ):
        with pytest.raises(JclipError, match=message):
            embed(Cells(), sources, tmp_path / "index", workers=0)
    assert sorted(os.listdir(tmp_path)) == ["broken", "empty"]


def test_the_index_is_not_overwritten_and_models_must_fit(tmp_path):
    photos = fill(tmp_path / "photos", {"a.png": encoded(0)})
    embedded(photos, tmp_path / "index")
    with pytest.raises(JclipError, match="index is an index already: add --update"):
        embed(Cells(), photos, tmp_path / "index")
    with pytest.raises(JclipError, match=r"made with another model \(cells"):
        embed(Cells(identity="2" * 64), [], tmp_path / "index", update=True)
    with pytest.raises(JclipError, match="is the index itself"):
        embed(Cells(), tmp_path / "index", tmp_path / "index", update=True)
    text_model = Cells()
    text_model.bundle = replace(text_model.bundle, preprocessing=None)
    with pytest.raises(JclipError, match="cells is a text encoder without an image tower"):
        embed(text_model, photos, tmp_path / "other", workers=0)
    for wrong in ({"batch_size": 0}, {"workers": -1}):
        with pytest.raises(JclipError, match=r"is (0, but must be 1|-1, but must be 0) or more"):
            embed(Cells(), photos, tmp_path / "other", **wrong)
    assert sorted(os.listdir(tmp_path)) == ["index", "photos"]


def test_a_dry_run_writes_nothing(tmp_path):
    photos = fill(tmp_path / "photos", {"a.png": encoded(0), "b.png": encoded(0), "c.png": b""})
    model = Cells()
    report = embed(model, photos, tmp_path / "index", dry_run=True, workers=0)
    assert (report.entries, report.embedded, report.new, report.copied, len(report.skipped)) == (2, 1, 1, 1, 1)
    assert model.calls == [] and os.listdir(tmp_path) == ["photos"]


def test_progress_is_reported(tmp_path):
    photos = fill(tmp_path / "photos", {f"{n}.png": encoded(n) if n else b"" for n in range(9)})
    seen = []
    embed(Cells(), photos, tmp_path / "index", workers=0, watch=seen.append, batch_size=4)
    assert (seen[0].done, seen[0].total, seen[0].seconds_left) == (0, 9, None)
    assert (seen[-1].done, seen[-1].total, seen[-1].skipped, seen[-1].seconds_left) == (9, 9, 1, 0.0)


def test_many_vectors_are_several_segments(tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.search.writing.ROWS", 3)
    photos = fill(tmp_path / "photos", {f"{n}.png": encoded(n) for n in range(8)})
    _, index = embedded(photos, tmp_path / "index", batch_size=5)
    assert [(first, len(block)) for first, block in index.blocks()] == [(0, 3), (3, 3), (6, 2)]
    for entry in index.all_entries():
        np.testing.assert_array_equal(index.vector(entry.vector), expected_vector(entry.path.read_bytes()))


def test_the_database_is_valid(tmp_path):
    photos = fill(tmp_path / "photos", {f"{n}.png": encoded(n) for n in range(3)})
    embedded(photos, tmp_path / "index")
    with sqlite3.connect(tmp_path / "index/entries.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT kind, place FROM sources").fetchall() == [("place", os.fsencode(photos))]
    connection.close()
