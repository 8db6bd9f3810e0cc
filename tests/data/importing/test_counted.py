"""Entries kept and entries left out add up to all entries, in every importer and every evaluator."""

import base64
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jclip.data.importing import cn_clip_lmdb
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Beside, Found, Lost, Reading
from jclip.errors import JclipError
from jclip.evaluate.datasets.captions import open_captions
from jclip.evaluate.datasets.classes import read_classes
from tests.data.importing.sources import class_folders, cn_clip, imported, parquet, picture, table, tars
from tests.data.importing.test_cn_clip import as_lmdb


def counted(form, source, shard_bytes=500, **reading):
    """Reads a source and returns the numbers of (entries, found pairs or images, lost units, entries beside)."""
    reader = open_source(form, source, Reading(**reading))[1]
    with tempfile.TemporaryDirectory() as workspace:
        reader = reader.unpack(Path(workspace))
        items = [item for part in reader.parts(Path(workspace), shard_bytes) for item in part.records()]
    found = [item for item in items if isinstance(item, Found)]
    lost = [item for item in items if isinstance(item, Lost)]
    beside = [item for item in items if isinstance(item, Beside)]
    units = [len(reader.kind.languages(item.record)) for item in found]
    entries = [count if item.entries is None else item.entries for item, count in zip(found, units, strict=True)]
    entries += [item.units if item.entries is None else item.entries for item in lost]
    return sum(entries) + len(beside), sum(units), sum(item.units for item in lost), len(beside)


def tar_of(file, members):
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Makes a new folder for each of hypothesis' examples."""
    return lambda: tmp_path_factory.mktemp("example")


def test_dots_in_the_names_of_tar_members(tmp_path):
    """Cases of webdataset #237 and datasets #7144, and two images whose names have the same beginning."""
    members = [
        (f"IMG_22.{n:02d}.{end}", picture(n) if end == "jpg" else b"a") for n in range(4) for end in ("jpg", "txt")
    ]
    members += [(f"00.{v}{end}", picture(9) if end == "jpg" else b"b") for v in ("", "v2.") for end in ("jpg", "txt")]
    members += [("x/22.0/1.1.png", picture(7)), ("x/22.0/1.1.json", b'{"caption": "c"}'), ("__meta__.json", b"{}")]
    members += [("x/2.jpg", picture(8)), ("x/stats.npy", b""), (".DS_Store", b""), ("link.jpg", None), ("q.bin", b"")]
    report = imported("webdataset", tar_of(tmp_path / "a.tar", members), tmp_path / "set", Limit(count=5)).as_json()
    split = report["splits"]["train"]
    assert split["pairs"] == 4 + 2 + 1 - 1  # 00 and 00.v2 have the same image and the same text
    assert {reason: one["count"] for reason, one in split["skipped"].items()} == {
        "exact duplicate": 1,
        "image without a caption": 1,
        "a link or a device, not a file": 1,
        "neither an image nor a text": 2,
    }
    assert {reason: one["count"] for reason, one in split["beside"].items()} == {"hidden member": 2}
    assert split["found"] == len(members) == 2 * 7 + 4 + 2


_part = st.sampled_from(["a", "b", "07", "v2", "__x__", ".h"])
_member = st.builds(
    lambda folder, parts, end: "/".join([*folder, ".".join([*parts, end])]),
    st.lists(_part, max_size=1),
    st.lists(_part, min_size=1, max_size=3),
    st.sampled_from(["jpg", "png", "txt", "json", "cls", ""]),
)


@given(members=st.lists(st.tuples(_member, st.sampled_from([b"", b"x", b'{"caption": "c"}', None])), max_size=12))
def test_every_member_of_a_tar_is_counted(folder, members):
    file = tar_of(folder() / "a.tar", members)
    entries, pairs, lost, beside = counted("webdataset", file)
    assert entries == len(members)
    assert 2 * pairs + lost + beside <= entries <= 2 * (pairs + lost) + beside


