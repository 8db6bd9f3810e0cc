"""`jclip data import` and `jclip data inspect` on the command line."""

import json

import pytest

from jclip.cli import main
from jclip.data.importing.formats import FORMATS
from jclip.data.sources.folders import LabelledFolder, PairFolder
from jclip.data.sources.synthetic import write_tokenizer
from tests.data.importing.sources import CAPTIONS, class_folders, cn_clip, picture
from tests.data.importing.test_named import elevater_set


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """Keeps lines unbroken, because tests search for words."""
    monkeypatch.setenv("COLUMNS", "250")


def run(capsys, *words):
    code = main(["data", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_import_says_what_it_did_and_what_it_skipped(tmp_path, capsys):
    source = cn_clip(tmp_path / "source", pictures=lambda n: b"junk" if n == 3 else picture(n))
    code, out, err = run(capsys, "import", source, tmp_path / "folder", "--workers", 1)
    assert (code, out) == (0, "")
    assert "11 pairs, 1 shard(s)" in err and not err.startswith("\n")
    assert "skipped 1" in err and "train_imgs.tsv, line 4" in err
    code, out, err = run(capsys, "import", "cn-clip", source, tmp_path / "json", "--json", "--workers", 1)
    assert (code, err) == (0, "")
    assert json.loads(out)["splits"]["train"]["skipped"]["the image does not decode"]["count"] == 1
    assert len(PairFolder(str(tmp_path / "json")).open()) == 11


def test_limits_on_the_command_line(tmp_path, capsys):
    source = cn_clip(tmp_path / "source", ["一二三四", "一", "一二三四五六"])
    options = ("--min-length", 2, "--max-length", 5, "--workers", 1)
    code, _, err = run(capsys, "import", source, tmp_path / "folder", *options)
    assert code == 1 and "2 of 3 had to be skipped, more than --max-skipped 10%" in err
    assert not (tmp_path / "folder").exists()
    assert run(capsys, "import", source, tmp_path / "folder", *options, "--max-skipped", "70%")[0] == 0
    assert [pair.captions for pair in PairFolder(str(tmp_path / "folder")).open()] == [["一二三四"]]


def test_benchmarks_keep_duplicates_and_skip_nothing(tmp_path, capsys):
    for split in ("train", "valid", "test"):
        cn_clip(tmp_path / "down" / "Flickr30k-CN", ["狗", "狗"], split, lambda n: picture(0))
    assert run(capsys, "import", "flickr30k-cn", tmp_path / "down", tmp_path / "folder", "--workers", 1)[0] == 0
    assert len(PairFolder(str(tmp_path / "folder"), "test").open()) == 2
    cn_clip(tmp_path / "down" / "Flickr30k-CN", ["狗", "狗"], "test", lambda n: b"junk" if n else picture(0))
    code, _, err = run(capsys, "import", "flickr30k-cn", tmp_path / "down", tmp_path / "other", "--workers", 1)
    assert code == 1 and "more than --max-skipped 0" in err


def test_inspect_prints_figures_and_writes_a_sheet(tmp_path, capsys):
    run(capsys, "import", cn_clip(tmp_path / "source"), tmp_path / "folder", "--workers", 1)
    write_tokenizer("wordpiece", tmp_path / "words")
    counting = ("--tokenizer", tmp_path / "words", "--context-length", 4)
    code, out, err = run(capsys, "inspect", tmp_path / "folder", "--sheet", tmp_path / "a.html", *counting)
    assert (code, err) == (0, "")
    assert "12 (zh 12)" in out and "longer than the context" in out and "PNG 12" in out
    assert CAPTIONS[5] in (tmp_path / "a.html").read_text(encoding="utf-8")
    code, out, err = run(capsys, "inspect", tmp_path / "folder", "--json", "--sample", 3)
    assert (code, err) == (0, "")
    assert json.loads(out)["splits"]["train"]["looked_at"] == 3


def test_inspect_of_classes(tmp_path, capsys):
    source = class_folders(tmp_path / "source")
    run(capsys, "import", "class-folders", source, tmp_path / "folder", "--workers", 1)
    assert len(LabelledFolder(str(tmp_path / "folder")).open()) == 6
    code, out, _ = run(capsys, "inspect", tmp_path / "folder", "--split", "test")
    assert code == 0 and "3, with 2 image(s) each" in out
    assert [line.split()[1] for line in out.splitlines() if "█" in line] == ["000", "001", "002"]


def test_inspect_shows_what_classes_are_called(tmp_path, capsys):
    root = elevater_set(tmp_path / "down", "dtd")
    (root / "test" / "003" / "more.png").write_bytes(picture(9))
    run(capsys, "import", "elevater/dtd", tmp_path / "down", tmp_path / "folder", "--workers", 1)
    code, out, _ = run(capsys, "inspect", tmp_path / "folder", "--split", "test", "--sheet", tmp_path / "a.html")
    assert code == 0 and "47, with 1 to 2 image(s) each" in out
    assert "most" in out and "003 类 3, class 3 2; 000 类 0, class 0 1; " in out
    assert "<li>类 8, class 8</li>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    (tmp_path / "folder" / "labels.json").write_text('{"en": ["a"]}')
    code, _, err = run(capsys, "inspect", tmp_path / "folder")
    assert code == 1 and "labels.json has 1 names in 'en' for 47 classes: correct it" in err


def test_inspect_counts_both_texts_of_translations(tmp_path, capsys):
    (tmp_path / "text.tsv").write_text("".join(f"{'a' * n}\t{'红' * (n % 3 + 1)}\n" for n in range(1, 13)))
    run(capsys, "import", "parallel-tsv", tmp_path / "text.tsv", tmp_path / "text", "--language", "zh", "--workers", 1)
    code, out, _ = run(capsys, "inspect", tmp_path / "text")
    assert code == 0 and "24 (en 12, zh 12)" in out
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in out.splitlines() if "characters" in line}
    assert rows["characters, en"].startswith("1 to 12, mean 6.5") and rows["characters, zh"].startswith(
        "1 to 3, mean 2.0"
    )


def test_every_format_is_explained(capsys):
    code, out, _ = run(capsys, "import", "--formats")
    assert code == 0
    assert [line.partition(": ")[0] for line in out.splitlines()] == list(FORMATS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("import", "a"), "give [FORMAT] SRC DST: 1 word(s) given"),
        (("import", "nowhere", "b"), "there is no nowhere: name a file or a folder"),
        (("import", "csv", "a", "b", "--splits", "a-b"), "--splits a-b is not possible"),
        (("import", "csv", "a", "b", "--separator", "::"), "--separator '::' is not possible"),
        (("import", "csv", "a", "b", "--encoding", "x"), "--encoding 'x' is unknown: give utf-8"),
        (("import", "csv", "a", "b", "--validation", "x"), "there is no file a: name a CSV or TSV file"),
        (("split", "nowhere"), "nowhere holds no data set"),
        (("split", "nowhere", "--validation", "1.5"), "--validation '1.5' is not possible: give a number of images"),
        (("inspect", "nowhere"), "nowhere holds no data set"),
        (("inspect", "nowhere", "--sample", "0"), "--sample 0 is not possible: give 1 or more"),
    ],
)
def test_bad_usage_is_one_line(capsys, words, said):
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-skipped", "x"), "give a number, such as 500, or a share, such as 2.5%"),
        (("--min-length", "9", "--max-length", "3"), "leave no text"),
        (("--shard-mib", "0"), "--shard-mib 0 is not possible"),
        (("--workers", "0"), "--workers 0 is not possible"),
        (("--beam-options", "x"), "--beam-options belong to --beam"),
        (("--beam", "--workers", "2"), "--workers are processes of this machine, but Beam has its own"),
    ],
)
def test_bad_options_are_one_line_errors_and_leave_nothing(tmp_path, capsys, options, said):
    code, _, err = run(capsys, "import", cn_clip(tmp_path / "source"), tmp_path / "folder", *options)
    assert code == 1 and said in err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def own_data(folder):
    """Writes a user's data: images with Chinese names, and a table as saved on a Chinese Windows."""
    rows = ["图片,描述"]
    for number in range(12):
        name = f"照片/猫{number}.png"
        (folder / "照片").mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
        rows.append(f"{name},第{number}只猫")
    (folder / "说明.csv").write_bytes("\r\n".join(rows).encode("gb18030"))
    return folder


