"""Class names: whatever characters they contain, no image gets the label of another class."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.data.sources.class_names import check_names, read_labels, read_names
from jclip.data.sources.folders import LabelledFolder
from jclip.errors import JclipError
from jclip.evaluate.datasets.classes import class_names, read_classes
from tests.data.importing.sources import class_folders, imported

BREAKS = ["\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("mark", BREAKS)
def test_names_with_line_breaks_are_refused_at_import_and_read_by_their_numbers(tmp_path, mark):
    source = class_folders(tmp_path / "source", ("test",), (f"a{mark}b", "ok"))
    with pytest.raises(JclipError) as caught:
        imported("class-folders", source, tmp_path / "set")
    assert f"the class folder {f'a{mark}b'!r} holds a line break" in str(caught.value)
    assert mark not in str(caught.value)
    assert not (tmp_path / "set").exists()
    data = read_classes(source)
    assert (data.keys, data.classes_n.tolist()) == ((f"a{mark}b", "ok"), [0, 0, 1, 1])


UNLISTABLE = {
    " ": "is blank",
    "ok ": "begins or ends with white space",
    "\u3000x": "begins or ends with white space",
    os.fsdecode(b"\xff"): "is not UTF-8",
}


@pytest.mark.parametrize(("name", "words"), UNLISTABLE.items())
def test_names_that_cannot_be_lines_of_a_list_are_refused(tmp_path, name, words):
    source = class_folders(tmp_path / "source", ("test",), (name, "other"))
    with pytest.raises(JclipError, match=f"the name of the class folder .* {words}: rename the folder") as caught:
        imported("class-folders", source, tmp_path / "set")
    str(caught.value).encode()


def test_names_that_would_merge_are_refused(tmp_path):
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for number, (one, two) in enumerate([(composed, apart), ("a", "a ")]):
        source = class_folders(tmp_path / str(number), ("test",), (one, two))
        with pytest.raises(JclipError, match="differ only in white space or Unicode form: merge"):
            read_classes(source)
        with pytest.raises(JclipError, match="rename"):
            imported("class-folders", source, tmp_path / "set")


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=4), unique=True, min_size=1))
def test_accepted_names_round_trip_through_a_list_of_lines(tmp_path_factory, names):
    file = tmp_path_factory.mktemp("names") / "classes.txt"
    try:
        check_names(file.parent, names)
    except JclipError:
        assert any(name != name.strip() or len(name.splitlines()) != 1 for name in names) or len(
            {unicodedata.normalize("NFC", name) for name in names}
        ) < len(names)
        return
    file.write_text("\n".join(names), encoding="utf-8-sig", newline="")
    assert read_names(file) == names


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path, end):
    (tmp_path / "a.txt").write_bytes("\ufeff狗".encode() + end.encode() + b"cat " + end.encode())
    assert read_names(tmp_path / "a.txt") == ["狗", "cat"]
    for mark in "\v\f\x85\u2028":
        (tmp_path / "a.txt").write_text(f"a\nb{mark}c\n", encoding="utf-8")
        with pytest.raises(JclipError, match=r"a.txt, line 2: .* some programs read as a line break") as caught:
            read_names(tmp_path / "a.txt")
        assert mark not in str(caught.value)


def test_folders_that_older_versions_wrote_with_shifted_names_are_refused(tmp_path):
    imported("class-folders", class_folders(tmp_path / "source", ("test",), ("a", "ok")), tmp_path / "set")
    assert LabelledFolder(str(tmp_path / "set")).classes() == ["a", "ok"]
    (tmp_path / "set" / "labels.labels.txt").write_text("a\nb\nok\n")
    with pytest.raises(JclipError, match=r"labels.labels.txt has 3 names for 2 classes: rename .* import them again"):
        read_classes(tmp_path / "set")


def test_labels_that_are_not_lists_are_refused(tmp_path):
    (tmp_path / "labels.json").write_text('{"zh": "猫狗"}', encoding="utf-8")  # two letters are not two names
    with pytest.raises(JclipError, match="labels.json: zh must hold a list of names"):
        read_labels(tmp_path)
    (tmp_path / "labels.json").unlink()
    os.mkfifo(tmp_path / "labels.json")
    with pytest.raises(JclipError, match=r"labels.json cannot be read .* \(it is a FIFO, not a regular file\)"):
        read_labels(tmp_path)


def test_a_name_of_two_classes_is_refused_as_a_label(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "classes.txt").write_text("crane\ncrane\n")
    (tmp_path / "labels.tsv").write_text("a.png\tcrane\n")
    with pytest.raises(JclipError, match="line 1: 'crane' names two classes in .*classes.txt: give its number"):
        read_classes(tmp_path)
    (tmp_path / "labels.tsv").write_text("a.png\t1\n")
    assert class_names(read_classes(tmp_path), "en") == ["crane", "crane"]