_file = st.sampled_from(
    ["p.png", "p.AVIF", "q.v2.jpeg", "notes.txt", ".hidden.png", "deep/r.gif", ".h/s.png", "p", "t.x y"]
)


@given(files=st.lists(st.tuples(st.sampled_from(["a/", "b/", ""]), _file), unique=True, max_size=12))
def test_every_file_of_class_folders_is_counted(folder, files):
    place = folder()
    for name in ["a/always.png", "b/always.png", *(f"{where}{name}" for where, name in files)]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x")
    (place / "a" / "up").symlink_to("..")
    there = sum(len(names) for _, _, names in os.walk(place))
    if any(name.startswith("deep") and not where for where, name in files):
        return  # a third class, which may hold no image
    entries, pictures, lost, beside = counted("class-folders", place)
    # The link repeats files that were counted already; they are counted again with class a.
    data = read_classes(place)
    assert entries == pictures + lost + beside == len(data.pictures) + len(data.left_out)
    assert len(data.pictures) == pictures
    assert entries >= there


def test_every_image_format_that_pillow_reads_is_imported(tmp_path):
    kinds = {"a.avif": "AVIF", "b.jp2": "JPEG2000", "c.jfif": "JPEG", "d.PNM": "PPM", "e.qoi": "QOI", "f.tga": "TGA"}
    for name in ("x", "y"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number, (file, form) in enumerate(kinds.items()):
            (tmp_path / "source" / name / file).write_bytes(picture(number, form))
    (tmp_path / "source" / "x" / "g.pdf").write_bytes(b"%PDF")
    (tmp_path / "source" / "notes.md").touch()
    data = read_classes(tmp_path / "source")
    assert len(data.pictures) == 12
    assert data.note == (
        "2 file(s) left out: 1 x file outside the class folders (source/notes.md), "
        "1 x the file has no extension of an image format (x/g.pdf)."
    )
    report = imported("class-folders", tmp_path / "source", tmp_path / "set", Limit(count=1)).as_json()
    split = report["splits"]["train"]
    assert (split["pictures"], split["read"], split["found"]) == (12, 13, 14)


@settings(max_examples=10)
@given(
    texts=st.lists(st.tuples(st.text("ab ", max_size=3), st.lists(st.integers(0, 5), max_size=3)), max_size=6),
    lines=st.lists(st.integers(0, 5), min_size=1, max_size=8),
)
def test_every_pair_of_cn_clips_files_is_counted(folder, texts, lines):
    place = folder()
    (place / "train_imgs.tsv").write_text(
        "".join(f"{number}\t{'aGk=' if n % 3 else '!'}\n" for n, number in enumerate(lines))
    )
    wanted = {number for _, ids in texts for number in ids}
    with (place / "train_texts.jsonl").open("w") as file:
        for number, (text, ids) in enumerate(texts):
            file.write(json.dumps({"text_id": number, "text": text, "image_ids": ids}) + "\n\n")
    if wanted - set(lines):
        with pytest.raises(JclipError, match="is not in train_imgs.tsv"):
            counted("cn-clip", place)
        return
    if texts and not wanted:
        with pytest.raises(JclipError, match="no text of split 'train' names"):
            counted("cn-clip", place)
        return
    pairs = sum(len(set(ids)) for _, ids in texts)
    loose, unasked = sum(not ids for _, ids in texts), len(set(lines) - wanted)
    named = {number: sum(number in ids for _, ids in texts) for number in lines}
    again = sum(max(1, named[number]) for n, number in enumerate(lines) if number in lines[n + 1 :])
    entries, found, lost, _ = counted("cn-clip", place)
    assert entries == found + lost == pairs + loose + unasked + again


def test_pairs_beyond_the_lmdbs_own_count_are_counted(tmp_path):
    import lmdb

    source = as_lmdb(cn_clip(tmp_path / "source"), "train")
    before = counted("cn-clip-lmdb", source)
    cn_clip_lmdb._open.cache_clear()
    pairs = str(source / "train" / "pairs")
    with lmdb.open(pairs, map_size=1 << 20) as environment, environment.begin(write=True) as view:
        view.put(b"12", view.get(b"3"))
    assert counted("cn-clip-lmdb", source) == (before[0] + 1, 12, 1, 0)


@settings(max_examples=10)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["0.png", "1.png", "none.png", "", " ", "x/.."]), st.text("ab ", max_size=2)),
        min_size=1,
        max_size=9,
    )
)
def test_every_row_of_a_table_is_counted(folder, rows):
    place = folder()
    for number in range(2):
        (place / f"{number}.png").write_bytes(picture(number))
    (place / "a.tsv").write_text("filepath\ttitle\n" + "".join(f"{name}\t{text}\n" for name, text in rows))
    entries, found, lost, _ = counted("csv", place / "a.tsv")
    assert entries == found + lost == sum(any(map(str.strip, row)) for row in rows)  # a blank line is not a row
    assert found == sum(name in ("0.png", "1.png") for name, _ in rows)


