"""A bundle, images and their index, and a service in front of them."""

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from jclip.loading import load
from jclip.search.decoding import content_hash
from jclip.search.entries import Entry
from jclip.search.index import IndexFacts
from jclip.search.writing import write_index
from jclip.serve.app import Settings, make_app
from jclip.serve.batching import Batcher
from jclip.serve.gallery import Gallery
from jclip.serve.server import Server, listen, url_of
from tests.cli.small_bundle import write_bundle

IMAGES = 12
TOLERANCE = 1e-6
"""A vector of a batch differs from that of the item alone by rounding, because XLA sums in another order."""
LOCAL = "http://127.0.0.1"


def drawn(number: int, size=(48, 40)) -> Image.Image:
    """Returns an image that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (5, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind="PNG", **more) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def uri(data: bytes, kind="png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image_uri(number: int) -> str:
    return uri(encoded(drawn(number)))


def write_gallery(place: Path) -> None:
    """Writes a bundle, images 0 to 11 and their index: entry i + 1 is image i. Image 11 is a copy of image 10."""
    write_bundle(place / "bundle")
    model = load(place / "bundle")
    folder = place / "images"
    folder.mkdir()
    files = [folder / f"{number:02}.png" for number in range(IMAGES)]
    for number, file in enumerate(files):
        file.write_bytes(encoded(drawn(min(number, IMAGES - 2))))
    entries = [entry_of(number, file) for number, file in enumerate(files)]
    facts = IndexFacts(model.identity, model.name, "bundle", model.embed_dim, "apply", "jclip test")
    write_index(place / "index", facts, model.encode_image(files[:-1], orientation="apply"), entries)


def entry_of(number: int, file: Path) -> Entry:
    data, status = file.read_bytes(), file.stat()
    return Entry(
        id=number + 1,
        vector=min(number, IMAGES - 2),
        path=file,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        hash=content_hash(data),
        width=48,
        height=40,
        text=f"图{number}",
        meta={"parity": number % 2},
        date=1_714_521_600 + 86_400 * number,
    )


def app_of(place: Path, **settings):
    """Returns the application of a new service. Without other `settings` it has the usual limits."""
    model = load(place / "bundle")
    gallery = Gallery(place / "index", model)
    gallery.open()
    return make_app(model, Settings(**{"batch": 4} | settings), gallery)


def client_of(place: Path, **settings) -> TestClient:
    """Returns a client of a new service, whose thread runs while the client is entered."""
    return TestClient(app_of(place, **settings), LOCAL)


def wait_until_warm(batcher: Batcher) -> None:
    """Waits until a service's model is compiled for every shape."""
    end = time.monotonic() + 60
    while not batcher.warm:
        assert batcher.failure is None and time.monotonic() < end
        time.sleep(0.005)


def error_of(response, status: int) -> dict:
    """Returns the error of a response with a status, whose shape it checks."""
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert error.keys() == {"message", "type", "code"}
    return error


@contextmanager
def serving(app) -> Iterator[str]:
    """Serves an application by uvicorn in a thread, for the block; yields its URL."""
    with listen("127.0.0.1", 0) as listening:
        begun = threading.Event()
        server = Server(app, begun.set)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert begun.wait(60)
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join()
