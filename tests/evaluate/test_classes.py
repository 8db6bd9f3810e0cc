from pathlib import Path

import pytest

from jclip.data.importing.limits import Limit
from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import BENCHMARKS, get_benchmark, read_order
from jclip.evaluate.datasets.classes import class_names, read_classes
from jclip.evaluate.datasets.opening import open_probe
from tests.data.importing.sources import imported as bring_in
from tests.data.importing.test_named import elevater_set, imported
from tests.evaluate.cn_clip_data import png


def folders(place, names, pictures=1):
    for number, name in enumerate(names):
        (place / name).mkdir(parents=True)
        for one in range(pictures):
            (place / name / f"{one}.png").write_bytes(png(10 * number + one))


def test_numbered_folders_are_in_numeric_order(tmp_path):
    folders(tmp_path, [str(number) for number in range(12)])
    data = read_classes(tmp_path)
    assert data.keys == tuple(str(number) for number in range(12))  # and not 0, 1, 10, 11, 2
    assert data.classes_n.tolist() == list(range(12))
    assert [path.parent.name for path in data.pictures] == list(data.keys)


def test_named_folders_are_in_alphabetic_order(tmp_path):
    folders(tmp_path, ["b_side", "a"], pictures=2)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    data = read_classes(tmp_path)
    assert (data.keys, data.classes_n.tolist(), data.single) == (("a", "b_side"), [0, 0, 1, 1], True)
    assert class_names(data, "en") == ["a", "b side"]


def test_class_names_by_language(tmp_path):
    folders(tmp_path, ["0", "1"])
    data = read_classes(tmp_path)
    with pytest.raises(JclipError, match=r"only numbers its classes: give their names in .*classes\.fr\.txt"):
        class_names(data, "fr")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "label_cn.txt").write_text("猫\n狗\n", encoding="utf-8")
    (tmp_path / "classes.de.txt").write_text("Katze\nHund\n")
    found = {language: class_names(data, language) for language in ("", "en", "zh", "de")}
    assert found == {"": ["cat", "dog"], "en": ["cat", "dog"], "zh": ["猫", "狗"], "de": ["Katze", "Hund"]}
    for text, message in (
        ("cat\n", r"mine\.txt has 1 names, but .* has 2 classes: give one line for each class"),
        ("cat\n\ndog\n", r"mine\.txt, line 2 is empty"),
    ):
        (tmp_path / "mine.txt").write_text(text)
        with pytest.raises(JclipError, match=message):
            class_names(data, "en", tmp_path / "mine.txt")