def test_every_row_of_parquet_is_counted(tmp_path):
    import pyarrow
    import pyarrow.parquet

    images = [picture(0), None, b"", picture(1), {"bytes": None}]
    images = [image if isinstance(image, dict) or image is None else {"bytes": image} for image in images]
    captions = [["a", "b"], ["c"], ["d"], [], ["e"]]
    pyarrow.parquet.write_table(
        pyarrow.table({"image": images, "caption": captions}), tmp_path / "a.parquet", row_group_size=2
    )
    (tmp_path / "notes.txt").touch()
    assert counted("parquet", tmp_path) == (6, 3, 3, 0)  # a row of two captions is two pairs
    assert open_source("parquet", tmp_path, Reading())[1].left_out == (
        (f"1 other(s) in {tmp_path.name}", "no .parquet file: notes.txt"),
    )


@settings(max_examples=10)
@given(
    texts=st.lists(
        st.tuples(st.text("a  b", min_size=1, max_size=3), st.text("c ", max_size=2)), min_size=1, max_size=8
    )
)
def test_every_line_of_parallel_text_is_counted(folder, texts):
    place = folder()
    (place / "a.json").write_text(
        "\n\n".join(json.dumps({"english": one, "chinese": two or None}) for one, two in texts)
    )
    entries, found, lost, _ = counted("parallel-jsonl", place / "a.json")
    assert (entries, lost) == (len(texts), sum(not two for _, two in texts))
    (place / "a.tsv").write_text("".join(f"{one}\t{two}\n" for one, two in texts))
    assert counted("parallel-tsv", place / "a.tsv")[:2] == (len(texts), len(texts))
    for end, column in (("en", 0), ("zh", 1)):
        (place / f"m.{end}").write_text("".join(f"{text[column]}\n" for text in texts))
    entries, found, lost, _ = counted("moses", place / "m")
    assert (found, lost) == (sum(bool(two) for _, two in texts), sum(not two for _, two in texts))


@pytest.mark.parametrize("form", ["csv", "webdataset", "parquet", "cn-clip", "class-folders"])
def test_a_report_adds_up(tmp_path, form):
    make = {"csv": table, "webdataset": tars, "parquet": lambda place: parquet(place / "a.parquet"),
            "cn-clip": cn_clip, "class-folders": class_folders}  # fmt: skip
    imported(form, make[form](tmp_path / "source"), tmp_path / "set")
    for split in json.loads((tmp_path / "set" / "report.json").read_text())["splits"].values():
        kept = split.get("pairs", split.get("pictures"))
        assert split["read"] == kept + sum(one["count"] for one in split["skipped"].values())
        assert split["found"] == (2 if form == "webdataset" else 1) * split["read"]
        assert split["beside"] == {}


