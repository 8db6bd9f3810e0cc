"""Targets: images, and the containers that `jclip embed` reads."""

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from tests.fuzz.target import Ready


def image(scratch: Path) -> Ready:
    """Returns a target: an encoded image."""
    from jclip.images.opening import open_header
    from jclip.images.preprocess import Preprocessing, to_array

    preprocessing = Preprocessing(size=8, orientation="apply")

    def read(data: bytes) -> None:
        to_array(preprocessing, open_header(data, "it", 0.1), "it")

    return Ready(_images(), read)


def container(name: str, seeds: Callable[[], Iterable[bytes]]) -> Callable[[Path], Ready]:
    """Returns a target: a file of this name, as a source of `jclip embed`, with the images in it."""

    def ready(scratch: Path) -> Ready:
        from jclip.search.decoding import bytes_of
        from jclip.search.sources.items import Item
        from jclip.search.sources.kinds import container_at

        file = scratch / name

        def read(data: bytes) -> None:
            file.write_bytes(data)
            found = container_at(file)
            items = [item for item in found.items() if isinstance(item, Item) and item.kind == "image"]
            if items:
                with found.reader() as content:
                    for item in items[:20]:
                        bytes_of(content(item.position, item.size))

        return Ready(seeds(), read)

    return ready


def tars(compression: str) -> Iterable[bytes]:
    """Yields tars with an image, its caption and its facts."""
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=f"w:{compression}", format=form) as tar:
            long = "" if form == tarfile.USTAR_FORMAT else "d/" * 60
            for name, data in (
                (f"{long}猫.png", _images()[0]),
                (f"{long}猫.txt", b"a cat"),
                (f"{long}猫.json", b'{"n": 1}'),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        yield stream.getvalue()


def texts() -> Iterable[bytes]:
    """Yields text files."""
    text = "一只猫\na dog\r\n\n雪"
    return [text.encode(), text.encode("utf-8-sig"), text.encode("utf-16"), text.encode("gb18030")]


def _images() -> list[bytes]:
    picture = Image.new("RGB", (16, 12), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        stream = io.BytesIO()
        picture.save(stream, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        found.append(stream.getvalue())
    return found
