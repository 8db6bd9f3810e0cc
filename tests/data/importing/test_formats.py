"""Every format gives the same images and captions; errors name the file and the line."""

import gzip
import json
import tarfile

import pytest

from jclip.data.importing.formats import FORMATS
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.importing.webdataset import open_tars
from jclip.data.sources.folders import LabelledFolder, ParallelFolder, read_languages
from jclip.data.sources.records import Translation
from jclip.errors import JclipError
from jclip.evaluate.datasets.classes import class_names, read_classes
from tests.data.importing.sources import (
    CAPTIONS,
    class_folders,
    cn_clip,
    imported,
    pairs,
    parquet,
    picture,
    table,
    tars,
)


def test_rows_of_one_path_are_one_picture(tmp_path):
    imported("csv", table(tmp_path / "source"), tmp_path / "folder", language="zh")
    found = pairs(tmp_path / "folder")
    assert [pair.captions for pair in found] == [[text, f"{text} wieder\nda"] for text in CAPTIONS]
    assert [pair.pictures[0] for pair in found] == [picture(n) for n in range(12)]
    assert {pair.languages for pair in found} == {("zh", "zh")}
    assert len({pair.image_ids for pair in found}) == 12


def test_a_pattern_of_tars_has_stars_and_no_brackets(tmp_path):
    for name in ("a1.tar", "b[1]-0.tar", "b[1]-1.tar"):
        (tmp_path / name).touch()
    with pytest.raises(JclipError, match=r"a\[1\].tar names no tar"):
        open_tars(tmp_path / "a[1].tar", Reading())
    assert [file.name for file in open_tars(tmp_path / "b[1]-*.tar", Reading()).files] == ["b[1]-0.tar", "b[1]-1.tar"]


def test_a_picture_whose_file_is_missing_is_skipped(tmp_path):
    source = table(tmp_path / "source")
    (source.parent / "pictures" / "3.png").unlink()
    report = imported("csv", source, tmp_path / "folder", Limit(count=2))
    (skipped,) = report.as_json()["splits"]["train"]["skipped"].items()
    assert skipped[0] == "the image's file is missing"
    assert skipped[1]["count"] == 2
    assert skipped[1]["first"][0].startswith("pairs.tsv, line 5: ")


def test_columns_by_number_and_another_separator(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "pairs.csv").write_text('zh,"eins, zwei",a.png\n')
    options = {"separator": ",", "picture": "3", "caption": "2", "language_column": "1", "splits": ("valid",)}
    imported("csv", tmp_path / "pairs.csv", tmp_path / "folder", **options)
    (pair,) = pairs(tmp_path / "folder", "valid")
    assert (pair.captions, pair.languages) == (["eins, zwei"], ("zh",))


def test_tars(tmp_path):
    report = imported(None, tars(tmp_path / "source"), tmp_path / "folder")
    found = pairs(tmp_path / "folder")
    assert [pair.captions[0] for pair in found] == [CAPTIONS[n] for start in range(3) for n in range(start, 12, 3)]
    assert len({pair.image_ids[0] for pair in found}) == 12
    assert report.splits["train"].shards == 3


