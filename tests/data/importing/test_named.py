"""The named sets, from small archives in the layout of the real ones."""

import json
import shutil
import tarfile

import pytest

from jclip.data.elevater import CLASSES
from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import FORMATS, open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.sources.folders import LabelledFolder, PairFolder
from jclip.data.sources.kinds import KeepRules
from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import BENCHMARKS
from tests.data.importing.sources import class_folders, cn_clip, picture


def imported(name, downloads, target, splits=None):
    reader = open_source(name, downloads, Reading(splits=splits))[1]
    assert reader.strict
    return import_data(reader, target, Plan(name, rules=KeepRules(skip_duplicates=False), limit=Limit(count=0)))


def pairs(folder, split="test"):
    return list(PairFolder(str(folder), split).open())


def packed(folder, form="zip"):
    """Replaces a folder by an archive with its name."""
    shutil.make_archive(str(folder), form, folder.parent, folder.name)
    shutil.rmtree(folder)


def coco(downloads, form=None):
    for part, numbers in (("train2014", (1, 2)), ("val2014", (3, 4))):
        (downloads / part).mkdir(parents=True)
        for number in numbers:
            (downloads / part / f"COCO_{part}_{number:012d}.jpg").write_bytes(picture(number, "JPEG"))
        if form:
            packed(downloads / part, form)


@pytest.mark.parametrize("form", [None, "zip"])
def test_muge_has_no_public_test_labels(tmp_path, form):
    for split in ("train", "valid", "test"):
        cn_clip(tmp_path / "down" / "MUGE", [f"{split} {n}" for n in range(3)], split)
    if form:
        packed(tmp_path / "down" / "MUGE", form)
    report = imported("muge", tmp_path / "down", tmp_path / "folder")
    assert (list(report.splits), report.left_out) == (["train", "valid"], {"test": "its labels are not public"})
    assert [pair.captions[0] for pair in pairs(tmp_path / "folder", "valid")] == ["valid 0", "valid 1", "valid 2"]
    with pytest.raises(JclipError, match="the labels of its test split are not public"):
        imported("muge", tmp_path / "down", tmp_path / "other", ("test",))