def test_a_spreadsheet_is_imported_with_a_validation_split(tmp_path, capsys):
    source = own_data(tmp_path / "own")
    code, out, err = run(capsys, "import", source, tmp_path / "a", "--validation", "25%", "--workers", 1)
    assert (code, out) == (0, "")
    assert "说明.csv: GB18030, columns separated by commas" in err and "images from column '图片', by its name" in err
    held = {split: PairFolder(str(tmp_path / "a"), split).open() for split in ("train", "valid")}
    assert sum(len(found) for found in held.values()) == 12 and min(map(len, held.values())) > 0
    run(capsys, "import", "csv", source / "说明.csv", tmp_path / "b", "--workers", 1)
    code, out, err = run(capsys, "split", tmp_path / "b", "--validation", "25%")
    assert (code, out) == (0, "") and f"{len(held['valid'])} pairs, 1 shard(s)" in err
    for split, found in held.items():
        assert list(PairFolder(str(tmp_path / "b"), split).open()) == list(found)
    code, out, err = run(capsys, "split", tmp_path / "b", "--json")
    assert code == 1 and "has a split 'valid' already" in err and err.count("\n") == 1
    more = ("import", "csv", source / "说明.csv", tmp_path / "b", "--add", "--splits", "test", "--json", "--workers", 1)
    code, out, _ = run(capsys, *more)
    assert code == 0 and list(json.loads(out)["splits"]) == ["test"]
    assert len(PairFolder(str(tmp_path / "b"), "test").open()) == 12


def test_names_as_captions_and_where_pictures_are(tmp_path, capsys):
    source = own_data(tmp_path / "own")
    code, _, err = run(capsys, "import", source / "照片", tmp_path / "a", "--workers", 1)
    assert code == 1 and "--captions-from names takes the images' names" in err and err.count("\n") == 1
    names = ("--captions-from", "names", "--workers", 1)
    assert run(capsys, "import", source / "照片", tmp_path / "a", *names)[0] == 0
    assert {pair.captions[0] for pair in PairFolder(str(tmp_path / "a")).open()} == {f"猫{n}" for n in range(12)}
    (source / "说明.csv").rename(tmp_path / "t.csv")
    code, _, err = run(capsys, "import", tmp_path / "t.csv", tmp_path / "b", "--workers", 1)
    assert code == 1 and "there is no folder '照片'" in err and f"--root {source} finds it" in err
    assert run(capsys, "import", tmp_path / "t.csv", tmp_path / "b", "--root", source, "--workers", 1)[0] == 0


def test_commands_are_listed(capsys):
    assert run(capsys)[0] == 0
    assert run(capsys, "nothing")[0] == 2
