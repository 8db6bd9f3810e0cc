"""Tables byte for byte as Excel, LibreOffice and WPS write them; all give the same records."""

import codecs
import csv
import io
import os
import unicodedata
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.console import Console
from jclip.data.importing.columns import find_columns
from jclip.data.importing.encodings import check_encoding, find_encoding
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.importing.picture_paths import PictureFinder
from jclip.errors import JclipError
from tests.data.importing.sources import imported, pairs, picture

ROWS = [
    ("图片", "描述", "备注"),
    ("猫.png", "一只猫，坐着; 看", ""),
    ("dir/狗.png", '两行\n"引号", 和逗号', "x"),
    ("猫.png", "又一只猫\t制表", ""),
]
CAPTIONS = [["一只猫，坐着; 看", "又一只猫\t制表"], ['两行\n"引号", 和逗号']]


def written(rows=ROWS, separator=",", end="\r\n", quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
    return text.getvalue()


def pictures(folder):
    for number, name in enumerate(("猫.png", "dir/狗.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    return folder


FORMS = {
    "Excel, CSV UTF-8, a comma": written().encode("utf-8-sig"),
    "Excel, CSV UTF-8, European": written(separator=";").encode("utf-8-sig"),
    "Excel, Unicode text": codecs.BOM_UTF16_LE + written(separator="\t").encode("utf-16-le"),
    "UTF-16 big-endian": codecs.BOM_UTF16_BE + written(separator="\t").encode("utf-16-be"),
    "UTF-16 without a mark": written().encode("utf-16-le"),
    "UTF-16 big-endian without a mark": written(separator=";").encode("utf-16-be"),
    "Excel and WPS on a Chinese Windows": written().encode("gb18030"),
    "GBK, tabs": written(separator="\t").encode("gbk"),
    "LibreOffice": written(end="\n").encode(),
    "LibreOffice, everything quoted": written(end="\n", quoting=csv.QUOTE_ALL).encode(),
    "sep=;": ("sep=;\r\n" + written(separator=";")).encode("utf-8-sig"),
    "sep=; in GB18030": ("sep=;\r\n" + written(separator=";")).encode("gb18030"),
    "bars": written(separator="|").encode(),
    "blank rows at the end": (written() + ",,\r\n,,\r\n\r\n").encode(),
    "a column more at the end": written([(*row, "") for row in ROWS]).encode(),
    "headers with spaces": written([(" 图片 ", "描述\u3000", "备注"), *ROWS[1:]]).encode(),
    "English headers": written([("Image Path", "CAPTION", "note"), *ROWS[1:]]).encode(),
    "names that say nothing": written([("A", "B", "C"), *((*row[:2], "7") for row in ROWS[1:])]).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_records(tmp_path, form):
    pictures(tmp_path)
    (tmp_path / "table.csv").write_bytes(FORMS[form])
    report = imported("csv", tmp_path / "table.csv", tmp_path / "folder")
    found = pairs(tmp_path / "folder")
    assert [pair.captions for pair in found] == CAPTIONS
    assert [pair.pictures[0] for pair in found] == [picture(0), picture(1)]
    assert report.splits["train"].units == 3
    assert "columns separated by" in report.read_as[0] and "images from column" in report.read_as[1]
    assert report.as_json()["read_as"] == list(report.read_as)


def test_the_report_says_how_a_table_was_read(tmp_path):
    pictures(tmp_path)
    (tmp_path / "t.csv").write_bytes(FORMS["sep=; in GB18030"])
    assert imported(None, tmp_path / "t.csv", tmp_path / "folder").read_as == (
        "t.csv: GB18030, columns separated by semicolons",
        "images from column '图片', by its name; captions from column '描述', by its name",
    )


def test_unicode_text_of_a_spreadsheet_is_a_table(tmp_path):
    """Excel's "Unicode Text" is UTF-16 with tabs, and its name ends in .txt."""
    pictures(tmp_path)
    (tmp_path / "t.txt").write_bytes(FORMS["Excel, Unicode text"])
    report = imported(None, tmp_path / "t.txt", tmp_path / "folder")
    assert [pair.captions for pair in pairs(tmp_path / "folder")] == CAPTIONS
    file = io.StringIO()
    Console(file=file, width=200).print(report.table("t"))
    assert "by tabs" in file.getvalue() and "\\n" not in file.getvalue()


def test_a_table_without_a_header(tmp_path):
    pictures(tmp_path)
    (tmp_path / "t.csv").write_bytes(written(ROWS[1:]).encode("gb18030"))
    report = imported("csv", tmp_path / "t.csv", tmp_path / "folder", caption="2", picture="1")
    assert [pair.captions for pair in pairs(tmp_path / "folder")] == CAPTIONS
    rows = [row[:2] for row in ROWS[1:]]
    (tmp_path / "t.csv").write_bytes(written(rows).encode("gb18030"))
    report = imported("csv", tmp_path / "t.csv", tmp_path / "found")
    assert [pair.captions for pair in pairs(tmp_path / "found")] == CAPTIONS
    assert "images from column 1 (there is no header), which holds names of images" in report.read_as[1]


def test_open_clips_column_names_are_preferred(tmp_path):
    pictures(tmp_path)
    rows = [
        ("text", "title", "path", "filepath"),
        ("no", "a, b; c", "x.png", "猫.png"),
        ("no", "d", "猫.png", "猫.png"),
    ]
    (tmp_path / "t.csv").write_text(written(rows, "\t", "\n"), encoding="utf-8")
    imported("csv", tmp_path / "t.csv", tmp_path / "folder")
    assert [pair.captions for pair in pairs(tmp_path / "folder")] == [["a, b; c", "d"]]


def test_old_line_ends(tmp_path):
    pictures(tmp_path)
    (tmp_path / "t.csv").write_bytes("图片,描述\r猫.png,一\rdir/狗.png,二\r".encode())
    imported("csv", tmp_path / "t.csv", tmp_path / "folder")
    assert [pair.captions for pair in pairs(tmp_path / "folder")] == [["一"], ["二"]]


def test_ragged_rows_are_counted_with_the_reason(tmp_path):
    pictures(tmp_path)
    text = "图片,描述\n猫.png,一\n猫.png\n猫.png,red, round\n,nobody\n猫.png,二,\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    report = imported("csv", tmp_path / "t.csv", tmp_path / "folder", Limit(count=3))
    assert report.splits["train"].skipped.counts == {
        "the row has too few columns": 1,
        "the row has more columns than the header, for example because a text with a separator is not quoted": 1,
        "the row names no image": 1,
    }
    assert report.splits["train"].skipped.places["the row has too few columns"] == ["t.csv, line 3"]
    assert pairs(tmp_path / "folder")[0].captions == ["一", "二"]


LATIN = "Bild;Beschreibung\r\na.png;Mädchen größer als früher\r\nb.png;ein Café für Bücher\r\n"


def test_latin_1_is_not_guessed(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "b.png").write_bytes(picture(2))
    (tmp_path / "t.csv").write_bytes(LATIN.encode("cp1252"))
    with pytest.raises(JclipError, match=r"line 2 is not UTF-8; it may be .*cp1252 \('.*Mädchen") as caught:
        imported("csv", tmp_path / "t.csv", tmp_path / "folder")
    assert "choose one with --encoding" in str(caught.value) and str(caught.value).count("\n") == 0
    imported("csv", tmp_path / "t.csv", tmp_path / "folder", encoding="cp1252")
    assert pairs(tmp_path / "folder")[0].captions == ["Mädchen größer als früher"]


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        ("图片,描述\n一.png,红色的花\n", "gb18030", "gb18030"),
        ("图片,描述\n一.png,镕喆堃\n" + "红色的花开了" * 20, "gb18030", "gb18030"),  # some are only in GBK
        ("一只猫", "gb18030", "gb18030"),  # which is UTF-8 too: three letters of three scripts
        ("é, ж", "utf-8", "utf-8"),
        ("圖片,描述\n一.png,紅色的花在這裡開了\n", "big5", None),
        ("写真,説明\nねこ.png,これは赤い花です\n", "shift_jis", None),
        ("사진,설명\n고양이.png,빨간 꽃이 피었습니다 그리고 고양이가 있습니다\n", "euc_kr", None),
        (LATIN, "latin-1", None),
        ("photo,légende\nà.png,été à la plage où j'étais\n", "latin-1", None),
        ("a,b\n", "ascii", "utf-8"),
    ],
)
def test_which_encodings_are_found(text, encoding, found):
    data = text.encode(encoding)
    if found is not None:
        assert find_encoding(data, "t") == found
        return
    with pytest.raises(JclipError, match=f"it may be .*{encoding if encoding != 'latin-1' else 'cp1252'} "):
        find_encoding(data, "t")
    assert find_encoding(data, "t", given=encoding) == check_encoding(encoding)


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufeff\0"), min_size=1))
def test_utf8_is_never_taken_for_something_else(text):
    assert find_encoding(("path,text\n" + text).encode(), "t") == "utf-8"
    assert find_encoding(("path,text\n" + text).encode("utf-16-le"), "t", "utf-16-le") == "utf-16-le"
    assert find_encoding(("path,text\na.png,some text\n" + text[:5]).encode("utf-16-be"), "t") == "utf-16-be"


def test_a_character_cut_at_the_end_of_the_sample_does_not_matter(monkeypatch, tmp_path):
    pictures(tmp_path)
    for encoding in ("utf-8", "gb18030", "utf-16"):
        for size in range(40, 46):
            monkeypatch.setattr("jclip.data.importing.encodings._SAMPLE", size)
            (tmp_path / "t.csv").write_bytes(written().encode(encoding))
            imported("csv", tmp_path / "t.csv", tmp_path / f"{encoding}{size}")
            assert [pair.captions for pair in pairs(tmp_path / f"{encoding}{size}")] == CAPTIONS


def test_the_encoding_is_found_from_letters_late_in_the_file(monkeypatch, tmp_path):
    pictures(tmp_path)
    rows = [
        ("path", "text"),
        *(("猫.png" if n == 99 else "a.png", f"text {n}" if n < 99 else "一只猫") for n in range(100)),
    ]
    (tmp_path / "a.png").write_bytes(picture(3))
    (tmp_path / "t.csv").write_bytes(written(rows).encode("gb18030"))
    monkeypatch.setattr("jclip.data.importing.encodings._SAMPLE", 200)
    report = imported("csv", tmp_path / "t.csv", tmp_path / "folder")
    assert report.read_as[0] == "t.csv: GB18030, columns separated by commas"
    assert pairs(tmp_path / "folder")[1].captions == ["一只猫"]


def workbook():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


REFUSED = [
    (workbook(), {}, "t.csv is a workbook (.xlsx or .ods) or another ZIP archive, not text: save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", {}, "t.csv is a workbook (.xls), not text"),
    (b" \r\n", {}, "t.csv is empty"),
    (b"\0\1\2\3\xff" * 9, {}, "is not text, because it has null bytes"),
    (b"path,text\na,b\xff\xff\n", {"encoding": "utf-8"}, "t.csv, line 2: it is not UTF-8: give another --encoding"),
    (b"path only\na.png\n", {}, "'path only' has fewer than 2 columns"),
    ("图片;a;b\nx.png;Text;文字\n".encode(), {}, "'a' and 'b' may each be the column of captions"),
    (b"title,text,path\na,b,c.png\n", {}, "'title' and 'text' may each be the column of captions; it has the columns"),
    (b"image,picture,text\na.png,b.png,c\n", {}, "'image' and 'picture' may each be the column of images"),
    (b"english,german\na,b\n", {}, "no column certainly holds images; it has the columns 'english', 'german'"),
    (b"path,size\na.png,7\n", {}, "no column certainly holds captions"),
    (
        b"path,text\na.png,b\n",
        {"picture": "file"},
        "has no column 'file', only 'path', 'text': name one with",
    ),
    (b"path,text\na.png,b\n", {"picture": "1"}, "only one column is named by number: give both"),
    (b"path,text\na.png,b\n", {"picture": "1", "caption": "text"}, "name all by the header, or all by number"),
    (b"path,text\na.png,b\n", {"language_column": "lang"}, "has no column 'lang'"),
    (b"path,text\na.png,b\n", {"root": "nowhere"}, "--root nowhere is not a folder"),
]


@pytest.mark.parametrize(("data", "reading", "words"), REFUSED)
def test_unreadable_tables_are_one_line_errors(tmp_path, data, reading, words):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(JclipError) as caught:
        imported("csv", tmp_path / "t.csv", tmp_path / "folder", **reading)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("name", ["no-such", "base64", "rot13", "a\0b"])
def test_unknown_encodings_are_refused(name):
    with pytest.raises(JclipError, match="is unknown: give utf-8, utf-16, gb18030"):
        check_encoding(name)


def test_columns_are_found_by_their_content():
    rows = [["文件", "路径", "text"], ["7", "a.png", "x y"], ["8", "b.png", "z"]]
    found = find_columns(rows, None, None, lambda name: False, "t")
    assert (found.picture.column, found.caption.column) == (1, 2)
    found = find_columns([["x", "y"], ["猫", "一只猫"]], None, None, lambda name: name == "猫", "t")
    assert (found.picture.column, found.header) == (0, True)  # an image name without a suffix


def table(folder, *names):
    (folder / "t.csv").write_text(written([("图片", "描述"), *((name, f"c{n}") for n, name in enumerate(names))]))
    return folder / "t.csv"


def test_misspelt_names_that_match_one_file_are_accepted_and_reported(tmp_path):
    nfc, nfd = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    (tmp_path / f"{nfd}1").mkdir()
    (tmp_path / f"{nfd}1" / f"{nfc}.png").write_bytes(picture(1))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.png").write_bytes(picture(2))
    source = table(tmp_path, f"{nfc}1/{nfd}.png", "b\\c.png", " b/c.png ", f"{nfd}1\\{nfc}.png", "b/c.png", "./b/c.png")
    report = imported("csv", source, tmp_path / "folder")
    assert sorted(pair.captions for pair in pairs(tmp_path / "folder")) == [["c0", "c3"], ["c1", "c2", "c4", "c5"]]
    assert report.read_as[2:] == (
        "1 rows: white space around the name",
        "2 rows: backslashes for slashes",
        "1 rows: another Unicode form of the name",
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("b/D.PNG", "searched in {root}/b, which has 'd.png' (other case)"),
        ("b/d.jpg", "searched in {root}/b, which has 'd.png' (other extension)"),
        ("b/d", "searched in {root}/b, which has 'd.png' (other extension)"),
        ("picture_0l.png", "searched in {root}, which has 'picture_01.png' (similar name)"),
        ("d.png", "searched in {root}; --root {root}/b finds it"),
        (
            "B/d.png",
            "there is no folder 'B' in {root}, which has 'b' (other case); a file of this name is in {root}/b",
        ),
        ("C:\\Users\\li\\d.png", "a Windows path: name the folder of the images with --root"),
        ("/home/li/d.png", "an absolute path: name the folder of the images with --root"),
        ("https://example.org/d.png", "a web address: fetch the images first"),
        ("qqqqq.png", "searched in {root})"),
    ],
)
def test_a_missing_picture_says_where_it_was_looked_for(tmp_path, name, words):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "d.png").write_bytes(picture(1))
    (tmp_path / "picture_01.png").write_bytes(picture(2))
    source = table(tmp_path, "picture_01.png", "b/d.png", name)
    report = imported("csv", source, tmp_path / "folder", Limit(count=1))
    (place,) = report.splits["train"].skipped.places["the image's file is missing"]
    assert f"t.csv, line 4: {name} (" in place and words.format(root=tmp_path) in place
    assert report.splits["train"].units == 2


