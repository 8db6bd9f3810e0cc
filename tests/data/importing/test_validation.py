"""Validation splits by image: deterministic, no image in both splits, complete or absent."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.data.identity import picture_identity
from jclip.data.importing.any_format import describe_folder, import_pairs
from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.importing.stored import split_folder
from jclip.data.importing.validation import HeldOut
from jclip.data.importing.workers import in_processes
from jclip.data.sources.folders import read_languages
from jclip.data.sources.kinds import KeepRules
from jclip.data.sources.records import Translation
from jclip.data.sources.writing import write_parallel
from jclip.errors import JclipError
from tests.data.importing.sources import CAPTIONS, class_folders, cn_clip, contents, pairs, picture, table, tars


def imported(source, target, validation=None, name="cn-clip", shard_bytes=700, reading=None, **plan):
    reader = open_source(name, source, reading or Reading())[1]
    share = None if validation is None else HeldOut.read(validation)
    plan = {"limit": Limit(count=0), "rules": KeepRules(skip_duplicates=False), **plan}
    return import_data(reader, target, Plan(name, shard_bytes=shard_bytes, validation=share, **plan))


def sides(folder):
    return {split: [pair.pictures[0] for pair in pairs(folder, split)] for split in ("train", "valid")}


@given(st.lists(st.integers(0, 2**63 - 1), min_size=2), st.floats(0.001, 0.999))
def test_a_share_leaves_something_on_each_side(numbers, share):
    numbers = np.array(numbers, np.int64)
    if len(np.unique(numbers)) < 2:
        with pytest.raises(JclipError, match="two different images"):
            HeldOut(share=share).bound(numbers)
        return
    bound = HeldOut(share=share).bound(numbers)
    assert 0 < (numbers < bound).sum() < len(numbers)
    expected = numbers < share * 2**63
    if 0 < expected.sum() < len(numbers):
        assert np.array_equal(numbers < bound, expected)  # whatever else is there


@given(st.lists(st.integers(0, 2**63 - 1), min_size=2, unique=True), st.data())
def test_a_number_is_kept_exactly(numbers, data):
    count = data.draw(st.integers(1, len(numbers) - 1))
    assert (np.array(numbers + numbers) < HeldOut(count=count).bound(np.array(numbers + numbers))).sum() == 2 * count


@pytest.mark.parametrize("text", ["", "0", "0%", "100%", "-3", "1.5", "x", "٣", "10 %"])
def test_invalid_shares_are_refused(text):
    with pytest.raises(JclipError, match="give a number of images .30. or a share .10%."):
        HeldOut.read(text)


def test_image_identities_are_spread_evenly():
    numbers = np.array([picture_identity(bytes([n // 256, n % 256])) for n in range(4000)], float) / 2**63
    assert numbers.min() >= 0 and numbers.max() < 1
    assert np.histogram(numbers, 10, (0, 1))[0].min() > 330


def test_equal_images_and_their_captions_stay_in_one_split(tmp_path):
    captions = [f"红 {n}" for n in range(40)]
    source = cn_clip(tmp_path / "source", captions, pictures=lambda n: picture(n % 12))
    report = imported(source, tmp_path / "folder", "5")
    found = sides(tmp_path / "folder")
    assert len(set(found["valid"])) == 5 and len(set(found["train"])) == 7
    assert not set(found["valid"]) & set(found["train"])
    held = [text for split in found for pair in pairs(tmp_path / "folder", split) for text in pair.captions]
    assert sorted(held) == sorted(captions)
    assert {name: split.records for name, split in report.splits.items()} == {
        name: len(one) for name, one in found.items()
    }
    stored = json.loads((tmp_path / "folder" / "report.json").read_text())
    assert stored == report.as_json()
    assert sum(split["read"] for split in stored["splits"].values()) == 40
    for split, pictures in found.items():
        names, codes = read_languages(tmp_path / "folder", split)
        assert names == ["zh"] and len(codes) == len(pictures)


def test_the_split_of_an_image_does_not_depend_on_other_images(tmp_path):
    imported(cn_clip(tmp_path / "a", CAPTIONS), tmp_path / "one", "40%")
    backwards = cn_clip(tmp_path / "b", CAPTIONS[:7], pictures=lambda n: picture(6 - n))
    imported(backwards, tmp_path / "two", "40%", shard_bytes=1 << 20)
    one, two = sides(tmp_path / "one"), sides(tmp_path / "two")
    assert set(two["valid"]) == {picture(n) for n in range(7)} & set(one["valid"])
    assert set(two["train"]) == {picture(n) for n in range(7)} & set(one["train"])


def test_splitting_after_the_import_gives_the_same_folder(tmp_path):
    source = table(tmp_path / "source")
    reading = Reading(language="zh")
    imported(source, tmp_path / "one", "30%", "csv", reading=reading)
    imported(source, tmp_path / "two", None, "csv", reading=reading)
    split_folder(tmp_path / "two", HeldOut(share=0.3))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_what_was_skipped_stays_in_the_report(tmp_path):
    source = cn_clip(tmp_path / "source", [*CAPTIONS, " "])
    imported(source, tmp_path / "one", "4", limit=Limit(count=1))
    imported(source, tmp_path / "two", limit=Limit(count=1))
    split_folder(tmp_path / "two", HeldOut(count=4))
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two")]
    assert reports[0] == reports[1]
    assert reports[0]["splits"]["train"]["skipped"]["empty text"]["count"] == 1
    assert {name: split["read"] for name, split in reports[0]["splits"].items()} == {"train": 13, "valid": 0}
    for split in reports[0]["splits"].values():
        assert split["found"] == split["read"] == split["pairs"] + len(split["skipped"]) + split["moved"]


def test_the_number_of_processes_does_not_matter(tmp_path):
    source = cn_clip(tmp_path / "source")
    imported(source, tmp_path / "one", "30%")
    imported(source, tmp_path / "two", "30%", run=in_processes(2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.importing.test_validation import imported
from jclip.data.importing.stored import split_folder
from jclip.data.importing.validation import HeldOut

what, name, source, target = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
replace, rename = Path.replace, Path.rename
count = 0

def deadly(self, other):
    global count
    if Path(other).name.endswith(name):
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, other)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if what == "import":
    Path.replace = deadly
    imported(source, target, "30%")
else:
    from jclip.io import files
    if what == "between":
        files._swap = lambda *_: False
        Path.rename = lambda self, other: die() if Path(other) == target else rename(self, other)
    elif what == "after":
        swap = files._swap
        files._swap = lambda *names: die(swap(*names))
    else:
        files._swap = die
    split_folder(target, HeldOut(share=0.3))
"""