@settings(max_examples=10)
@given(lists=st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), st.integers(1, 3)), min_size=1, max_size=8))
def test_every_caption_of_a_benchmarks_list_is_counted(folder, lists):
    place = folder()
    (place / "flickr30k-images").mkdir()
    images = []
    for number, (split, captions) in enumerate([("train", 1), ("val", 1), ("test", 1), *lists]):
        (place / "flickr30k-images" / f"{number}.jpg").write_bytes(picture(number))
        sentences = [{"raw": f"{number} {n}", "sentid": 9 * number + n} for n in range(captions)]
        images.append({"filename": f"{number}.jpg", "split": split, "imgid": number, "sentences": sentences})
    (place / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    said = 3 + sum(captions for _, captions in lists)
    assert counted("flickr30k", place) == (said, said, 0, 0)


@settings(max_examples=20)
@given(
    texts=st.lists(
        st.tuples(st.sampled_from(["a", " a", "b"]), st.lists(st.integers(0, 3), max_size=3)), min_size=1, max_size=6
    ),
    counting=st.sampled_from(["joined", "published"]),
)
def test_every_pair_of_cn_clips_files_is_evaluated(folder, texts, counting):
    place = folder()
    payloads = [base64.b64encode(picture(number % 3)).decode() for number in range(4)]  # the last equals the first
    (place / "test_imgs.tsv").write_text("\n".join(f"0{number}\t{data}\n" for number, data in enumerate(payloads)))
    with (place / "test_texts.jsonl").open("w") as file:
        for number, (text, ids) in enumerate(texts):
            line = {"text_id": str(number), "text": text, "image_ids": list(map(str, ids))}
            file.write(json.dumps(line) + "\n\n")
    task = open_captions(place, "test", counting).task("")
    answered = any(ids for _, ids in texts)
    whole = counting == "published" or not answered  # each id counts by itself
    asked = [
        (number if whole else text.strip(), one if whole else one % 3)
        for number, (text, ids) in enumerate(texts)
        for one in ids
    ]
    assert len(task.positives.pairs_p2) == len(set(asked))
    assert len(task.pictures) == (4 if whole else 3)
    assert len(task.captions) == (len(texts) if whole else len({text.strip() for text, _ in texts}))
    assert task.counted is not None
    assert len(task.pictures) + task.counted.pictures == 4
    assert len(task.captions) + task.counted.captions == len(texts)


_beside = st.builds(
    lambda place, stem, end: f"{place}{stem}.{end}",
    st.sampled_from(["", "b/", "b/c.d/", ".h/", "@eaDir/"]),
    st.sampled_from(["p", "q.v2", "p.caption", ".x", "7"]),
    st.sampled_from(["jpg", "PNG", "txt", "json", "caption", "pdf", "jpg.txt"]),
)


@given(names=st.lists(_beside, unique=True, max_size=12), captions=st.sampled_from([None, "names"]))
def test_every_file_of_an_image_folder_is_counted(folder, names, captions):
    place = folder()
    for name in ("always.png", "always.txt", *names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b'{"caption": "c"}')
    entries, found, lost, beside = counted("picture-folder", place, captions_from=captions)
    assert entries == len(names) + 2
    if captions:
        assert entries == found + lost + beside
    else:
        assert 2 * found + lost + beside <= entries <= 2 * (found + lost) + beside


@settings(max_examples=10)
@given(rows=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", " a", "b", "c "])), min_size=1, max_size=8))
def test_every_line_of_a_file_of_pairs_is_evaluated(folder, rows):
    place = folder()
    for number in range(3):
        (place / f"{number}.png").write_bytes(picture(number))
    (place / "pairs.tsv").write_text("\n".join(f"{number}.png\t{text}\n" for number, text in rows))
    task = open_captions(place / "pairs.tsv").task("")
    # As pairs, because neither the order nor the joining of equal images matters.
    asked = {(list(task.captions)[row], column) for row, column in task.positives.pairs_p2.tolist()}
    assert len(asked) == len({(text.strip(), number) for number, text in rows})
    assert len(task.pictures) == len({number for number, _ in rows})