def test_pictures_are_below_root_and_absolute_names_too(tmp_path):
    (tmp_path / "root" / "b").mkdir(parents=True)
    (tmp_path / "root" / "b" / "d.png").write_bytes(picture(1))
    (tmp_path / "root" / "d.png").write_bytes(picture(2))
    root = str(tmp_path / "root")
    imported("csv", table(tmp_path, "d.png", "b/d.png"), tmp_path / "one", root=root)
    names = ("C:\\li\\x\\b\\d.png", "C:\\li\\x\\d.png")
    report = imported("csv", table(tmp_path, *names), tmp_path / "two", root=root)
    assert f"C:/li/x/ replaced by {root}" in report.read_as
    assert [pair.pictures for pair in pairs(tmp_path / "two")] == [(picture(1),), (picture(2),)]
    # A path into another folder is not resolved to a file of the same name.
    source = table(tmp_path, *names, "C:\\zhang\\x\\d.png")
    report = imported("csv", source, tmp_path / "three", Limit(count=1), root=root)
    assert report.splits["train"].skipped.counts == {"the image's file is missing": 1}
    imported("csv", table(tmp_path, *(f"/srv/pics/{name}" for name in ("d.png", "b/d.png"))), tmp_path / "4", root=root)
    assert len(pairs(tmp_path / "4")) == 2


def test_fifos_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(picture(1))
    report = imported("csv", table(tmp_path, "a.png", "b.png"), tmp_path / "folder", Limit(count=1))
    assert report.splits["train"].skipped.counts == {"a FIFO, not a regular file": 1}
    os.mkfifo(tmp_path / "f.csv")
    with pytest.raises(JclipError, match="f.csv is a FIFO, not a regular file"):
        open_source("csv", tmp_path / "f.csv", Reading())


def test_the_nearest_name_is_searched_for_only_a_few_rows(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(picture(1))
    asked = []
    monkeypatch.setattr(PictureFinder, "hint", lambda self, name: asked.append(name) or "there")
    source = table(tmp_path, "a.png", *(f"x{n}.png" for n in range(20)))
    imported("csv", source, tmp_path / "folder", Limit(count=20), shard_bytes=1 << 30)
    assert len(asked) == 2 * 5  # in both passes
