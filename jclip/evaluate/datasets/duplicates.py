"""Finds equal images among files and stored images, by the bytes of their files."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from jclip.data.identity import picture_identity
from jclip.errors import JclipError, unreadable
from jclip.images.preprocess import Picture
from jclip.io.reading import LARGEST_PICTURE, read_regular


def identities(pictures: Sequence[Picture], sizes: set[int] | None = None) -> list[int | None]:
    """Returns the identities of encoded images. Equal files have equal identities.

    An image whose size in bytes is not in `sizes` is not read, and its identity is None. Raises JclipError if an image
    cannot be read.
    """
    found: list[int | None] = []
    for picture, size in zip(pictures, sizes_of(pictures), strict=True):
        if sizes is not None and size not in sizes:
            found.append(None)
            continue
        try:
            data = picture if isinstance(picture, bytes) else read_regular(_file(picture), LARGEST_PICTURE)
        except OSError as error:
            raise unreadable(_file(picture), error) from None
        found.append(picture_identity(data))
    return found


def sizes_of(pictures: Sequence[Picture]) -> Iterator[int]:
    """Yields the number of bytes of each encoded image."""
    for picture in pictures:
        if isinstance(picture, bytes):
            yield len(picture)
            continue
        try:
            yield _file(picture).stat().st_size
        except OSError as error:
            raise unreadable(_file(picture), error) from None


def count_shared(pictures: Sequence[Picture], *others: Sequence[Picture]) -> int:
    """Returns the number of images that also occur among `others`, by the bytes of their files."""
    sizes = set(sizes_of(pictures)).intersection(chain.from_iterable(map(sizes_of, others)))
    known = {identity for each in others for identity in identities(each, sizes)} - {None}
    return sum(each in known for each in identities(pictures, sizes))


def _file(picture: Picture) -> Path:
    if isinstance(picture, str | Path):
        return Path(picture)
    raise JclipError("an image is neither a file nor the bytes of one, and cannot be compared: save it to a file")