def test_labels_of_several_classes(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    (tmp_path / "labels.tsv").write_text("0.png\tcat, bird\n1.png\t1\n2.png\tdog\n")
    data = read_classes(tmp_path)
    assert data.truth_nc.tolist() == [[True, False, True], [False, True, False], [False, True, False]]
    assert not data.single
    for line, message in (
        ("9.png\tcat", "line 2: there is no image"),
        ("1.png\tcow", "line 2: 'cow' is neither a number of up to 5 digits nor a name"),
        ("1.png\t²", "line 2: '²' is neither a number"),
        (f"1.png\t{10**30}", "line 2: '10+' is neither a number"),
        ("1.png\t3", "line 2: class 3 is not among the 3"),
        ("1.png", "line 2: expected PICTURE<tab>CLASS"),
    ):
        (tmp_path / "labels.tsv").write_text(f"0.png\tcat\n{line}\n", encoding="utf-8")
        with pytest.raises(JclipError, match=message):
            read_classes(tmp_path)


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(JclipError, match="nowhere does not exist"):
        read_classes(tmp_path / "nowhere")
    folders(tmp_path, ["a"])
    with pytest.raises(JclipError, match="has 1 class folders"):
        read_classes(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(JclipError, match="b holds no image"):
        read_classes(tmp_path)


def test_splits(tmp_path):
    for split, pictures in (("train", 2), ("test", 1)):
        folders(tmp_path / split, ["0", "1"], pictures)
    (tmp_path / "label_cn.txt").write_text("猫\n狗\n", encoding="utf-8")
    assert (len(read_classes(tmp_path).pictures), len(read_classes(tmp_path, "train").pictures)) == (2, 4)
    assert class_names(read_classes(tmp_path), "zh") == ["猫", "狗"]
    with pytest.raises(JclipError, match="has no split 'valid': it has test, train; choose one with --split"):
        read_classes(tmp_path, "valid")
    sets = open_probe(tmp_path)
    assert set(sets.splits) == {"train", "test"} and tuple(sets.names) == ("0", "1")
    assert sets.shared == 2  # the first image of each class
    with pytest.raises(JclipError, match="must have the splits train and test, but has none"):
        open_probe(tmp_path / "test")


def test_images_in_both_training_and_test_are_reported(tmp_path):
    for split, numbers in (("train", (0, 1, 2)), ("valid", (3, 4)), ("test", (2, 3, 5, 2))):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for n, number in enumerate(numbers):
                (tmp_path / split / name / f"{n}.png").write_bytes(png(number + 10 * (name == "b")))
    (tmp_path / "train" / "b" / "notes.md").touch()
    sets = open_probe(tmp_path)
    assert sets.shared == 6
    assert sets.note == (
        "6 of 8 test images are in split train or valid too, so the figures are too high: remove them from one. "
        "Split train: 1 file(s) left out: 1 x the file has no extension of an image format (b/notes.md)."
    )
    bring_in("class-folders", tmp_path, tmp_path / "set", Limit(count=9))
    assert open_probe(tmp_path / "set").shared == 4  # the importer takes equal images of a class once


@pytest.mark.parametrize("name", ["fer-2013", "voc-2007-classification"])
def test_an_imported_set_equals_its_source(tmp_path, name):
    root = elevater_set(tmp_path / "down", name)
    several = name == "voc-2007-classification"
    order = list(reversed(range(21 if several else 7)))
    (root / "index.json").write_text(str(order))
    if several:  # one image of two classes
        for folder in ("000", "003"):
            (root / "test" / folder / "both.png").write_bytes(png(99))
    imported(f"elevater/{name}", tmp_path / "down", tmp_path / "set")
    data, there = read_classes(tmp_path / "set"), read_classes(root / "test")
    assert (data.name, data.keys, data.single) == (f"{tmp_path / 'set'} (test)", there.keys, not several)
    shown = [
        {(file.read_bytes() if isinstance(file, Path) else file, number) for file, row in pairs for number in row}
        for pairs in (
            [(picture, row.nonzero()[0].tolist()) for picture, row in zip(one.pictures, one.truth_nc, strict=True)]
            for one in (data, there)
        )
    ]
    assert shown[0] == shown[1]
    assert len(data.pictures) == len(there.pictures) - several
    assert class_names(data, "zh")[:2] == ["类 0", "类 1"] and class_names(data, "en")[1] == "class 1"
    assert read_order(data.order, len(data.pictures)) == order
    assert read_classes(tmp_path / "set", "train").order is None
    with pytest.raises(JclipError, match=r"only names its classes in zh, en: give their names in .*classes\.fr"):
        class_names(data, "fr")
    with pytest.raises(JclipError, match="has no split 'valid': it has train, test"):
        read_classes(tmp_path / "set", "valid")
    if several:
        with pytest.raises(JclipError, match="images of several classes, which a probe cannot learn"):
            open_probe(tmp_path / "set")
    else:
        assert {split: len(one.pictures) for split, one in open_probe(tmp_path / "set").splits.items()} == {
            "train": 7, "test": 7
        }  # fmt: skip
    (tmp_path / "set" / "labels.json").write_text('{"zh": ["猫"]}', encoding="utf-8")
    with pytest.raises(JclipError, match="labels.json, 'zh', has 1 names, but"):
        class_names(read_classes(tmp_path / "set"), "zh")
    (tmp_path / "set" / "labels.json").write_text("[")
    with pytest.raises(JclipError, match="labels.json cannot be read as names of classes"):
        read_classes(tmp_path / "set")


def test_benchmarks_know_their_test_split():
    assert len(BENCHMARKS) == 21
    with pytest.raises(JclipError, match="x has 9 classes, but the test split of CIFAR-10 has 10"):
        get_benchmark("cifar-10").check("x", 9, 10_000)
    with pytest.raises(JclipError, match="x has 60000 images, but the test split of CIFAR-10 has 10000"):
        get_benchmark("cifar-10").check("x", 10, 60_000)
    with pytest.raises(JclipError, match="there is no data set 'cifar10': did you mean cifar-10"):
        get_benchmark("cifar10")
    metrics = {name: one.metric for name, one in BENCHMARKS.items() if one.metric != "accuracy"}
    assert metrics == {
        "caltech-101": "mean_per_class",
        "fgvc-aircraft-2013b-variants102": "mean_per_class",
        "oxford-flower-102": "mean_per_class",
        "oxford-iiit-pets": "mean_per_class",
        "hateful-memes": "roc_auc",
        "voc-2007-classification": "map11",
    }


def test_invalid_orders_are_refused(tmp_path):
    file = tmp_path / "index.json"
    file.write_text("[2, 0, 1]")
    assert read_order(file, 3) == [2, 0, 1]
    for text in ("[3]", "{}", "[true]", "[1.5]"):
        file.write_text(text)
        with pytest.raises(JclipError, match="must be a list of row numbers from 0 to 2"):
            read_order(file, 3)
    file.write_text("[" * 100_000)
    with pytest.raises(JclipError, match="cannot be read as a JSON list of row numbers .it is nested too deep"):
        read_order(file, 3)
    for text, words in (("[0, 0, 1]", "3 row numbers, 2 of them different"), ("[2, 0]", "2 row numbers, 2 of them")):
        file.write_text(text)
        with pytest.raises(JclipError, match=rf"{words}.* for 3 images: use the data set's own"):
            read_order(file, 3)