def test_flickr30k_cn(tmp_path):
    for split in ("train", "valid", "test"):
        cn_clip(tmp_path / "down" / "Flickr30k-CN", ["狗", "狗", "猫"], split, lambda n: picture(n // 2))
    packed(tmp_path / "down" / "Flickr30k-CN")
    report = imported("flickr30k-cn", tmp_path / "down", tmp_path / "folder")
    assert {name: split.records for name, split in report.splits.items()} == {"train": 3, "valid": 3, "test": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down", "folder"]


def karpathy(downloads, form="gztar"):
    (downloads / "flickr30k-images").mkdir(parents=True)
    images = []
    for n, split in enumerate(("test", "train", "val", "test")):
        (downloads / "flickr30k-images" / f"{n}.jpg").write_bytes(picture(n))
        sentences = [{"raw": f"A dog {n} {k} .", "sentid": 5 * n + k, "tokens": []} for k in range(5)]
        images.append({"filename": f"{n}.jpg", "split": split, "imgid": n, "sentences": sentences, "sentids": []})
    (downloads / "dataset_flickr30k.json").write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    if form:
        packed(downloads / "flickr30k-images", form)
    return images


@pytest.mark.parametrize("form", [None, "gztar", "tar"])
def test_flickr30k(tmp_path, form):
    karpathy(tmp_path / "down", form)
    imported("flickr30k", tmp_path / "down", tmp_path / "folder")
    found = pairs(tmp_path / "folder")
    assert [pair.source_image_ids for pair in found] == [(0,), (3,)]
    assert found[1].captions == [f"A dog 3 {k} ." for k in range(5)]
    assert found[1].source_text_ids == (15, 16, 17, 18, 19)
    assert [len(pairs(tmp_path / "folder", split)) for split in ("train", "valid")] == [1, 1]


def karpathy_coco(downloads):
    """Writes Karpathy's COCO. The third image has six captions, as some do; the ids of captions are arbitrary."""
    images = []
    for n, (part, split) in enumerate((("train", "train"), ("val", "restval"), ("val", "test"))):
        number = (1, 3, 4)[n]
        sentences = [{"raw": f"A cat {number} {k}.", "sentid": 100 * n + k, "imgid": n} for k in range(5 + n // 2)]
        name = f"COCO_{part}2014_{number:012d}.jpg"
        image = {"filepath": f"{part}2014", "filename": name, "cocoid": number, "imgid": n, "split": split}
        images.append({**image, "sentences": sentences})
    images.append({**images[2], "imgid": 3, "split": "val"})
    (downloads / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


@pytest.mark.parametrize("form", [None, "zip"])
def test_coco_in_english(tmp_path, form):
    coco(tmp_path / "down", form)
    karpathy_coco(tmp_path / "down")
    report = imported("mscoco", tmp_path / "down", tmp_path / "folder")
    assert {name: split.records for name, split in report.splits.items()} == {"train": 2, "valid": 1, "test": 1}
    (pair,) = pairs(tmp_path / "folder")
    assert (pair.pictures[0], pair.captions) == (picture(4, "JPEG"), [f"A cat 4 {k}." for k in range(6)])
    assert (pair.source_text_ids, pair.source_image_ids) == ((200, 201, 202, 203, 204, 205), (2,))


def test_coco_without_the_pictures_of_training(tmp_path):
    coco(tmp_path / "down")
    karpathy_coco(tmp_path / "down")
    shutil.rmtree(tmp_path / "down" / "train2014")
    report = imported("mscoco", tmp_path / "down", tmp_path / "folder")
    assert (list(report.splits), list(report.left_out)) == (["valid", "test"], ["train"])
    with pytest.raises(JclipError, match="has no train2014, nor train2014.zip .*: fetch it from cocodataset.org"):
        imported("mscoco", tmp_path / "down", tmp_path / "other", ("train",))


def coco_cn(downloads):
    root = downloads / "coco-cn-version1805v1.1"
    root.mkdir(parents=True)
    names = [f"COCO_train2014_{1:012d}", f"COCO_val2014_{3:012d}", f"COCO_val2014_{4:012d}"]
    for split, name in zip(("train", "val", "test"), names, strict=True):
        (root / f"coco-cn_{split}.txt").write_text(f"{name}\n")
    written = [f"{name}#{k}\t写 {n} {k}\n" for n, name in enumerate(names) for k in range(1 + n // 2)]
    (root / "imageid.human-written-caption.txt").write_text("".join(written), encoding="utf-8")
    translated = "".join(f"{names[2]}#{k}\t译 {k}\n" for k in range(5))
    (root / "imageid.manually-translated-caption.txt").write_text(translated, encoding="utf-8")
    return root


def test_coco_cn(tmp_path):
    coco(tmp_path / "down", "zip")
    coco_cn(tmp_path / "down")
    packed(tmp_path / "down" / "coco-cn-version1805v1.1", "gztar")
    imported("coco-cn", tmp_path / "down", tmp_path / "one")
    (pair,) = pairs(tmp_path / "one")
    assert (pair.captions, pair.source_image_ids, pair.pictures[0]) == (["写 2 0", "写 2 1"], (4,), picture(4, "JPEG"))
    assert [pairs(tmp_path / "one", split)[0].source_image_ids for split in ("train", "valid")] == [(1,), (3,)]
    report = imported("coco-cn-5k", tmp_path / "down", tmp_path / "five")
    assert (list(report.splits), pairs(tmp_path / "five")[0].captions) == (["test"], [f"译 {k}" for k in range(5)])


def xtd(downloads):
    root = downloads / "Cross-lingual-Test-Dataset-XTD10"
    for folder, languages in (("XTD10", ("en", "zh")), ("MIC", ("de",)), ("STAIR", ("jp",))):
        (root / folder).mkdir(parents=True)
        for language in languages:
            (root / folder / f"test_1kcaptions_{language}.txt").write_text(f"{language} 0\n{language} 1\n")
    names = f"COCO_val2014_{4:012d}.jpg\nCOCO_train2014_{1:012d}.jpg\n"
    (root / "XTD10" / "test_image_names.txt").write_text(names)
    return root


def test_xtd(tmp_path):
    coco(tmp_path / "down")
    xtd(tmp_path / "down")
    report = imported("xtd", tmp_path / "down", tmp_path / "folder")
    first, second = pairs(tmp_path / "folder")
    assert dict(zip(second.languages, second.captions, strict=True)) == {
        "de": "de 1",
        "en": "en 1",
        "ja": "jp 1",
        "zh": "zh 1",
    }
    assert first.pictures[0] == picture(4, "JPEG")
    assert len({*first.source_text_ids, *second.source_text_ids}) == 8
    assert report.splits["test"].languages == {"de": 2, "en": 2, "ja": 2, "zh": 2}


def crossmodal(downloads):
    (downloads / "images").mkdir(parents=True)
    lines = []
    for n in range(2):
        (downloads / "images" / f"00{n}ab.jpg").write_bytes(picture(n))
        texts = {
            "zh": {"caption": [f"图 {n}"]},
            "sw": {"caption": [f"picha {n}", f"mbwa {n}"], "caption/tokenized": []},
        }
        lines.append(json.dumps({"image/key": f"00{n}ab", "image/locale": "sw", **texts}))
    (downloads / "captions").mkdir()
    (downloads / "captions" / "captions.jsonl").write_text("\n".join(lines))
    with tarfile.open(downloads / "images.tgz", "w:gz") as tar:  # the real one has no folder in it
        for file in (downloads / "images").iterdir():
            tar.add(file, f"./{file.name}")
    shutil.rmtree(downloads / "images")
    packed(downloads / "captions")


def test_crossmodal(tmp_path):
    crossmodal(tmp_path / "down")
    imported("crossmodal-3600", tmp_path / "down", tmp_path / "folder")
    first, second = pairs(tmp_path / "folder")
    assert (first.languages, first.captions) == (("sw", "sw", "zh"), ["picha 0", "mbwa 0", "图 0"])
    assert second.source_text_ids == (3, 4, 5)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *(
            (f'{{"image/key": "k", "zh": {{"caption": {value}}}}}', "'zh': \"caption\" must be a list of strings")
            for value in ('"红苹果"', '{"a": "b"}', "3", "null", '["a", 3]')
        ),
        ('{"image/key": "001ab", "zh": {"caption": ["a"]}}', "image/key '001ab' is in line 1 too"),
        ('{"image/key": 3}', "image/key is not a string"),
    ],
)
def test_bad_lines_of_crossmodal_are_named(tmp_path, line, words):
    (tmp_path / "down" / "images").mkdir(parents=True)
    for key in ("001ab", "k"):
        (tmp_path / "down" / "images" / f"{key}.jpg").write_bytes(picture(1))
    first = '{"image/key": "001ab", "zh": {"caption": ["a"]}}'
    (tmp_path / "down" / "captions.jsonl").write_text(f"{first}\n{line}", encoding="utf-8")
    with pytest.raises(JclipError) as caught:
        imported("crossmodal-3600", tmp_path / "down", tmp_path / "folder")
    assert "captions.jsonl, line 2" in str(caught.value) and words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["down"]


def elevater_set(folder, name="mnist", more=0):
    count = CLASSES[name] + more
    width = 3 if count > 10 else 1
    class_folders(folder / name, ("train", "test"), [f"{n:0{width}d}" for n in range(count)], each=1)
    for file, word in (("label_cn.txt", "类"), ("label.txt", "class")):
        (folder / name / file).write_text("".join(f"{word} {n % 9}\n" for n in range(count)), encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", ["mnist", "voc-2007-classification"])
@pytest.mark.parametrize("together", [False, True])
def test_elevater(tmp_path, name, together):
    root = elevater_set(tmp_path / "down" / "ELEVATER_all" if together else tmp_path / "down", name)
    (root / "index.json").write_text("[2, 0, 1]")
    packed(root)
    if together:
        packed(root.parent)
    imported(f"elevater/{name}", tmp_path / "down", tmp_path / "folder")
    folder = LabelledFolder(str(tmp_path / "folder"))
    count = CLASSES[name]
    assert sorted(item.labels for item in folder.open()) == [(n,) for n in range(count)]
    assert folder.labels()["zh"][count - 1] == f"类 {(count - 1) % 9}"
    assert len(folder.labels()["en"]) == len(folder.classes()) == count
    assert json.loads((tmp_path / "folder" / "index.json").read_text()) == [2, 0, 1]
    (tmp_path / "folder" / "labels.json").write_text("[]")
    with pytest.raises(JclipError, match="labels.json cannot be read as names of classes"):
        folder.labels()


@pytest.mark.parametrize("clutter", [0, 1])
def test_caltech_101_with_its_clutter_and_without(tmp_path, clutter):
    elevater_set(tmp_path / "down", "caltech-101", clutter)
    imported("elevater/caltech-101", tmp_path / "down", tmp_path / "folder")
    count = len(LabelledFolder(str(tmp_path / "folder")).classes())
    assert count == 101 + clutter
    BENCHMARKS["caltech-101"].check("folder", count, 6084)  # the benchmark accepts what was imported


def test_another_number_of_classes_is_refused(tmp_path):
    elevater_set(tmp_path / "down", "caltech-101", 2)
    with pytest.raises(JclipError, match="has 103 labels, but caltech-101 has 101 or 102 classes: fetch it again"):
        imported("elevater/caltech-101", tmp_path / "down", tmp_path / "folder")
    with pytest.raises(JclipError, match="has 103 classes, but the test split of Caltech-101 has 101 or 102: "):
        BENCHMARKS["caltech-101"].check("folder", 103, 6084)


def test_of_the_archive_of_all_sets_only_one_is_unpacked(tmp_path, monkeypatch):
    down = tmp_path / "down"
    for name in ("cifar-10", "fer-2013"):
        packed(elevater_set(down / "ELEVATER_all", name))
    packed(down / "ELEVATER_all")
    packed(elevater_set(down, "cifar-100"))  # its name begins with the other's name
    written = []
    monkeypatch.setattr(shutil, "copyfileobj", lambda a, b, n, real=shutil.copyfileobj: (written.append(b), real(a, b)))
    imported("elevater/cifar-10", down, tmp_path / "folder")
    assert len(LabelledFolder(str(tmp_path / "folder")).classes()) == 10
    assert [name for name in (file.name for file in written) if "fer-2013" in name or "cifar-100" in name] == []
    with pytest.raises(JclipError, match=r"ELEVATER_all.zip has no mnist.zip: fetch it again"):
        imported("elevater/mnist", down, tmp_path / "other")


def test_sets_in_a_folder_of_all_sets(tmp_path):
    packed(elevater_set(tmp_path / "down" / "ELEVATER_all", "mnist"))
    elevater_set(tmp_path / "down" / "ELEVATER_all", "fer-2013")
    for name, classes in (("mnist", 10), ("fer-2013", 7)):
        imported(f"elevater/{name}", tmp_path / "down", tmp_path / name)
        assert len(LabelledFolder(str(tmp_path / name)).classes()) == classes


def test_a_picture_of_several_classes_is_one_record(tmp_path):
    root = elevater_set(tmp_path / "down", "voc-2007-classification")
    for split in ("train", "test"):
        for name, number in (("000", 1), ("004", 1), ("007", 1), ("004", 2), ("005", 3)):
            (root / split / name / f"{min(number, 2):06d}.png").write_bytes(picture(number + 50))
        shutil.rmtree(root / split / "019")  # a class may have no image
    imported("elevater/voc-2007-classification", tmp_path / "down", tmp_path / "folder")
    found = {item.picture: item.labels for item in LabelledFolder(str(tmp_path / "folder")).open()}
    # The third has the second's name but other bytes, so it is another image.
    assert [found[picture(n + 50)] for n in (1, 2, 3)] == [(0, 4, 7), (4,), (5,)]


def test_all_twenty_sets_are_known():
    assert len([name for name in FORMATS if name.startswith("elevater/")]) == 20
    # Yang et al. 2022, table 12: the classes of all sets together.
    assert sum(CLASSES.values()) == 1150