@pytest.mark.parametrize("length", [0, 100, 700, 1024, 5000, -10240])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_that_is_cut_off(tmp_path, length, packed):
    (file,) = tars(tmp_path / "source", count=1).iterdir()
    whole = gzip.compress(file.read_bytes()) if packed else file.read_bytes()
    file.write_bytes(whole[: length // (8 if packed else 1)])
    with pytest.raises(JclipError, match=r"000.tar is damaged or incomplete .*fetch it again"):
        imported("webdataset", file, tmp_path / "folder")
    file.write_bytes(whole)
    imported("webdataset", file, tmp_path / "folder")


def test_tar_members_without_a_partner_are_skipped(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("alone.png", "other.txt"):
            (tmp_path / name).write_bytes(picture(0))
            tar.add(tmp_path / name, name)
    with pytest.raises(JclipError, match="2 of 2 had to be skipped"):
        imported("webdataset", tmp_path / "a.tar", tmp_path / "folder")


def test_a_number_of_too_many_digits_is_a_damaged_caption(tmp_path):
    source = tars(tmp_path / "source", count=1)
    with tarfile.open(source / "more.tar", "w") as tar:
        for name, data in (("a.png", picture(1)), ("a.json", f'{{"caption": {"1" * 5000}}}'.encode())):
            (tmp_path / name).write_bytes(data)
            tar.add(tmp_path / name, name)
    report = imported("webdataset", source, tmp_path / "folder", Limit(count=1))
    assert report.splits["train"].skipped.counts == {"image without a caption": 1}


def test_equal_texts_have_one_number_in_formats_without_numbers(tmp_path):
    captions = ["红", "狗", "红"]
    imported("csv", table(tmp_path / "csv", captions), tmp_path / "a")
    imported("webdataset", tars(tmp_path / "tars", captions), tmp_path / "b")  # a tar each
    imported("parquet", parquet(tmp_path / "a.parquet", [*captions, "狗 "], rows=1), tmp_path / "c")
    found = [[pair.text_ids for pair in pairs(tmp_path / name)] for name in "abc"]
    first, other = found[1][:2]
    assert found[1] == [first, other, first] and first != other
    assert [ids[:1] for ids in found[0]] == found[1] and len({ids[1] for ids in found[0]} - {*first, *other}) == 2
    assert found[2] == [first, other, first, other]  # white space does not make another text
    assert all(0 <= number < 2**63 for ids in found[0] for number in ids)


def test_parquet(tmp_path):
    report = imported(None, parquet(tmp_path / "a.parquet"), tmp_path / "folder", language_column="lang")
    assert [pair.captions[0] for pair in pairs(tmp_path / "folder")] == CAPTIONS
    assert (report.splits["train"].shards, report.splits["train"].languages) == (3, {"zh": 12})


def test_class_folders(tmp_path):
    class_folders(tmp_path / "source")
    imported("class-folders", tmp_path / "source", tmp_path / "folder")
    for split, start in (("train", 0), ("test", 6)):
        folder = LabelledFolder(str(tmp_path / "folder"), split)
        assert folder.classes() == ["000", "001", "002"]
        assert [(item.picture, item.labels) for item in folder.open()] == [
            (picture(start + n), (n // 2,)) for n in range(6)
        ]


def test_class_folders_in_the_order_of_numbers_with_their_names(tmp_path):
    source = class_folders(tmp_path / "source", ("test",), [str(n) for n in range(11)], 1)
    names = {"": "en", ".de": "de", ".zh": "中"}
    for language, word in names.items():
        text = "\ufeff" + "".join(f"{word} {n}\n" for n in range(11))
        (source / f"classes{language}.txt").write_text(text, encoding="utf-8")
    imported("class-folders", source, tmp_path / "folder")
    folder = LabelledFolder(str(tmp_path / "folder"))
    assert folder.classes() == [str(n) for n in range(11)]
    assert [(item.picture, item.labels) for item in folder.open()] == [(picture(n), (n,)) for n in range(11)]
    assert folder.labels() == {
        language: [f"{word} {n}" for n in range(11)]
        for language, word in zip(("en", "de", "zh"), names.values(), strict=True)
    }
    raw, back = read_classes(source), read_classes(tmp_path / "folder")
    for language in ("", "en", "zh", "de"):
        assert class_names(back, language) == class_names(raw, language)
    for text, words in (
        ("a\n", "label_cn.txt has 1 names for 11 classes"),
        ("a\n\nb", "label_cn.txt, line 2 is empty"),
    ):
        (source / "test" / "label_cn.txt").write_text(text)
        with pytest.raises(JclipError, match=words):
            imported("class-folders", source, tmp_path / "other")


def test_names_of_classes_in_one_language_leave_those_of_the_folders(tmp_path):
    source = class_folders(tmp_path / "source", ("train", "test"), ("red_car", "dog"))
    (source / "train" / "label_cn.txt").write_text("狗\n红车\n", encoding="utf-8")
    imported("class-folders", source, tmp_path / "folder")
    folder = LabelledFolder(str(tmp_path / "folder"))
    assert folder.labels() == {"en": ["dog", "red car"], "zh": ["狗", "红车"]}
    (source / "test" / "classes.txt").write_text("犬\n红车\n", encoding="utf-8")
    with pytest.raises(JclipError, match=r"test/classes.txt has other class names than .*label_cn.txt"):
        imported("class-folders", source, tmp_path / "other", language="zh")


def test_files_that_are_not_images_are_counted(tmp_path):
    class_folders(tmp_path / "source", ("train",), ("a", "b"))
    folder = tmp_path / "source" / "train" / "a"
    for number, name in enumerate(("x.tif", "x.ppm", "y.pgm", "y.TIFF"), 5):
        (folder / name).write_bytes(picture(number, "TIFF" if "t" in name.lower() else "PPM"))
    (folder / "x.png").mkdir()
    (folder / ".hidden").touch()
    (folder / "notes.txt").touch()
    (folder / "link.png").symlink_to("nowhere")
    report = imported("class-folders", tmp_path / "source", tmp_path / "folder", Limit(count=2))
    assert report.splits["train"].records == 4 + 4
    assert report.as_json()["splits"]["train"]["skipped"] == {
        "the file has no extension of an image format": {"count": 1, "first": ["train/a/notes.txt"]},
        "the file is a broken link": {"count": 1, "first": ["train/a/link.png"]},
    }


QUOTES = [
    ('a.png\t"red\nb.png\tblue\n', 1),  # to the end
    ('a.png\tred\nb.png\t"blue\nc.png\tgreen\nd.png\t"x\n', 2),  # to the next quotation mark
]


@pytest.mark.parametrize(("text", "line"), QUOTES)
def test_an_unclosed_quotation_mark_is_an_error(tmp_path, text, line):
    (tmp_path / "pairs.tsv").write_text(text)
    with pytest.raises(JclipError, match=rf"pairs.tsv, line {line}: a quotation mark opens here and is not closed"):
        imported("csv", tmp_path / "pairs.tsv", tmp_path / "folder", picture="1", caption="2")


def test_quotation_marks_within_a_line_are_taken_as_they_come(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "pairs.tsv").write_text('a.png\t"red" car\na.png\t7" screen\na.png\t"say ""x"""\n')
    imported("csv", tmp_path / "pairs.tsv", tmp_path / "folder", picture="1", caption="2")
    assert pairs(tmp_path / "folder")[0].captions == ["red car", '7" screen', 'say "x"']


@pytest.mark.parametrize("name", ["csv", "class-folders"])
def test_a_source_without_splits_becomes_one(tmp_path, name):
    source = table(tmp_path / "source")
    source = class_folders(tmp_path / "classes", ("train",)) / "train" if name == "class-folders" else source
    with pytest.raises(JclipError, match="--splits train,valid: the source has no splits .*: give one name"):
        imported(name, source, tmp_path / "folder", splits=("train", "valid"))


@pytest.mark.parametrize("size", [1, 700])
def test_parallel_text_in_three_layouts(tmp_path, size):
    sentences = [("Hello.", "你好。"), ('Say "x', "说 “x”"), ("Bye.", "再见。")]
    lines = (json.dumps({"english": english, "chinese": other}) for english, other in sentences)
    (tmp_path / "tsl.json").write_text("\n".join(lines))
    (tmp_path / "text.tsv").write_text("".join(f"{english}\t{other}\tzh\n" for english, other in sentences))
    (tmp_path / "corpus.en").write_text("\n".join(english for english, _ in sentences))
    (tmp_path / "corpus.zh").write_text("\r\n".join(other for _, other in sentences) + "\r\n")
    imported("parallel-jsonl", tmp_path / "tsl.json", tmp_path / "a", shard_bytes=size)
    imported("parallel-tsv", tmp_path / "text.tsv", tmp_path / "b", shard_bytes=size, language_column="3")
    imported("moses", tmp_path / "corpus", tmp_path / "c", shard_bytes=size)
    for name in "abc":
        assert json.loads((tmp_path / name / "report.json").read_text())["splits"]["train"]["shards"] == (
            3 if size == 1 else 1
        )
        languages, codes = read_languages(tmp_path / name, "train")
        assert (languages, codes.tolist()) == (["zh"], [0, 0, 0])
        found = list(ParallelFolder(str(tmp_path / name)).open())
        assert found == [Translation(*sentence, "zh") for sentence in sentences]


BAD = [
    (
        "parallel-jsonl",
        "a.json",
        '{"english": "a", "chinese": "b"}\n{"english": "a"',
        {},
        "line 2: it is not JSON",
    ),
    (
        "parallel-jsonl",
        "a.json",
        '{"english": "a", "zh": "b"}',
        {},
        "line 1: it has no 'chinese', only 'english'",
    ),
    ("parallel-tsv", "a.tsv", "a\tb\nc\n", {}, "1 because: the row has too few columns, first a.tsv, line 2"),
    ("csv", "a.tsv", "filepath,title\n", {}, "a.tsv holds nothing to import"),
    ("csv", "a.tsv", "filepath\ttitle\nb.png\n", {}, "1 because: the row has too few columns, first a.tsv, line 2"),
    ("csv", "a.tsv", "filepath\ttitle\n", {"english": "x"}, "--english does not apply to format csv: it knows"),
    ("parquet", "a.parquet", "PAR1", {}, "a.parquet is not a complete Parquet file"),
    ("nothing", "a", "", {}, "there is no format 'nothing': choose one of cn-clip, "),
    ("elevater/cifar10", "a", "", {}, "there is no format 'elevater/cifar10': did you mean elevater/cifar-10 or"),
    (None, "a.txt", "", {}, "has no format that can be detected: name one"),
]


@pytest.mark.parametrize(("name", "file", "text", "reading", "words"), BAD)
def test_bad_sources_are_named_by_file_and_line(tmp_path, name, file, text, reading, words):
    (tmp_path / file).write_text(text)
    with pytest.raises(JclipError) as caught:
        imported(name, tmp_path / file, tmp_path / "folder", **reading)
    assert words in str(caught.value)
    assert str(caught.value).count("\n") < 2
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_missing_splits_and_files_are_named(tmp_path):
    source = cn_clip(tmp_path / "source")
    with pytest.raises(JclipError, match="has no split 'test': choose --splits from train"):
        imported("cn-clip", source, tmp_path / "folder", splits=("test",))
    (source / "train_texts.jsonl").unlink()
    with pytest.raises(JclipError, match="train_texts.jsonl is missing: fetch it"):
        imported("cn-clip", source, tmp_path / "folder")
    (tmp_path / "corpus.en").write_text("a\nb\n")
    (tmp_path / "corpus.de").write_text("a\n")
    with pytest.raises(JclipError, match=r"corpus.en has 2 lines, .*corpus.de 1: they do not belong together"):
        imported("moses", tmp_path / "corpus", tmp_path / "folder")
    class_folders(tmp_path / "classes", ("test",), ("a", "c"))
    class_folders(tmp_path / "classes", ("train",), ("a", "b"))
    with pytest.raises(JclipError, match="its classes differ from those of train: only one has 'b'"):
        imported("class-folders", tmp_path / "classes", tmp_path / "folder")


def test_the_language_of_each_record_is_noted(tmp_path):
    rows = ["a\tb\tde", "c\td\tzh", "a\tb\tde", "e\tf\tde"]
    (tmp_path / "text.tsv").write_text("\n".join(rows))
    imported("parallel-tsv", tmp_path / "text.tsv", tmp_path / "text", Limit(count=1), language_column="3")
    languages, codes = read_languages(tmp_path / "text", "train")
    assert [languages[code] for code in codes] == ["de", "zh", "de"]
    assert [text.language for text in ParallelFolder(str(tmp_path / "text")).open()] == ["de", "zh", "de"]
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "pairs.tsv").write_text("a.png\teins\tde\na.png\tone\ten\n")
    options = {"picture": "1", "caption": "2", "language_column": "3"}
    imported("csv", tmp_path / "pairs.tsv", tmp_path / "pairs", **options)
    assert read_languages(tmp_path / "pairs", "train")[0] == ["mul"]
    (tmp_path / "pairs" / "languages-train.npz").write_bytes(b"PK")
    with pytest.raises(JclipError, match="languages-train.npz cannot be read as languages"):
        read_languages(tmp_path / "pairs", "train")
    assert read_languages(tmp_path, "train") is None


def test_every_format_is_explained():
    assert all(form.what[0].islower() and not form.what.endswith(".") for form in FORMATS.values())


def test_a_lone_surrogate_is_skipped(tmp_path):
    (tmp_path / "a.json").write_text('{"english": "a", "chinese": "\\ud83d"}\n{"english": "b", "chinese": "c"}')
    report = imported("parallel-jsonl", tmp_path / "a.json", tmp_path / "folder", Limit(count=1))
    assert report.splits["train"].skipped.counts == {"text with half a character": 1}


@pytest.mark.parametrize("path", ["", ".", "nowhere.png", "a\0b", "x" * 300, "pairs.tsv/x"])
def test_paths_that_are_not_files_are_skipped(tmp_path, path):
    (tmp_path / "pairs.tsv").write_text(f"{path}\ttext\n")
    options = {"picture": "1", "caption": "2"}
    with pytest.raises(JclipError, match="1 of 1 had to be skipped.*(the image's file is missing|names no image)"):
        imported("csv", tmp_path / "pairs.tsv", tmp_path / "folder", **options)


def test_a_parquet_file_that_is_damaged_inside(tmp_path):
    file = parquet(tmp_path / "a.parquet")
    data = bytearray(file.read_bytes())
    data[20:900] = bytes(880)
    file.write_bytes(data)
    with pytest.raises(JclipError, match=r"a.parquet, row group 0 is damaged .*fetch it again"):
        imported("parquet", file, tmp_path / "folder")
