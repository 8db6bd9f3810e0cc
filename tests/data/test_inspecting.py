"""Statistics of data folders, checked by hand, and contact sheets."""

import html.parser
import io

import numpy as np
import pytest
from PIL import Image

from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import open_source
from jclip.data.importing.parts import Reading
from jclip.data.inspecting.contact_sheet import write_sheet
from jclip.data.inspecting.statistics import Numbers, TokenCounting, folder_kind, inspect, spread
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.records import Translation
from jclip.data.sources.writing import gather_shards, write_pairs, write_parallel
from jclip.errors import JclipError
from jclip.tokenizers.text import wordpiece
from tests.data.importing.sources import class_folders, cn_clip, imported
from tests.data.pictures import encoded


def png(width, height, value=0, form="PNG", mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (width, height), value).save(buffer, form)
    return buffer.getvalue()


PAIRS = [
    StoredPair(png(4, 2), ("红", "rot"), ("zh", "de")),
    StoredPair(png(4, 2), ("红",), ("zh",)),
    StoredPair(png(6, 8, 9, "JPEG", "L"), ("rotes <b>",), ("de",)),
    StoredPair(b"junk", ("x",)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "folder"
    write_pairs(folder, PAIRS)
    return folder


def test_pairs_by_hand(folder):
    words = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "红", "rot", "##es", "<", "b", ">", "x"])
    found = inspect(folder, "train", counting=TokenCounting(words, 5)).as_json()
    assert (found["records"], found["looked_at"], found["texts"]) == (4, 4, 5)
    assert found["languages"] == {"": 1, "de": 2, "zh": 2}
    assert found["lengths"]["de"]["characters"] == {
        "count": 2,
        "mean": 6.0,
        "min": 3,
        "median": 3,
        "p95": 9,
        "max": 9,
        "histogram": [(3, 3, 1), *((n, n, 0) for n in range(4, 9)), (9, 9, 1)],
    }
    assert {name: lengths["characters"]["max"] for name, lengths in found["lengths"].items()} == {
        "": 1,
        "de": 9,
        "zh": 1,
    }
    tokens = {name: lengths["tokens"] for name, lengths in found["lengths"].items()}
    assert (tokens["zh"]["max"], tokens["de"]["max"], tokens["zh"]["over"], tokens["de"]["over"]) == (3, 7, 0, 1)
    pictures = found["pictures"]
    assert (pictures["width"]["max"], pictures["height"]["max"], pictures["unreadable"]) == (6, 8, 1)
    assert pictures["why"] == "no known image format"
    assert (pictures["formats"], pictures["modes"]) == ({"JPEG": 1, "PNG": 2}, {"L": 1, "RGB": 2})
    assert found["same"] == {"pictures": 1, "texts": 1, "units": 1}


def test_a_sample_is_spread_over_the_split(folder):
    assert list(spread(10, 4)) == [0, 2, 5, 7]
    assert list(spread(3, None)) == list(spread(3, 9)) == [0, 1, 2]
    found = inspect(folder, "train", sample=2)
    assert (found.records, found.looked_at, found.texts) == (4, 2, 3)


def test_parallel_text_and_classes(tmp_path):
    write_parallel(tmp_path / "text", [Translation("a", "一", "zh"), Translation("a", "eins", "de")] * 2)
    found = inspect(tmp_path / "text", "train").as_json()
    assert found["languages"] == {"de": 2, "en": 4, "zh": 2}
    assert found["same"] == {"english": 3, "texts": 2, "units": 2}
    class_folders(tmp_path / "source", ("test",), ("a", "b"))
    (tmp_path / "source" / "test" / "a" / "0.png").unlink()
    reader = open_source("class-folders", tmp_path / "source", Reading())[1]
    import_data(reader, tmp_path / "classes", Plan("class-folders"))
    assert inspect(tmp_path / "classes", "test").as_json()["classes"] == {"a": 1, "b": 2}


