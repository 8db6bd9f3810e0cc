"""A service with a small index: drawn images in two folders, hostile names, near duplicates."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from starlette.applications import Starlette

from jclip.inference import Model
from jclip.loading import load
from jclip.search.entries import Entry
from jclip.search.index import Index, IndexFacts
from jclip.search.searching import Searcher
from jclip.search.writing import write_index
from jclip.serve.app import Settings, make_app
from jclip.serve.gallery import Gallery
from jclip.serve.server import Server, listen, url_of
from tests.cli.small_bundle import write_bundle

IMAGES = 150
HOSTILE_NAME = "<img src=x onerror=alert(1)>\"'&amp;\u202egnp.png"
HOSTILE_TEXT = "<script>alert(2)</script><b>粗体</b>"
DAY = 86_400
FIRST_DAY = 1_714_521_600 + DAY // 2  # 2024-05-01, noon, UTC


@dataclass(frozen=True)
class Served:
    """The parts of a running service."""

    url: str
    model: Model
    searcher: Searcher
    folder: Path

    def ids(self, hits) -> list[int]:
        return [hit.entry.id for hit in hits]


def write_gallery(place: Path) -> None:
    """Writes a bundle, images and their index.

    The vectors are random, except: image 7's is its own; 20 and 21 are nearly equal; 22 is a copy of 20.
    """
    model = load(write_bundle(place / "bundle"))
    folders = [place / "images" / name for name in ("山", "海")]
    for folder in folders:
        folder.mkdir(parents=True)
    files = [folders[number >= 110] / f"{number:04}.png" for number in range(IMAGES)]
    files[3] = folders[0] / HOSTILE_NAME
    for number, file in enumerate(files):
        size = [(48, 48), (64, 36), (30, 60)][number % 3]
        image = Image.new("RGB", size, f"hsl({number * 47 % 360}, 60%, 70%)")
        middle = [side // 4 for side in size]
        ImageDraw.Draw(image).ellipse(
            [*middle, *(3 * side for side in middle)], fill=f"hsl({number * 83 % 360}, 70%, 40%)"
        )
        image.save(file, "png")
    files[22].write_bytes(files[20].read_bytes())
    draw = np.random.default_rng(0)
    vectors_nd = draw.normal(size=(IMAGES, 64))
    vectors_nd[7] = model.encode_image([files[7]])[0]
    vectors_nd[21] = vectors_nd[20] + 0.1 * draw.normal(size=64)
    vectors_nd /= np.linalg.norm(vectors_nd, axis=1, keepdims=True)
    facts = IndexFacts(model.identity, model.name, "bundle", 64, "apply", "jclip test")
    entries = [_entry(number, file) for number, file in enumerate(files)]
    write_index(place / "index", facts, vectors_nd.astype(np.float32), entries)


def _entry(number: int, file: Path) -> Entry:
    data, status = file.read_bytes(), file.stat()
    with Image.open(file) as image:
        width, height = image.size
    return Entry(
        id=number,
        vector=20 if number == 22 else number,
        path=file,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        hash=hashlib.blake2b(data, digest_size=16).digest(),
        width=width,
        height=height,
        text=HOSTILE_TEXT if number == 5 else f"图 {number}" if number % 2 else None,
        meta={"artist": ("anna", "博")[number % 2]},
        date=FIRST_DAY + DAY * (number // 10),
    )


@contextmanager
def serving(place: Path, **settings) -> Iterator[Served]:
    """Runs the service of `write_gallery` in a thread, for the block."""
    model = load(place / "bundle")
    gallery = Gallery(place / "index", model)
    gallery.open()
    with _running(make_app(model, Settings(batch=1, **settings), gallery)) as url:
        yield Served(url, model, Searcher(Index.open(place / "index"), model), place / "images")


@contextmanager
def listening_without_index(model: Model) -> Iterator[str]:
    """Runs a service that only encodes in a thread, for the block; yields its address."""
    with _running(make_app(model, Settings(batch=1))) as url:
        yield url


@contextmanager
def _running(app: Starlette) -> Iterator[str]:
    with listen("127.0.0.1", 0) as listening:
        server = Server(app)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join()
