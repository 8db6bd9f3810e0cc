"""Hostile sources fill neither the memory nor the disk, and do not make an import wait."""

import gzip
import io
import os
import signal
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from jclip.data.importing import archives, cn_clip, lines, parquet, webdataset
from jclip.data.importing.archives import unpack_once
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.lines import line_starts, object_of, scan
from jclip.data.importing.parts import Lost, Reading
from jclip.data.sources.class_names import read_names
from jclip.errors import JclipError
from jclip.evaluate.datasets.captions import TsvPictures, open_captions
from jclip.evaluate.datasets.classes import read_classes
from tests.data.importing.sources import class_folders, imported, picture
from tests.data.importing.sources import cn_clip as cn_clip_files

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _never_hangs():
    signal.alarm(100)
    yield
    signal.alarm(0)


@pytest.fixture
def peak_memory():
    """Returns a function that returns Python's peak memory since the start of the test, bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def items(form, source, tmp_path, **reading):
    reader = open_source(form, source, Reading(**reading))[1]
    workspace = tmp_path / "work"
    workspace.mkdir(exist_ok=True)
    return [item for part in reader.parts(workspace, 1 << 30) for item in part.records()]


def packed_tar(file, members):
    """Writes a gzipped tar of (name, data) members; a number for data is a member of as many zero bytes."""
    with gzip.open(file, "wb", 1) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = data if isinstance(data, int) else len(data)
            tar.addfile(info, _Zeros() if isinstance(data, int) else io.BytesIO(data))
    return file


class _Zeros:
    def read(self, size):
        return bytes(size)


def test_members_of_one_key_take_no_memory(tmp_path, peak_memory):
    members = [(f"a.{n}", 20 * MIB) for n in range(8)] + [(f"a.v{n}.png", 20 * MIB) for n in range(3)]
    file = packed_tar(tmp_path / "a.tar.gz", [*members, ("b.png", picture(0)), ("b.txt", b"b")])
    assert file.stat().st_size < 2 * MIB
    found = items("webdataset", file, tmp_path)
    assert peak_memory() < 20 * MIB
    assert sum(isinstance(item, Lost) for item in found) == 3
    assert len(found) == 8 + 3 + 1


def test_large_members_are_skipped_with_the_reason(tmp_path, monkeypatch, peak_memory):
    monkeypatch.setattr(webdataset, "LARGEST_PICTURE", MIB)
    monkeypatch.setattr(webdataset, "LONGEST_TEXT", 1000)
    members = [("a.png", 30 * MIB), ("a.txt", b"a"), ("b.png", picture(0)), ("b.txt", b"b" * 1001)]
    file = packed_tar(tmp_path / "a.tar.gz", [*members, ("c.txt", b"c"), ("c.png", picture(0))])
    first, second, last = items("webdataset", file, tmp_path)
    assert peak_memory() < 10 * MIB
    assert (first.reason, first.entries) == ("an image file of more than 256 MiB", 2)
    assert (second.reason, second.entries) == ("a text of more than 16 MiB", 2)
    assert last.record.captions == ("c",)


def test_pictures_that_wait_for_their_captions_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "LARGEST_HELD", 2 * len(picture(0)))
    members = [(f"v.{n}.png", picture(0)) for n in range(4)] + [(f"v.{n}.txt", b"a") for n in range(4)]
    found = items("webdataset", packed_tar(tmp_path / "a.tar.gz", members), tmp_path)
    assert [isinstance(item, Lost) for item in found] == [True, True, False, False]
    assert found[0].reason.endswith("too far apart in the tar: sort it by name")
    monkeypatch.setattr(webdataset, "LARGEST_GROUP", 2)
    found = items("webdataset", packed_tar(tmp_path / "b.tar.gz", sorted(members, key=lambda one: one[0])), tmp_path)
    assert [item.record.captions for item in found] == [("a",)] * 4


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_huge_member_name_is_refused(tmp_path, kind, peak_memory):
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as stream:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = kind, 60 * MIB
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(61):
            stream.write(b"a" * MIB)
    with pytest.raises(JclipError, match=r"a\.tar\.gz is damaged or incomplete \(a header of more than 4 MiB\)"):
        items("webdataset", tmp_path / "a.tar.gz", tmp_path)
    assert peak_memory() < 30 * MIB


def test_archives_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_ALWAYS", MIB)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/zeros", bytes(20 * MIB))
    packed_tar(tmp_path / "b.tar.gz", [("a/zeros", 20 * MIB)])
    for name in ("a.zip", "b.tar.gz"):
        with pytest.raises(
            JclipError, match=rf"{name} unpacks to more than 100 times its size, or does not fit on the disk"
        ):
            unpack_once(tmp_path / name, tmp_path / "work")
    assert sum(file.stat().st_size for file in (tmp_path / "work").rglob("*") if file.is_file()) < 12 * MIB
    monkeypatch.setattr(archives, "_ALWAYS", 30 * MIB)
    assert (unpack_once(tmp_path / "a.zip", tmp_path / "work") / "a" / "zeros").stat().st_size == 20 * MIB


def test_huge_lines_take_little_memory(tmp_path, peak_memory):
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"a": 1}\n')
        for _ in range(80):
            file.write(b"x" * MIB)
        file.write(b"\n{}")
    first, long, last = scan(tmp_path / "a.jsonl")
    assert (first.data, first.whole, len(long.data), long.whole, last.data) == (
        b'{"a": 1}',
        True,
        16 * MIB,
        False,
        b"{}",
    )
    assert last.offset == 9 + 80 * MIB + 1
    assert list(line_starts(tmp_path / "a.jsonl")) == [0, 9, last.offset, last.offset + 2]
    assert peak_memory() < 50 * MIB
    with pytest.raises(JclipError, match=r"a.jsonl, line 2: it has more than 16 MiB, too long for a text: correct it"):
        object_of(tmp_path / "a.jsonl", long)


@pytest.mark.parametrize("longest", [0, 1, 2, 3, 4])
def test_long_lines_are_truncated(tmp_path, longest):
    (tmp_path / "a").write_bytes(b"a\nabc\r\n\nab\nabcd")
    found = [(line.number, line.data, line.whole) for line in scan(tmp_path / "a", longest=longest)]
    texts = [(1, b"a"), (2, b"abc"), (4, b"ab"), (5, b"abcd")]
    # Lines that are truncated to nothing are not returned.
    assert found == [(n, text[:longest], len(text) <= longest) for n, text in texts if text[:longest]]


def test_base64_images_that_are_too_large_are_skipped(tmp_path, monkeypatch, peak_memory):
    source = cn_clip_files(tmp_path / "source", ["a", "b"])
    whole = (source / "train_imgs.tsv").read_text()
    (source / "train_imgs.tsv").write_text(whole + f"7\t{'A' * (40 * MIB)}\n")
    with (source / "train_texts.jsonl").open("a") as file:
        file.write('{"text_id": 70, "text": "c", "image_ids": [7]}\n')
    tracemalloc.reset_peak()
    monkeypatch.setattr(cn_clip, "LONGEST_PICTURE", 4 * MIB)
    *good, lost = items("cn-clip", source, tmp_path)
    assert len(good) == 2
    assert lost[:3] == ("train_imgs.tsv, line 3", "an image file of more than 256 MiB", 1)
    assert peak_memory() < 20 * MIB
    monkeypatch.setattr("jclip.evaluate.datasets.captions.LONGEST_PICTURE", 4 * MIB)
    pictures = TsvPictures(source / "train_imgs.tsv")
    assert list(pictures[:2]) == [picture(0), picture(1)]
    with pytest.raises(JclipError, match="line 3: an image file of more than 256 MiB: take the line out"):
        pictures[2]


def test_parquet_values_that_are_too_large_are_skipped(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    big = bytes(20 * MIB)
    rows = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1, 0]), pyarrow.array([big, picture(0)]))
    table = pyarrow.table({"image": rows, "caption": ["a", "b", "c"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", dictionary_pagesize_limit=64 * MIB, compression="gzip")
    monkeypatch.setattr(parquet, "LARGEST_PICTURE", MIB)
    first, good, last = items("parquet", tmp_path / "a.parquet", tmp_path)
    assert first.reason == last.reason == "an image file of more than 256 MiB"
    assert good.record.captions == ("b",)
    monkeypatch.setattr(parquet, "LARGEST_GROUP", MIB)
    with pytest.raises(
        JclipError, match=r"a.parquet, row group 0: column image has .* that unpack to 20 MiB, too much"
    ):
        items("parquet", tmp_path / "a.parquet", tmp_path)


def _fifo(place: Path) -> Path:
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    return place


def test_a_special_file_in_a_folder_of_classes_is_counted(tmp_path):
    source = class_folders(tmp_path / "source", ("train",), ("a", "b"))
    _fifo(source / "train" / "a" / "x.png")
    (source / "train" / "b" / "y.png").symlink_to("/dev/zero")
    (source / "train" / "b" / "again").symlink_to("..")
    split = imported("class-folders", source, tmp_path / "set", Limit(count=9)).as_json()["splits"]["train"]
    assert split["skipped"]["not a regular file"]["count"] == 3  # b's link shows x.png too
    data = read_classes(source, "train")
    assert [each.reason for each in data.left_out].count("not a regular file") == 3


def test_special_files_are_refused_wherever_a_path_comes_from(tmp_path):
    fifo, zero = _fifo(tmp_path / "fifo"), tmp_path / "zero"
    zero.symlink_to("/dev/zero")
    (tmp_path / "a.tsv").write_text(f"filepath\ttitle\nfifo\ta\n{zero}\tb\n")
    found = items("csv", tmp_path / "a.tsv", tmp_path)
    assert [item.reason for item in found] == ["a FIFO, not a regular file", "a device, not a regular file"]
    for place in (fifo, zero):
        for read in (read_names, lambda place: list(scan(place)), lambda place: list(line_starts(place))):
            with pytest.raises(JclipError, match="not a regular file: name a file"):
                read(place)
        for form in ("csv", "webdataset", "parquet", "parallel-jsonl", "parallel-tsv", "cn-clip", "moses"):
            with pytest.raises(JclipError):
                items(form, place, tmp_path)
        with pytest.raises(JclipError):
            open_captions(place).task("")
        (tmp_path / "pairs.tsv").write_text(f"{place.name}\ta\n")
        with pytest.raises(JclipError, match="line 1: there is no image"):
            open_captions(tmp_path / "pairs.tsv").task("")
    for name in ("MUGE", "mnist"):
        _fifo(tmp_path / f"{name}.zip")
    for form in ("muge", "elevater/mnist"):
        with pytest.raises(JclipError, match="fetch it from"):
            open_source(form, tmp_path, Reading())
    for name in ("x.tar", "x.parquet"):
        (tmp_path / name[2:]).mkdir()
        _fifo(tmp_path / name[2:] / name)
        with pytest.raises(JclipError, match="not a regular file"):
            items(None, tmp_path / name[2:], tmp_path)


def test_the_longest_line_holds_the_largest_image_in_base64():
    assert lines.LONGEST_PICTURE >= -(-lines.LARGEST_PICTURE // 3) * 4
