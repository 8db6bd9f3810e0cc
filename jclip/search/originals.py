"""Reads the original images of entries, wherever they are: files, members of tars, records of data folders."""

import os

from jclip.errors import JclipError
from jclip.search.decoding import bytes_of, content_hash
from jclip.search.entries import FILE, IMAGE, Entry
from jclip.search.sources.items import Part
from jclip.search.sources.kinds import container_of


def read_original(entry: Entry) -> bytes:
    """Returns the encoded bytes of an entry's image.

    Raises JclipError if the entry is a text; the image is missing, or has changed since it was embedded; or only its
    vector was imported.
    """
    if entry.kind != IMAGE:
        raise JclipError(f"{entry.path} is a text, not an image: choose another entry")
    data = _content(entry)
    if entry.hash is not None and content_hash(data) != entry.hash:
        raise JclipError(f"{entry.path} has changed since it was embedded: run jclip embed with --update")
    return data


def _content(entry: Entry) -> bytes:
    if entry.hash is None:
        raise JclipError(f"{entry.path} cannot be shown: only its vector was imported")
    if entry.origin == FILE or entry.container is None or entry.position is None:
        return bytes_of(Part(os.fsencode(entry.path)))
    container = container_of(entry.origin, entry.container)
    if container is None:
        raise JclipError(f"{entry.path} is in a container of an unknown kind, {entry.origin}: install a newer jclip")
    try:
        with container.reader() as read:
            return bytes_of(read(entry.position, entry.size or 0))
    except OSError as error:
        raise JclipError(f"{entry.container} cannot be read ({error.strerror}): is its disk mounted?") from None