def test_quantiles_are_numpys_lower_ones():
    values = np.random.default_rng(0).integers(0, 99, 1000)
    numbers = Numbers()
    for value in values.tolist():
        numbers.add(value)
    found = numbers.as_json()
    assert found["median"] == np.quantile(values, 0.5, method="inverted_cdf")
    assert found["p95"] == np.quantile(values, 0.95, method="inverted_cdf")
    assert found["mean"] == pytest.approx(values.mean())
    for start, stop, count in found["histogram"]:
        assert count == ((values >= start) & (values <= stop)).sum()
    assert sum(count for *_, count in found["histogram"]) == 1000


def test_one_long_text_does_not_fill_the_histogram():
    numbers = Numbers()
    for value in [*range(1, 25)] * 10 + [5000]:
        numbers.add(value)
    assert numbers.as_json()["histogram"] == [*((n, n + 1, 20) for n in range(1, 25, 2)), (25, 5000, 1)]


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.words, self.languages = 0, [], []

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.languages += [value for name, value in attrs if name == "lang"]

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_shows_every_picture_and_escapes_captions(folder, tmp_path):
    write_sheet(tmp_path / "a.html", folder, "train")
    page = Page()
    page.feed((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert page.images == 3
    assert {"红", "rot", "rotes <b>", "0: 4 x 2", "3: cannot be read"} <= set(page.words)
    assert page.languages == ["en", "zh", "de", "zh", "de"]


def test_a_png_shows_the_pictures_in_their_places(tmp_path):
    write_pairs(tmp_path / "folder", [StoredPair(png(300, 300, value), ("word",)) for value in ("red", "blue")])
    write_sheet(tmp_path / "a.png", tmp_path / "folder", "train")
    with Image.open(tmp_path / "a.png") as sheet:
        assert [sheet.getpixel((x, 94)) for x in (94, 272)] == [(255, 0, 0), (0, 0, 255)]
        below = np.asarray(sheet)[178:240]
    assert (below < 100).any()  # the captions


def test_impossible_sheets_are_refused(folder, tmp_path):
    write_parallel(tmp_path / "text", [Translation("a", "b")])
    with pytest.raises(JclipError, match="parallel text, which has no images to show"):
        write_sheet(tmp_path / "a.png", tmp_path / "text", "train")
    with pytest.raises(JclipError, match="give a name that ends in .png or .html"):
        write_sheet(tmp_path / "a.jpg", folder, "train")
    with pytest.raises(JclipError, match="is not a font: name a .ttf"):
        write_sheet(tmp_path / "a.png", folder, "train", font=tmp_path / "none.ttf")
    (tmp_path / "a.png").touch()
    with pytest.raises(JclipError, match="exists already"):
        write_sheet(tmp_path / "a.png", folder, "train")
    with pytest.raises(JclipError, match="holds no data set"):
        folder_kind(tmp_path / "nowhere")


def test_an_unknown_kind_of_folder_is_refused(tmp_path):
    class Numbers:
        name = ""

        def features(self, classes):
            import tensorflow_datasets as tfds

            return {"number": tfds.features.Scalar(np.int64)}

    (tmp_path / "folder").mkdir()
    gather_shards(tmp_path / "folder", Numbers(), {})
    with pytest.raises(JclipError, match="neither pairs nor parallel text nor labelled images"):
        folder_kind(tmp_path / "folder")


def test_a_sheet_shows_pictures_as_training_sees_them(tmp_path):
    """Training drops alpha and scales 16 bits."""
    hidden = Image.new("RGBA", (40, 40), (0, 0, 200, 0))
    deep = Image.fromarray(np.full((40, 40), 257 * 100, np.uint16))
    pictures = [encoded(hidden), encoded(deep)]
    source = cn_clip(tmp_path / "source", ["a", "b"], pictures=pictures.__getitem__)
    imported("cn-clip", source, tmp_path / "folder")
    write_sheet(tmp_path / "a.png", tmp_path / "folder", "train")
    with Image.open(tmp_path / "a.png") as sheet:
        assert [sheet.getpixel((x, 94)) for x in (94, 272)] == [(0, 0, 200), (100, 100, 100)]
