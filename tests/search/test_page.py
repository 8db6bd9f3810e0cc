"""Page of results: hostile names, images that cannot be read, and thumbnails."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jclip.errors import JclipError
from jclip.search.decoding import content_hash
from jclip.search.page import Section, write_page
from jclip.search.searching import Hit
from jclip.search.thumbnails import thumbnail
from tests.search.indexes import small_entry

HOSTILE = "\"><img src=x onerror=alert(1)>'&amp;\x1b[2J\u202e\udcff"


def entry_of(id, file, **more):
    """Returns the entry of a file as it is now."""
    return small_entry(id, 0, str(file), hash=content_hash(file.read_bytes()), **more)


class Elements(HTMLParser):
    """Collects elements and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_a_page(tmp_path):
    picture = tmp_path / "a b.png"
    Image.new("RGBA", (400, 100), (0, 0, 255, 255)).save(picture)
    hits = [
        Hit(entry_of(1, picture, text="ein <b>Satz</b>"), 0.75),
        Hit(small_entry(2, 1, f"/nowhere/{HOSTILE}.png", text=HOSTILE), 0.5),
        Hit(small_entry(3, 2, "/texts.txt::1", kind="text", text="只有文字"), 0.25),
        Hit(small_entry(4, 3, "/a.tar::b.png", origin="tar", container=Path("/a.tar")), 0.125),
    ]
    page = tmp_path / "out" / "page.html"
    write_page(page, HOSTILE, [Section("", hits[:3]), Section(HOSTILE, hits[3:])], "apply")
    written = page.read_text(encoding="utf-8")
    assert "\x1b" not in written and "\u202e" not in written
    found = Elements(written)
    assert {tag for tag, _ in found.found} == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "ol", "li", "a", "img", "span",
        "small", "code", "p",
    }  # fmt: skip
    assert not any(name.startswith("on") for _, attributes in found.found for name in attributes)
    (shown,) = found.of("img")
    kind, data = shown["src"].split(",")
    assert kind == "data:image/jpeg;base64" and shown["alt"] == "ein <b>Satz</b>"
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert small.size == (240, 60) and np.abs(np.asarray(small).mean(axis=(0, 1)) - (0, 0, 255)).max() < 3
    assert found.of("a")[0]["href"] == picture.as_uri() and "%20" in picture.as_uri()
    assert [each["class"] for each in found.of("span")] == ["missing", "missing"]
    for words in ("ein <b>Satz</b>", "只有文字", "0.7500", "/texts.txt::1", "there is no image", "onerror=alert(1)"):
        assert words in found.text
    policy = next(each["content"] for each in found.of("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"""(src|href)=["'](?!data:image|file:)""", written)


def test_an_existing_page_stays(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(JclipError, match="exists already"):
        write_page(page, "", [], "apply")
    assert page.read_text() == "mine"


@pytest.mark.parametrize(("orientation", "size"), [("apply", (50, 100)), ("ignore", (100, 50))])
def test_thumbnails_are_upright_and_over_white(tmp_path, orientation, size):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGBA", (200, 100), (0, 0, 0, 0)).save(tmp_path / "a.png", exif=turned)
    found = thumbnail(entry_of(1, tmp_path / "a.png"), 100, orientation)
    assert found.size == size and found.mode == "RGB" and np.asarray(found).min() == 255


def test_thumbnails_that_cannot_be_made(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(JclipError, match="broken.png cannot be read"):
        thumbnail(entry_of(1, tmp_path / "broken.png"), 100, "apply")
    with pytest.raises(JclipError, match="broken.png has changed"):
        thumbnail(small_entry(1, 0, str(tmp_path / "broken.png")), 100, "apply")
    with pytest.raises(JclipError, match="is a text"):
        thumbnail(small_entry(1, 0, "/a", kind="text"), 100, "apply")