def killed(*words):
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], env={**os.environ})
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["pictures.npy", "divided.json"])
def test_a_killed_split_resumes_and_ends_the_same(tmp_path, name):
    source = cn_clip(tmp_path / "source")
    imported(source, tmp_path / "whole", "30%")
    killed("import", name, source, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    imported(source, tmp_path / "folder", "30%")
    assert contents(tmp_path / "folder") == contents(tmp_path / "whole")


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_folder_is_complete_after_a_killed_split(tmp_path, when):
    source = cn_clip(tmp_path / "source")
    imported(source, tmp_path / "whole", "30%")
    imported(source, tmp_path / "folder")
    before = contents(tmp_path / "folder")
    killed(when, "", source, tmp_path / "folder")
    if when == "before":
        assert contents(tmp_path / "folder") == before
    if when == "after":
        assert contents(tmp_path / "folder") == contents(tmp_path / "whole")
        with pytest.raises(JclipError, match="has a split 'valid' already"):
            split_folder(tmp_path / "folder", HeldOut(share=0.3))
    else:  # where the system cannot exchange two names in one step, the next division puts it back
        split_folder(tmp_path / "folder", HeldOut(share=0.3))
    assert contents(tmp_path / "folder") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source", "whole"]


def test_a_failed_split_leaves_the_folder_unchanged(tmp_path, monkeypatch):
    imported(cn_clip(tmp_path / "source"), tmp_path / "folder")
    before = contents(tmp_path / "folder")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jclip.data.importing.stored.gather_shards", full)
    with pytest.raises(JclipError, match="No space left"):
        split_folder(tmp_path / "folder", HeldOut(share=0.3))
    assert contents(tmp_path / "folder") == before


def test_impossible_splits_are_refused(tmp_path):
    imported(cn_clip(tmp_path / "one", ["红"]), tmp_path / "single")
    with pytest.raises(JclipError, match="needs two different images or more, but there is 1"):
        split_folder(tmp_path / "single", HeldOut(share=0.5))
    source = cn_clip(tmp_path / "source")
    with pytest.raises(JclipError, match="--validation 12 leaves nothing to train on, because there are 12"):
        imported(source, tmp_path / "folder", "12")
    assert not (tmp_path / "folder").exists()
    imported(source, tmp_path / "folder", "3")
    with pytest.raises(JclipError, match="has a split 'valid' already"):
        split_folder(tmp_path / "folder", HeldOut(share=0.5))
    imported(cn_clip(tmp_path / "source2", split="test"), tmp_path / "test")
    with pytest.raises(JclipError, match="has no split 'train' to divide, only test"):
        split_folder(tmp_path / "test", HeldOut(share=0.5))
    write_parallel(tmp_path / "text", [Translation("a", "b")])
    with pytest.raises(JclipError, match="holds parallel text, but only images with captions are divided"):
        split_folder(tmp_path / "text", HeldOut(share=0.5))
    cn_clip(source, split="valid")
    with pytest.raises(JclipError, match="the source has train, valid: omit --validation, or choose --splits train"):
        imported(source, tmp_path / "other", "3")
    classes = class_folders(tmp_path / "classes")
    with pytest.raises(JclipError, match="--validation divides images with captions, not images with classes"):
        imported(classes, tmp_path / "other", "3", "class-folders")


def test_a_split_from_another_source_is_added(tmp_path):
    cn_clip(tmp_path / "source", split="train")
    imported(tmp_path / "source", tmp_path / "folder")
    train = contents(tmp_path / "folder")
    more = table(tmp_path / "more", CAPTIONS[:3])
    reading = Reading(splits=("valid",))
    imported(more, tmp_path / "folder", name="csv", add=True, reading=reading)
    assert [pair.captions[0] for pair in pairs(tmp_path / "folder", "valid")] == CAPTIONS[:3]
    assert [pair.captions[0] for pair in pairs(tmp_path / "folder")] == CAPTIONS
    now = contents(tmp_path / "folder")
    assert {name: now[name] for name in train if "json" not in name} == {
        name: data for name, data in train.items() if "json" not in name
    }
    report = json.loads(now["report.json"])
    assert {name: split["pairs"] for name, split in report["splits"].items()} == {"train": 12, "valid": 6}
    with pytest.raises(JclipError, match="has a split 'valid' already: rename it with --splits"):
        imported(more, tmp_path / "folder", name="csv", add=True, reading=reading)
    classes = class_folders(tmp_path / "classes", ("test",))
    with pytest.raises(JclipError, match="holds images with captions, but the source images with classes"):
        imported(classes, tmp_path / "folder", name="class-folders", add=True)
    assert contents(tmp_path / "folder") == now
    with pytest.raises(JclipError, match="there is no such folder"):
        imported(more, tmp_path / "nothing", name="csv", add=True)
    assert not (tmp_path / "nothing").exists()


def test_import_pairs_makes_a_folder_with_both_splits(tmp_path):
    keep, share = tmp_path / "keep", HeldOut(share=0.3)
    source = table(tmp_path / "table").rename(tmp_path / "table" / "pairs.csv")
    reading = Reading(separator="\t")
    assert import_pairs(source, keep, reading, validation=share) == keep
    before = contents(keep)
    assert describe_folder(keep)[-2:] == ["train: 8 images with 16 captions", "valid: 4 images with 8 captions"]
    assert import_pairs(source, keep, reading, validation=share) == keep and contents(keep) == before
    with pytest.raises(JclipError, match=r"keep exists already, and was not made of .*pairs.csv as it is now"):
        import_pairs(source, keep, reading, validation=HeldOut(count=3))
    assert import_pairs(keep, tmp_path / "other", Reading(), validation=share) == keep
    cn_clip(tmp_path / "source")
    imported(tmp_path / "source", tmp_path / "folder")
    assert import_pairs(tmp_path / "folder", tmp_path / "no", Reading(), validation=None) == tmp_path / "folder"
    assert import_pairs(tmp_path / "folder", tmp_path / "more", Reading(), validation=share) == tmp_path / "more"
    assert import_pairs(tmp_path / "folder", tmp_path / "more", Reading(), validation=share) == tmp_path / "more"
    assert {len(pairs(tmp_path / "more", split)) for split in ("train", "valid")} == {4, 8}
    cn_clip(tmp_path / "source", CAPTIONS[:2], "valid")
    import_pairs(tmp_path / "source", tmp_path / "own", Reading(), validation=share)
    assert [pair.captions[0] for pair in pairs(tmp_path / "own", "valid")] == CAPTIONS[:2]
    assert not (tmp_path / "no").exists() and not (tmp_path / "other").exists()


def test_import_pairs_takes_every_format(tmp_path):
    share = HeldOut(share=0.3)
    beside = tmp_path / "beside"
    beside.mkdir()
    lines = ["图片,描述"]
    for number, caption in enumerate(CAPTIONS):
        (beside / f"猫{number}.png").write_bytes(picture(number))
        (beside / f"猫{number}.txt").write_text(caption, encoding="utf-8")
        lines.append(f"猫{number}.png,{caption}")
    (tmp_path / "t.csv").write_bytes("\r\n".join(lines).encode("gb18030"))
    import_pairs(tmp_path / "t.csv", tmp_path / "table", Reading(root=str(beside)), validation=share)
    import_pairs(beside, tmp_path / "files", Reading(), validation=share)
    import_pairs(beside, tmp_path / "names", Reading(captions_from="names"), validation=share, limit=Limit(count=12))
    import_pairs(tars(tmp_path / "shards", count=1), tmp_path / "tars", Reading(), validation=HeldOut(count=3))
    for name in ("table", "files"):
        for split, pictures in sides(tmp_path / "table").items():
            assert sorted(sides(tmp_path / name)[split]) == sorted(pictures)
        held = {pair.captions[0] for split in ("train", "valid") for pair in pairs(tmp_path / name, split)}
        assert held == set(CAPTIONS)
    assert describe_folder(tmp_path / "table")[:2] == [
        "t.csv: GB18030, columns separated by commas",
        "images from column '图片', by its name; captions from column '描述', by its name",
    ]
    assert describe_folder(tmp_path / "names")[0] == "captions from the images' names"
    assert len(pairs(tmp_path / "tars", "valid")) == 3


def test_import_pairs_refuses_other_data(tmp_path):
    write_parallel(tmp_path / "text", [Translation("a", "b")])
    with pytest.raises(JclipError, match="holds parallel text, but images with captions are needed"):
        import_pairs(tmp_path / "text", tmp_path / "keep", Reading(), validation=None)
    imported(cn_clip(tmp_path / "source"), tmp_path / "folder")
    with pytest.raises(JclipError, match="--language-column does not apply to .*folder, which is imported already"):
        import_pairs(tmp_path / "folder", tmp_path / "keep", Reading(language_column="x"), validation=None)
