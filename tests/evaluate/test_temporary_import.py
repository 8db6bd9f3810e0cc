"""A table or a folder of captioned images gives the same tasks as its import."""

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.evaluate.datasets.captions import open_captions
from jclip.evaluate.datasets.temporary_import import import_temporarily, importable_format
from jclip.evaluate.tasks.retrieval import Encoded, score
from tests.data.importing.sources import cn_clip, imported, picture


def captioned(folder):
    for number, name in enumerate(("猫", "狗", "鸟")):
        (folder / "p").mkdir(parents=True, exist_ok=True)
        (folder / "p" / f"{name}.png").write_bytes(picture(number))
        (folder / "p" / f"{name}.txt").write_text(f"一只{name}", encoding="utf-8")
    return folder


def same(task, other):
    assert task.captions == other.captions
    assert list(task.pictures) == list(other.pictures)
    assert task.positives.pairs_p2.tolist() == other.positives.pairs_p2.tolist()


def test_a_table_is_read_as_its_import(tmp_path):
    folder = captioned(tmp_path / "own")
    rows = ["图片,描述", "p/猫.png,一只猫", "p/狗.png,一只狗", "p/猫.png,坐着的猫", "p/鸟.png,一只狗"]
    (tmp_path / "own" / "t.csv").write_bytes("\r\n".join(rows).encode("gb18030"))
    imported("csv", folder / "t.csv", tmp_path / "folder", splits=("test",))
    task = open_captions(folder / "t.csv").task("")
    same(task, open_captions(tmp_path / "folder").task(""))
    assert task.name == str(folder / "t.csv") and len(task.pictures) == 3
    assert import_temporarily(folder / "t.csv", "test") == import_temporarily(folder / "t.csv", "test")


def test_a_folder_of_pictures_is_read_as_its_import(tmp_path):
    folder = captioned(tmp_path / "own")
    imported("picture-folder", folder, tmp_path / "folder", splits=("valid",))
    same(open_captions(folder, "valid").task(""), open_captions(tmp_path / "folder", "valid").task(""))


def test_skipped_records_are_reported(tmp_path):
    rows = [f"{n}.png,red {n}" for n in range(10)]
    for n in range(10):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    (tmp_path / "t.csv").write_text("\n".join(["path,text", *rows, "nowhere.png,b", ""]), encoding="utf-8")
    task = open_captions(tmp_path / "t.csv").task("")
    assert task.captions == [f"red {n}" for n in range(10)]
    assert "1 left out: 1 x the image's file is missing (t.csv, line 12: nowhere.png" in task.note
    eye = np.eye(10, dtype=np.float32)
    result = score(Encoded(task, eye, eye), note="Mine.", resamples=0)
    assert result.note == f"Mine. {task.note}" and result.counts["left_out"] == 1
    for n in range(10):
        (tmp_path / f"{n}.txt").write_text(f"red {n}")
    (tmp_path / "t.csv").unlink()
    for name in ("notes.pdf", ".DS_Store"):
        (tmp_path / name).write_text("x")
    note = open_captions(tmp_path).task("").note
    assert note == (
        "2 left out: 1 x hidden file, or one of the system (such as .DS_Store) (.DS_Store), "
        "1 x neither an image nor a text (notes.pdf)."
    )


def test_too_many_skipped_rows_are_an_error(tmp_path):
    folder = captioned(tmp_path / "own")
    (folder / "t.csv").write_text("path,text\np/猫.png,a\nnowhere.png,b\n", encoding="utf-8")
    with pytest.raises(JclipError, match="1 of 2 had to be skipped.*nowhere.png.*options of `jclip data import`"):
        open_captions(folder / "t.csv")


def test_pairs_without_a_header_need_no_import(tmp_path):
    folder = captioned(tmp_path / "own")
    (folder / "pairs.tsv").write_text("p/猫.png\ta\np/狗.png\tb, c\n", encoding="utf-8")
    assert importable_format(folder / "pairs.tsv") is None
    assert open_captions(folder / "pairs.tsv").task("").captions == ["a", "b, c"]
    (folder / "pairs.tsv").write_text("filepath\ttitle\np/猫.png\ta\n", encoding="utf-8")
    assert open_captions(folder / "pairs.tsv").task("").captions == ["a"]
    cn_clip(tmp_path / "cn", split="test")
    assert importable_format(tmp_path / "cn") is None
